//! Tests of how a room follows its stream: it reads what it missed, receives live events, and tells a gap where messages
//! are missing.

use crate::support::prelude::*;
use futures_util::{StreamExt, stream};
use std::net::Ipv4Addr;

/// A dyno that reaches its Redis through a proxy, and another one that reaches it directly.
pub async fn two_dynos() -> (Redis, Proxy, Dyno, Dyno) {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::to_redis(&redis).await;
    let behind = Dyno::start_with_redis_at(&proxy.redis_url(), &[TALKATIVE]).await;
    let direct = Dyno::start_on(&redis, &[TALKATIVE]).await;
    (redis, proxy, behind, direct)
}

#[tokio::test]
async fn a_gap_is_told_to_members_of_a_room_that_was_empty_before_a_long_outage() {
    let (_redis, proxy, behind, direct) = two_dynos().await;
    let mut hanako = behind.join("lobby", "hanako").await;
    let mut taro = direct.join("lobby", "taro").await;
    proxy.set(Flow::Cut);
    hanako.expect_redis("down", PATIENCE).await;
    for n in 0..HISTORY + 150 {
        taro.say(&format!("number {n}")).await;
    }
    proxy.set(Flow::Through);
    // The room may find out that messages are missing before the page is told that Redis is up.
    assert_eq!(hanako.closed_after_all(1012).await, "resume");
    assert_eq!(hanako.welcome["last"], "0-0");
    // A busy machine may lose the link again.
    let welcome = eventually("a welcome", 3 * PATIENCE, async || {
        behind.has_redis().await;
        let mut client = behind.connect().await;
        let join = join_frame("lobby", "hanako", &hanako.token, Some("0-0"));
        client.send(join).await;
        let kinds = ["welcome", "status"];
        let answer = client.expect_any_within(&kinds, PATIENCE).await;
        let welcomed = answer["kind"] == "welcome";
        if welcomed { Ok(answer) } else { Err(answer) }
    })
    .await;
    assert_eq!(welcome["gap"], true);
    let history = welcome["history"].as_array();
    assert_eq!(history.map(Vec::len), Some(NEWCOMER));
}

/// Hanako's message was stored, but the link was lost before the reply. After two minutes Redis has forgotten its cid.
#[tokio::test]
async fn a_resend_after_a_long_outage_is_found_in_what_the_room_missed() {
    let (redis, proxy, behind, _direct) = two_dynos().await;
    let mut hanako = behind.join("lobby", "hanako").await;
    proxy.set(Flow::Cut);
    hanako.expect_redis("down", PATIENCE).await;
    let key = stream_key("lobby");
    for (user, text) in [("hanako", "once"), ("taro", "another message")] {
        let body = json!({"user": user, "message": text, "cid": "c1"}).to_string();
        redis.cmd::<String>(&["XADD", &key, "*", "m", &body]);
    }
    // The room needs two round trips, and the talk one.
    proxy.lead_to((Ipv4Addr::LOCALHOST, redis.port).into(), SECOND / 4);
    proxy.set(Flow::Through);
    hanako.expect_redis("up", PATIENCE).await;
    hanako.talk_as("once", "c1").await;
    hanako.hears_all(&["once", "another message"]).await;
    hanako.talk_as("once", "c1").await; // it passed the room's reply
    hanako.say("next").await;
    assert_eq!(redis.cmd::<usize>(&["XLEN", &key]), 3);
}

/// Pages open in twenty rooms while `disturb` makes the dyno give its connection up, again and again: at least five times.
/// Then every room still gets its messages.
async fn rooms_stay_subscribed(disturb: impl AsyncFn(&Redis)) {
    let redis = &Redis::start(&[]).await;
    let dyno = Dyno::start_on(redis, &[TALKATIVE]).await;
    let router = Router::to(&[dyno.addr()]);
    let mut pages = vec![];
    for n in 0..20 {
        pages.push(Page::open(&router, &format!("room {n}"), "hanako"));
        disturb(redis).await;
        pages.iter().for_each(|page| page.say("hello"));
        sleep(SECOND / 10).await;
    }
    // On a busy machine the dyno is slow to connect again, and misses some of it.
    let downs = || dyno.log().matches("redis=down").count();
    for _ in 0..100 {
        if downs() >= 5 {
            break;
        }
        dyno.has_redis().await;
        disturb(redis).await;
        pages.iter().for_each(|page| page.say("hello again"));
        sleep(SECOND / 5).await;
    }
    for page in &pages {
        page.all_sent(3 * PATIENCE).await;
    }
    check::pages_saw_everything(redis, &pages);
    assert!(downs() >= 5, "it came to that: {}", dyno.log());
}

#[tokio::test]
async fn rooms_stay_subscribed_when_scripts_are_flushed() {
    rooms_stay_subscribed(async |redis| redis.cmd(&["SCRIPT", "FLUSH"])).await;
}

#[tokio::test]
async fn rooms_stay_subscribed_when_connections_are_cut() {
    rooms_stay_subscribed(async |redis| _ = redis.cut_all()).await;
}

#[tokio::test]
async fn rooms_stay_subscribed_when_redis_is_read_only_for_a_moment() {
    rooms_stay_subscribed(async |redis| {
        redis.cmd::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
        sleep(SECOND / 5).await;
        redis.cmd::<()>(&["REPLICAOF", "NO", "ONE"]);
    })
    .await;
}

#[tokio::test]
async fn five_thousand_joins_into_a_room_read_its_stream_once() {
    const JOINS: usize = 5_000;
    let _turn = heavy(2).await;
    let _descriptors = descriptors(JOINS as u32 + 100).await;
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let first = dyno.join("lobby", "hanako").await;
    redis.cmd::<()>(&["CONFIG", "RESETSTAT"]);
    let join = async |n: usize| Raw::joined(&dyno, "lobby", &format!("n{n}")).await;
    let joins = stream::iter(0..JOINS).map(join).buffer_unordered(16);
    let _joined: Vec<Raw> = joins.collect().await;
    sleep(3 * SECOND).await; // the list of members is read
    let stats: String = redis.cmd(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_hset:"), "scripts count: {stats}");
    for command in ["xrange", "xrevrange"] {
        let read = stats.contains(&format!("cmdstat_{command}:"));
        assert!(!read, "{command}: {stats}");
    }
    drop(first);
}
