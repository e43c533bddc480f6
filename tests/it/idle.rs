//! Proves what it costs to do nothing: ten thousand joined connections in little memory, and a connection without a
//! word on it that outlives a router's idle limit.

use crate::support::client::{Heard, join_frame};
use crate::support::raw::{self, Raw};
use crate::support::{Client, Dyno, Front, PATIENCE, Redis, need_descriptors, token};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const CONNECTIONS: usize = 10_000;
const ROOM: usize = 100;
const LIMIT_KB: u64 = 60_000;
/// Longer than any pause between two frames of the server.
const SILENCE: Duration = Duration::from_secs(40);

/// Somebody who joins and then only listens, answering Pings.
async fn sit(addr: SocketAddr, number: usize) -> Raw {
    let host = addr.to_string();
    let join = join_frame(
        &format!("room {}", number / ROOM),
        &format!("n{}", number % ROOM),
        &token(),
        None,
    );
    let mut raw = Raw::connect(addr).await;
    raw.send(
        [
            raw::upgrade_head(&host, &[]).into_bytes(),
            raw::frame(raw::TEXT, join.to_string()),
        ]
        .concat(),
    )
    .await;
    raw.switched().await;
    let welcome = raw.json().await;
    assert_eq!(welcome["kind"], "welcome", "number {number}: {welcome}");
    raw
}

async fn listen(mut raw: Raw) {
    while let Ok((opcode, payload)) = raw.frame(SILENCE).await {
        assert_ne!(
            opcode,
            raw::CLOSE,
            "nobody is closed: {}",
            String::from_utf8_lossy(&payload)
        );
        if opcode == raw::PING {
            raw.send(raw::frame(raw::PONG, payload)).await;
        }
    }
}

#[tokio::test]
async fn ten_thousand_idle_connections_fit_in_sixty_megabytes() {
    need_descriptors(CONNECTIONS as u64 + 500);
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let base = crate::support::check::Base::of(&dyno).await;
    let start = Instant::now();
    let mut sitting = JoinSet::new();
    for room in 0..CONNECTIONS / ROOM {
        let everyone = (0..ROOM).map(|i| sit(dyno.addr(), room * ROOM + i));
        for raw in futures_util::future::join_all(everyone).await {
            sitting.spawn(listen(raw));
        }
    }
    let joined = start.elapsed();
    // Past two Pings and Pongs each, and several renewals.
    let mut highest = 0;
    while start.elapsed() < joined + Duration::from_secs(55) {
        sleep(Duration::from_secs(1)).await;
        highest = highest.max(dyno.rss_kb());
        assert_eq!(sitting.len(), CONNECTIONS);
        assert!(
            sitting.try_join_next().is_none(),
            "a connection ended\n{}",
            dyno.log()
        );
    }
    println!(
        "measured: {CONNECTIONS} joined in {joined:?}; RSS at most {highest} kB, {} kB now",
        dyno.rss_kb()
    );
    assert!(
        highest <= LIMIT_KB,
        "{highest} kB for {CONNECTIONS} connections"
    );
    let listed = crate::support::check::leases(&redis, "room 7").len();
    assert_eq!(listed, ROOM, "names with a lease in one of the rooms");
    sitting.shutdown().await;
    base.is_back(&dyno, PATIENCE, LIMIT_KB).await; // every descriptor; memory may stay with the allocator
}

// ---- behind a router that cuts what is silent for 55 seconds, as the platform's does

/// A server that agrees to an upgrade and then falls silent.
async fn mute_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let addr = listener
        .local_addr()
        .expect("a bound listener has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                if stream.read(&mut head).await.is_ok_and(|n| n > 0) {
                    let answer = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: {}\r\n\r\n",
                        raw::ACCEPT
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.read(&mut head).await;
                }
            });
        }
    });
    addr
}

async fn survives_the_router_for(idle: Duration) {
    let dyno = Dyno::start(&[]).await;
    let front = Front::before([dyno.addr(); 2]).await;
    let mut hanako = Client::connect(front.addr).await;
    hanako.join("lobby", "花子", &token(), None).await;
    let mut taro = Client::connect(front.addr).await;
    taro.join("lobby", "太郎", &token(), None).await;

    // The proof that this router cuts: the same way to a server that is silent.
    let mute = Front::before([mute_server().await; 2]).await;
    let cut = async {
        let mut mute = Raw::connect(mute.addr).await;
        mute.send(raw::upgrade_head("mute", &[])).await;
        mute.switched().await;
        let start = Instant::now();
        let (_, end) = mute.rest(Duration::from_secs(70)).await;
        assert_ne!(
            end,
            raw::End::StillOpen,
            "the router cuts a silent connection"
        );
        assert!(
            start.elapsed() > Duration::from_secs(50),
            "after {:?}",
            start.elapsed()
        );
    };
    tokio::join!(sleep(idle), cut);

    let ended = |heard: &Heard| matches!(heard, Heard::Close(..) | Heard::Eof | Heard::Broken(_));
    for client in [&hanako, &taro] {
        assert_eq!(
            client.count_heard(ended),
            0,
            "{} is still connected\n{}",
            client.user,
            client.transcript()
        );
        let pings = client.count_heard(|heard| *heard == Heard::Ping) as u64;
        assert!(
            pings + 1 >= idle.as_secs() / 25,
            "{pings} Pings in {idle:?}"
        );
    }
    hanako.say("まだいる？").await;
    taro.hears("まだいる？").await;
    assert_eq!(
        timeout(PATIENCE, async {
            taro.say("いるよ").await["user"].clone()
        })
        .await
        .expect("an answer"),
        "太郎"
    );
}

#[tokio::test]
async fn two_silent_minutes_behind_the_router_cut_nobody() {
    survives_the_router_for(Duration::from_secs(125)).await;
}

#[tokio::test]
#[ignore = "takes ten minutes"]
async fn ten_silent_minutes_behind_the_router_cut_nobody() {
    survives_the_router_for(Duration::from_secs(601)).await;
}
