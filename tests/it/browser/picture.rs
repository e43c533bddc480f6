//! The picture in the README: taken of a real conversation, so that it can be taken again.

use super::*;
use std::io::Write;
use std::process::{Command, Stdio};

/// `SCREENSHOT=docs/screenshot.png tests/run browser picture` replaces it; otherwise this only shows that it could.
#[tokio::test]
async fn the_picture_for_the_readme_shows_a_conversation_that_outlived_an_absence() {
    let (taro, hanako) = Browser::start_two().await;
    let redis = Redis::start(&[]).await;
    let mut dynos = vec![];
    for (browser, name, dyno) in [(&taro, "Taro", "web.2"), (&hanako, "花子", "web.1")] {
        let size = json!({"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        let resize = "Emulation.setDeviceMetricsOverride";
        browser.devtools(resize, size).await;
        let dyno = Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", dyno)]).await;
        browser.open(&page_at(dyno.addr())).await;
        browser.join("lobby", name).await;
        dynos.push(dyno);
    }
    let mut all = vec![];
    let mut say = async |browser: &Browser, text: &'static str| {
        all.push(text);
        browser.say(text).await;
        browser.own_are("sent").await;
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
    open_panel(&taro).await;
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
    assert_eq!(fact(&taro, "Resumed messages").await, "2");
    taro.keys("Message", "").await;
    taro.drawn().await;

    let picture = taro.call("GET", "/screenshot", json!({})).await;
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = std::env::var_os("SCREENSHOT").map_or(file.path().into(), std::path::PathBuf::from);
    let out = std::fs::File::create(&path).expect("the picture's file can be written");
    let mut decoder = Command::new("base64")
        .arg("--decode")
        .stdin(Stdio::piped())
        .stdout(out)
        .spawn()
        .expect("base64 runs");
    let text = picture.as_str().expect("a picture");
    decoder
        .stdin
        .take()
        .expect("piped")
        .write_all(text.as_bytes())
        .expect("it is read");
    assert!(decoder.wait().expect("it ends").success());
    let png = std::fs::read(&path).expect("the picture");
    assert_eq!(png[..4], *b"\x89PNG");
    assert_eq!(png[16..24], [0, 0, 5, 0, 0, 0, 3, 32], "1280 by 800");
    assert!(png.len() < 200_000, "{} bytes", png.len());
}
