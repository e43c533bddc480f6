//! Proves the article's story where people see it: in real browsers, on two dynos.

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use support::browser::Browser;
use support::{Dyno, Redis, eventually};

const TEXTS: [&str; 4] = [
    "first of all",
    "and an answer",
    "said while one was away",
    "written while away",
];

/// 花子 on one dyno, 太郎 on another, in one room.
async fn two_tabs(redis: &Redis) -> (Dyno, Dyno, Browser, Browser) {
    let (one, two) = (
        Dyno::start_on(redis, &[("DYNO", "web.1")]).await,
        Dyno::start_on(redis, &[("DYNO", "web.2")]).await,
    );
    let (one_url, two_url) = (
        format!("http://{}/", one.host()),
        format!("http://{}/", two.host()),
    );
    let (hanako, taro) = tokio::join!(Browser::open(&one_url), Browser::open(&two_url));
    hanako.join("Lobby", "花子").await;
    taro.join("lobby", "太郎").await;
    hanako.shows("[role=status]", "Connected · web.1").await;
    taro.shows("[role=status]", "Connected · web.2").await;
    (one, two, hanako, taro)
}

async fn everything_once_and_nobody_left(browser: &Browser) {
    for text in TEXTS {
        browser.shows("[role=log]", text).await;
    }
    let log = browser.log().await;
    let places: Vec<_> = TEXTS.iter().map(|text| log.find(text)).collect();
    assert!(
        places.is_sorted(),
        "in the order in which it was said: {log}"
    );
    for text in TEXTS {
        assert_eq!(log.matches(text).count(), 1, "{text:?} once in {log}");
    }
    assert!(!log.contains("left"), "nobody left: {log}");
}

async fn a_dyno_ends_and_comes_back(signal: Signal) {
    let redis = Redis::start(&[]).await;
    let (mut one, _two, hanako, taro) = two_tabs(&redis).await;
    hanako.say(TEXTS[0]).await;
    taro.shows("[role=log]", TEXTS[0]).await;
    taro.say(TEXTS[1]).await;
    hanako.shows("[role=log]", TEXTS[1]).await;
    hanako.shows("ul, ol", "太郎").await;
    one.signal(signal);
    one.exit(Duration::from_secs(10)).await;
    hanako.shows("[role=status]", "Reconnecting").await;
    taro.say(TEXTS[2]).await;
    taro.shows("[role=log]", TEXTS[2]).await;
    one.restart().await;
    hanako.is_connected().await;
    hanako.shows("[role=log]", TEXTS[2]).await;
    hanako.say(TEXTS[3]).await;
    everything_once_and_nobody_left(&taro).await;
    everything_once_and_nobody_left(&hanako).await;
}

#[tokio::test]
async fn two_tabs_survive_a_killed_dyno_and_see_everything_once() {
    a_dyno_ends_and_comes_back(Signal::SIGKILL).await;
}

#[tokio::test]
async fn two_tabs_survive_a_restart_and_see_everything_once() {
    a_dyno_ends_and_comes_back(Signal::SIGTERM).await;
}

#[tokio::test]
async fn a_name_in_use_is_refused_beside_its_field_and_the_text_stays() {
    let dyno = Dyno::start(&[]).await;
    let url = format!("http://{}/?room=lobby", dyno.host());
    let (first, second) = tokio::join!(Browser::open(&url), Browser::open(&url));
    first.join("lobby", "花子").await;
    first.is_connected().await;
    second.join("lobby", "花子").await;
    second.shows("form", "has this name").await;
    let name = second
        .field("Name")
        .await
        .prop("value")
        .await
        .expect("a property");
    assert_eq!(name.as_deref(), Some("花子"));
    second.join("lobby", "太郎").await;
    second.is_connected().await;
}

#[tokio::test]
async fn a_page_says_that_redis_is_away_and_sends_what_was_written_when_it_is_back() {
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let page = Browser::open(&format!("http://{}/", dyno.host())).await;
    page.join("lobby", "花子").await;
    page.is_connected().await;
    redis.stop().await;
    page.shows("[role=alert]", "Redis").await;
    page.say("meanwhile").await;
    redis.restart().await;
    eventually("the banner is gone", Duration::from_secs(20), async || {
        let banner = page.text("[role=alert]").await;
        if banner.is_empty() {
            Ok(())
        } else {
            Err(banner)
        }
    })
    .await;
    page.shows("[role=log]", "sent").await;
    assert_eq!(page.times("meanwhile").await, 1);
}

#[tokio::test]
async fn markup_is_text_and_nothing_complains() {
    let dyno = Dyno::start(&[]).await;
    let page = Browser::open(&format!("http://{}/", dyno.host())).await;
    page.join("lobby", "花子").await;
    page.is_connected().await;
    let hostile = "<img src=x onerror=document.title='owned'>";
    page.say(hostile).await;
    page.shows("[role=log]", hostile).await;
    assert!(!page.page.title().await.expect("a title").contains("owned"));
    page.press("Leave").await;
    eventually("the form is back", Duration::from_secs(10), async || {
        if page
            .field("Name")
            .await
            .is_displayed()
            .await
            .unwrap_or(false)
        {
            Ok(())
        } else {
            Err("no form")
        }
    })
    .await;
}
