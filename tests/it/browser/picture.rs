//! Takes the picture in the README again, of a real conversation.

use super::*;

/// `SCREENSHOT=docs/screenshot.png tests/run browser picture` replaces it; without SCREENSHOT, no file is written.
#[tokio::test]
async fn the_readme_picture_shows_a_conversation_resumed_after_an_absence() {
    let (taro, hanako) = Browser::start_two(Settings::Usual).await;
    let redis = Redis::start(&[]).await;
    let mut dynos = vec![];
    for (page, name, dyno) in [(&taro, "Taro", "web.2"), (&hanako, "花子", "web.1")] {
        page.resize(1280, 800).await;
        let dyno = Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", dyno)]).await;
        page.open(dyno.addr(), "/").await;
        page.join("lobby", name).await;
        dynos.push(dyno);
    }
    let talk = [
        "おはよう! Which dyno are you on?",
        "web.2, says the chip. And you?",
        "web.1. One room, two processes, and a Redis between us.",
        "I pretend to be offline for a moment. Please go on talking!",
        "Are you still in the list of members? Yes: nobody saw you leave.",
        "Two messages for you to catch up with 🎉",
        "Back again, and both are here. The panel counts them, on the right.",
    ];
    let speakers = [&hanako, &taro, &hanako, &taro, &hanako, &hanako, &taro];
    taro.open_panel().await;
    for (i, (page, text)) in speakers.into_iter().zip(talk).enumerate() {
        if i == 4 || i == 6 {
            taro.press("pretend to be offline").await; // and after two messages no longer
        }
        page.connected().await;
        page.send(text).await;
    }
    taro.shows(&talk).await;
    hanako.shows(&talk).await;
    taro.is("fact('Resumed messages')", "2").await;
    taro.keys("Message", "").await;
    taro.drawn().await;

    let png = taro.client.screenshot().await.expect("a picture");
    if let Some(path) = std::env::var_os("SCREENSHOT") {
        std::fs::write(path, &png).expect("the picture's file can be written");
    }
    assert_eq!(png[..4], *b"\x89PNG");
    assert_eq!(png[16..24], [0, 0, 5, 0, 0, 0, 3, 32], "1280 by 800");
    assert!(png.len() < 200_000, "{} bytes", png.len());
}
