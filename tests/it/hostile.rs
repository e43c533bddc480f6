//! Proves that strangers cost only themselves: each attack beside a conversation that must not stall, with the memory
//! before, at most and after. What is answered to each thing that must not be sent stands in `http.rs` and `protocol.rs`.

mod siege;

use crate::support::broken_frames::{Broken, broken_frames};
use crate::support::client::join_frame;
use crate::support::raw::{
    self, CLOSE, End, PING, PONG, Raw, TEXT, close_payload, fragment, frame,
};
use crate::support::{
    Client, Dyno, PATIENCE, Redis, TALKATIVE, cid, eventually, need_descriptors, token,
};
use futures_util::future::ready;
use futures_util::{StreamExt, stream};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use siege::{BYSTANDERS, Siege, connections, cpu};
use std::io::Write;
use std::iter::repeat_with;
use std::net::{self, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
/// Attackers at a time.
const AT_ONCE: usize = 16;

/// Does it at least so often and for a while, some at a time; how often it was.
async fn many<F: Future<Output = ()>>(cases: usize, attack: impl FnMut(usize) -> F) -> usize {
    let begin = Instant::now();
    stream::iter(0..)
        .take_while(|n| ready(*n < cases || begin.elapsed() < 4 * SECOND))
        .map(attack)
        .buffer_unordered(AT_ONCE)
        .count()
        .await
}

fn room_of_its_own(n: usize) -> String {
    format!("room {n}")
}

// ---- one bad thing at a time, many times

#[tokio::test]
async fn broken_frames_end_the_connection_they_came_on() {
    const ROUNDS: usize = 10;
    // Each round draws its random lengths again; every other round joins first.
    let rounds: Vec<Vec<Broken>> = repeat_with(broken_frames).take(ROUNDS).collect();
    let rows = rounds[0].len();
    let siege = Siege::begin(&[]).await;
    let dyno = &siege.dyno;
    let cases = many(ROUNDS * rows, async |n| {
        let round = n / rows % ROUNDS;
        let (what, code, bytes) = &rounds[round][n % rows];
        let mut raw = match round % 2 {
            0 => Raw::websocket(dyno).await,
            _ => Raw::joined(dyno, &room_of_its_own(n % 9), &format!("n{n}")).await,
        };
        raw.send(bytes).await;
        // Unread bytes must not turn the Close into a reset.
        let more = frame(TEXT, "more").repeat(fastrand::usize(..999));
        raw.send(more).await;
        let (seen, reason) = raw.closed(PATIENCE).await; // also checks that a FIN follows
        assert_eq!(seen, *code, "{what}, closed with {reason}");
    })
    .await;
    siege
        .survived("broken frames", cases, PATIENCE, 10_000)
        .await;
}

#[tokio::test]
async fn spoilt_heads_are_answered_or_cut() {
    let good = [
        raw::head("GET /", "chat.example", &["Accept: */*", "Cookie: a=b"]),
        raw::head(
            "HEAD /chat.js?x=1",
            "chat.example:80",
            &["Content-Length: 0"],
        ),
        raw::upgrade_head(
            "chat.example",
            &["Origin: https://chat.example", "X-Forwarded-Proto: https"],
        ),
    ];
    let spoilers: [&[u8]; 14] = [
        b"\n",
        b"\r",
        b"\r\n ",
        b" ",
        b"\t",
        b":",
        b"\0",
        b"\xff",
        b"%00",
        b"\r\nHost: b\r\n",
        b"\r\nContent-Length: 9\r\n",
        b"HTTP/1.1",
        b"\x1b",
        b"\r\n\r\n",
    ];
    let siege = Siege::begin(&[]).await;
    let addr = siege.dyno.addr();
    let cases = many(2_000, async |n| {
        let mut bytes = good[n % 3].clone().into_bytes();
        for _ in 0..fastrand::usize(1..4) {
            let at = fastrand::usize(..bytes.len());
            let end = (at + fastrand::usize(..3)).min(bytes.len());
            bytes.splice(
                at..end,
                spoilers[fastrand::usize(..spoilers.len())].iter().copied(),
            );
        }
        let mut raw = Raw::connect(addr).await;
        raw.send(&bytes).await;
        raw.finish().await; // so that an incomplete one is not waited for
        let (answer, end) = raw.rest(PATIENCE).await;
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!(end, End::Eof, "{shown:?}");
        let status = answer
            .get(9..12)
            .map(|s| String::from_utf8_lossy(s).into_owned());
        let lawful = [
            "101", "200", "308", "400", "403", "404", "405", "426", "431",
        ];
        assert!(
            status.as_deref().is_none_or(|s| lawful.contains(&s)),
            "{status:?} for {shown:?}"
        );
        assert!(
            !answer.windows(9).any(|w| w == b"\nHTTP/1.1"),
            "two answers to {shown:?}"
        );
    })
    .await;
    siege
        .survived("spoilt heads", cases, PATIENCE, 10_000)
        .await;
}

#[tokio::test]
async fn three_messages_that_make_no_sense_end_the_connection() {
    let siege = Siege::begin(&[]).await;
    let dyno = &siege.dyno;
    let deep = |n: usize| format!("{}{}", "{\"kind\":".repeat(n), "[".repeat(n));
    let texts: [String; 12] = [
        "[]".into(),
        "nonsense".into(),
        "{\"kind\":\"ping\",\"x\":1e999}".into(),
        "{\"kind\":\"talk\",\"message\":\"\\udc00\",\"cid\":\"c\"}".into(),
        "{\"kind\":\"talk\",\"message\":\"a\0b\",\"cid\":\"c\"}".into(),
        "{\"kind\":\"talk\",\"message\":\"\\u0000\",\"cid\":\"c\"}".into(),
        "{\"kind\":\"talk\",\"message\":\"x\",\"cid\":\"\\u0063\\u0020\"}".into(),
        "{\"kind\":[\"talk\"]}".into(),
        "\u{feff}{\"kind\":\"ping\"}".into(),
        format!("{{\"kind\":{}}}", "9".repeat(8_000)),
        " ".repeat(8_192),
        deep(400),
    ];
    let cases = many(240, async |n| {
        let mut client = dyno.join(&room_of_its_own(n % 7), &format!("n{n}")).await;
        for turn in 0..3 {
            client.send_text(&texts[(n + turn) % texts.len()]).await;
        }
        for _ in 0..3 {
            client.expect_error("bad_message").await;
        }
        client.expect_close(4400).await;
    })
    .await;
    siege
        .survived("senseless messages", 3 * cases, PATIENCE, 10_000)
        .await;
}

#[tokio::test]
async fn names_that_are_none_are_refused_and_those_that_are_one_are_inert() {
    let siege = Siege::begin(&[]).await;
    let dyno = &siege.dyno;
    let alphabet: Vec<char> = "ab花é\u{301}\u{e01}😀<>&\"'{}:*\0\n\r\t\u{1b}\u{7f}\u{200b}\u{202e}\u{2066}\u{feff}\u{fe0f}\u{3164}\u{ad}\u{1f468}Ａﷺß \u{3000}".chars().collect();
    let cases = many(480, async |n| {
        let text: String = (0..fastrand::usize(1..40))
            .map(|_| alphabet[fastrand::usize(..alphabet.len())])
            .collect();
        let (room, user) = if n % 2 == 0 {
            ("lobby", &*text)
        } else {
            (&*text, "taro")
        };
        let mut client = dyno.connect().await;
        client.send(join_frame(room, user, &token(), None)).await;
        let answer = client
            .expect_any_within(&["welcome", "error"], PATIENCE)
            .await;
        if answer["kind"] == "welcome" {
            let inert = |s: &Value| {
                !s.as_str().expect("a name").contains(|c: char| {
                    c.is_control() || "<>&\"'{}:\u{200b}\u{202e}\u{2066}".contains(c)
                })
            };
            assert!(inert(&answer["room"]) && inert(&answer["user"]), "{answer}");
            client.quit().await;
        } else {
            let allowed = [
                if n % 2 == 0 { "bad_name" } else { "bad_room" },
                "name_taken",
            ];
            let code = answer["code"].as_str().unwrap_or_default();
            assert!(allowed.contains(&code), "{answer} for {text:?}");
            assert_eq!(client.expect_close(4409).await, code);
        }
    })
    .await;
    let log = dyno.log();
    assert!(
        !log.contains(|c: char| c.is_control() && c != '\n'),
        "{log}"
    );
    siege.survived("names", cases, PATIENCE, 10_000).await;
}

// ---- too much of something

#[tokio::test]
async fn floods_are_stopped_at_their_source() {
    let siege = Siege::begin(&[]).await;
    let dyno = &siege.dyno;
    let talk = |text: &str| {
        frame(
            TEXT,
            json!({"kind": "talk", "message": text, "cid": cid()}).to_string(),
        )
    };
    let floods: [(&str, Vec<u8>); 7] = [
        (
            "talks",
            (0..10_000)
                .flat_map(|n| talk(&format!("flood {n}")))
                .collect(),
        ),
        (
            "talks that are too long",
            talk(&"x".repeat(1_001)).repeat(5_000),
        ),
        ("pings", frame(TEXT, "{\"kind\":\"ping\"}").repeat(10_000)),
        ("Pings", frame(PING, [7; 125]).repeat(10_000)),
        ("Pongs", frame(PONG, "").repeat(10_000)),
        (
            "a Ping in an endless message",
            [
                fragment("x", true, false),
                [fragment("", false, false), frame(PING, "")]
                    .concat()
                    .repeat(10_000),
            ]
            .concat(),
        ),
        (
            "empty messages",
            frame(TEXT, "{\"kind\":\"talk\",\"message\":\"\",\"cid\":\"c\"}").repeat(10_000),
        ),
    ];
    let cases = many(10 * floods.len(), async |n| {
        let (what, flood) = &floods[n % floods.len()];
        let mut raw = Raw::joined(dyno, &room_of_its_own(n % 10), &format!("n{n}")).await;
        raw.send(flood).await;
        assert_eq!(raw.closed(3 * PATIENCE).await.0, 4429, "{what}");
    })
    .await;
    siege
        .survived("floods of ten thousand frames", cases, PATIENCE, 15_000)
        .await;
}

/// Sends for as long as it is let, and says for how long that was.
fn sends_without_end(addr: SocketAddr, first: Vec<u8>) -> Duration {
    let mut socket = net::TcpStream::connect(addr).expect("the dyno accepts connections");
    socket.write_all(&first).expect("a beginning");
    let begin = Instant::now();
    while begin.elapsed() < 3 * PATIENCE && socket.write_all(&[b'x'; 1 << 16]).is_ok() {}
    begin.elapsed()
}

#[tokio::test]
async fn who_goes_on_sending_after_a_refusal_is_cut_and_keeps_no_thread_busy() {
    const SENDERS: usize = 12;
    let siege = Siege::begin(&[]).await;
    let upgrade = raw::upgrade_head(&siege.dyno.host(), &[]).into_bytes();
    let beginnings = [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        [upgrade, raw::claimed_length(1 << 40)].concat(),
    ];
    let senders: Vec<_> = beginnings.into_iter().cycle().take(SENDERS).collect();
    let addr = siege.dyno.addr();
    let senders: Vec<_> = senders
        .into_iter()
        .map(|first| thread::spawn(move || sends_without_end(addr, first)))
        .collect();
    while !senders.iter().all(|sender| sender.is_finished()) {
        sleep(SECOND / 10).await;
    }
    for sender in senders {
        let sent = sender.join().expect("it ends by itself");
        assert!(sent < 8 * SECOND, "cut after {sent:?}");
    }
    siege
        .survived("senders without end", SENDERS, PATIENCE, 10_000)
        .await;
}

#[tokio::test]
async fn a_crowd_that_comes_and_goes_under_ever_new_names_costs_the_others_nothing() {
    let redis = Redis::start(&[]).await;
    let siege = Siege::of(Dyno::start_on(&redis, &[]).await).await;
    let dyno = &siege.dyno;
    let cases = many(1_000, async |n| {
        let mut raw = Raw::joined(dyno, "station", &format!("passenger {n}")).await;
        if n % 2 == 0 {
            raw.send(frame(TEXT, "{\"kind\":\"quit\"}")).await;
            assert_eq!(raw.closed(PATIENCE).await.0, 1000);
        }
    })
    .await;
    // Their names, too, are gone, once the leases are over.
    let names = async || redis.cmd::<usize>(&["HLEN", "chat:{station}:owners"]);
    eventually(
        "nobody is at the station",
        40 * SECOND,
        async || match names().await {
            0 => Ok(()),
            n => Err(n),
        },
    )
    .await;
    siege
        .survived("joins under new names", cases, PATIENCE, 10_000)
        .await;
}

// ---- too little of something

#[tokio::test]
async fn slow_heads_slow_bodies_and_slow_readers_end_at_their_deadline() {
    const EACH: usize = 100;
    need_descriptors(2_000);
    let siege = Siege::begin(&[]).await;
    let addr = siege.dyno.addr();
    // Like slowhttptest -H, -B and -X.
    let head = async || {
        let begin = Instant::now();
        let mut raw = Raw::connect(addr).await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
        while begin.elapsed() < 9 * SECOND {
            raw.send("X-a: b\r\n").await;
            sleep(SECOND).await;
        }
        assert_eq!(raw.answer().await.status, 408);
        assert!(
            (9 * SECOND..20 * SECOND).contains(&begin.elapsed()),
            "{:?}",
            begin.elapsed()
        );
    };
    let body = async || {
        let begin = Instant::now();
        let mut raw = Raw::connect(addr).await;
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8192\r\nExpect: 100-continue\r\n\r\nfoo=").await;
        assert_eq!(
            raw.answer().await.status,
            405,
            "without waiting for the body"
        );
        while begin.elapsed() < 9 * SECOND {
            raw.send("b").await; // the dyno is no longer there
            sleep(SECOND).await;
        }
    };
    let reader = async || {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1_024).expect("a small buffer");
        let mut raw = Raw::over(
            socket
                .connect(addr)
                .await
                .expect("the dyno accepts connections"),
        );
        raw.send(raw::head("GET /chat.js", "a", &[])).await;
        sleep(9 * SECOND).await;
        raw
    };
    let all = stream::iter(0..EACH).map(async |_| tokio::join!(head(), body(), reader()).2);
    let readers: Vec<Raw> = all.buffer_unordered(EACH).collect().await;
    // Those who read slowly still hold their end: nothing of theirs is left at the dyno.
    siege
        .survived("slow heads, bodies and readers", 3 * EACH, PATIENCE, 10_000)
        .await;
    drop(readers);
}

#[tokio::test]
async fn a_dyno_that_is_full_says_so_and_serves_those_who_are_in() {
    const MAX: usize = BYSTANDERS + 20;
    const SILENT: usize = 64; // as many as there are sockets beside the WebSockets
    let siege = Siege::begin(&[("MAX_CONNECTIONS", &MAX.to_string())]).await;
    let dyno = &siege.dyno;
    connections(dyno, BYSTANDERS).await;
    let mut guests = vec![];
    for n in 0..MAX - BYSTANDERS {
        guests.push(dyno.join("lobby", &format!("n{n}")).await);
    }
    let cases = many(100, async |_| {
        let mut late = dyno.connect().await;
        late.expect_error("busy").await;
        late.expect_close(1013).await;
    })
    .await;
    sleep(3 * SECOND).await; // the late ones are gone: a socket is read on for 2 s after its Close
    // Half-open handshakes take what is left, for as long as a head may take.
    let begin = Instant::now();
    let mut silent = vec![];
    for _ in 0..SILENT {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send("GET /ws HTTP/1.1\r\n").await;
        silent.push(raw);
    }
    sleep(SECOND / 2).await;
    let mut refused = 0;
    for _ in 0..50 {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(raw::upgrade_head(&dyno.host(), &[])).await;
        let (answer, _) = raw.rest(PATIENCE).await; // nobody lingers there, so a reset may follow
        refused += usize::from(
            answer.starts_with(b"HTTP/1.1 503 ") && answer.ends_with(b"again in a moment.\n"),
        );
    }
    assert!(
        begin.elapsed() < 9 * SECOND,
        "the half-open ones are still there: {:?}",
        begin.elapsed()
    );
    assert!(refused >= 45, "{refused} of 50 are told why");
    for raw in &mut silent {
        assert_eq!(raw.answer_to("GET", 15 * SECOND).await.status, 408);
    }
    let page = raw::head("GET /", "a", &[]);
    eventually("the page is served again", PATIENCE, async || {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(&page).await;
        match raw.rest(PATIENCE).await {
            (answer, End::Eof) if answer.starts_with(b"HTTP/1.1 200 ") => Ok(()),
            (answer, end) => Err((String::from_utf8_lossy(&answer).into_owned(), end)),
        }
    })
    .await;
    for guest in guests {
        guest.quit().await;
    }
    dyno.join("lobby", "次郎").await.quit().await;
    siege
        .survived(
            "connections beyond the limit",
            cases + SILENT + 50,
            PATIENCE,
            10_000,
        )
        .await;
}

/// What the dyno may open from now on, as if it had been started with `ulimit -n`.
fn limit_descriptors(dyno: &Dyno, limit: u64) {
    use nix::libc::{RLIMIT_NOFILE, prlimit, rlimit};
    let new = rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: prlimit reads one struct, which lives, and writes none.
    let code = unsafe { prlimit(dyno.pid() as i32, RLIMIT_NOFILE, &new, std::ptr::null_mut()) };
    assert_eq!(code, 0, "a child can be limited");
}

#[tokio::test]
async fn without_descriptors_the_listener_waits_and_goes_on() {
    let siege = Siege::begin(&[]).await;
    let dyno = &siege.dyno;
    limit_descriptors(dyno, dyno.fds() as u64 + 10);
    let (lines, used) = (dyno.log().lines().count(), cpu(dyno));
    let mut waiting = vec![];
    for _ in 0..100 {
        let mut raw = Raw::connect(dyno.addr()).await; // by the kernel, for the listener
        raw.send("GET / HTTP/1.1\r\n").await;
        waiting.push(raw);
    }
    sleep(4 * SECOND).await;
    let log = dyno.log();
    let new: Vec<&str> = log.lines().skip(lines).collect();
    assert!(
        new.iter().any(|line| line.contains("accept=failed")),
        "it came to that: {log}"
    );
    assert!(new.len() <= 5, "one line says it: {} lines", new.len());
    let used = cpu(dyno) - used;
    assert!(used < 2 * SECOND, "waiting took {used:?} of a processor");
    drop(waiting);
    let begin = Instant::now();
    dyno.join("lobby", "花子").await.quit().await;
    println!(
        "measured: without descriptors: {used:.1?} of a processor in 4 s, then open again after {:.1?}",
        begin.elapsed()
    );
    siege
        .survived("connections without descriptors", 100, PATIENCE, 10_000)
        .await;
}

// ---- what it costs at worst

/// Joins and then reads nothing, with hardly any room in its own kernel.
async fn never_reads(addr: SocketAddr, room: &str, user: &str) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(1_024).expect("a small buffer");
    let mut raw = Raw::over(
        socket
            .connect(addr)
            .await
            .expect("the dyno accepts connections"),
    );
    let join = frame(TEXT, join_frame(room, user, &token(), None).to_string());
    raw.send([raw::upgrade_head(&addr.to_string(), &[]).into_bytes(), join].concat())
        .await;
    raw
}

#[tokio::test]
async fn a_room_and_one_who_never_reads_cost_no_more_than_their_limits() {
    const ROOMS: usize = 30;
    // An outbox and a write on top of it; the room's log; what the reader, the tasks and the allocator take.
    const WORST_KB: u64 = 256 + 16 + 128 + 64;
    let siege = Siege::begin(&[TALKATIVE]).await;
    let dyno = &siege.dyno;
    let before = siege::most_kb(dyno);
    let mut stuck = vec![];
    for n in 0..ROOMS {
        let room = room_of_its_own(n);
        let mut talker = dyno.join(&room, "talker").await;
        stuck.push(never_reads(dyno.addr(), &room, "stuck").await);
        talker
            .expect_members_within(&["stuck", "talker"], PATIENCE)
            .await;
        for _ in 0..100 {
            talker.say(&"😀".repeat(1_000)).await; // 400 KB: an outbox, and what the kernels hold
        }
    }
    let each = (siege::most_kb(dyno) - before) / ROOMS as u64;
    println!("measured: a room with a full log and a full outbox takes {each} kB");
    assert!(each <= WORST_KB, "{each} kB for each room, of {WORST_KB}");
    siege
        .survived(
            "rooms with one who never reads",
            ROOMS,
            3 * PATIENCE,
            20_000,
        )
        .await;
    drop(stuck);
}

#[tokio::test]
async fn a_welcome_that_nobody_reads_costs_no_more_than_a_log_and_a_list() {
    const READERS: usize = 300;
    const WORST_KB: u64 = 128 + 20 + 1 + 64;
    need_descriptors(2_000);
    let siege = Siege::begin(&[TALKATIVE]).await;
    let dyno = &siege.dyno;
    let mut talker = dyno.join("lobby", "talker").await;
    for _ in 0..40 {
        talker.say(&"😀".repeat(1_000)).await;
    }
    let before = siege::most_kb(dyno);
    let mut each = vec![];
    for round in ["once", "again"] {
        let mut stuck = vec![];
        for n in 0..READERS {
            stuck.push(never_reads(dyno.addr(), "lobby", &format!("{round} {n}")).await);
        }
        connections(dyno, BYSTANDERS + 1 + READERS).await;
        connections(dyno, BYSTANDERS + 1).await; // they have been found too slow
        each.push((siege::most_kb(dyno) - before) / READERS as u64);
    }
    talker.quit().await;
    println!("measured: the longest welcome, unread, takes {each:?} kB");
    assert!(each[0] <= WORST_KB, "{each:?} kB for each, of {WORST_KB}");
    assert!(
        each[1] <= each[0] + each[0] / 5,
        "what the first took is used again: {each:?} kB"
    );
    siege
        .survived(
            "unread welcomes",
            2 * READERS,
            PATIENCE,
            READERS as u64 * WORST_KB,
        )
        .await;
}

#[tokio::test]
async fn a_dyno_under_siege_still_stops_in_time() {
    let mut dyno = Dyno::start(&[]).await;
    let mut held = vec![];
    for n in 0..50 {
        held.push(Raw::connect(dyno.addr()).await);
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send("GET / HTTP/1.1\r\n").await;
        held.push(raw);
        held.push(never_reads(dyno.addr(), "lobby", &format!("n{n}")).await);
    }
    sleep(SECOND).await;
    let begin = Instant::now();
    dyno.signal(Signal::SIGTERM);
    let status = dyno.exit(15 * SECOND).await;
    assert_eq!(status.code(), Some(0), "{}", dyno.log());
    assert!(begin.elapsed() < 10 * SECOND, "{:?}", begin.elapsed());
}

// ---- Redis, in which somebody else can write

/// Somebody with the password of the Redis runs this there.
fn tamper(redis: &Redis, script: &str) {
    redis.cmd::<()>(&["EVAL", script, "0"]);
}

/// Says it again until it comes back, while Redis may be away.
async fn says_at_last(client: &mut Client, text: &str) {
    let cid = cid();
    client.talk_as(text, &cid).await;
    loop {
        let kinds = ["talk", "status", "error"];
        let frame = client.expect_any_within(&kinds, PATIENCE).await;
        if frame["kind"] == "talk" && frame["cid"] == *cid {
            return;
        }
        if frame["kind"] == "error" {
            assert_eq!(frame["code"], "busy", "{frame}");
            sleep(SECOND / 5).await;
            client.talk_as(text, &cid).await;
        }
    }
}

#[tokio::test]
async fn a_list_of_names_that_makes_no_sense_harms_neither_its_room_nor_the_others() {
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let mut taro = dyno.join("elsewhere", "taro").await;
    for (folded, shown) in [
        ("'\\255\\254'", "'x'"),
        ("'short'", "'short'"),
        ("'binary'", "owner .. '\\255\\0'"),
        ("'<img src=x>'", "owner .. '<img src=x>'"),
        ("'other'", "owner .. 'not the same'"),
        ("'long'", "owner .. string.rep('x', 1000000)"),
    ] {
        tamper(
            &redis,
            &format!(
                "local owner = string.rep('a', 40)
                redis.call('HSET', 'chat:{{lobby}}:owners', {folded}, {shown})
                redis.call('PUBLISH', 'chat:{{lobby}}', 'names')"
            ),
        );
        sleep(2 * SECOND).await; // the list is read
        redis.cut_all();
        says_at_last(&mut hanako, folded).await; // and everything is read again
        says_at_last(&mut taro, folded).await;
    }
    let mut jiro = dyno.join("lobby", "jiro").await;
    jiro.say("who is here?").await;
    hanako.hears("who is here?").await;
    for client in [&mut hanako, &mut jiro] {
        client.expect_members(&["hanako", "jiro"]).await;
    }
}

#[tokio::test]
async fn a_stream_full_of_garbage_is_read_to_its_end() {
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    hanako.say("before").await;
    // Nobody is told of it, so it is found when the room is read again.
    tamper(
        &redis,
        "redis.call('XADD', 'chat:{lobby}', '*', 'm', string.rep('x', 200000))
        for _ = 1, 2500 do redis.call('XADD', 'chat:{lobby}', '*', 'x', 'y') end
        redis.call('XADD', 'chat:{lobby}', '*', 'm', '{\"user\":\"taro\",\"message\":\"late\",\"cid\":\"c\"}')",
    );
    redis.cut_all();
    while let frame = hanako
        .expect_any_within(&["status", "talk"], PATIENCE)
        .await
        && frame["message"] != "late"
    {
        assert_eq!(frame["kind"], "status", "{frame}");
    }
    says_at_last(&mut hanako, "after").await;
}

#[tokio::test]
async fn lines_much_longer_than_what_they_say_do_not_stay_in_memory() {
    const LINES: u64 = 60;
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let before = dyno.rss_kb();
    for n in 1..=LINES {
        let said = format!("{n}-1 {{\"user\":\"taro\",\"message\":\"{n}\",\"cid\":\"c\",\"x\":\"");
        let line = format!("'{said}' .. string.rep('x', 900000) .. '\"}}'");
        tamper(
            &redis,
            &format!("redis.call('PUBLISH', 'chat:{{lobby}}', {line})"),
        );
        hanako.hears(&n.to_string()).await;
    }
    let grown = dyno.rss_kb() - before;
    println!("measured: {LINES} lines of 900 kB in a room's log take {grown} kB");
    assert!(grown < LINES * 900 / 2, "{grown} kB");
}

#[tokio::test]
async fn nothing_that_a_person_types_becomes_a_part_of_a_key_but_the_checked_room() {
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let mut secrets = vec![];
    for (room, user) in [
        ("Lobby", "花子"),
        ("a.b-c_d", "Ｔａｒｏ"),
        ("部屋 1", "x y"),
    ] {
        let mut client = dyno.join(room, user).await;
        client.talk_as("a}:names", "cid-of-mine").await;
        client.hears("a}:names").await;
        secrets.push(client.token.clone());
    }
    for (room, user) in [
        ("a}:names", "x"),
        ("a{b", "x"),
        ("*", "x"),
        ("chat:{lobby}", "x"),
    ] {
        dyno.join_refused(room, user, &token(), "bad_room").await;
    }
    let mut keys: Vec<String> = redis.cmd(&["KEYS", "*"]);
    keys.sort();
    let hash = |key: &str| key.len() == 40 && key.bytes().all(|b| b.is_ascii_hexdigit());
    let said = |key: &str| key.split_once(':').is_some_and(|(owner, _)| hash(owner));
    for key in &keys {
        let (room, kind) = key
            .strip_prefix("chat:{")
            .and_then(|rest| rest.split_once('}'))
            .expect("chat:{room}…");
        assert!(["lobby", "a.b-c_d", "部屋 1"].contains(&room), "{key}");
        assert!(
            ["", ":names", ":owners"].contains(&kind)
                || kind.strip_prefix(":cid:").is_some_and(said),
            "{key}"
        );
    }
    assert_eq!(keys.len(), 3 * 4, "{keys:?}");
    // The secrets themselves are nowhere: only their hashes.
    let dump: Vec<String> = redis.cmd(&["EVAL", "local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do
        local kind = redis.call('TYPE', key).ok
        if kind == 'hash' then for _, v in ipairs(redis.call('HGETALL', key)) do all[#all + 1] = v end end
        if kind == 'string' then all[#all + 1] = redis.call('GET', key) end
        if kind == 'zset' then for _, v in ipairs(redis.call('ZRANGE', key, 0, -1)) do all[#all + 1] = v end end
        if kind == 'stream' then for _, row in ipairs(redis.call('XRANGE', key, '-', '+')) do for _, v in ipairs(row[2]) do all[#all + 1] = v end end end
        end return all", "0"]);
    assert!(dump.len() > 12, "{dump:?}");
    for secret in secrets {
        assert!(
            !dump.iter().any(|value| value.contains(&secret)),
            "a token in {dump:?}"
        );
    }
}

// ---- what is written down

#[tokio::test]
async fn whatever_is_sent_the_log_is_one_line_of_ours_after_the_other() {
    let dyno = Dyno::start(&[("RUST_LOG", "debug")]).await;
    let evil = "x\r\nWARN  [dynochat] forged=1\u{1b}[31m";
    for head in [
        format!("GET /{evil} HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw::head("GET /\u{202e}forged", "a", &["User-Agent: forged"]),
        raw::head("GET /?token=forged", "a", &["X-Request-Id: forged\u{85}"]),
        raw::head("GET /", "forged.example", &["X-Forwarded-Proto: http"]),
    ] {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(head).await;
        raw.answer().await;
    }
    for (name, payload) in [
        ("花子", close_payload(1000, evil.as_bytes())),
        (
            "太郎",
            close_payload(4999, "\u{2028}\u{7f}\u{9b}".as_bytes()),
        ),
    ] {
        let mut raw = Raw::joined(&dyno, "lobby", name).await;
        raw.send(frame(CLOSE, payload)).await;
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
        assert!(
            ["DEBUG", "INFO", "WARN"].contains(&level)
                && !line.starts_with("WARN  [dynochat] forged"),
            "{log}"
        );
        assert!(
            line.chars().all(|c| !c.is_control()) && !line.contains(['\u{202e}', '\u{2028}']),
            "{log}"
        );
    }
}
