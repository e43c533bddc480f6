//! Takes the picture in the README again, of a real conversation.

use super::*;

/// `SCREENSHOT=docs/screenshot.png tests/run browser picture` replaces it; without SCREENSHOT, no file is written.
#[tokio::test]
async fn the_readme_picture_shows_a_conversation_resumed_after_an_absence() {
    let (taro, hanako) = Browser::start_two(Settings::Usual).await;
    let redis = Redis::start(&[]).await;
    let mut dynos = vec![];
    for (browser, name, dyno) in [(&taro, "Taro", "web.2"), (&hanako, "花子", "web.1")] {
        browser.resize(1280, 800).await;
        let dyno = Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", dyno)]).await;
        browser.open(&page_at(dyno.addr())).await;
        browser.join("lobby", name).await;
        dynos.push(dyno);
    }
    let mut all = vec![];
    let mut say = async |browser: &Browser, text: &'static str| {
        all.push(text);
        browser.send(text).await;
    };
    say(&hanako, "おはよう! Which dyno are you on?").await;
    say(&taro, "web.2, says the chip. And you?").await;
    say(
        &hanako,
        "web.1. One room, two processes, and a Redis between us.",
    )
    .await;
    say(
        &taro,
        "I pretend to be offline for a moment. Please go on talking!",
    )
    .await;
    taro.open_panel().await;
    taro.press("pretend to be offline").await;
    say(
        &hanako,
        "Are you still in the list of members? Yes: nobody saw you leave.",
    )
    .await;
    say(&hanako, "Two messages for you to catch up with 🎉").await;
    taro.press("pretend to be offline").await;
    taro.connected().await;
    say(
        &taro,
        "Back again, and both are here. The panel counts them, on the right.",
    )
    .await;
    taro.shows(&all).await;
    hanako.shows(&all).await;
    assert_eq!(taro.fact("Resumed messages").await, "2");
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
