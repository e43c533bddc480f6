//! Tests behind a router like the platform's (`bin/router.cfg`): it pools its connections to the dynos, picks a dyno at
//! random, and does no health checks.

use crate::support::raw::{Answer, head, http};
use crate::support::{Client, Crowd, Dyno, Front, Raw, Redis, Router, TALKATIVE, check, token};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

async fn pair() -> ([Dyno; 2], Redis, Front) {
    let redis = Redis::start(&[]).await;
    let dynos = [
        Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", "web.1")]).await,
        Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", "web.2")]).await,
    ];
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

#[tokio::test]
async fn the_router_reaches_both_dynos_and_joins_and_messages_work() {
    let (_dynos, redis, front) = pair().await;
    let (mut clients, mut seen) = (vec![], BTreeSet::new());
    while seen.len() < 2 {
        let mut client = Client::connect(front.addr).await;
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
    let page = get(front.addr, "/", &front.host()).await;
    let policy = page.expect_header("Content-Security-Policy");
    let socket = format!("wss://{}", front.host());
    assert!(policy.contains(&socket), "{policy}");
    page.expect_header("Strict-Transport-Security");
}

#[tokio::test]
async fn all_answers_pass_a_router_that_pools_connections() {
    let (_dynos, _redis, front) = pair().await;
    let requests = async |_| {
        for (path, wanted) in [
            ("/", 200),
            ("/chat.js", 200),
            ("/nope", 404),
            ("/healthz", 200),
            ("/ws", 426),
        ]
        .repeat(50)
        {
            let answer = get(front.addr, path, "router").await;
            assert_eq!(answer.status, wanted, "{path}");
        }
    };
    join_all((0..4).map(requests)).await;
}

#[tokio::test]
async fn a_rolling_restart_under_talk_loses_no_message_and_fails_no_request() {
    let (mut dynos, redis, front) = pair().await;
    let crowd = Crowd::gather(&Router::to(&[front.addr]), "lobby", 30).await;
    let mut visitors: JoinSet<()> = (0..4).map(|_| visit(front.addr)).collect();
    let begun = Instant::now();
    let roll = async {
        for dyno in &mut dynos {
            dyno.signal(Signal::SIGTERM);
            dyno.exits_with_0(15 * SECOND).await;
            dyno.restart().await;
            dyno.has_redis().await;
        }
    };
    tokio::select! {
        () = roll => {}
        () = crowd.chat(20, 120 * SECOND) => panic!("the restart takes {:?}", begun.elapsed()),
    }
    crowd.everyone_talks("after").await;
    crowd.lost_nothing(&redis, 12 * SECOND).await;
    crowd.saw_nobody_come_or_go();
    if let Some(ended) = visitors.try_join_next() {
        ended.expect("a visitor is served every time");
    }
    let closes = crowd.closes_since(begun);
    assert!(closes.is_empty(), "some pages were away: {closes:?}");
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
