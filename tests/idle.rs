//! Proves what it costs to do nothing: ten thousand joined connections in little memory, and a connection without a
//! word on it that outlives a proxy's idle limit.

mod support;

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::client::{Heard, join_frame};
use support::raw::{self, Raw};
use support::{
    Client, Dyno, PATIENCE, Redis, bound_to_us, eventually, free_port, need_descriptors, token,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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
    let base = support::check::Base::of(&dyno).await;
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
        "{CONNECTIONS} joined in {joined:?}; RSS at most {highest} kB, {} kB now",
        dyno.rss_kb()
    );
    assert!(
        highest <= LIMIT_KB,
        "{highest} kB for {CONNECTIONS} connections"
    );
    let listed = support::check::leases(&redis, "room 7").len();
    assert_eq!(listed, ROOM, "names with a lease in one of the rooms");
    sitting.shutdown().await;
    base.is_back(&dyno, PATIENCE, LIMIT_KB).await; // every descriptor; memory may stay with the allocator
}

// ---- behind a proxy that cuts what is silent for 55 seconds, as the platform's router does

struct Proxy {
    child: Child,
    /// In front of the dyno.
    dyno: SocketAddr,
    /// In front of a server that never says a word.
    mute: SocketAddr,
    _dir: TempDir,
}

impl Proxy {
    async fn start(dyno: SocketAddr, mute: SocketAddr) -> Proxy {
        let dir = TempDir::with_prefix("dynochat-haproxy-").expect("a temporary directory");
        let mut config = "global\n maxconn 100\ndefaults\n mode http\n timeout connect 5s\n timeout client 55s\n \
                          timeout server 55s\n timeout tunnel 55s\n"
            .to_string();
        let fronts = [dyno, mute].map(|behind| {
            let port = free_port();
            writeln!(
                config,
                "listen to_{behind}\n bind 127.0.0.1:{port}\n server one {behind}"
            )
            .expect("memory");
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        });
        std::fs::write(dir.path().join("config"), config).expect("a file in an own directory");
        let child = bound_to_us(&mut Command::new("haproxy"))
            .args(["-db", "-f", "config"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| match e.kind() {
                ErrorKind::NotFound => {
                    panic!("haproxy is missing: install the Debian package haproxy")
                }
                _ => panic!("haproxy could not be started: {e}"),
            });
        let proxy = Proxy {
            child,
            dyno: fronts[0],
            mute: fronts[1],
            _dir: dir,
        };
        eventually("haproxy listens", PATIENCE, async || {
            TcpStream::connect(proxy.mute).await.map(drop)
        })
        .await;
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended before
        let _ = self.child.wait();
    }
}

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

async fn survives_a_proxy_for(idle: Duration) {
    let dyno = Dyno::start(&[]).await;
    let proxy = Proxy::start(dyno.addr(), mute_server().await).await;
    let mut hanako = Client::connect(proxy.dyno).await;
    hanako.join("lobby", "花子", &token(), None).await;
    let mut taro = Client::connect(proxy.dyno).await;
    taro.join("lobby", "太郎", &token(), None).await;

    // The proof that this proxy cuts: the same way to a server that is silent.
    let cut = async {
        let mut mute = Raw::connect(proxy.mute).await;
        mute.send(raw::upgrade_head("mute", &[])).await;
        mute.switched().await;
        let start = Instant::now();
        let (_, end) = mute.rest(Duration::from_secs(70)).await;
        assert_ne!(
            end,
            raw::End::StillOpen,
            "the proxy cuts a silent connection"
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
async fn two_silent_minutes_behind_a_proxy_with_a_55_second_limit_cut_nobody() {
    survives_a_proxy_for(Duration::from_secs(125)).await;
}

#[tokio::test]
#[ignore = "takes ten minutes"]
async fn ten_silent_minutes_behind_a_proxy_with_a_55_second_limit_cut_nobody() {
    survives_a_proxy_for(Duration::from_secs(601)).await;
}
