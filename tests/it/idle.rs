//! Tests of idle connections: memory of ten thousand of them, and the idle timeout of the platform's router.

use crate::support::check::{Base, leases};
use crate::support::prelude::*;
use crate::support::raw::End;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::accept_async;

const CONNECTIONS: usize = 10_000;
/// Members of each room.
const ROOM: usize = 100;
const LIMIT_KB: u64 = 60_000;
/// Memory in kB that a dyno may use to ask all connections to move.
const MOVE_KB: u64 = 5_000;
/// Time between two frames of the server: a heartbeat, and a margin for a busy machine.
const LONGEST_PAUSE: Duration = Duration::from_secs(HEARTBEAT.as_secs() + 15);

async fn joined(dyno: SocketAddr, number: usize, token: &str) -> Raw {
    let (room, user) = (number / ROOM, number % ROOM);
    let (room, user) = (format!("room {room}"), format!("n{user}"));
    let join = join_frame(&room, &user, token, None).to_string();
    let upgrade = raw::upgrade_head(&dyno.to_string(), &[]).into_bytes();
    let mut raw = Raw::request(dyno, [upgrade, raw::frame(raw::TEXT, join)].concat()).await;
    raw.switched().await;
    let welcome = raw.json().await;
    assert_eq!(welcome["kind"], "welcome", "number {number}: {welcome}");
    raw
}

/// Answers each Ping until a text frame begins like this, or for ever. Counts this connection after its second Ping.
async fn answer_pings(raw: &mut Raw, until: Option<&str>, answered_two: &AtomicUsize) {
    let mut pings = 0;
    loop {
        let (opcode, payload) = raw.frame(LONGEST_PAUSE).await.expect("a frame");
        let text = String::from_utf8_lossy(&payload);
        assert_ne!(opcode, raw::CLOSE, "the dyno closes nobody: {text}");
        if opcode == raw::PING {
            raw.send(raw::frame(raw::PONG, payload)).await;
            pings += 1;
            answered_two.fetch_add(usize::from(pings == 2), Relaxed);
        } else if until.is_some_and(|start| text.starts_with(start)) {
            return;
        }
    }
}

/// Waits for `move`, joins on `next` with the same token, and closes the first connection. Gives the second one.
async fn moved(mut raw: Raw, next: SocketAddr, number: usize, token: String) -> Raw {
    answer_pings(&mut raw, Some(r#"{"kind":"move"}"#), &AtomicUsize::new(0)).await;
    let second = joined(next, number, &token).await;
    let close = raw::close_payload(1000, b"");
    raw.send(raw::frame(raw::CLOSE, close)).await;
    assert_eq!(raw.closed(PATIENCE).await.0, 1000);
    second
}

#[tokio::test]
async fn ten_thousand_members_move_in_seconds_and_then_idle_in_sixty_megabytes() {
    let turn = heavy(2).await;
    let _descriptors = descriptors(CONNECTIONS as u32 + 3_000).await;
    let redis = Redis::start(&[]).await;
    // On a busy machine the clients of this test need longer than the default.
    let mut old = Dyno::start_on(&redis, &[("GRACE_SECONDS", "300")]).await;
    let new = Dyno::start_on(&redis, &[]).await;
    let all_are_listed = || {
        let listed = leases(&redis, "room 7").len();
        assert_eq!(listed, ROOM, "names with a lease in one of the rooms");
    };
    let base = Base::of(&new).await;
    let start = Instant::now();
    let mut moving = JoinSet::new();
    for room in 0..CONNECTIONS / ROOM {
        let everyone = (0..ROOM).map(async |i| {
            let (number, token) = (room * ROOM + i, token());
            (joined(old.addr(), number, &token).await, number, token)
        });
        for (raw, number, token) in join_all(everyone).await {
            moving.spawn(moved(raw, new.addr(), number, token));
        }
    }
    let joining = start.elapsed();
    let (before, mut highest) = (old.rss_kb(), 0);
    let stopped = Instant::now();
    old.signal(Signal::SIGTERM);
    while stopped.elapsed() < 5 * SECOND / 2 {
        highest = highest.max(old.rss_kb()); // the round of `move` frames takes longer than this
        sleep(SECOND / 20).await;
    }
    old.exits_with_0(120 * SECOND).await;
    let moving_took = stopped.elapsed();
    println!("measured: {CONNECTIONS} joined in {joining:?}, moved in {moving_took:?}");
    println!("measured: RSS {before} kB before the move, at most {highest} kB while it began");
    assert!(highest < before + MOVE_KB, "{highest} kB after {before} kB");
    all_are_listed();
    let (mut members, answered_two) = (JoinSet::new(), Arc::<AtomicUsize>::default());
    for mut raw in moving.join_all().await {
        let answered_two = answered_two.clone();
        members.spawn(async move { answer_pings(&mut raw, None, &answered_two).await });
    }
    drop(turn); // the rest is waiting

    // Until each connection had two heartbeats, the moments at which the dyno writes to all of them, and until the dyno
    // would have closed the last one if a Pong did not count as a sign of life. Renewals come more often.
    let (start, mut highest) = (Instant::now(), before);
    while start.elapsed() < SILENCE + 2 * SECOND || answered_two.load(Relaxed) < CONNECTIONS {
        sleep(SECOND).await;
        highest = highest.max(new.rss_kb());
        assert_eq!(members.len(), CONNECTIONS);
        let ended = members.try_join_next().is_some();
        assert!(!ended, "a connection ended\n{}", new.log());
        let late = start.elapsed() > 2 * SILENCE;
        assert!(!late, "{answered_two:?} connections had two Pings");
    }
    println!(
        "measured: RSS at most {highest} kB, {} kB now",
        new.rss_kb()
    );
    assert!(highest <= LIMIT_KB, "RSS {highest} kB");
    all_are_listed();
    members.shutdown().await;
    base.is_back(&new, PATIENCE, LIMIT_KB).await; // every descriptor; the allocator may keep the memory
}

// ---- behind a router that cuts a connection without traffic after 55 seconds, as the platform's does

/// The idle timeout in `bin/router.cfg`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);

/// A server that answers an upgrade and then sends nothing.
async fn silent_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("a bound listener");
    tokio::spawn(async move {
        let mut open = vec![];
        while let Ok((stream, _)) = listener.accept().await {
            open.push(accept_async(stream).await);
        }
    });
    addr
}

/// Ten seconds longer than the idle timeout: without a Ping the router has cut the connection by then, as it does with
/// the control. Two Pings fall into this time. A longer wait would only repeat them.
#[tokio::test]
async fn silent_connections_outlive_the_idle_timeout_of_the_router() {
    let dyno = Dyno::start(&[]).await;
    let front = Front::before([dyno.addr(); 2]).await;
    let begin = Instant::now();
    let mut hanako = Client::connect(front.addr()).await;
    hanako.join("lobby", "花子", &token(), None).await;
    let mut taro = Client::connect(front.addr()).await;
    taro.join("lobby", "太郎", &token(), None).await;

    // The control: the same router cuts a connection to a server that sends nothing.
    let silent = Front::before([silent_server().await; 2]).await;
    let cut = async {
        let mut silent = Raw::request(silent.addr(), raw::upgrade_head("silent", &[])).await;
        silent.switched().await;
        let start = Instant::now();
        let (_, end) = silent.rest(IDLE_TIMEOUT + 15 * SECOND).await;
        assert_ne!(end, End::StillOpen, "the router cuts it");
        let after = start.elapsed();
        assert!(after > IDLE_TIMEOUT - 5 * SECOND, "cut after {after:?}");
    };
    tokio::join!(sleep(IDLE_TIMEOUT + 10 * SECOND), cut);

    let now = begin.elapsed();
    for client in [&hanako, &taro] {
        assert_eq!(client.count_heard(Heard::is_end), 0, "{}", client.context());
        // Each Ping starts the router's timer again, so it never fires if no pause is longer than its timeout.
        let pings = client.heard_at(|heard| *heard == Heard::Ping);
        let times = [&[Duration::ZERO], &pings[..], &[now]].concat();
        let steady = times.windows(2).all(|t| t[1] - t[0] < LONGEST_PAUSE);
        assert!(steady, "{} has Pings after {times:?}", client.user);
    }
    hanako.say("まだいる？").await;
    taro.hears("まだいる？").await;
    let answer = timeout(PATIENCE, taro.say("いるよ")).await;
    assert_eq!(answer.expect("an answer")["user"], "太郎");
}
