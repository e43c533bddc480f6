//! Proves the promise of DESIGN §1 under faults (SCENARIOS 1 to 12): crowds go on talking while dynos are stopped,
//! killed and frozen, and Redis is cut off, silenced, filled up and restarted. Afterwards everyone has seen the room's
//! stream, in order and once, and the names shown are those with a lease.
//!
//! What happens between pages is in `races.rs`; what needs no fault to show in `protocol.rs`; the short story of each fault,
//! told by two people, in `dynos.rs`.

use crate::support::client::{join_frame, talk_until};
use crate::support::proxy::{Flow, Proxy};
use crate::support::raw::{self, Raw};
use crate::support::{
    Client, Crowd, Dyno, Id, PATIENCE, Page, Redis, Router, TALKATIVE, check, cid,
    need_descriptors, token,
};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

async fn dynos(redis: &Redis, count: usize) -> Vec<Dyno> {
    join_all((0..count).map(|_| Dyno::start_on(redis, &[TALKATIVE]))).await
}

fn addrs(dynos: &[Dyno]) -> Vec<SocketAddr> {
    dynos.iter().map(Dyno::addr).collect()
}

/// Data that survives a restart, each write on disk before it is confirmed.
async fn durable() -> Redis {
    Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]).await
}

// ---- dynos

#[tokio::test]
async fn two_hundred_talk_while_their_dyno_is_restarted() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 2).await;
    let router = Router::to(&addrs(&dynos));
    let crowd = Crowd::gather(&router, "lobby", 200).await;
    crowd.chat(50, 2 * SECOND).await;
    router.set(&[dynos[1].addr()]);
    let asked = Instant::now();
    dynos[0].signal(Signal::SIGTERM);
    let end = async { dynos[0].exit(10 * SECOND).await.code() };
    let (code, ()) = tokio::join!(end, crowd.chat(50, 5 * SECOND));
    assert_eq!(code, Some(0));
    crowd.lost_nothing(&redis, 4 * SECOND).await;
    crowd.saw_nobody_come_or_go();
    let closes = crowd.closes_since(asked);
    assert!(closes.iter().all(|close| close.1 == 1012), "{closes:?}");
    let (first, last) = (closes[0].0, closes[closes.len() - 1].0);
    assert!(
        last < 5 * SECOND + SECOND / 2 && last - first > SECOND,
        "spread from {first:?} to {last:?}"
    );
    let newest = |page: &Page| page.life().welcomes.last().map(|w| w.0);
    let back = crowd
        .pages
        .iter()
        .filter_map(newest)
        .max()
        .expect("everyone was welcomed")
        .duration_since(asked.into());
    assert!(
        back < 8 * SECOND + SECOND / 2,
        "the last was back after {back:?}"
    );
}

#[tokio::test]
async fn all_dynos_are_down_for_ninety_seconds_and_nobody_gives_up() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 2).await;
    let router = Router::to(&addrs(&dynos));
    let crowd = Crowd::gather(&router, "lobby", 20).await;
    crowd.everyone_talks("before").await;
    for page in &crowd.pages {
        page.all_sent(PATIENCE).await;
    }
    for dyno in &mut dynos {
        dyno.kill().await;
    }
    crowd.everyone_talks("into the void").await;
    sleep(90 * SECOND).await;
    for dyno in &mut dynos {
        dyno.restart().await;
    }
    crowd.lost_nothing(&redis, 20 * SECOND).await;
    let names: Vec<&str> = crowd.pages.iter().map(|page| page.user.as_str()).collect();
    check::names_are(&redis, "lobby", &names).await;
    for page in &crowd.pages {
        page.until("everyone is listed again", PATIENCE, |life| {
            life.users == names
        })
        .await;
    }
}

#[tokio::test]
async fn two_dynos_of_the_same_name_keep_their_members_apart() {
    let redis = Redis::start(&[]).await;
    let mut old = Dyno::start_on(&redis, &[("DYNO", "web.1")]).await;
    let new = Dyno::start_on(&redis, &[("DYNO", "web.1")]).await;
    let hanako = old.join("lobby", "hanako").await;
    let mut taro = new.join("lobby", "taro").await;
    // One person's second tab, on the other dyno of that name.
    let _tab = new.join_with("lobby", "hanako", &hanako.token, None).await;
    taro.expect_members(&["hanako", "taro"]).await;
    let lists = taro.members_frames();
    old.signal(Signal::SIGTERM);
    old.exit(PATIENCE).await;
    sleep(27 * SECOND).await; // what belonged to the old process has lapsed by now
    taro.expect_members(&["hanako", "taro"]).await;
    assert_eq!(
        taro.members_frames(),
        lists,
        "nothing to see\n{}",
        taro.transcript()
    );
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
}

#[tokio::test]
async fn a_frozen_dyno_loses_its_names_and_does_not_speak_for_their_new_owners() {
    let redis = Redis::start(&[]).await;
    let (a, b) = (
        Dyno::start_on(&redis, &[]).await,
        Dyno::start_on(&redis, &[]).await,
    );
    let mut hanako = a.join("lobby", "hanako").await;
    let mut jiro = a.join("lobby", "jiro").await;
    let mut taro = b.join("lobby", "taro").await;
    taro.expect_members(&["hanako", "jiro", "taro"]).await;
    a.signal(Signal::SIGSTOP);
    taro.expect_members_within(&["taro"], 30 * SECOND).await;
    let mut other = b.join("lobby", "hanako").await; // the name is free
    sleep(2 * SECOND).await;
    // Said into the freeze: the first thing the dyno reads when it goes on.
    hanako.talk("I am hanako").await;
    jiro.talk("I am jiro").await;
    a.signal(Signal::SIGCONT);
    hanako.closed_after_all(4409).await;
    assert_eq!(
        hanako.talks_and_refusals().1[0]["code"],
        "name_taken",
        "{}",
        hanako.transcript()
    );
    taro.expect_members(&["hanako", "jiro", "taro"]).await; // jiro's name was still free, and is claimed again
    jiro.say("still me").await;
    let heard = async |client: &mut Client| loop {
        let talk = client.expect_kind("talk").await;
        assert_ne!(
            talk["message"], "I am hanako",
            "the old owner spoke as the new one"
        );
        if talk["message"] == "still me" {
            return;
        }
    };
    heard(&mut taro).await;
    heard(&mut other).await;
    check::names_are(&redis, "lobby", &["hanako", "jiro", "taro"]).await;
    check::saw_everything(&redis, &taro);
    check::saw_everything(&redis, &jiro);
}

#[tokio::test]
async fn a_thousand_pages_that_lose_their_dyno_do_not_storm_the_other() {
    need_descriptors(3_000);
    const PAGES: usize = 1_000;
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 2).await;
    let router = Router::to(&[dynos[0].addr()]);
    let mut crowds = vec![];
    for i in 0..10 {
        crowds.push(Crowd::gather(&router, &format!("room {i}"), PAGES / 10).await);
    }
    sleep(6 * SECOND).await; // longer than a page needs to take its connection for settled
    router.set(&[dynos[1].addr()]);
    let killed = Instant::now();
    dynos[0].kill().await;
    for crowd in &crowds {
        crowd.everyone_talks("on").await;
        crowd.lost_nothing(&redis, 12 * SECOND).await;
        crowd.saw_nobody_come_or_go();
    }
    let pages = || crowds.iter().flat_map(|crowd| &crowd.pages);
    let mut back: Vec<Duration> = pages()
        .filter_map(|page| {
            page.life()
                .welcomes
                .last()
                .map(|w| w.0.duration_since(killed.into()))
        })
        .collect();
    back.sort();
    assert!(
        back[PAGES * 95 / 100] <= 8 * SECOND,
        "95 % are back after {:?}",
        back[PAGES * 95 / 100]
    );
    let mut bins = [0; 200];
    for at in pages().flat_map(|page| page.life().tries.clone()) {
        let after = at.saturating_duration_since(killed.into());
        bins[(after.as_millis() as usize / 100).min(199)] += usize::from(!after.is_zero());
    }
    assert_eq!(
        bins.iter().sum::<usize>(),
        PAGES,
        "each page was let in at its first try: {bins:?}"
    );
    let peak = bins.iter().max().expect("some bins");
    assert!(*peak <= 60, "{peak} tries within 100 ms: {bins:?}");
}

// ---- Redis

#[tokio::test]
async fn a_crowd_talks_through_a_restart_of_redis() {
    let mut redis = durable().await;
    let dynos = dynos(&redis, 2).await;
    let crowd = Crowd::gather(&Router::to(&addrs(&dynos)), "lobby", 20).await;
    let fault = async {
        for _ in 0..2 {
            sleep(SECOND).await;
            redis.stop().await;
            sleep(2 * SECOND).await;
            redis.restart().await;
            sleep(2 * SECOND).await;
        }
    };
    tokio::join!(fault, crowd.chat(50, 11 * SECOND));
    crowd.lost_nothing(&redis, PATIENCE).await;
    for page in &crowd.pages {
        let told: Vec<String> = page.life().status.iter().map(|s| s.1.clone()).collect();
        assert_eq!(told, ["down", "up", "down", "up"], "{}", page.user);
        assert_eq!(
            page.life().closes.len(),
            0,
            "{} kept its connection",
            page.user
        );
    }
    sleep(4 * SECOND).await;
    crowd.saw_nobody_come_or_go();
    assert_eq!(redis.clients().len(), 2, "{:#?}", redis.clients());
}

/// A crowd on one dyno behind a proxy to Redis and on one without, while the proxy does this for eight seconds.
async fn talk_while_the_link_is(flow: Flow) {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::to_redis(&redis).await;
    let behind = Dyno::start_with_redis_at(&proxy.redis_url(), &[TALKATIVE]).await;
    let beside = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let crowd = Crowd::gather(&Router::to(&[behind.addr(), beside.addr()]), "lobby", 20).await;
    let fault = async {
        sleep(SECOND).await;
        proxy.set(flow);
        let since = Instant::now();
        sleep(8 * SECOND).await;
        proxy.set(Flow::Through);
        since
    };
    let (since, ()) = tokio::join!(fault, crowd.chat(50, 14 * SECOND));
    crowd.lost_nothing(&redis, 15 * SECOND).await;
    crowd.saw_nobody_come_or_go();
    let mut affected = 0;
    for page in &crowd.pages {
        let life = page.life();
        if life.welcomes[0].1 == beside.addr() {
            assert!(
                life.status.is_empty(),
                "{} has nothing to do with it: {:?}",
                page.user,
                life.status
            );
            continue;
        }
        affected += 1;
        let told: Vec<&str> = life.status.iter().map(|s| s.1.as_str()).collect();
        assert_eq!(told, ["down", "up"], "{}", page.user);
        let after = life.status[0].0.duration_since(since.into());
        assert!(
            after <= 5 * SECOND + SECOND / 2,
            "{} was told after {after:?}",
            page.user
        );
    }
    assert!(affected > 0, "some pages sat on the dyno behind the proxy");
}

#[tokio::test]
async fn a_link_that_swallows_everything_is_noticed_and_nothing_is_lost() {
    talk_while_the_link_is(Flow::Swallow).await;
}

#[tokio::test]
async fn commands_that_were_carried_out_but_never_answered_say_nothing_twice() {
    talk_while_the_link_is(Flow::SwallowAnswers).await;
}

#[tokio::test]
async fn a_link_that_is_cut_and_refused_comes_back() {
    talk_while_the_link_is(Flow::Cut).await;
}

#[tokio::test]
async fn a_crowd_talks_while_every_link_is_cut_twice_a_second() {
    let redis = Redis::start(&[]).await;
    let dynos = dynos(&redis, 2).await;
    let crowd = Crowd::gather(&Router::to(&addrs(&dynos)), "lobby", 20).await;
    let fault = async {
        let mut cut = 0;
        for _ in 0..20 {
            sleep(SECOND / 2).await;
            cut += redis.cut_all();
        }
        cut
    };
    let (cut, ()) = tokio::join!(fault, crowd.chat(50, 11 * SECOND));
    assert!(cut >= 20, "only {cut} links were there to be cut");
    crowd.lost_nothing(&redis, 15 * SECOND).await;
    sleep(4 * SECOND).await;
    crowd.saw_nobody_come_or_go();
}

/// Those who only sit there answer no Ping: a Pong shows now and then that they live.
async fn breathe(sitting: &mut [Raw]) {
    for raw in sitting {
        raw.send(raw::frame(raw::PONG, "")).await;
    }
}

#[tokio::test]
async fn a_dyno_with_five_thousand_rooms_finds_them_all_again_after_a_cut() {
    const ROOMS: usize = 5_000;
    need_descriptors(ROOMS as u64 + 1_000);
    let redis = Redis::start(&[]).await;
    let dynos = dynos(&redis, 2).await;
    let crowd = Crowd::gather(&Router::to(&addrs(&dynos)), "lobby", 10).await;
    let mut sitting = vec![];
    for some in (0..ROOMS).collect::<Vec<_>>().chunks(100) {
        let joins = some
            .iter()
            .map(async |i| Raw::joined(&dynos[0], &format!("room {i}"), "hanako").await);
        sitting.extend(join_all(joins).await);
    }
    let fault = async {
        for _ in 0..4 {
            sleep(3 * SECOND).await;
            assert!(redis.cut_all() >= 1);
        }
    };
    breathe(&mut sitting).await;
    tokio::join!(fault, crowd.chat(50, 14 * SECOND));
    breathe(&mut sitting).await;
    crowd.lost_nothing(&redis, 30 * SECOND).await;
    breathe(&mut sitting).await;
    // None of them is deaf: what the other dyno says in a room is heard here.
    for i in (0..ROOMS).step_by(ROOMS / 50) {
        let mut taro = dynos[1].join(&format!("room {i}"), "taro").await;
        taro.say("can you hear me?").await;
        loop {
            let frame = sitting[i].json().await;
            if frame["kind"] == "talk" {
                assert_eq!(frame["message"], "can you hear me?");
                break;
            }
            assert_eq!(frame["kind"], "status", "room {i}: {frame}");
        }
    }
}

#[tokio::test]
async fn a_full_redis_refuses_talks_and_locks_nobody_out() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"]).await;
    let dynos = dynos(&redis, 2).await;
    let mut hanako = dynos[0].join("lobby", "hanako").await;
    let mut taro = dynos[1].join("lobby", "taro").await;
    hanako.say("before").await;
    taro.hears("before").await;
    redis.cmd::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
    let kept = cid();
    hanako.talk_as("kept", &kept).await;
    let busy = hanako.expect_error("busy").await;
    assert_eq!(busy["cid"], json!(kept));
    assert!(
        busy["retry_ms"]
            .as_u64()
            .is_some_and(|ms| (1_000..=3_000).contains(&ms)),
        "{busy}"
    );
    // Reading goes on, coming and leaving too.
    let jiro = dynos[1].join("lobby", "jiro").await;
    assert_eq!(jiro.history(), ["before"]);
    hanako.expect_members(&["hanako", "jiro", "taro"]).await;
    jiro.quit().await;
    hanako.expect_members(&["hanako", "taro"]).await;
    sleep(22 * SECOND).await; // and leases are renewed
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
    assert_eq!(hanako.status(), None, "a full Redis is not away");
    redis.cmd::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
    hanako.talk_as("kept", &kept).await;
    hanako.hears("kept").await;
    taro.hears("kept").await;
    check::saw_everything(&redis, &taro);
}

#[tokio::test]
async fn a_last_id_that_was_deleted_is_a_gap() {
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = a.join("lobby", "taro").await;
    for i in 0..60 {
        hanako.say(&format!("m{i}")).await;
        taro.hears(&format!("m{i}")).await;
    }
    let (token, last) = hanako.vanish().await;
    for i in 60..70 {
        taro.say(&format!("m{i}")).await;
    }
    assert_eq!(redis.cmd::<u64>(&["XDEL", "chat:{lobby}", &last]), 1);
    let b = Dyno::start_on(&redis, &[]).await; // has never held the room
    let hanako = b.join_with("lobby", "hanako", &token, Some(&last)).await;
    assert_eq!(hanako.welcome["gap"], true);
    let seen: Id = last.parse().expect("an id");
    assert!(
        hanako.ids().iter().all(|id| *id > seen),
        "nothing it already had: {:?} after {last}",
        hanako.ids()
    );
    assert_eq!(
        hanako.history(),
        (60..70).map(|i| format!("m{i}")).collect::<Vec<_>>(),
        "and all that it had not"
    );
}

#[tokio::test]
async fn the_newest_message_that_was_deleted_is_a_gap_and_nothing_is_shown_again() {
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut hanako = a.join("lobby", "hanako").await;
    for i in 0..10 {
        hanako.say(&format!("m{i}")).await;
    }
    let (token, last) = hanako.vanish().await;
    assert_eq!(redis.cmd::<u64>(&["XDEL", "chat:{lobby}", &last]), 1);
    let b = Dyno::start_on(&redis, &[]).await; // has never held the room
    let mut hanako = b.join_with("lobby", "hanako", &token, Some(&last)).await;
    assert_eq!(hanako.welcome["gap"], true);
    assert_eq!(hanako.history(), [""; 0], "it had all of it");
    hanako.say("after").await;
}

#[tokio::test]
async fn a_key_of_another_type_shuts_one_room_alone() {
    let redis = Redis::start(&[]).await;
    redis.cmd::<String>(&["SET", "chat:{broken}", "a string"]);
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let mut taro = dyno.connect().await;
    let join = join_frame("broken", "taro", &token(), None);
    // Longer than the deadline for a join: who is told to wait is not blamed for waiting.
    for _ in 0..3 {
        taro.send(join.clone()).await;
        taro.expect_error("busy").await;
        redis.cut_all(); // and whoever comes back does so in spite of that room
        for client in [&mut hanako, &mut taro] {
            client.expect_kind("status").await;
            assert_eq!(client.expect_kind("status").await["redis"], "up");
        }
    }
    hanako.say("still here").await;
    redis.cmd::<u64>(&["DEL", "chat:{broken}"]);
    sleep(6 * SECOND).await; // it is tried again every five
    taro.send(join).await;
    taro.joined().await;
    taro.say("mended").await;
}

#[tokio::test]
async fn who_lost_a_name_goes_and_its_new_owner_stays() {
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut first = dyno.join("lobby", "hanako").await;
    let mut taro = dyno.join("lobby", "taro").await;
    // As after a silence longer than a lease.
    redis.cmd::<u64>(&["DEL", "chat:{lobby}:names", "chat:{lobby}:owners"]);
    let mut second = dyno.join("lobby", "hanako").await;
    first.expect_close_after_error(4409).await;
    sleep(6 * SECOND).await; // a renewal later
    second.say("mine now").await;
    taro.hears("mine now").await;
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
}

#[tokio::test]
async fn a_name_whose_lease_was_evicted_lapses_like_any_other() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 2).await;
    let mut hanako = dynos[0].join("lobby", "hanako").await;
    let _taro = dynos[1].join("lobby", "taro").await;
    hanako.expect_members(&["hanako", "taro"]).await;
    dynos[1].kill().await;
    redis.cmd::<u64>(&["DEL", "chat:{lobby}:names"]); // as a Redis does that is short of memory
    hanako.expect_members_within(&["hanako"], 30 * SECOND).await;
    check::names_are(&redis, "lobby", &["hanako"]).await;
}

#[tokio::test]
async fn a_redis_that_is_still_loading_is_not_an_empty_one() {
    // Half a millisecond per key, six thousand keys; it answers LOADING meanwhile.
    let slow = [
        "--key-load-delay",
        "500",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let mut redis = Redis::start(&[&["--dbfilename", "dump.rdb"], &slow[..]].concat()).await;
    let dynos = dynos(&redis, 2).await;
    let fill = "for i = 1, 6000 do redis.call('SET', 'filler:' .. i, i) end";
    redis.cmd::<redis::Value>(&["EVAL", fill, "0"]);
    let crowd = Crowd::gather(&Router::to(&addrs(&dynos)), "lobby", 10).await;
    crowd.everyone_talks("before").await;
    for page in &crowd.pages {
        page.all_sent(PATIENCE).await;
    }
    redis.cmd::<String>(&["SAVE"]);
    redis.stop().await;
    let fault = async {
        let start = Instant::now();
        redis.restart().await;
        start.elapsed()
    };
    let (loading, ()) = tokio::join!(fault, crowd.chat(20, 8 * SECOND));
    assert!(loading > 2 * SECOND, "it was only loading for {loading:?}");
    crowd.lost_nothing(&redis, PATIENCE).await; // also: nobody was told of a gap
    sleep(4 * SECOND).await;
    let names: Vec<&str> = crowd.pages.iter().map(|page| page.user.as_str()).collect();
    check::names_are(&redis, "lobby", &names).await;
}

#[tokio::test]
async fn garbage_from_a_stranger_does_no_harm() {
    let redis = Redis::start(&[]).await;
    let dynos = dynos(&redis, 2).await;
    let mut hanako = dynos[0].join("lobby", "hanako").await;
    let mut taro = dynos[1].join("lobby", "taro").await;
    let lines = dynos[0].log().lines().count();
    let huge = "x".repeat(200_000);
    let real = hanako.say("a real one").await;
    taro.hears("a real one").await;
    let mut garbage = vec![
        "".into(),
        "hello".into(),
        "{}".into(),
        "[]".into(),
        "null".into(),
        huge,
        "\u{1b}[31m\r\nFAKE line=1".into(),
    ];
    garbage.push(real.to_string()); // a talk said before
    let mut changed = real.clone();
    changed["id"] = json!("99999999999999-0");
    changed["message"] = json!(5);
    garbage.push(changed.to_string());
    for text in &garbage {
        assert_eq!(
            redis.cmd::<u64>(&["PUBLISH", "chat:{lobby}", text]),
            2,
            "both dynos listen"
        );
        redis.cmd::<u64>(&["PUBLISH", "chat:{nowhere}", text]);
    }
    hanako.say("still here").await;
    taro.hears("still here").await; // and nothing before it
    let log = dynos[0].log();
    let new: Vec<&str> = log.lines().skip(lines).collect();
    assert!(
        (1..=garbage.len()).contains(&new.len()),
        "said, and not again and again: {new:#?}"
    );
    assert!(
        new.iter().all(|line| line.len() < 500),
        "without quoting it: {new:#?}"
    );
    assert!(
        !log.contains('\u{1b}') && !log.contains("\nFAKE"),
        "a log line stays one line: {new:#?}"
    );
    // The same in the stream itself.
    redis.cmd::<String>(&["XADD", "chat:{lobby}", "*", "nonsense", "1"]);
    redis.cmd::<String>(&["XADD", "chat:{lobby}", "*", "", ""]);
    let fresh = Dyno::start_on(&redis, &[]).await;
    let mut jiro = fresh.join("lobby", "jiro").await;
    assert_eq!(jiro.history(), ["a real one", "still here"]);
    jiro.say("and I").await;
    taro.hears("and I").await;
    let (token, last) = jiro.vanish().await;
    let back = fresh.join_with("lobby", "jiro", &token, Some(&last)).await;
    assert_eq!(
        (back.history().len(), &back.welcome["gap"]),
        (0, &json!(false))
    );
}

#[tokio::test]
async fn a_dyno_without_redis_can_still_be_stopped() {
    let mut redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 2).await;
    let mut clients = vec![];
    for dyno in &dynos {
        for i in 0..20 {
            clients.push(dyno.join("lobby", &format!("{} {i}", dyno.port)).await);
        }
    }
    redis.stop().await;
    dynos[0].signal(Signal::SIGTERM);
    sleep(3 * SECOND).await;
    dynos[1].signal(Signal::SIGTERM);
    for dyno in &mut dynos {
        assert_eq!(dyno.exit(10 * SECOND).await.code(), Some(0));
    }
    for client in &mut clients {
        client.closed_after_all(1012).await;
    }
}

// ---- rooms

#[tokio::test]
async fn a_fresh_dyno_catches_up_with_a_busy_room_without_a_seam() {
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut talkers = vec![a.join("lobby", "a").await, a.join("lobby", "b").await];
    let done = Cell::new(false);
    let watch = async {
        for round in 0..15 {
            let fresh = Dyno::start_on(&redis, &[]).await;
            let joins = (0..10).map(|i| {
                let fresh = &fresh;
                async move { fresh.join("lobby", &format!("n{round} {i}")).await }
            });
            let clients = join_all(joins).await;
            sleep(SECOND / 5).await;
            for client in &clients {
                assert!(
                    client.ids().len() > 5,
                    "{} saw {:?}",
                    client.user,
                    client.ids()
                );
                check::saw_everything_so_far(&redis, client);
            }
        }
        done.set(true);
    };
    tokio::join!(talk_until(&done, &mut talkers), watch);
}

#[tokio::test]
async fn a_room_left_by_its_last_member_while_another_comes_is_never_deaf() {
    let redis = Redis::start(&[]).await;
    let dynos = dynos(&redis, 2).await;
    const ROOMS: usize = 8;
    let rounds = join_all((0..ROOMS).map(|room| {
        let dynos = &dynos;
        async move {
            let name = format!("room {room}");
            let mut speaker = dynos[1].join(&name, "speaker").await;
            let mut last = dynos[0].join(&name, "n0").await;
            let mut rounds = 0;
            let start = Instant::now();
            // Rooms are swept on a beat of five seconds: long enough to meet it a few times.
            while start.elapsed() < 16 * SECOND {
                rounds += 1;
                let leaves = last.quit();
                let comes = async {
                    sleep(Duration::from_millis(fastrand::u64(0..10))).await;
                    dynos[0].join(&name, &format!("n{rounds}")).await
                };
                let ((), mut next) = tokio::join!(leaves, comes);
                let text = format!("round {rounds}");
                speaker.say(&text).await;
                next.hears(&text).await;
                last = next;
                if rounds % 20 == 0 {
                    sleep(Duration::from_millis(fastrand::u64(0..300))).await;
                }
            }
            rounds
        }
    }));
    let rounds: usize = rounds.await.iter().sum();
    assert!(rounds >= 300, "only {rounds} rounds");
}
