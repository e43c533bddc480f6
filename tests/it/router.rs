//! Tests behind a router like the platform's (`bin/router.cfg`): it pools its connections to the dynos, picks a dyno at
//! random, and does no health checks.

use crate::support::prelude::*;
use crate::support::raw::Answer;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tokio::task::JoinSet;

/// No message waits until the next `move` for its acknowledgement, also on a busy machine. The times that are printed
/// say how long they really wait.
const ACK: Duration = Duration::from_secs(3);

async fn pair() -> ([Dyno; 2], Redis, Front) {
    let redis = Redis::start(&[]).await;
    let many = ("MAX_PER_ADDRESS", "1000"); // all clients have the address of this machine
    let dyno = async |name| Dyno::start_on(&redis, &[TALKATIVE, many, ("DYNO", name)]).await;
    let dynos = [dyno("web.1").await, dyno("web.2").await];
    let front = Front::before([dynos[0].addr(), dynos[1].addr()]).await;
    (dynos, redis, front)
}

async fn get(front: SocketAddr, path: &str, host: &str) -> Answer {
    let request = head(&format!("GET {path}"), host, &["Connection: close"]);
    http(front, &request).await
}

/// Fetches the page and its files for ever. It ends only by a panic: after an answer other than 200, or none at all.
async fn visit(front: SocketAddr) {
    for path in ["/", "/chat.js", "/chat.css"].iter().cycle() {
        let answer = get(front, path, &front.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        sleep(SECOND / 50).await;
    }
}

/// The crowd lost nothing, every page was connected all the time, and no message waited long.
async fn noticed_nothing(crowd: &Crowd, redis: &Redis) {
    crowd.lost_nothing(redis, PATIENCE).await;
    crowd.saw_nobody_come_or_go();
    let mut acks = vec![];
    for page in &crowd.pages {
        let life = page.life();
        let (closes, away) = (&life.closes, &life.away);
        let stayed = closes.is_empty() && away.is_empty();
        assert!(stayed, "{}: {closes:?}, away {away:?}", page.user);
        acks.extend(life.ack_times.iter().copied());
    }
    acks.sort();
    let n = acks.len();
    let [p50, p99, most] = [50, 99, 100].map(|share| acks[(n - 1) * share / 100]);
    println!("measured: {n} messages acknowledged in p50 {p50:?}, p99 {p99:?}, at most {most:?}");
    assert!(most < ACK, "an acknowledgement after {most:?}");
}

fn moves(crowd: &Crowd) -> usize {
    crowd.pages.iter().map(|page| page.life().moves.len()).sum()
}

#[tokio::test]
async fn the_router_reaches_both_dynos_and_joins_messages_and_all_answers_pass_it() {
    let (_dynos, redis, front) = pair().await;
    let (mut clients, mut seen) = (vec![], BTreeSet::new());
    while seen.len() < 2 {
        let mut client = Client::connect(front.addr()).await;
        let user = format!("n{}", clients.len());
        client.join("lobby", &user, &token(), None).await;
        seen.insert(client.welcome["dyno"].as_str().unwrap_or("?").to_string());
        clients.push(client);
        assert!(clients.len() < 100, "never on a second dyno: {seen:?}");
    }
    assert_eq!(seen, ["web.1", "web.2"].map(str::to_string).into());
    let last = clients.len() - 1;
    clients[last].say("across the dynos").await;
    for client in &mut clients[..last] {
        client.hears("across the dynos").await;
    }
    for client in &clients {
        check::saw_everything(&redis, client);
    }
    let page = get(front.addr(), "/", &front.host()).await;
    let policy = page.expect_header("Content-Security-Policy");
    let socket = format!("wss://{}", front.host());
    assert!(policy.contains(&socket), "{policy}");
    page.expect_header("Strict-Transport-Security");
    let answers = [
        ("/", 200),
        ("/chat.js", 200),
        ("/nope", 404),
        ("/healthz", 200),
        ("/ws", 426),
    ];
    let requests = (0..4).map(async |_| {
        for (path, wanted) in answers.repeat(50) {
            let answer = get(front.addr(), path, "router").await;
            assert_eq!(answer.status, wanted, "{path}");
        }
    });
    join_all(requests).await;
}

/// Of three dynos, two are behind the router. The pages reach the third one directly.
#[tokio::test]
async fn a_rolling_restart_under_talk_loses_no_message_and_fails_no_request() {
    let _turn = heavy(2).await;
    let ([a, b], redis, front) = pair().await;
    let mut dynos = [a, b, Dyno::start_on(&redis, &[TALKATIVE]).await];
    let router = Router::to(&[front.addr(), dynos[2].addr()]);
    let crowd = Crowd::gather(&router, "lobby", 200).await;
    let mut visitors: JoinSet<()> = (0..4).map(|_| visit(front.addr())).collect();
    let on_first = dynos[0].health().await["connections"].clone();
    let roll = async {
        for (n, dyno) in dynos[..2].iter_mut().enumerate() {
            dyno.signal(Signal::SIGTERM);
            dyno.exits_with_0(10 * SECOND).await;
            if n == 0 {
                assert_eq!(moves(&crowd), on_first, "its pages only, each of them once");
            }
            dyno.restart().await;
            dyno.has_redis().await;
        }
        dynos[2].signal(Signal::SIGTERM);
        sleep(SECOND / 2).await; // its pages are moving
        dynos[0].signal(Signal::SIGTERM);
        for n in [2, 0] {
            dynos[n].exits_with_0(10 * SECOND).await;
        }
        let left = dynos[1].health().await;
        assert_eq!(left["connections"], 200, "they have moved on to this one");
        dynos[2].restart().await;
    };
    tokio::select! {
        () = roll => {}
        () = crowd.chat(50, 60 * SECOND) => panic!("a restart takes too long"),
    }
    crowd.everyone_talks("after").await;
    noticed_nothing(&crowd, &redis).await;
    if let Some(ended) = visitors.try_join_next() {
        ended.expect("a visitor is served every time");
    }
    for page in &crowd.pages {
        assert!(!page.life().moves.is_empty(), "{}", page.summary());
    }
}

#[tokio::test]
async fn connections_in_the_accept_backlog_are_served_on_sigterm() {
    let mut dyno = Dyno::start(&[]).await;
    dyno.signal(Signal::SIGSTOP); // the kernel still completes handshakes, into the accept backlog
    let mut waiting = vec![];
    for _ in 0..50 {
        let request = head("GET /", &dyno.host(), &[]);
        waiting.push(Raw::request(dyno.addr(), request).await);
    }
    dyno.signal(Signal::SIGTERM);
    dyno.signal(Signal::SIGCONT);
    for raw in &mut waiting {
        assert_eq!(raw.answer().await.status, 200);
    }
    dyno.exits_with_0(10 * SECOND).await;
}
