//! The page on the program of `examples/single_file.rs`: it needs no more than that to chat.

use super::*;
use crate::support::dyno::single_file;

#[tokio::test]
async fn the_page_joins_talks_reconnects_and_leaves_on_the_single_file() {
    let program = single_file();
    let (hanako, taro) = Browser::start_two(Settings::Usual).await;
    let redis = Redis::start(&[]).await;
    let mut dynos = vec![];
    for (page, name, dyno) in [(&hanako, "花子", "web.1"), (&taro, "Taro", "web.2")] {
        let vars = [("REDIS_URL", &*redis.url()), ("DYNO", dyno)];
        let dyno = Dyno::start_program(program.clone(), &vars).await;
        page.open(dyno.addr(), "/").await;
        page.join("lobby", name).await;
        dynos.push(dyno);
    }
    taro.is("chip()", "Connected · web.2").await;
    hanako.say("おはよう!").await;
    taro.shows(&["おはよう!"]).await;
    taro.say("good morning").await;
    hanako.shows(&["おはよう!", "good morning"]).await;
    hanako.own_are("sent").await;
    hanako.log_contains("Taro joined").await;

    taro.open_panel().await;
    taro.press("drop my connection").await;
    taro.connected().await;
    hanako.say("welcome back").await;
    taro.log_contains("welcome back").await;
    let newest = "texts(':is(.text, .note)').slice(-3)"; // the single file has no history
    let gap = [
        "good morning",
        "Some messages may be missing.",
        "welcome back",
    ];
    taro.is(newest, gap).await;
    taro.press("Leave").await;
    hanako.members_are(&["花子"]).await;
    hanako.expect_empty_console().await;
}
