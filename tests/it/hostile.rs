//! Abuse tests: a dyno is attacked while a normal conversation runs, which must not be slowed down. Each prints the
//! dyno's memory: before, the maximum, and after. This file also proves the answer to broken frames and to floods;
//! `http.rs` and `protocol.rs` prove the answer to all other bad input.

mod abuse;

use super::properties::{mutated_head, one_of};
use crate::dynos::cut_and_back;
use crate::support::broken_frames::{broken_frames, ping_of_length};
use crate::support::check::{Base, becomes};
use crate::support::prelude::*;
use crate::support::proxy::narrow_socket;
use crate::support::raw::{CLOSE, End, PING, PONG, TEXT, close_payload, fragment, frame};
use abuse::{AbuseTest, BYSTANDERS, attack, cpu};
use sha1_smol::Sha1;
use std::net::SocketAddr;
use std::process::Command;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

// ---- bad input, many times

#[tokio::test]
async fn broken_frames_and_bad_messages_end_the_connection_they_came_on() {
    let rows = broken_frames().len();
    // Ten rounds; every other one joins first.
    attack("broken frames", 10 * rows, 10_000, async |dyno, n| {
        let (what, code, bytes) = broken_frames().swap_remove(n % rows);
        let mut raw = match n / rows % 2 {
            0 => Raw::websocket(dyno).await,
            _ => Raw::joined(dyno, &format!("room {}", n % 9), &format!("n{n}")).await,
        };
        raw.send(bytes).await;
        // Unread bytes must not turn the Close into a reset.
        let more = frame(TEXT, ping_of_length(30)).repeat(fastrand::usize(..999));
        raw.send(more).await;
        let (seen, reason) = raw.closed(PATIENCE).await; // also checks that a FIN follows
        assert_eq!(seen, code, "{what}, closed with {reason}");
    })
    .await;
}

#[tokio::test]
async fn malformed_request_heads_are_answered_or_closed() {
    attack("malformed request heads", 2_000, 10_000, async |dyno, _| {
        let bytes = one_of(mutated_head());
        let mut raw = Raw::request(dyno.addr(), &bytes).await;
        raw.finish().await; // then the dyno does not wait for the rest of an incomplete head
        let (answer, end) = raw.rest(PATIENCE).await;
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!(end, End::Eof, "{shown:?}");
        let status = answer.get(9..12).map(String::from_utf8_lossy);
        let allowed = "101 200 308 400 403 404 405 426 431";
        let allowed = |status: &str| allowed.split(' ').any(|one| one == status);
        let known = status.as_deref().is_none_or(allowed);
        assert!(known, "{status:?} for {shown:?}");
        let second = answer.windows(9).any(|w| w == b"\nHTTP/1.1");
        assert!(!second, "two answers to {shown:?}");
    })
    .await;
}

// ---- too much of something

#[tokio::test]
async fn a_flood_of_frames_closes_its_connection() {
    let json = |json: Value| frame(TEXT, json.to_string());
    let talk = |text: &str| json(json!({"kind": "talk", "message": text, "cid": cid()}));
    let talks = (0..10_000).flat_map(|n| talk(&format!("flood {n}")));
    let ping_in_a_message = [fragment("", false, false), frame(PING, "")].concat();
    let endless = [fragment("x", true, false), ping_in_a_message.repeat(10_000)].concat();
    let floods: [(&str, Vec<u8>); 7] = [
        ("messages", talks.collect()),
        ("messages too long", talk(&"x".repeat(1_001)).repeat(5_000)),
        ("pings", json(json!({"kind": "ping"})).repeat(10_000)),
        ("Ping frames", frame(PING, [7; 125]).repeat(10_000)),
        ("Pong frames", frame(PONG, "").repeat(10_000)),
        ("Ping frames in an endless message", endless),
        ("empty messages", talk("").repeat(10_000)),
    ];
    let cases = 10 * floods.len();
    attack("floods of frames", cases, 15_000, async |dyno, n| {
        let (what, flood) = &floods[n % floods.len()];
        let mut raw = Raw::joined(dyno, &format!("room {}", n % 10), &format!("n{n}")).await;
        raw.send(flood).await;
        assert_eq!(raw.closed(3 * PATIENCE).await.0, 4429, "{what}");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_on_sending_after_a_refusal_is_cut_off() {
    attack("endless senders", 12, 10_000, async |dyno, n| {
        let upgrade = raw::upgrade_head(&dyno.host(), &[]).into_bytes();
        let first = match n % 2 {
            0 => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            _ => [upgrade, raw::claimed_length(1 << 40)].concat(),
        };
        let mut socket = TcpStream::connect(dyno.addr()).await.expect("a socket");
        socket.write_all(&first).await.expect("the first bytes");
        // It reads nothing, and sends until the server ends the connection.
        let endless = async { while socket.write_all(&[b'x'; 1 << 16]).await.is_ok() {} };
        timeout(8 * SECOND, endless).await.expect("it is cut off");
    })
    .await;
}

#[tokio::test]
async fn joins_under_new_names_slow_nobody_down_and_leave_no_names() {
    let turn = heavy(2).await;
    let redis = Redis::start(&[]).await;
    let test = AbuseTest::start_on(Dyno::start_on(&redis, &[]).await).await;
    let joins = test.run_cases(2_000, async |dyno, n| {
        match n % 4 {
            0 => return dyno.join_refused("x", "😀", &token(), "bad_name").await,
            1 => return dyno.join_refused("{}", "x", &token(), "bad_room").await,
            _ => {}
        }
        let mut raw = Raw::joined(dyno, "station", &format!("passenger {n}")).await;
        if n % 4 == 2 {
            raw.send_json(json!({"kind": "quit"})).await;
            assert_eq!(raw.closed(PATIENCE).await.0, 1000);
        }
    });
    let cases = joins.await;
    drop(turn); // the rest is waiting until the leases end
    let what = "names in the room";
    let names = async || redis.cmd::<usize>(&["HLEN", &owners_key("station")]);
    becomes(what, 2 * LEASE, 0, names).await;
    let what = "joins and refused joins under new names";
    test.finish(what, cases, PATIENCE, 10_000).await;
}

// ---- slow clients, and too many of them

#[tokio::test]
async fn slow_requests_and_slow_readers_end_at_their_deadline() {
    const EACH: usize = 100;
    let _descriptors = descriptors(1_000).await;
    let test = AbuseTest::start(&[]).await;
    let addr = test.dyno.addr();
    // The attacks of slowhttptest -H, -B and -X. Each sends until just before the deadline.
    let almost = JOIN_DEADLINE - SECOND;
    let trickle = async |raw: &mut Raw, bytes: &str, begin: Instant| {
        while begin.elapsed() < almost {
            raw.send(bytes).await;
            sleep(SECOND).await;
        }
    };
    let heads = [
        ("", ""), // browsers connect in advance
        ("GET / HTTP/1.1\r\nHost: a\r\n", ""),
        ("GET / HTTP/1.1\r\nHost: a\r\n", "X-a: b\r\n"),
        ("GET /", "x"),
    ];
    let head = async |n: usize| {
        let (start, more) = heads[n % heads.len()];
        let begin = Instant::now();
        let mut raw = Raw::request(addr, start).await;
        trickle(&mut raw, more, begin).await;
        if start.is_empty() {
            assert_eq!(raw.rest(PATIENCE).await, (vec![], End::Eof));
        } else {
            assert_eq!(raw.answer().await.status, 408, "{start:?}, {more:?}");
        }
        let took = begin.elapsed();
        let expected = almost..JOIN_DEADLINE + 3 * SECOND;
        assert!(expected.contains(&took), "{start:?}, {more:?}: {took:?}");
    };
    let expecting = ["Content-Length: 8192", "Expect: 100-continue"];
    let post = raw::head("POST /", "a", &expecting) + "foo=";
    let body = async || {
        let begin = Instant::now();
        let mut raw = Raw::request(addr, &post).await;
        assert_eq!(raw.answer().await.status, 405, "before the whole body");
        trickle(&mut raw, "b", begin).await; // the dyno has closed this connection
    };
    let reader = async || {
        let mut raw = Raw::over(narrow_socket(addr, 1_024).await);
        raw.send(raw::head("GET /chat.js", "a", &[])).await;
        sleep(almost).await;
        raw
    };
    let attackers = (0..EACH).map(async |n| tokio::join!(head(n), body(), reader()).2);
    let readers: Vec<Raw> = join_all(attackers).await;
    // The slow readers have not closed their sockets; the dyno has.
    let what = "slow heads, bodies and readers";
    test.finish(what, 3 * EACH, PATIENCE, 10_000).await;
    drop(readers);
}

#[tokio::test]
async fn a_full_dyno_refuses_newcomers_and_serves_its_members() {
    const MAX: usize = BYSTANDERS + 20;
    const SILENT: usize = 64; // the dyno allows this many sockets beside the WebSockets
    let test = AbuseTest::start(&[("MAX_CONNECTIONS", &MAX.to_string())]).await;
    let dyno = &test.dyno;
    dyno.health_becomes("connections", BYSTANDERS).await;
    let mut members = vec![];
    for n in 0..MAX - BYSTANDERS {
        members.push(dyno.join("lobby", &format!("n{n}")).await);
    }
    let full = Base::of(dyno).await;
    let newcomer = async |dyno: &Dyno, _| {
        let mut late = dyno.connect().await;
        late.expect_error("busy").await;
        late.expect_close(1013).await;
    };
    let cases = test.run_cases(100, newcomer).await;
    full.is_back(dyno, PATIENCE, 10_000).await; // the sockets of the refused ones are closed
    // Incomplete requests take all sockets that are left, until the deadline for a head.
    let begin = Instant::now();
    let mut silent = vec![];
    let fds = dyno.fds();
    for _ in 0..SILENT {
        silent.push(Raw::request(dyno.addr(), "GET /ws HTTP/1.1\r\n").await);
    }
    let what = "the requests have sockets";
    becomes(what, PATIENCE, true, async || dyno.fds() >= fds + SILENT).await;
    let mut refused = 0;
    for _ in 0..50 {
        let mut raw = Raw::request(dyno.addr(), raw::upgrade_head("a", &[])).await;
        let (answer, _) = raw.rest(PATIENCE).await; // the dyno does not linger, so a reset may follow
        let is_503 = answer.starts_with(b"HTTP/1.1 503 ");
        refused += usize::from(is_503 && answer.ends_with(b"again in a moment.\n"));
    }
    assert!(refused >= 45, "{refused} of 50 get a reason");
    let took = begin.elapsed();
    let still_there = took < JOIN_DEADLINE - SECOND;
    assert!(still_there, "the incomplete requests end after {took:?}");
    for raw in &mut silent {
        let status = raw.answer_to("GET", JOIN_DEADLINE + PATIENCE).await.status;
        assert_eq!(status, 408);
    }
    let page = raw::head("GET /", "a", &[]);
    let what = "the page is served again";
    becomes(what, PATIENCE, (true, End::Eof), async || {
        let mut raw = Raw::request(dyno.addr(), &page).await;
        let (answer, end) = raw.rest(PATIENCE).await;
        (answer.starts_with(b"HTTP/1.1 200 "), end)
    })
    .await;
    members.pop().expect("a member").quit().await;
    let joins = async || Raw::asked_to_join(dyno, "lobby", "次郎").await.1["kind"] == "welcome";
    becomes("a place is free again", PATIENCE, true, joins).await;
    for member in members {
        member.quit().await;
    }
    let (what, cases) = ("connections beyond the limit", cases + SILENT + 50);
    test.finish(what, cases, PATIENCE, 10_000).await;
}

/// Sets the limit of open files of a running dyno, as `ulimit -n` does before a start.
fn limit_descriptors(dyno: &Dyno, limit: usize) {
    let (pid, limit) = (format!("--pid={}", dyno.pid()), format!("--nofile={limit}"));
    let limited = Command::new("prlimit").args([pid, limit]).status();
    assert!(limited.expect("util-linux is there").success());
}

#[tokio::test]
async fn without_free_descriptors_the_listener_waits_and_recovers() {
    let test = AbuseTest::start(&[]).await;
    let dyno = &test.dyno;
    limit_descriptors(dyno, dyno.fds() + 10);
    let (lines, used) = (dyno.log().lines().count(), cpu(dyno));
    let begin = Instant::now();
    let mut waiting = vec![];
    for _ in 0..100 {
        waiting.push(Raw::request(dyno.addr(), "GET / HTTP/1.1\r\n").await); // into the accept backlog
    }
    sleep(4 * SECOND).await; // time in which a busy loop would show in the log and in processor time
    test.bystanders_have_talked().await;
    let log = dyno.log();
    let new: Vec<&str> = log.lines().skip(lines).collect();
    let failed = new.iter().any(|line| line.contains("accept=failed"));
    assert!(failed, "no descriptor was left: {log}");
    assert!(new.len() <= 5, "logged again and again: {new:?}");
    let (used, waited) = (cpu(dyno) - used, begin.elapsed());
    assert!(used < waited / 2, "{used:?} of a processor in {waited:?}");
    drop(waiting);
    let begin = Instant::now();
    dyno.join("lobby", "花子").await.quit().await;
    let again = begin.elapsed();
    println!("measured: no descriptors: {used:.1?} of CPU in {waited:.1?}, open after {again:.1?}");
    let what = "connections without descriptors";
    test.finish(what, 100, PATIENCE, 10_000).await;
}

// ---- the worst case of memory

/// Joins over a socket with a small receive buffer, and reads nothing.
async fn stuck_reader(addr: SocketAddr, room: &str, user: &str) -> Raw {
    let mut raw = Raw::over(narrow_socket(addr, 1_024).await);
    let upgrade = raw::upgrade_head(&addr.to_string(), &[]).into_bytes();
    let join = frame(TEXT, join_frame(room, user, &token(), None).to_string());
    raw.send([upgrade, join].concat()).await;
    raw
}

#[tokio::test]
async fn memory_of_a_room_with_a_stuck_reader_is_bounded() {
    const ROOMS: usize = 30;
    // An outbox and a write that exceeds it; the room's history; the reader, the tasks and the allocator.
    const WORST_KB: u64 = 256 + 16 + 128 + 64;
    let turn = heavy(2).await;
    let test = AbuseTest::start(&[TALKATIVE]).await;
    let dyno = &test.dyno;
    let before = dyno.peak_kb();
    let mut stuck = vec![];
    for n in 0..ROOMS {
        let room = format!("room {n}");
        let mut talker = dyno.join(&room, "talker").await;
        stuck.push(stuck_reader(dyno.addr(), &room, "stuck").await);
        talker.expect_members(&["stuck", "talker"]).await;
        for _ in 0..100 {
            talker.say(&"😀".repeat(1_000)).await; // in all 400 KB: the outbox, and what the kernel buffers
        }
    }
    drop(turn); // the rest is waiting
    let each = (dyno.peak_kb() - before) / ROOMS as u64;
    println!("measured: a room with a full history and a full outbox takes {each} kB");
    assert!(each <= WORST_KB, "{each} kB for each room, of {WORST_KB}");
    let what = "rooms with a stuck reader";
    test.finish(what, ROOMS, 3 * PATIENCE, 20_000).await;
    drop(stuck);
}

/// A test, somebody in the lobby, whose history is full, and the dyno's peak of memory.
async fn full_lobby() -> (AbuseTest, Client, u64) {
    let test = AbuseTest::start(&[TALKATIVE]).await;
    let mut talker = test.dyno.join("lobby", "talker").await;
    for _ in 0..40 {
        talker.say(&"😀".repeat(1_000)).await;
    }
    let before = test.dyno.peak_kb();
    (test, talker, before)
}

#[tokio::test]
async fn unread_welcomes_share_the_history_and_end_with_4008() {
    const READERS: usize = 1_000; // they join well within the 20 s after which the first is dropped
    // The list of members and the other fields of the welcome; the reader, the tasks and the allocator.
    const EACH_KB: u64 = 16;
    let turn = heavy(2).await;
    let _descriptors = descriptors(2 * READERS as u32 + 100).await;
    let (test, talker, before) = full_lobby().await;
    let dyno = &test.dyno;
    let mut grown = vec![];
    for round in ["once", "again"] {
        let mut stuck = vec![];
        for n in 0..READERS {
            stuck.push(stuck_reader(dyno.addr(), "lobby", &format!("{round} {n}")).await);
        }
        let all = BYSTANDERS + 1 + READERS;
        dyno.health_becomes("connections", all).await;
        // When the memory has stopped growing, the outboxes hold all that the dyno sends.
        let mut last = 0;
        while dyno.rss_kb() > last + 500 {
            last = dyno.rss_kb();
            sleep(SECOND).await;
        }
        grown.push(dyno.peak_kb() - before);
        sleep(WRITE_DEADLINE + 3 * SECOND).await;
        let closes = stuck.iter_mut().rev().take(20).map(async |raw| {
            raw.switched().await;
            raw.closed(PATIENCE).await // the welcome before it is whole
        });
        for close in join_all(closes).await {
            assert_eq!(close, (4008, "too_slow".into()));
        }
        sleep(WRITE_DEADLINE).await; // until those who do not even read the Close are dropped
        dyno.health_becomes("connections", BYSTANDERS + 1).await;
    }
    drop(turn); // the rest is waiting
    talker.quit().await;
    println!("measured: {READERS} unread welcomes of a full room take {grown:?} kB");
    let most = READERS as u64 * EACH_KB;
    assert!(grown[0] <= most, "{grown:?} kB, of {most}");
    let used_again = grown[1] <= grown[0] + grown[0] / 2;
    assert!(used_again, "the memory of the first round: {grown:?} kB");
    let what = "unread welcomes";
    test.finish(what, 2 * READERS, PATIENCE, most).await;
}

#[tokio::test]
async fn what_all_outboxes_hold_together_is_bounded() {
    const READERS: usize = 1_500;
    const ALL_KB: u64 = 64 * 1024;
    // The reader, the tasks and the allocator.
    const EACH_KB: u64 = 16;
    let turn = heavy(2).await;
    let _descriptors = descriptors(2 * READERS as u32 + 100).await;
    let (test, mut talker, before) = full_lobby().await;
    let dyno = &test.dyno;
    let mut stuck = vec![];
    for n in 0..READERS {
        stuck.push(stuck_reader(dyno.addr(), "lobby", &format!("n{n}")).await);
        talker.say(&"😀".repeat(1_000)).await; // the next welcome shares no bytes with this one
    }
    let grown = dyno.peak_kb() - before;
    println!("measured: {READERS} unread welcomes that share nothing take {grown} kB");
    let most = ALL_KB + READERS as u64 * EACH_KB;
    assert!(grown <= most, "{grown} kB, of {most}");
    let log = dyno.log();
    assert!(log.contains("outboxes=full"), "{log}");
    drop(turn); // the rest is waiting
    talker.say("still here").await;
    talker.quit().await;
    let what = "unread welcomes that share nothing";
    test.finish(what, READERS, 3 * PATIENCE, most).await;
    drop(stuck);
}

// ---- a Redis in which another program writes

/// Runs a script in Redis, as another program that has the password can do.
fn tamper(redis: &Redis, script: &str) {
    redis.cmd::<()>(&["EVAL", script, "0"]);
}

#[tokio::test]
async fn an_invalid_list_of_names_in_redis_harms_no_room() {
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let mut taro = dyno.join("elsewhere", "taro").await;
    let (owners, channel) = (owners_key("lobby"), channel("lobby", 0));
    for (folded, shown) in [
        ("'\\255\\254'", "'x'"),
        ("'short'", "'short'"),
        ("'binary'", "owner .. '\\255\\0'"),
        ("'<img src=x>'", "owner .. '<img src=x>'"),
        ("'other'", "owner .. 'not the same'"),
        ("'long'", "owner .. string.rep('x', 1000000)"),
    ] {
        let set = format!("redis.call('HSET', '{owners}', {folded}, {shown})");
        let publish = format!("redis.call('PUBLISH', '{channel}', 'names')");
        let script = format!("local owner = string.rep('a', 40) {set} {publish}");
        tamper(&redis, &script);
        sleep(2 * SECOND).await; // the dyno reads the list
        cut_and_back(&redis, [&mut hanako, &mut taro]).await; // and then it reads everything again
        hanako.say(folded).await;
        taro.say(folded).await;
    }
    let mut jiro = dyno.join("lobby", "jiro").await;
    jiro.say("who is here?").await;
    hanako.hears("who is here?").await;
    for client in [&mut hanako, &mut jiro] {
        client.expect_members(&["hanako", "jiro"]).await;
    }
}

#[tokio::test]
async fn a_stream_full_of_garbage_is_a_gap_and_harms_nobody() {
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let before = hanako.say("before").await;
    // The script publishes nothing, so the dyno finds the entries when it reads the room again.
    tamper(
        &redis,
        "redis.call('XADD', 'chat:{lobby}', '*', 'm', string.rep('x', 200000))
        for _ = 1, 2500 do redis.call('XADD', 'chat:{lobby}', '*', 'x', 'y') end
        redis.call('XADD', 'chat:{lobby}', '*', 'm', '{\"user\":\"taro\",\"message\":\"late\",\"cid\":\"c\"}')",
    );
    cut_and_back(&redis, [&mut hanako]).await;
    assert_eq!(hanako.expect_close(1012).await, "resume");
    let (token, last) = (hanako.token.clone(), before["id"].as_str());
    let mut hanako = dyno.join_with("lobby", "hanako", &token, last).await;
    hanako.welcomed_with(json!({"gap": true}));
    assert_eq!(hanako.history(), ["late"]);
    hanako.say("after").await;
}

#[tokio::test]
async fn oversized_entries_with_short_messages_do_not_stay_in_memory() {
    const ENTRIES: u64 = 60;
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let before = dyno.rss_kb();
    let channel = channel("lobby", 0);
    for n in 1..=ENTRIES {
        let begin = format!("{n}-1 {{\"user\":\"taro\",\"message\":\"{n}\",\"cid\":\"c\",\"x\":\"");
        let entry = format!("'{begin}' .. string.rep('x', 900000) .. '\"}}'");
        let script = format!("redis.call('PUBLISH', '{channel}', {entry})");
        tamper(&redis, &script);
        hanako.hears(&n.to_string()).await;
    }
    let grown = dyno.rss_kb() - before;
    println!("measured: {ENTRIES} entries of 900 kB in a room's history take {grown} kB");
    assert!(grown < ENTRIES * 900 / 2, "{grown} kB");
}

#[tokio::test]
async fn redis_holds_no_token_and_only_a_checked_room_name_becomes_part_of_a_key() {
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut known = vec![];
    for (asked, room) in [
        ("Lobby", "lobby"),
        ("a.b-c_d", "a.b-c_d"),
        ("部屋　1", "部屋 1"),
    ] {
        let mut client = dyno.join(asked, "Ｔａｒｏ").await;
        client.talk_as("a}:names", "cid-of-mine").await;
        let said = client.hears("a}:names").await;
        let owner = Sha1::from(&client.token).digest().to_string();
        let cid_key = format!("{}:cid:{owner}:cid-of-mine", stream_key(room));
        assert_eq!(redis.cmd::<String>(&["GET", &cid_key]), said["id"]);
        let owners: Vec<String> = redis.cmd(&["HGETALL", &owners_key(room)]);
        assert_eq!(owners, ["taro", &(owner + "Ｔａｒｏ")], "{room}");
        let names: Vec<String> = redis.cmd(&["ZRANGE", &names_key(room), "0", "-1"]);
        assert_eq!(names, ["taro"], "{room}");
        let stream: Vec<(String, [String; 2])> =
            redis.cmd(&["XRANGE", &stream_key(room), "-", "+"]);
        let body: Value = serde_json::from_str(&stream[0].1[1]).expect("JSON");
        let talk = json!({"user": "Ｔａｒｏ", "message": "a}:names", "cid": "cid-of-mine"});
        assert_eq!((stream.len(), body), (1, talk), "{room}");
        known.extend([cid_key, owners_key(room), names_key(room), stream_key(room)]);
    }
    for room in ["a}:names", "a{b", "*", "chat:{lobby}"] {
        dyno.join_refused(room, "x", &token(), "bad_room").await;
    }
    let mut keys: Vec<String> = redis.cmd(&["KEYS", "*"]);
    keys.retain(|key| !key.starts_with("chat:{!}")); // of the readiness check, for a second
    keys.sort();
    known.sort();
    assert_eq!(keys, known);
}

// ---- the log

#[tokio::test]
async fn input_cannot_forge_a_line_of_the_log() {
    let dyno = Dyno::start(&[("RUST_LOG", "debug")]).await;
    let evil = "x\r\nWARN  [dynochat] forged=1\u{1b}[31m";
    for head in [
        format!("GET /{evil} HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw::head("GET /\u{202e}forged", "a", &["User-Agent: forged"]),
        raw::head("GET /?token=forged", "a", &["X-Request-Id: forged\u{85}"]),
        raw::head("GET /", "forged.example", &["X-Forwarded-Proto: http"]),
    ] {
        raw::http(dyno.addr(), &head).await;
    }
    for (name, code, reason) in [("花子", 1000, evil), ("太郎", 4999, "\u{2028}\u{7f}\u{9b}")] {
        let mut raw = Raw::joined(&dyno, "lobby", name).await;
        let close = close_payload(code, reason.as_bytes());
        raw.send(frame(CLOSE, close)).await;
        raw.closed(PATIENCE).await;
        sleep(SECOND / 10).await;
    }
    for text in [
        evil,
        "{\"kind\":\"forged\"}",
        "{\"kind\":\"join\",\"room\":\"a\\nb\",\"user\":\"\\u001b[31m\"}",
    ] {
        let mut client = dyno.connect().await;
        client.send_text(text).await;
        client.expect_kind("error").await;
    }
    let log = dyno.log();
    for line in log.lines() {
        let level = line.split_whitespace().next().unwrap_or_default();
        assert!(["DEBUG", "INFO", "WARN"].contains(&level), "{log}");
        assert!(!line.starts_with("WARN  [dynochat] forged"), "{log}");
        let unsafe_char = |c: char| c.is_control() || c == '\u{202e}' || c == '\u{2028}';
        assert!(!line.contains(unsafe_char), "{log}");
    }
}
