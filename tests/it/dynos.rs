//! Proves that many processes on one Redis are one chat, and what a process and a Redis may do to each other: stop,
//! be killed, fall silent, come back, forget everything. Each test has dynos and a Redis of its own.

use crate::support::client::{Heard, join_frame};
use crate::support::dyno::refuses_to_boot;
use crate::support::raw::{head, http};
use crate::support::redis_server::Reserved;
use crate::support::{
    Client, Crowd, Dyno, PATIENCE, Raw, Redis, Router, TALKATIVE, bound_to_us, check, cid,
    eventually, free_port, token,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// Two dynos on one Redis.
async fn pair() -> (Dyno, Dyno, Redis) {
    let redis = Redis::start(&["--appendonly", "yes"]).await;
    let dynos = (
        Dyno::start_on(&redis, &[TALKATIVE]).await,
        Dyno::start_on(&redis, &[TALKATIVE]).await,
    );
    (dynos.0, dynos.1, redis)
}

// ---- one chat

#[tokio::test]
async fn two_dynos_on_one_redis_are_one_chat() {
    let (a, b, redis) = pair().await;
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    let mut jiro = b.join("library", "jiro").await;
    assert_ne!(hanako.welcome["boot"], taro.welcome["boot"]);
    hanako.expect_members(&["hanako", "taro"]).await;
    assert_eq!(taro.members().0, ["hanako", "taro"]);
    for i in 0..20 {
        let (speaker, listener) = if i % 2 == 0 {
            (&mut hanako, &mut taro)
        } else {
            (&mut taro, &mut hanako)
        };
        let said = speaker.say(&format!("m{i}")).await;
        assert_eq!(
            listener.hears(&format!("m{i}")).await,
            said,
            "the same frame on both dynos"
        );
    }
    jiro.say("quiet here").await; // fails if jiro heard anything of it
    check::saw_everything(&redis, &hanako);
    check::saw_everything(&redis, &taro);
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
    b.join_refused("lobby", "hanako", &token(), "name_taken")
        .await;
    let newcomer = b.join("lobby", "saburo").await;
    assert_eq!(
        newcomer.history(),
        (0..20).map(|i| format!("m{i}")).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn each_process_has_exactly_one_connection_to_redis() {
    let (a, b, redis) = pair().await;
    let mut clients = vec![];
    for i in 0..40 {
        let dyno = if i % 2 == 0 { &a } else { &b };
        let mut client = dyno
            .join(&format!("room {}", i % 30), &format!("n{i}"))
            .await;
        client.say("hello").await;
        clients.push(client);
        if i % 5 == 0 {
            let seen = redis.clients();
            assert_eq!(seen.len(), 2, "after {i} joins: {seen:#?}");
        }
    }
    for _ in 0..7 {
        sleep(SECOND).await; // past a renewal
        assert_eq!(redis.clients().len(), 2, "{:#?}", redis.clients());
    }
}

#[tokio::test]
async fn a_free_name_asked_for_on_two_dynos_at_once_goes_to_exactly_one() {
    let (a, b, _redis) = pair().await;
    for round in 0..100 {
        let name = format!("n{round}");
        let ask = async |dyno: &Dyno| {
            let mut raw = Raw::websocket(dyno).await;
            raw.send(crate::support::raw::frame(
                crate::support::raw::TEXT,
                join_frame("lobby", &name, &token(), None).to_string(),
            ))
            .await;
            let answer = raw.json().await;
            (answer["kind"] == "welcome", answer)
        };
        let ((first, said_a), (second, said_b)) = tokio::join!(ask(&a), ask(&b));
        assert!(first != second, "round {round}: {said_a} and {said_b}");
        let refusal = if first { said_b } else { said_a };
        assert_eq!(refusal["code"], "name_taken", "round {round}");
    }
}

// ---- a dyno goes away

#[tokio::test]
async fn a_dyno_that_is_asked_to_stop_closes_everyone_and_they_lose_nothing() {
    let (mut a, b, redis) = pair().await;
    let router = Router::to(&[a.addr(), b.addr()]);
    let crowd = Crowd::gather(&router, "lobby", 40).await;
    crowd.everyone_talks("before").await;

    router.set(&[b.addr()]);
    a.signal(Signal::SIGTERM);
    let asked = Instant::now();
    let end = async {
        let status = a.exit(10 * SECOND).await;
        assert_eq!(status.code(), Some(0), "{status}\n{}", a.log());
    };
    tokio::join!(end, crowd.everyone_talks("meanwhile"));
    crowd.everyone_talks("after").await;
    crowd.lost_nothing(&redis, 12 * SECOND).await;
    crowd.saw_nobody_come_or_go();

    let closes = crowd.closes_since(asked);
    assert!(closes.iter().all(|close| close.1 == 1012), "{closes:?}");
    assert!(
        closes.len() >= 5,
        "about half the pages sat on the dyno that stopped: {closes:?}"
    );
    let (first, last) = (closes[0].0, closes[closes.len() - 1].0);
    assert!(
        last <= 5 * SECOND + SECOND / 2,
        "the last was closed after {last:?}"
    );
    assert!(
        last - first >= SECOND / 10,
        "not all at once: {first:?} to {last:?}"
    );
}

#[tokio::test]
async fn who_was_closed_by_a_stopping_dyno_resumes_on_its_sibling() {
    let (mut a, b, redis) = pair().await;
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    hanako.say("before").await;
    taro.hears("before").await;
    taro.expect_members(&["hanako", "taro"]).await;
    let lists = taro.members_frames();
    a.signal(Signal::SIGTERM);
    assert!(
        !hanako
            .closed_after_all_within(1012, 6 * SECOND)
            .await
            .is_empty(),
        "a reason to show"
    );
    taro.say("meanwhile").await;
    let mut hanako = b
        .join_with(
            "lobby",
            "hanako",
            &hanako.token.clone(),
            Some(&hanako.last()),
        )
        .await;
    assert_eq!(hanako.history(), ["meanwhile"]);
    assert_eq!(hanako.welcome["gap"], false);
    hanako.say("after").await;
    taro.hears("after").await;
    assert_eq!(a.exit(10 * SECOND).await.code(), Some(0));
    sleep(2 * SECOND).await;
    assert_eq!(
        taro.members_frames(),
        lists,
        "nobody was shown as gone or come\n{}",
        taro.transcript()
    );
    check::saw_everything(&redis, &hanako);
    check::saw_everything(&redis, &taro);
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
}

#[tokio::test]
async fn a_dyno_with_nobody_on_it_stops_at_once_and_its_listener_first() {
    let (mut a, _b, _redis) = pair().await;
    a.signal(Signal::SIGTERM);
    assert_eq!(a.exit(3 * SECOND).await.code(), Some(0));
    let mut busy = Dyno::start(&[]).await;
    let _clients = clients_on(&busy, 20).await;
    busy.signal(Signal::SIGTERM);
    eventually(
        "new connections are refused",
        SECOND,
        async || match TcpStream::connect(busy.addr()).await {
            Err(_) => Ok(()),
            Ok(_) => Err("accepted"),
        },
    )
    .await;
    assert!(busy.is_running(), "it is still saying goodbye");
    assert_eq!(busy.exit(10 * SECOND).await.code(), Some(0));
}

async fn clients_on(dyno: &Dyno, count: usize) -> Vec<Client> {
    let mut clients = vec![];
    for i in 0..count {
        clients.push(dyno.join("lobby", &format!("n{i}")).await);
    }
    clients
}

#[tokio::test]
async fn further_sigterms_and_the_doubled_ctrl_c_change_nothing() {
    for signals in [[Signal::SIGTERM; 6], [Signal::SIGINT; 6]] {
        let mut dyno = Dyno::start(&[]).await;
        let mut clients = clients_on(&dyno, 20).await;
        let asked = Instant::now();
        for signal in signals {
            dyno.signal(signal);
            sleep(Duration::from_millis(100)).await; // all of a Ctrl-C within a second
        }
        for client in &mut clients {
            client.closed_after_all_within(1012, 6 * SECOND).await;
        }
        assert_eq!(dyno.exit(10 * SECOND).await.code(), Some(0), "{signals:?}");
        assert!(asked.elapsed() < 10 * SECOND);
    }
}

#[tokio::test]
async fn a_second_ctrl_c_after_a_second_ends_it_at_once() {
    let mut dyno = Dyno::start(&[]).await;
    let mut clients = clients_on(&dyno, 150).await;
    dyno.signal(Signal::SIGINT);
    sleep(Duration::from_millis(1_200)).await;
    dyno.signal(Signal::SIGTERM);
    sleep(Duration::from_millis(100)).await;
    assert!(dyno.is_running(), "a SIGTERM is not a Ctrl-C");
    dyno.signal(Signal::SIGINT);
    dyno.exit(SECOND / 2).await;
    let closed = |c: &Client| c.count_heard(|h| matches!(h, Heard::Close(..))) > 0;
    let told = clients.iter().filter(|c| closed(c)).count();
    assert!(
        (1..150).contains(&told),
        "{told} of 150 had been told before it ended"
    );
    clients.clear();
}

#[tokio::test]
async fn a_killed_dyno_loses_nothing_either() {
    let (mut a, b, redis) = pair().await;
    let router = Router::to(&[a.addr(), b.addr()]);
    let crowd = Crowd::gather(&router, "lobby", 40).await;
    crowd.everyone_talks("before").await;
    let on_a = crowd
        .pages
        .iter()
        .filter(|page| page.life().welcomes[0].1 == a.addr())
        .count();
    for page in &crowd.pages {
        page.say("on its way"); // some of these are in the log and their receipts are lost
    }
    let killed = Instant::now();
    a.kill().await;
    crowd.everyone_talks("meanwhile").await;
    crowd.lost_nothing(&redis, 12 * SECOND).await;
    crowd.saw_nobody_come_or_go();
    let codes: Vec<u16> = crowd
        .closes_since(killed)
        .iter()
        .map(|close| close.1)
        .collect();
    assert_eq!(
        codes,
        vec![1006; on_a],
        "only the pages of the killed dyno, and without a Close"
    );
}

#[tokio::test]
async fn a_killed_dyno_leaves_no_ghosts() {
    let (mut a, b, redis) = pair().await;
    let c = Dyno::start_on(&redis, &[]).await;
    let mut taro = b.join("lobby", "taro").await;
    let mut jiro = c.join("lobby", "jiro").await;
    let back = a.join("lobby", "comes back").await;
    let _gone = a.join("lobby", "does not").await;
    let all = ["comes back", "does not", "jiro", "taro"];
    taro.expect_members(&all).await;
    jiro.expect_members(&all).await;
    let (lists, killed) = (taro.members_frames(), Instant::now());
    a.kill().await;
    let (token, last) = (back.token.clone(), back.last());
    sleep(5 * SECOND).await;
    let _back = b
        .join_with("lobby", "comes back", &token, Some(&last))
        .await;
    let left = ["comes back", "jiro", "taro"];
    taro.expect_members_within(&left, 30 * SECOND - killed.elapsed())
        .await;
    jiro.expect_members_within(&left, 30 * SECOND - killed.elapsed())
        .await;
    assert!(
        killed.elapsed() > 12 * SECOND,
        "the lease had to run out first: {:?}",
        killed.elapsed()
    );
    assert_eq!(
        taro.members_frames(),
        lists + 1,
        "one change and no other\n{}",
        taro.transcript()
    );
    check::names_are(&redis, "lobby", &left).await;
    c.join("lobby", "does not").await;
}

#[tokio::test]
async fn a_dyno_alone_that_is_restarted_says_that_its_log_is_gone() {
    let mut dyno = Dyno::start(&[TALKATIVE]).await;
    let crowd = Crowd::gather(&Router::to(&[dyno.addr()]), "lobby", 3).await;
    crowd.everyone_talks("before").await;
    for page in &crowd.pages {
        page.all_sent(PATIENCE).await;
    }
    dyno.kill().await;
    let typed = crowd.pages[0].say("typed while it was away");
    dyno.restart().await;
    for page in &crowd.pages {
        page.until("told of the gap", 15 * SECOND, |life| {
            life.connected && life.gaps.len() == 1
        })
        .await;
        page.until("shown what was typed meanwhile", PATIENCE, |life| {
            life.shown.iter().any(|shown| shown.cid == typed)
        })
        .await;
        check::nothing_wrong(page);
    }
}

// ---- Redis goes away

#[tokio::test]
async fn without_redis_at_boot_the_page_is_served_and_the_rest_waits() {
    let place = Reserved::new();
    let dyno = Dyno::start(&[("REDIS_URL", &place.url())]).await;
    let page = crate::support::raw::http(
        dyno.addr(),
        &crate::support::raw::head("GET /", &dyno.host(), &[]),
    )
    .await;
    assert_eq!(page.status, 200);
    let mut hanako = dyno.connect().await;
    hanako
        .send(join_frame("lobby", "花子", &token(), None))
        .await;
    assert_eq!(hanako.expect_kind("status").await["redis"], "down");
    let busy = hanako.expect_error("busy").await;
    let retry = busy["retry_ms"]
        .as_u64()
        .expect("busy says when to try again");
    assert!((1_000..=3_000).contains(&retry), "{busy}");
    sleep(11 * SECOND).await; // longer than a join may take otherwise
    hanako
        .send(join_frame("lobby", "花子", &token(), None))
        .await;
    hanako.expect_error("busy").await;

    let redis = place.start().await;
    assert_eq!(
        hanako.expect_within("status", 5 * SECOND).await["redis"],
        "up"
    );
    hanako.join("lobby", "花子", &token(), None).await;
    hanako.say("at last").await;
    check::saw_everything(&redis, &hanako);
    assert_eq!(redis.clients().len(), 1, "{:?}", redis.clients());
}

/// Both are told within five seconds of `since`.
async fn told_down(clients: &mut [&mut Client], since: Instant) {
    for client in clients {
        let left = (5 * SECOND + SECOND / 2).saturating_sub(since.elapsed());
        assert_eq!(client.expect_within("status", left).await["redis"], "down");
    }
}

#[tokio::test]
async fn when_redis_stops_everyone_is_told_and_when_it_is_back_the_chat_goes_on() {
    let (a, b, mut redis) = pair().await;
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    hanako.say("before").await;
    taro.hears("before").await;
    taro.expect_members(&["hanako", "taro"]).await;
    let lists = taro.members_frames();

    redis.stop().await;
    told_down(&mut [&mut hanako, &mut taro], Instant::now()).await;
    let kept = cid();
    hanako.talk_as("kept", &kept).await;
    let busy = hanako.expect_error("busy").await;
    assert_eq!(busy["cid"], json!(kept));
    let retry = busy["retry_ms"]
        .as_u64()
        .expect("busy says when to try again");
    assert!((1_000..=3_000).contains(&retry), "{busy}");
    let mut jiro = b.connect().await;
    jiro.send(join_frame("lobby", "jiro", &token(), None)).await;
    assert_eq!(
        jiro.expect_kind("status").await["redis"],
        "down",
        "whoever comes later is told too"
    );
    jiro.expect_error("busy").await;
    sleep(2 * SECOND).await;

    redis.restart().await;
    for client in [&mut hanako, &mut taro, &mut jiro] {
        assert_eq!(
            client.expect_within("status", 5 * SECOND).await["redis"],
            "up"
        );
    }
    hanako.talk_as("kept", &kept).await;
    hanako.hears("kept").await;
    taro.hears("kept").await;
    jiro.join("lobby", "jiro", &token(), None).await;
    assert_eq!(jiro.history(), ["before", "kept"]);
    jiro.quit().await;
    taro.say("and on").await;
    hanako.hears("and on").await;
    sleep(6 * SECOND).await; // names are read three seconds after the link is back, and on the renewal beat
    taro.expect_members(&["hanako", "taro"]).await;
    let flaps = taro.members_frames() - lists;
    assert!(
        flaps <= 2,
        "jiro may have been seen to come and go, nobody else: {}",
        taro.transcript()
    );
    check::saw_everything(&redis, &hanako);
    check::saw_everything(&redis, &taro);
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
    assert_eq!(redis.clients().len(), 2, "{:#?}", redis.clients());
}

#[tokio::test]
async fn when_redis_falls_silent_what_was_said_into_the_silence_is_said_once() {
    let (a, b, redis) = pair().await;
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    hanako.say("before").await;
    taro.hears("before").await;
    redis.signal(Signal::SIGSTOP);
    let (stopped, kept) = (Instant::now(), cid());
    hanako.talk_as("into the silence", &kept).await; // carried out later, although it timed out
    let mut told = hanako
        .expect_any_within(&["status", "error"], 6 * SECOND)
        .await;
    if told["kind"] == "error" {
        assert_eq!(
            (&told["code"], &told["cid"]),
            (&json!("busy"), &json!(kept))
        );
        told = hanako.expect_kind("status").await;
    } else {
        assert_eq!(hanako.expect_error("busy").await["cid"], json!(kept));
    }
    assert_eq!(told["redis"], "down");
    assert!(
        stopped.elapsed() < 5 * SECOND + SECOND / 2,
        "told after {:?}",
        stopped.elapsed()
    );
    told_down(&mut [&mut taro], stopped).await;
    sleep((8 * SECOND).saturating_sub(stopped.elapsed())).await;
    redis.signal(Signal::SIGCONT);
    // Redis may carry it out now: then it arrives by the catch-up, perhaps before the link is said to be up.
    let mut heard = 0;
    for _ in 0..2 {
        let frame = hanako
            .expect_any_within(&["status", "talk"], 10 * SECOND)
            .await;
        heard += u32::from(frame["kind"] == "talk");
        if frame["kind"] == "status" {
            break;
        }
    }
    hanako.talk_as("into the silence", &kept).await;
    if heard == 0 {
        hanako.hears("into the silence").await;
    }
    hanako.say("after").await;
    loop {
        let frame = taro
            .expect_any_within(&["status", "talk"], 10 * SECOND)
            .await;
        if frame["message"] == "after" {
            break;
        }
    }
    assert_eq!(check::stream(&redis, "lobby").len(), 3, "said once");
    check::saw_everything(&redis, &hanako);
    check::saw_everything(&redis, &taro);
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
}

#[tokio::test]
async fn a_redis_that_has_forgotten_everything_is_told_who_is_here() {
    let (a, b, redis) = pair().await;
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    hanako.say("before").await;
    taro.hears("before").await;
    redis.cmd::<String>(&["FLUSHALL"]);
    let forgotten = Instant::now();
    eventually("the names are back", 10 * SECOND, async || {
        let names = check::leases(&redis, "lobby");
        if names.len() == 2 { Ok(()) } else { Err(names) }
    })
    .await;
    b.join_refused("lobby", "hanako", &token(), "name_taken")
        .await;
    sleep((10 * SECOND).saturating_sub(forgotten.elapsed())).await;
    let (token, last) = hanako.vanish().await;
    let mut hanako = a.join_with("lobby", "hanako", &token, Some(&last)).await;
    assert_eq!(
        hanako.welcome["gap"], true,
        "the log no longer reaches back: {}",
        hanako.welcome
    );
    hanako.say("after").await;
    taro.hears("after").await;
    taro.expect_members(&["hanako", "taro"]).await;
    taro.say("and on").await;
    hanako.hears("and on").await;
}

#[tokio::test]
async fn a_name_shown_to_one_tab_alone_is_taken_back() {
    let dyno = Dyno::start(&[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let mut taro = dyno.join("lobby", "taro").await;
    // The list of these two is sent; the next is read a second later.
    hanako.expect_members(&["hanako", "taro"]).await;
    taro.settle().await;
    let jiro = dyno.join("lobby", "jiro").await;
    let token = hanako.token.clone();
    let mut tab = dyno.join_with("lobby", "hanako", &token, None).await;
    jiro.quit().await;
    for client in [&mut hanako, &mut tab, &mut taro] {
        client.expect_members(&["hanako", "taro"]).await;
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_any_more_stops_nothing() {
    let mut redis = Redis::start(&[]).await;
    let port = free_port();
    let mut command = Command::new(crate::support::dyno::program());
    command.env_clear().env("PORT", port.to_string());
    command.env("REDIS_URL", redis.url());
    let child = bound_to_us(&mut command).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("the program starts");
    let log = BufReader::new(child.stdout.take().expect("a pipe"));
    let up = log.lines().find(|line| match line {
        Ok(line) => line.contains("redis=up"),
        Err(e) => panic!("the log: {e}"),
    });
    assert!(up.is_some()); // and the pipe is closed
    redis.stop().await; // which is a line in the log
    sleep(SECOND).await;
    redis.restart().await;
    let addr = ([127, 0, 0, 1], port).into();
    eventually("Redis is up again", PATIENCE, async || {
        let health = http(addr, &head("GET /healthz", "localhost", &[])).await;
        let health = health.text().to_owned();
        if health.contains(r#""redis":"up""#) {
            Ok(())
        } else {
            Err(health)
        }
    })
    .await;
    child.kill().expect("it still runs");
    child.wait().expect("it ends");
}

// ---- settings

#[tokio::test]
async fn a_bad_setting_stops_the_boot_and_is_named() {
    let bad = [
        ("PORT", "abc"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "3000x"),
        ("REDIS_URL", "nonsense"),
        ("REDIS_URL", "http://user:hunter2@127.0.0.1:1"),
        ("REDIS_URL", "redis://:hunter2@127.0.0.1:port"),
        ("REDIS_URL", "redis://"),
        ("REDISCLOUD_URL", "nonsense"),
        ("REDIS_TLS_VERIFY", "maybe"),
        ("MAX_CONNECTIONS", "-1"),
        ("MAX_CONNECTIONS", "many"),
        ("TALK_PER_SECOND", "fast"),
        ("TALK_PER_SECOND", "-2"),
        ("ALLOWED_ORIGINS", "not an origin"),
    ];
    futures_util::future::join_all(bad.map(async |(name, value)| {
        let (status, said) = refuses_to_boot(&[(name, value)]).await;
        assert!(
            status.code().is_some_and(|code| code != 0),
            "{name}={value} ends with {status}: {said}"
        );
        assert!(said.contains(name), "{name}={value} is named in: {said}");
        assert!(!said.contains("hunter2"), "a password stays secret: {said}");
        assert!(
            !said.contains("panicked"),
            "a sentence, not a panic: {said}"
        );
        assert!(said.lines().count() <= 3, "one sentence: {said}");
    }))
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_boot() {
    let dyno = Dyno::start(&[]).await;
    let port = dyno.port.to_string();
    let (status, said) = refuses_to_boot(&[("PORT", &port)]).await;
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status}: {said}"
    );
    assert!(said.contains(&port) && !said.contains("panicked"), "{said}");
}

#[tokio::test]
async fn the_log_holds_no_text_no_token_and_no_password() {
    let redis = Redis::start(&["--requirepass", "hunter2"]).await;
    let mut dyno = Dyno::start(&[
        ("REDISCLOUD_URL", &redis.url()),
        ("RUST_LOG", "debug"),
        TALKATIVE,
    ])
    .await;
    dyno.has_redis().await;
    let mut hanako = dyno.join("lobby", "花子").await;
    hanako.say("a very private remark").await;
    hanako.talk("private\u{1b}").await;
    hanako.expect_error("bad_message").await;
    dyno.join_refused("lobby", "花子", &token(), "name_taken")
        .await;
    let token = hanako.token.clone();
    hanako.quit().await;
    redis.cut_all();
    sleep(SECOND).await;
    dyno.signal(Signal::SIGTERM);
    dyno.exit(PATIENCE).await;
    let log = dyno.log();
    assert!(!log.is_empty(), "it says something");
    for secret in ["private", "hunter2", &token, "\u{1b}"] {
        assert!(!log.contains(secret), "{secret:?} in the log:\n{log}");
    }
    assert!(
        log.lines().any(|l| l.contains("redis=")),
        "in logfmt:\n{log}"
    );
}

// ---- TLS, as on the platform

#[tokio::test]
async fn a_self_signed_redis_is_refused_and_the_log_says_which_setting_would_trust_it() {
    let (_redis, url) = Redis::start_with_tls().await;
    for careful in [&[][..], &[("REDIS_TLS_VERIFY", "true")]] {
        let dyno = Dyno::start(&[&[("REDIS_URL", url.as_str())], careful].concat()).await;
        let mut hanako = dyno.connect().await;
        sleep(2 * SECOND).await; // long enough to try many times
        hanako
            .send(join_frame("lobby", "花子", &token(), None))
            .await;
        assert_eq!(hanako.expect_kind("status").await["redis"], "down");
        hanako.expect_error("busy").await;
        let log = dyno.log();
        let down: Vec<_> = log.lines().filter(|l| l.contains("redis=down")).collect();
        assert_eq!(down.len(), 1, "said once:\n{log}");
        assert!(down[0].contains("certificate"), "why:\n{log}");
        assert!(down[0].contains("REDIS_TLS_VERIFY"), "what to do:\n{log}");
    }
}

#[tokio::test]
async fn a_self_signed_redis_is_trusted_if_one_says_so_and_that_is_logged_once() {
    let (redis, url) = Redis::start_with_tls().await;
    let dyno = Dyno::start_with_redis_at(&url, &[("REDIS_TLS_VERIFY", "false")]).await;
    let mut hanako = dyno.join("lobby", "花子").await;
    hanako.say("over TLS").await;
    redis.cut_all();
    sleep(SECOND).await;
    dyno.has_redis().await; // by a new connection
    hanako.expect_kind("status").await;
    hanako.expect_kind("status").await;
    hanako.say("over TLS again").await;
    check::saw_everything(&redis, &hanako);
    let log = dyno.log();
    let said = log.lines().filter(|l| l.contains("REDIS_TLS_VERIFY=false"));
    assert_eq!(
        said.count(),
        1,
        "that nothing is verified is said once:\n{log}"
    );

    // Where there is no TLS there is nothing to verify, and nothing to say.
    let plain = Dyno::start_on(&redis, &[("REDIS_TLS_VERIFY", "false")]).await;
    assert!(!plain.log().contains("REDIS_TLS_VERIFY"), "{}", plain.log());
}

// ---- the beat

#[tokio::test]
async fn every_25_seconds_comes_a_ping_and_a_tick_and_whoever_is_silent_for_50_is_closed() {
    let dyno = Dyno::start(&[]).await;
    let start = Instant::now();
    let alive = dyno.join("lobby", "alive").await; // answers Pings
    let mut silent = Raw::joined(&dyno, "lobby", "silent").await; // reads, but says nothing
    let mut talking = Raw::joined(&dyno, "lobby", "talking").await; // no Pongs, but a ping now and then
    let closed = async {
        let (code, _) = silent.closed(60 * SECOND).await;
        (code, start.elapsed())
    };
    let talks = async {
        for _ in 0..2 {
            sleep(20 * SECOND).await;
            let ping = json!({"kind": "ping"}).to_string();
            talking
                .send(crate::support::raw::frame(crate::support::raw::TEXT, ping))
                .await;
        }
        sleep(16 * SECOND).await;
    };
    let ((code, after), ()) = tokio::join!(closed, talks);
    assert_eq!(code, 4008);
    assert!(
        (49 * SECOND..54 * SECOND).contains(&after),
        "closed after {after:?}: before the router's 55 s"
    );
    let on_the_beat = |what: &str, at: Vec<Duration>| {
        assert_eq!(
            at.len(),
            2,
            "{what} within 56 s: {at:?}\n{}",
            alive.transcript()
        );
        for (i, at) in at.iter().enumerate() {
            let due = 25 * SECOND * (i as u32 + 1);
            assert!(at.abs_diff(due) < 3 * SECOND / 2, "{what} {i} at {at:?}");
        }
    };
    on_the_beat("Pings", alive.heard_at(|h| *h == Heard::Ping));
    on_the_beat(
        "ticks",
        alive.heard_at(|h| matches!(h, Heard::Frame(f) if f["kind"] == "tick")),
    );
    assert_eq!(
        alive.count_heard(|h| matches!(h, Heard::Close(..) | Heard::Eof)),
        0
    );
    talking
        .send(crate::support::raw::frame(
            crate::support::raw::PING,
            "still there?",
        ))
        .await;
    loop {
        let (opcode, _) = talking
            .frame(PATIENCE)
            .await
            .expect("whoever says something is not silent");
        if opcode == crate::support::raw::PONG {
            break;
        }
    }
}
