//! Fault tests: crowds go on talking while dynos are stopped, killed and frozen, and Redis is cut off, silenced, filled up
//! and restarted. Afterwards everyone has seen the room's stream, in order and once, and the names shown are those with a
//! lease. `races.rs` tests what happens between clients, and `dynos.rs` tests each fault with two people.

use crate::dynos::{cut_and_back, hanako_and_taro, pair, pair_on};
use crate::follow::two_dynos;
use crate::support::client::talk_until;
use crate::support::prelude::*;
use std::cell::Cell;

/// Two dynos on this Redis, and a crowd in the lobby on both of them.
async fn crowd_on_two_dynos(redis: &Redis, count: usize) -> ([Dyno; 2], Crowd) {
    let dynos = pair_on(redis).await;
    let router = Router::to(&[dynos[0].addr(), dynos[1].addr()]);
    let crowd = Crowd::gather(&router, "lobby", count).await;
    (dynos, crowd)
}

fn names(crowd: &Crowd) -> Vec<&str> {
    crowd.pages.iter().map(|page| page.user.as_str()).collect()
}

// ---- dynos

/// In 40 s every page reaches the longest pause between two tries: a longer outage would only repeat it.
#[tokio::test]
async fn pages_come_back_after_all_dynos_were_down_for_forty_seconds() {
    // The first try comes within 3 s, the next ones after pauses of up to 2, 4, 8 and 15 s: in all 32 s.
    const TRIES: usize = 5;
    let redis = Redis::start(&[]).await;
    let (mut dynos, crowd) = crowd_on_two_dynos(&redis, 20).await;
    crowd.everyone_talks("before").await;
    crowd.lost_nothing(&redis, PATIENCE).await;
    for dyno in &mut dynos {
        dyno.kill().await;
    }
    crowd.everyone_talks("while all are down").await;
    sleep(40 * SECOND).await;
    for page in &crowd.pages {
        let tries = page.life().tries.len() - 1; // the first one came before the outage
        assert!(tries >= TRIES, "{}: {tries} tries", page.user);
    }
    for dyno in &mut dynos {
        dyno.restart().await;
    }
    crowd.lost_nothing(&redis, 20 * SECOND).await;
    let names = names(&crowd);
    check::names_are(&redis, "lobby", &names).await;
    for page in &crowd.pages {
        let listed = |life: &Life| life.users == names;
        page.until("everyone is listed", PATIENCE, listed).await;
    }
}

#[tokio::test]
async fn a_frozen_dyno_loses_its_names_and_cannot_talk_under_them() {
    let (a, b, redis) = pair().await;
    let (mut hanako, mut taro) = hanako_and_taro(&a, &b).await;
    let mut jiro = a.join("lobby", "jiro").await;
    taro.expect_members(&["hanako", "jiro", "taro"]).await;
    a.signal(Signal::SIGSTOP);
    taro.expect_members_within(&["taro"], 30 * SECOND).await;
    let mut other = b.join("lobby", "hanako").await; // the name is free
    sleep(2 * SECOND).await;
    // The dyno reads these two first when it continues.
    hanako.talk("I am hanako").await;
    jiro.talk("I am jiro").await;
    a.signal(Signal::SIGCONT);
    hanako.closed_after_all(4409).await;
    let refusals = hanako.frames("error");
    assert_eq!(refusals[0]["code"], "name_taken", "{refusals:?}");
    taro.expect_members(&["hanako", "jiro", "taro"]).await; // the dyno claimed jiro's name again, which was free
    jiro.say("still me").await;
    for client in [&mut taro, &mut other] {
        while client.expect_kind("talk").await["message"] != "still me" {}
        let talks = client.frames("talk");
        let spoke = talks.iter().any(|talk| talk["message"] == "I am hanako");
        assert!(!spoke, "the old owner spoke as the new one: {talks:?}");
    }
    check::names_are(&redis, "lobby", &["hanako", "jiro", "taro"]).await;
    check::saw_everything(&redis, &taro);
    check::saw_everything(&redis, &jiro);
}

#[tokio::test]
async fn a_thousand_pages_lose_nothing_when_their_dyno_is_killed_and_spread_their_reconnects() {
    const PAGES: usize = 1_000;
    let _turn = heavy(2).await;
    let _descriptors = descriptors(3_000).await;
    let (mut old, next, redis) = pair().await;
    let router = Router::to(&[old.addr()]);
    let mut crowds = vec![];
    for i in 0..10 {
        crowds.push(Crowd::gather(&router, &format!("room {i}"), PAGES / 10).await);
    }
    // The first pages joined when there were few connections. A tick tells them over how long a thousand spread.
    sleep(HEARTBEAT + SECOND).await;
    router.set(&[next.addr()]);
    for page in &crowds[0].pages {
        page.say("on its way"); // some of these are stored, but not acknowledged
    }
    let killed = Instant::now();
    old.kill().await;
    for crowd in &crowds {
        crowd.everyone_talks("on").await;
        crowd.lost_nothing(&redis, 12 * SECOND).await;
        crowd.saw_nobody_come_or_go();
    }
    let pages = || crowds.iter().flat_map(|crowd| &crowd.pages);
    let last_welcome = |page: &Page| page.life().welcomes.last().map(|welcome| welcome.0);
    let mut back: Vec<_> = pages().filter_map(last_welcome).collect();
    back.sort();
    let most_back = back[PAGES * 95 / 100].into_std() - killed;
    assert!(most_back <= 8 * SECOND, "95 % are back after {most_back:?}");
    let mut tries: Vec<u128> = vec![];
    for page in pages() {
        let after = |at: &tokio::time::Instant| at.saturating_duration_since(killed.into());
        tries.extend(page.life().tries.iter().map(|at| after(at).as_millis()));
    }
    tries.retain(|after| *after > 0);
    tries.sort();
    assert_eq!(tries.len(), PAGES, "each page needs one try");
    let bins = tries.chunk_by(|one, next| one / 100 == next / 100);
    let peak = bins.map(<[_]>::len).max();
    assert!(peak <= Some(60), "tries within 100 ms: {tries:?}");
}

// ---- Redis

#[tokio::test]
async fn a_crowd_talks_while_redis_is_restarted() {
    // Data survives the restart: Redis writes each message to disk before it answers.
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let (_dynos, crowd) = crowd_on_two_dynos(&redis, 20).await;
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
        is_told_of_outages(page, 2);
        let closes = page.life().closes.len();
        assert_eq!(closes, 0, "{} kept its connection", page.user);
    }
    sleep(RENEWAL + SECOND).await; // until the list of members was read again
    crowd.saw_nobody_come_or_go();
    assert_eq!(redis.clients().len(), 2, "{:#?}", redis.clients());
}

/// Every page has one `status down` and one `up` for each outage. There may be more outages than the test made: a busy
/// machine can take longer for a PING than a dyno waits for it.
fn is_told_of_outages(page: &Page, made: usize) {
    let (life, user) = (page.life(), &page.user);
    let status: Vec<&str> = life.status.iter().map(|s| s.1.as_str()).collect();
    let pairs: Vec<_> = status.chunks(2).collect();
    assert!(pairs.len() >= made, "{user}: {status:?}");
    let alternates = pairs.iter().all(|pair| *pair == ["down", "up"]);
    assert!(alternates, "{user}: {status:?}");
}

/// A crowd talks on a dyno with a proxy before its Redis and on one without, while the proxy does this for eight seconds.
async fn talk_while_the_proxy_does(flow: Flow) {
    let (redis, proxy, faulty, healthy) = two_dynos().await;
    let router = Router::to(&[faulty.addr(), healthy.addr()]);
    let crowd = Crowd::gather(&router, "lobby", 20).await;
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
        let is_healthy = page.life().welcomes[0].1 == healthy.addr();
        if is_healthy {
            let status = &page.life().status;
            assert!(status.is_empty(), "{} is healthy: {status:?}", page.user);
            continue;
        }
        affected += 1;
        is_told_of_outages(page, 1);
        let after = page.life().status[0].0.into_std() - since;
        let (limit, user) = (5 * SECOND + SECOND / 2, &page.user);
        assert!(after <= limit, "{user} got the status after {after:?}");
    }
    assert!(affected > 0, "some pages are on the faulty dyno");
}

#[tokio::test]
async fn a_redis_connection_that_swallows_everything_loses_nothing() {
    talk_while_the_proxy_does(Flow::Swallow).await;
}

#[tokio::test]
async fn commands_without_an_answer_store_no_message_twice() {
    talk_while_the_proxy_does(Flow::SwallowAnswers).await;
}

#[tokio::test]
async fn a_redis_connection_that_is_cut_and_refused_comes_back() {
    talk_while_the_proxy_does(Flow::Cut).await;
}

/// These clients answer no Ping, so each sends a Pong from time to time, or the dyno would close it for its silence.
async fn send_pongs(clients: &mut [Raw]) {
    for raw in clients {
        raw.send(raw::frame(raw::PONG, "")).await;
    }
}

#[tokio::test]
async fn a_dyno_follows_five_thousand_rooms_again_after_a_cut() {
    const ROOMS: usize = 5_000;
    let _turn = heavy(2).await;
    let _descriptors = descriptors(ROOMS as u32 + 200).await;
    let redis = Redis::start(&[]).await;
    let (dynos, crowd) = crowd_on_two_dynos(&redis, 10).await;
    let mut members = vec![];
    for first in (0..ROOMS).step_by(100) {
        let join = async |i| Raw::joined(&dynos[0], &format!("room {i}"), "hanako").await;
        members.extend(join_all((first..first + 100).map(join)).await);
    }
    let fault = async {
        for _ in 0..4 {
            sleep(3 * SECOND).await;
            assert!(redis.cut_all() >= 1);
        }
    };
    send_pongs(&mut members).await;
    tokio::join!(fault, crowd.chat(50, 14 * SECOND));
    send_pongs(&mut members).await;
    crowd.lost_nothing(&redis, 30 * SECOND).await;
    crowd.saw_nobody_come_or_go();
    send_pongs(&mut members).await;
    // A message from the other dyno arrives in each of these rooms.
    for i in (0..ROOMS).step_by(ROOMS / 50) {
        let mut taro = dynos[1].join(&format!("room {i}"), "taro").await;
        taro.say("can you hear me?").await;
        let mut frame = members[i].json().await;
        while frame["kind"] == "status" {
            frame = members[i].json().await;
        }
        assert_eq!(frame["message"], "can you hear me?", "room {i}: {frame}");
    }
}

#[tokio::test]
async fn a_full_redis_refuses_messages_and_nothing_else() {
    let (a, b, redis) = pair().await;
    let (mut hanako, mut taro) = hanako_and_taro(&a, &b).await;
    redis.cmd::<String>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.cmd::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
    let kept = cid();
    hanako.talk_as("kept", &kept).await;
    assert_eq!(hanako.expect_busy().await["cid"], json!(kept));
    // Reading, joining and leaving still work.
    let jiro = b.join("lobby", "jiro").await;
    assert_eq!(jiro.history(), ["before"]);
    hanako.expect_members(&["hanako", "jiro", "taro"]).await;
    jiro.quit().await;
    hanako.expect_members(&["hanako", "taro"]).await;
    sleep(LEASE + 2 * SECOND).await; // and so do renewals
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
    assert_eq!(hanako.frames("status"), [""; 0], "a full Redis is up");
    let siro = a.join("library", "siro").await; // a room that no dyno has followed yet
    siro.quit().await;
    cut_and_back(&redis, [&mut hanako, &mut taro]).await;
    redis.cmd::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
    hanako.talk_as("kept", &kept).await;
    hanako.hears("kept").await;
    taro.hears("kept").await;
    check::saw_everything(&redis, &taro);
}

#[tokio::test]
async fn a_deleted_last_id_is_a_gap_with_exactly_the_missed_messages() {
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let b = Dyno::start_on(&redis, &[]).await; // without a history of these rooms
    for (room, missed) in [("ten missed", 10), ("none missed", 0)] {
        let mut hanako = a.join(room, "hanako").await;
        hanako.say_many(60).await;
        let (token, last) = hanako.vanish().await;
        let mut taro = a.join(room, "taro").await;
        let texts: Vec<_> = (0..missed).map(|i| format!("missed {i}")).collect();
        for text in &texts {
            taro.say(text).await;
        }
        assert_eq!(redis.cmd::<u64>(&["XDEL", &stream_key(room), &last]), 1);
        let mut hanako = b.join_with(room, "hanako", &token, Some(&last)).await;
        assert_eq!(hanako.welcome["gap"], true, "{room}");
        let seen = Id::parse(&last);
        let new = hanako.ids().iter().all(|id| *id > seen);
        assert!(new, "{room}: {:?} after {last}", hanako.ids());
        assert_eq!(hanako.history(), texts, "{room}");
        hanako.say("after").await;
    }
}

#[tokio::test]
async fn a_key_of_another_type_closes_only_its_room() {
    let redis = Redis::start(&[]).await;
    redis.cmd::<String>(&["SET", "chat:{broken}", "a string"]);
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let mut taro = dyno.connect().await;
    let join = join_frame("broken", "taro", &token(), None);
    // This takes longer than the deadline for a join, which does not run while a client waits after `busy`.
    for _ in 0..3 {
        taro.send(join.clone()).await;
        taro.expect_error("busy").await;
        cut_and_back(&redis, [&mut hanako, &mut taro]).await; // in spite of that room
    }
    hanako.say("still here").await;
    redis.cmd::<u64>(&["DEL", "chat:{broken}"]);
    eventually("the room opens", 3 * PATIENCE, async || {
        taro.send(join.clone()).await; // the dyno reads the key again every five seconds
        let kinds = ["welcome", "error"];
        let answer = taro.expect_any_within(&kinds, PATIENCE).await;
        if answer["kind"] == "welcome" {
            return Ok(());
        }
        assert_eq!(answer["code"], "busy");
        sleep(SECOND).await;
        Err(answer)
    })
    .await;
    taro.say("after").await;
}

#[tokio::test]
async fn the_old_owner_of_a_lost_name_is_closed_and_the_new_one_stays() {
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let (mut first, mut taro) = hanako_and_taro(&dyno, &dyno).await;
    // As if the dyno had not renewed for longer than a lease. A renewal in between claims the name again: then once more.
    let mut second = loop {
        redis.cmd::<u64>(&["DEL", &names_key("lobby"), &owners_key("lobby")]);
        let mut second = dyno.connect().await;
        let join = join_frame("lobby", "hanako", &token(), None);
        second.send(join).await;
        let kinds = ["welcome", "error"];
        let answer = second.expect_any_within(&kinds, PATIENCE).await;
        if answer["kind"] == "welcome" {
            break second;
        }
        assert_eq!(answer["code"], "name_taken");
    };
    first.closed_after_all(4409).await;
    sleep(6 * SECOND).await; // a renewal later
    second.say("mine now").await;
    taro.hears("mine now").await;
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
}

#[tokio::test]
async fn a_redis_that_is_still_loading_is_not_an_empty_one() {
    // Half a millisecond per key, six thousand keys; Redis answers LOADING meanwhile.
    let slow =
        "--key-load-delay 500 --loading-process-events-interval-bytes 1024 --dbfilename dump.rdb";
    let mut redis = Redis::start(&slow.split(' ').collect::<Vec<_>>()).await;
    let fill = "for i = 1, 6000 do redis.call('SET', 'filler:' .. i, i) end";
    redis.cmd::<redis::Value>(&["EVAL", fill, "0"]);
    let (_dynos, crowd) = crowd_on_two_dynos(&redis, 10).await;
    crowd.everyone_talks("before").await;
    crowd.lost_nothing(&redis, PATIENCE).await;
    redis.cmd::<String>(&["SAVE"]);
    redis.stop().await;
    let fault = async {
        let start = Instant::now();
        redis.restart().await;
        start.elapsed()
    };
    let (loading, ()) = tokio::join!(fault, crowd.chat(20, 8 * SECOND));
    assert!(loading > 2 * SECOND, "it was only loading for {loading:?}");
    crowd.lost_nothing(&redis, PATIENCE).await; // also: no page got a gap
    sleep(4 * SECOND).await;
    check::names_are(&redis, "lobby", &names(&crowd)).await;
}

#[tokio::test]
async fn garbage_in_channel_and_stream_does_no_harm() {
    let (a, b, redis) = pair().await;
    let (mut hanako, mut taro) = hanako_and_taro(&a, &b).await;
    let lines = a.log().lines().count();
    let real = hanako.say("a real one").await;
    taro.hears("a real one").await;
    let mut changed = real.clone();
    changed["id"] = json!("99999999999999-0");
    changed["message"] = json!(5);
    let (huge, fake) = ("x".repeat(200_000), "\u{1b}[31m\r\nFAKE line=1");
    let (real, changed) = (real.to_string(), changed.to_string());
    let texts = [&*huge, fake, &real, &changed, "99999999999999-0 {}"];
    let garbage = [&texts[..], &["", "hello", "{}", "[]", "null"]].concat();
    for text in &garbage {
        let listeners: u64 = redis.cmd(&["PUBLISH", &channel("lobby", 0), text]);
        assert_eq!(listeners, 2, "both dynos listen");
        redis.cmd::<u64>(&["PUBLISH", &channel("nowhere", 0), text]);
    }
    hanako.say("still here").await;
    taro.hears("still here").await; // and nothing before it
    let log = a.log();
    let new: Vec<&str> = log.lines().skip(lines).collect();
    let once = (1..=garbage.len()).contains(&new.len());
    assert!(once, "logged once, not again and again: {new:#?}");
    let short = new.iter().all(|line| line.len() < 500);
    assert!(short, "without quoting it: {new:#?}");
    let forged = log.contains('\u{1b}') || log.contains("\nFAKE");
    assert!(!forged, "a log line stays one line: {new:#?}");
    // The same in the stream itself, which the rooms read when they follow it again.
    for fields in [
        &["nonsense", "1"][..],
        &["", ""],
        &["a", "1", "b", "2"],
        &["m", "{}", "n", "{}", "o", "{}"],
        &["m", "not JSON"],
    ] {
        redis.cmd::<String>(&[&["XADD", &stream_key("lobby"), "*"], fields].concat());
    }
    cut_and_back(&redis, [&mut hanako, &mut taro]).await;
    hanako.say("after").await;
    taro.hears("after").await;
    let third = Dyno::start_on(&redis, &[]).await;
    let texts = ["before", "a real one", "still here", "after"];
    let siro = a.join("lobby", "siro").await;
    assert_eq!(siro.history(), texts);
    let mut jiro = third.join("lobby", "jiro").await;
    assert_eq!(jiro.history(), texts);
    jiro.say("and I").await;
    taro.hears("and I").await;
    let back = jiro.reconnect(&third).await;
    back.welcomed_with(json!({"history": [], "gap": false}));
}

// ---- rooms

#[tokio::test]
async fn no_message_is_lost_between_history_and_live_on_a_new_dyno() {
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut talkers = vec![a.join("lobby", "a").await, a.join("lobby", "b").await];
    let done = Cell::new(false);
    let watch = async {
        for round in 0..15 {
            let new = Dyno::start_on(&redis, &[]).await;
            let join = async |i| new.join("lobby", &format!("n{round} {i}")).await;
            let clients = join_all((0..10).map(join)).await;
            for client in &clients {
                let several = async || client.frames("talk").len() > 15;
                check::becomes("several messages came", PATIENCE, true, several).await;
                check::saw_everything_so_far(&redis, client);
            }
        }
        done.set(true);
    };
    tokio::join!(talk_until(&done, &mut talkers), watch);
}

#[tokio::test]
async fn a_room_stays_subscribed_when_its_last_member_leaves_while_another_joins() {
    const ROOMS: usize = 8;
    const ROUNDS: usize = 40;
    let (a, b, _redis) = pair().await;
    let rounds = async |room: usize| {
        let name = format!("room {room}");
        let mut speaker = b.join(&name, "speaker").await;
        let mut last = a.join(&name, "n0").await;
        let mut rounds = 0;
        let start = Instant::now();
        // A dyno removes empty rooms every five seconds: this is long enough to meet that a few times.
        while start.elapsed() < 16 * SECOND || rounds < ROUNDS {
            rounds += 1;
            let leaves = last.quit();
            let joins = async {
                sleep(Duration::from_millis(fastrand::u64(0..10))).await;
                a.join(&name, &format!("n{rounds}")).await
            };
            let ((), mut next) = tokio::join!(leaves, joins);
            let text = format!("round {rounds}");
            speaker.say(&text).await;
            next.hears(&text).await;
            last = next;
            if rounds % 20 == 0 {
                sleep(Duration::from_millis(fastrand::u64(0..300))).await;
            }
        }
    };
    join_all((0..ROOMS).map(rounds)).await;
}
