//! SIGTERM: a dyno asks its pages to move, serves them until they have moved, and then ends. Pages have a connection all
//! the time, and lose nothing.

use crate::support::client::{Heard, join_frame};
use crate::support::facts::*;
use crate::support::{
    Client, Crowd, Dyno, PATIENCE, Page, Raw, Redis, Router, TALKATIVE, check, eventually, heavy,
    token,
};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
/// For the limits of a time: the machine may be busy.
const TOLERANCE: Duration = Duration::from_millis(1_500);
/// No message waits until the next `move` for its acknowledgement, also on a busy machine. The times that are printed
/// say how long they really wait.
const ACK: Duration = Duration::from_secs(3);
/// The platform kills a process this long after its SIGTERM.
const KILL: Duration = Duration::from_secs(30);

async fn dynos(redis: &Redis, count: usize, vars: &[(&str, &str)]) -> Vec<Dyno> {
    let vars = [&[TALKATIVE], vars].concat();
    join_all((0..count).map(|_| Dyno::start_on(redis, &vars))).await
}

async fn members_on(dyno: &Dyno, count: usize) -> Vec<Client> {
    let names = (0..count).map(|i| format!("n{i:03}"));
    join_all(names.map(async |name| dyno.join("lobby", &name).await)).await
}

fn is_move(heard: &Heard) -> bool {
    matches!(heard, Heard::Frame(frame) if frame["kind"] == "move")
}

/// The dyno ends by itself, with code 0.
async fn exits(dyno: &mut Dyno, within: Duration) {
    let status = dyno.exit(within).await;
    assert_eq!(status.code(), Some(0), "{status}\n{}", dyno.log());
}

/// Every client is closed with 1012, and none was asked to move.
async fn are_closed_without_a_move(clients: &mut [Client]) {
    for client in clients {
        client
            .closed_after_all_within(1012, CLOSES_WITHIN + TOLERANCE)
            .await;
        assert_eq!(client.count_heard(is_move), 0, "{}", client.context());
    }
}

/// Every page of the crowd was connected all the time, and no message waited long.
fn nobody_was_away(crowd: &Crowd) {
    let mut acks = vec![];
    for page in &crowd.pages {
        let life = page.life();
        let (closes, away) = (&life.closes, &life.away);
        let stayed = closes.is_empty() && away.is_empty();
        assert!(stayed, "{}: {closes:?}, away {away:?}", page.user);
        acks.extend(life.ack_times.iter().copied());
    }
    acks.sort();
    let at = |share: usize| acks[(acks.len() - 1) * share / 100];
    let [p50, p99, most] = [50, 99, 100].map(at);
    println!(
        "measured: {} messages during a restart, acknowledged after p50 {p50:?}, p99 {p99:?}, at most {most:?}",
        acks.len()
    );
    assert!(most < ACK, "an acknowledgement after {most:?}");
}

fn moves(crowd: &Crowd) -> usize {
    crowd.pages.iter().map(|page| page.life().moves.len()).sum()
}

// ---- what the dyno does

#[tokio::test]
async fn sigterm_asks_every_member_to_move_and_asks_again_while_it_serves_them() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 1, &[]).await;
    let mut members = members_on(&dynos[0], 60).await;
    let stopped = Instant::now();
    dynos[0].signal(Signal::SIGTERM);
    for member in &mut members {
        member.expect_move().await;
    }
    let asked = stopped.elapsed();
    assert!(asked < ASKED_TO_MOVE_WITHIN, "{asked:?}");
    for text in ["first", "second"] {
        members[0].say(text).await;
        for member in &mut members[1..] {
            member.hears(text).await;
        }
        sleep(MOVE_EVERY).await;
    }
    for member in &members {
        let times = member.heard_at(is_move);
        assert!((2..=3).contains(&times.len()), "{times:?}");
        let pause = times[1] - times[0];
        assert!(pause.abs_diff(MOVE_EVERY) < TOLERANCE, "{times:?}");
        assert_eq!(member.count_heard(Heard::is_end), 0);
    }
    // Sixty pages in steps of 20 ms.
    let first = |member: &Client| member.heard_at(is_move)[0];
    let firsts = members.iter().map(first);
    let spread = firsts.clone().max().zip(firsts.min());
    let spread = spread.map_or(Duration::ZERO, |(last, first)| last - first);
    assert!(spread > SECOND / 2, "spread over {spread:?}");
    assert!(dynos[0].is_running());
    drop(members);
    exits(&mut dynos[0], PATIENCE).await;
}

#[tokio::test]
async fn a_join_on_a_stopping_dyno_is_answered_by_welcome_and_then_move() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 1, &[]).await;
    let mut clients = join_all((0..20).map(|_| dynos[0].connect())).await;
    let mut silent = dynos[0].connect().await;
    for (i, client) in clients[..10].iter_mut().enumerate() {
        let join = join_frame("lobby", &format!("n{i}"), &token(), None);
        client.send(join).await; // the signal comes while these are being answered
    }
    dynos[0].signal(Signal::SIGTERM);
    sleep(SECOND).await; // the first round of `move` frames is over
    for (i, client) in clients.iter_mut().enumerate() {
        if i >= 10 {
            let join = join_frame("lobby", &format!("n{i}"), &token(), None);
            client.send(join).await;
        }
        client.joined().await;
        client.expect_within("move", PATIENCE).await;
    }
    assert_eq!(silent.count_heard(is_move), 0, "it has not joined");
    drop(clients);
    silent.expect_close(4400).await; // after the join deadline, as ever
    exits(&mut dynos[0], PATIENCE).await;
}

#[tokio::test]
async fn the_dyno_ends_when_its_last_member_has_moved_and_nobody_sees_a_change() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 2, &[]).await;
    let mut hanako = dynos[0].join("lobby", "hanako").await;
    let mut taro = dynos[1].join("lobby", "taro").await;
    taro.say("before").await;
    taro.expect_members(&["hanako", "taro"]).await;
    let lists = taro.members_frames();
    hanako.hears("before").await;
    dynos[0].signal(Signal::SIGTERM);
    hanako.expect_move().await;
    let mut hanako = hanako.move_to(&dynos[1]).await;
    let moved = Instant::now();
    hanako.welcomed_with(json!({"gap": false, "history": [], "users": ["hanako", "taro"]}));
    exits(&mut dynos[0], PATIENCE).await;
    hanako.say("after").await;
    taro.hears("after").await;
    sleep((GONE + SECOND).saturating_sub(moved.elapsed())).await; // a lease that was not renewed would have ended
    taro.saw_no_change_since(lists);
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
    check::saw_everything(&redis, &hanako);
    check::saw_everything(&redis, &taro);
}

#[tokio::test]
async fn members_that_ignore_move_are_closed_after_the_grace_and_the_dyno_ends_in_time() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 1, &[]).await; // with the default of GRACE_SECONDS
    let mut members = members_on(&dynos[0], 100).await;
    let mut silent = vec![]; // do not even answer a Close
    for i in 0..5 {
        silent.push(Raw::joined(&dynos[0], "library", &format!("n{i}")).await);
    }
    let stopped = Instant::now();
    dynos[0].signal(Signal::SIGTERM);
    sleep(GRACE - SECOND).await;
    members[0].expect_move().await;
    members[0].say("still served").await;
    for member in &members {
        assert_eq!(member.count_heard(Heard::is_end), 0);
        let asked = member.count_heard(is_move);
        assert!((6..=7).contains(&asked), "asked {asked} times");
    }
    let mut closes = vec![];
    for member in &mut members {
        member.closed_after_all_within(1012, 6 * SECOND).await;
        let is_close = |heard: &Heard| matches!(heard, Heard::Close(..));
        closes.extend(member.heard_at(is_close));
    }
    let within = KILL.saturating_sub(stopped.elapsed());
    exits(&mut dynos[0], within).await;
    assert!(stopped.elapsed() > GRACE, "{:?}", stopped.elapsed());
    closes.sort();
    let spread = closes[closes.len() - 1] - closes[0];
    assert!(
        spread > SECOND && spread < CLOSES_WITHIN,
        "spread over {spread:?}"
    );
}

#[tokio::test]
async fn grace_of_0_closes_at_once() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 1, &[("GRACE_SECONDS", "0")]).await;
    let mut members = members_on(&dynos[0], 50).await;
    dynos[0].signal(Signal::SIGTERM);
    are_closed_without_a_move(&mut members).await;
    exits(&mut dynos[0], EXITS_WITHIN).await;
}

#[tokio::test]
async fn sigint_closes_at_once() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 1, &[]).await;
    let mut members = members_on(&dynos[0], 50).await;
    dynos[0].signal(Signal::SIGINT);
    are_closed_without_a_move(&mut members).await;
    exits(&mut dynos[0], EXITS_WITHIN).await;
}

#[tokio::test]
async fn sigterm_without_redis_closes_at_once() {
    let mut redis = Redis::start(&[]).await;
    let on_redis = dynos(&redis, 1, &[]).await.remove(0);
    let mut alone = Dyno::start(&[]).await;
    let mut members = members_on(&on_redis, 25).await;
    members.extend(members_on(&alone, 25).await);
    redis.stop().await;
    for member in &mut members[..25] {
        member.expect_redis("down", REDIS_KNOWN_WITHIN).await;
    }
    let mut on_redis = on_redis;
    for dyno in [&mut on_redis, &mut alone] {
        dyno.signal(Signal::SIGTERM);
    }
    are_closed_without_a_move(&mut members).await;
    for dyno in [&mut on_redis, &mut alone] {
        exits(dyno, EXITS_WITHIN).await;
    }
}

#[tokio::test]
async fn sigint_during_a_move_closes_and_a_second_sigterm_changes_nothing() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 1, &[]).await;
    let mut members = members_on(&dynos[0], 20).await;
    dynos[0].signal(Signal::SIGTERM);
    for member in &mut members {
        member.expect_move().await;
    }
    for _ in 0..3 {
        dynos[0].signal(Signal::SIGTERM);
        sleep(SECOND / 2).await;
    }
    members[0].say("still served").await;
    dynos[0].signal(Signal::SIGINT);
    for member in &mut members {
        let within = CLOSES_WITHIN + TOLERANCE;
        member.closed_after_all_within(1012, within).await;
    }
    exits(&mut dynos[0], EXITS_WITHIN).await;
}

#[tokio::test]
async fn sockets_without_a_complete_request_are_closed_soon_after_sigterm() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 1, &[]).await;
    let mut idle = join_all((0..10).map(|_| Raw::connect(dynos[0].addr()))).await;
    let begin = "GET / HTTP/1.1\r\n";
    let mut begun = Raw::request(dynos[0].addr(), begin).await;
    let mut incomplete = Raw::request(dynos[0].addr(), begin).await;
    dynos[0].has_redis().await; // the dyno has accepted them
    let stopped = Instant::now();
    dynos[0].signal(Signal::SIGTERM);
    for socket in &mut idle {
        let (bytes, _) = socket.rest(SECOND / 2).await;
        assert_eq!(bytes, b"");
    }
    begun
        .send(format!("Host: {}\r\n\r\n", dynos[0].host()))
        .await;
    assert_eq!(begun.answer().await.status, 200);
    // Heads that never end must not delay the exit until their deadline, 10 s.
    incomplete.send("Host: a\r\n").await;
    assert_eq!(incomplete.answer().await.status, 408);
    let took = stopped.elapsed();
    assert!((SECOND / 2..3 * SECOND).contains(&took), "{took:?}");
    drop((begun, incomplete));
    exits(&mut dynos[0], SECOND / 2).await;
}

#[tokio::test]
async fn a_client_that_answers_move_with_many_connections_is_limited_as_any_other() {
    const MOST: usize = 60;
    const OPENED: usize = 100;
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[]).await;
    let limit = MOST.to_string();
    let b = Dyno::start_on(&redis, &[("MAX_CONNECTIONS", &limit)]).await;
    let mut taro = b.join("lobby", "taro").await;
    let mut hanako = a.join("lobby", "hanako").await;
    a.signal(Signal::SIGTERM);
    hanako.expect_move().await;
    let mut opened = join_all((0..OPENED).map(|_| b.connect())).await;
    let mut refused = 0;
    for client in &mut opened {
        client.send(json!({"kind": "ping"})).await;
        let answered = async || match client.count_heard(|heard| !matches!(heard, Heard::Ping)) {
            0 => Err("nothing"),
            _ => Ok(()),
        };
        eventually("a tick or a refusal", PATIENCE, answered).await;
    }
    sleep(SECOND / 2).await; // the Close follows the error
    for client in &opened {
        refused += client.count_heard(|heard| matches!(heard, Heard::Close(1013, _)));
    }
    assert_eq!(refused, OPENED - (MOST - 1), "taro has one of the places");
    taro.say("undisturbed").await;
    hanako.hears("undisturbed").await;
    drop(opened);
    sleep(SECOND / 2).await; // until their places are free
    hanako.move_to(&b).await.say("moved").await;
}

#[tokio::test]
async fn spread_ms_grows_with_the_most_connections_that_the_dyno_had() {
    let dyno = Dyno::start(&[]).await;
    let spread_ms = async |name: &str| {
        let client = dyno.join("lobby", name).await;
        client.welcome["spread_ms"].as_u64()
    };
    assert_eq!(spread_ms("first").await, Some(*SPREAD_MS.start()));
    let many = members_on(&dyno, 100).await;
    let expected = Some(101 * SPREAD_MS_PER_CONNECTION);
    assert_eq!(spread_ms("hundred and first").await, expected);
    drop(many);
    let connections = async || dyno.health().await["connections"].clone();
    check::becomes("connections", PATIENCE, json!(0), connections).await;
    assert_eq!(spread_ms("alone").await, expected, "the most so far");
}

// ---- what the pages do

#[tokio::test]
async fn pages_move_to_the_other_dyno_without_a_moment_without_a_connection() {
    let _turn = heavy(2).await;
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 2, &[]).await;
    let router = Router::to(&[dynos[0].addr(), dynos[1].addr()]);
    let crowd = Crowd::gather(&router, "lobby", 200).await;
    let on_a = crowd.pages.iter();
    let on_a = on_a.filter(|page| page.life().welcomes[0].1 == dynos[0].addr());
    let on_a = on_a.count();
    dynos[0].signal(Signal::SIGTERM);
    let end = exits(&mut dynos[0], 10 * SECOND);
    tokio::join!(end, crowd.chat(50, 8 * SECOND));
    crowd.lost_nothing(&redis, PATIENCE).await;
    crowd.saw_nobody_come_or_go();
    nobody_was_away(&crowd);
    assert_eq!(moves(&crowd), on_a);
}

#[tokio::test]
async fn pages_of_a_single_dyno_move_to_its_successor_that_listens_eight_seconds_later() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 1, &[]).await;
    let router = Router::to(&[dynos[0].addr()]);
    let crowd = Crowd::gather(&router, "lobby", 30).await;
    dynos[0].signal(Signal::SIGTERM);
    let restart = async {
        sleep(8 * SECOND).await;
        let successor = dynos[0].successor().await;
        exits(&mut dynos[0], 10 * SECOND).await;
        successor
    };
    let (_successor, ()) = tokio::join!(restart, crowd.chat(20, 16 * SECOND));
    crowd.lost_nothing(&redis, PATIENCE).await;
    crowd.saw_nobody_come_or_go();
    nobody_was_away(&crowd);
    assert_eq!(moves(&crowd), 30);
}

#[tokio::test]
async fn rolling_restart_of_three_dynos_under_two_hundred_talking_pages_is_not_noticed() {
    let _turn = heavy(2).await;
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 3, &[]).await;
    let addrs: Vec<_> = dynos.iter().map(Dyno::addr).collect();
    let crowd = Crowd::gather(&Router::to(&addrs), "lobby", 200).await;
    let roll = async {
        for dyno in &mut dynos {
            dyno.signal(Signal::SIGTERM);
            exits(dyno, 15 * SECOND).await;
            dyno.restart().await;
            dyno.has_redis().await;
        }
    };
    tokio::select! {
        () = roll => {}
        () = crowd.chat(50, 60 * SECOND) => panic!("a restart takes too long"),
    }
    crowd.everyone_talks("after").await;
    crowd.lost_nothing(&redis, PATIENCE).await;
    crowd.saw_nobody_come_or_go();
    nobody_was_away(&crowd);
    assert!(moves(&crowd) >= 200, "{}", moves(&crowd));
}

#[tokio::test]
async fn pages_move_on_when_the_dyno_they_move_to_is_stopped_too() {
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 3, &[]).await;
    let router = Router::to(&[dynos[0].addr()]);
    let crowd = Crowd::gather(&router, "lobby", 60).await;
    let addrs: Vec<_> = dynos.iter().map(Dyno::addr).collect();
    router.set(&addrs);
    dynos[0].signal(Signal::SIGTERM);
    sleep(SECOND / 2).await; // the pages are moving
    dynos[1].signal(Signal::SIGTERM);
    let (first, rest) = dynos.split_at_mut(1);
    let end = async {
        exits(&mut first[0], 15 * SECOND).await;
        exits(&mut rest[0], 15 * SECOND).await;
    };
    tokio::join!(end, crowd.chat(30, 8 * SECOND));
    crowd.lost_nothing(&redis, PATIENCE).await;
    crowd.saw_nobody_come_or_go();
    nobody_was_away(&crowd);
    assert!(moves(&crowd) >= 60);
    for page in &crowd.pages {
        let moves = page.life().moves.clone();
        assert_eq!(moves.last().map(|last| last.1), Some(dynos[2].addr()));
    }
}

#[tokio::test]
async fn a_page_stays_where_it_is_until_a_full_dyno_has_room_for_it() {
    let redis = Redis::start(&[]).await;
    let mut a = Dyno::start_on(&redis, &[]).await;
    let b = Dyno::start_on(&redis, &[("MAX_CONNECTIONS", "5")]).await;
    let _others = members_on(&b, 4).await;
    let mut taro = b.join("lobby", "taro").await;
    let router = Router::to(&[a.addr()]);
    let page = Page::open(&router, "lobby", "hanako");
    page.welcomed().await;
    router.set(&[b.addr()]);
    a.signal(Signal::SIGTERM);
    sleep(2 * MOVE_EVERY).await;
    page.say("not stranded");
    page.all_sent(PATIENCE).await;
    taro.hears("not stranded").await;
    taro.quit().await;
    let moved = |life: &crate::support::page::Life| life.moves.len() == 1;
    page.until("it moves", MOVE_EVERY + PATIENCE, moved).await;
    exits(&mut a, PATIENCE).await;
    page.say("on the other dyno");
    page.all_sent(PATIENCE).await;
    assert!(page.life().closes.is_empty(), "{}", page.summary());
    check::pages_saw_everything(&redis, &[page]);
}

#[tokio::test]
async fn pages_stay_while_redis_is_down_and_move_when_it_is_back() {
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    let mut dynos = dynos(&redis, 2, &[]).await;
    let router = Router::to(&[dynos[0].addr()]);
    let crowd = Crowd::gather(&router, "lobby", 40).await;
    router.set(&[dynos[1].addr()]);
    // With nowhere to go, everyone is still on the first dyno when Redis goes away.
    dynos[1].signal(Signal::SIGSTOP);
    dynos[0].signal(Signal::SIGTERM);
    sleep(SECOND).await;
    redis.stop().await;
    dynos[1].signal(Signal::SIGCONT);
    crowd.everyone_talks("while Redis is down").await;
    sleep(6 * SECOND).await;
    redis.restart().await;
    exits(&mut dynos[0], 15 * SECOND).await;
    crowd.lost_nothing(&redis, 2 * PATIENCE).await;
    crowd.saw_nobody_come_or_go();
    for page in &crowd.pages {
        let life = page.life();
        assert_eq!(
            (&*life.closes, life.moves.len()),
            (&[][..], 1),
            "{}",
            page.user
        );
    }
}
