//! Many dynos on one Redis are one chat, also when a dyno or Redis stops, is killed, hangs, comes back, or has lost its
//! data. Each test has its own dynos and its own Redis.

use crate::support::client::{Heard, join_frame};
use crate::support::dyno::{program, refuses_to_boot};
use crate::support::facts::*;
use crate::support::page::Life;
use crate::support::raw::{PING, PONG, frame, head, http};
use crate::support::redis_server::Reserved;
use crate::support::{
    Client, Crowd, Dyno, PATIENCE, Raw, Redis, Router, TALKATIVE, bound_to_us, check, cid,
    eventually, free_port, token,
};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// For the limits of a time: the machine may be busy.
const TOLERANCE: Duration = Duration::from_millis(500);

/// Two dynos on one Redis.
async fn pair() -> (Dyno, Dyno, Redis) {
    let redis = Redis::start(&["--appendonly", "yes"]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let b = Dyno::start_on(&redis, &[TALKATIVE]).await;
    (a, b, redis)
}

/// A member on each of two dynos. Both have seen one message, `before`, and each other.
async fn hanako_and_taro(a: &Dyno, b: &Dyno) -> (Client, Client) {
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    hanako.say("before").await;
    taro.hears("before").await;
    taro.expect_members(&["hanako", "taro"]).await;
    (hanako, taro)
}

/// The promise, for the two members and the names in Redis.
async fn both_saw_everything(redis: &Redis, hanako: &Client, taro: &Client) {
    check::saw_everything(redis, hanako);
    check::saw_everything(redis, taro);
    check::names_are(redis, "lobby", &["hanako", "taro"]).await;
}

async fn members_on(dyno: &Dyno, count: usize) -> Vec<Client> {
    let mut clients = vec![];
    for i in 0..count {
        clients.push(dyno.join("lobby", &format!("n{i}")).await);
    }
    clients
}

async fn exits_with_0(dyno: &mut Dyno) {
    let status = dyno.exit(EXITS_WITHIN).await;
    assert_eq!(status.code(), Some(0), "{status}\n{}", dyno.log());
}

/// Each client gets `status down` within the time that is allowed since Redis went away.
async fn learn_that_redis_is_down(clients: &mut [&mut Client], since: Instant) {
    for client in clients {
        let limit = REDIS_KNOWN_WITHIN + TOLERANCE;
        let left = limit.saturating_sub(since.elapsed());
        client.expect_redis("down", left).await;
    }
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
    let texts: Vec<String> = (0..20).map(|i| format!("m{i}")).collect();
    for text in &texts {
        let said = hanako.say(text).await;
        assert_eq!(taro.hears(text).await, said, "the same frame");
        std::mem::swap(&mut hanako, &mut taro);
    }
    jiro.say("in another room").await; // fails if another talk comes before it
    both_saw_everything(&redis, &hanako, &taro).await;
    b.name_is_taken("lobby", "hanako").await;
    let newcomer = b.join("lobby", "saburo").await;
    assert_eq!(newcomer.history(), texts);
}

#[tokio::test]
async fn each_dyno_has_exactly_one_connection_to_redis() {
    let (a, b, redis) = pair().await;
    let has_two = |when: &str| {
        let seen = redis.clients();
        assert_eq!(seen.len(), 2, "{when}: {seen:#?}");
    };
    let mut clients = vec![];
    for i in 0..40 {
        let dyno = if i % 2 == 0 { &a } else { &b };
        let (room, user) = (format!("room {}", i % 30), format!("n{i}"));
        let mut client = dyno.join(&room, &user).await;
        client.say("hello").await;
        clients.push(client);
        has_two(&format!("after {i} joins"));
    }
    for second in 0..RENEWAL.as_secs() + 2 {
        sleep(SECOND).await;
        has_two(&format!("{second} seconds later"));
    }
}

#[tokio::test]
async fn of_two_claims_of_a_free_name_on_two_dynos_exactly_one_succeeds() {
    let (a, b, _redis) = pair().await;
    for round in 0..100 {
        let name = format!("n{round}");
        let claim = async |dyno: &Dyno| {
            let (_, answer) = Raw::asked_to_join(dyno, "lobby", &name).await;
            answer
        };
        let (on_a, on_b) = tokio::join!(claim(&a), claim(&b));
        let welcomed = |answer: &serde_json::Value| answer["kind"] == "welcome";
        assert!(welcomed(&on_a) != welcomed(&on_b), "{on_a} and {on_b}");
        let refusal = if welcomed(&on_a) { on_b } else { on_a };
        assert_eq!(refusal["code"], "name_taken", "round {round}");
    }
}

// ---- a dyno goes away

#[tokio::test]
async fn sigint_closes_all_pages_spread_over_seconds_and_they_lose_nothing() {
    let (mut a, b, redis) = pair().await;
    let router = Router::to(&[a.addr(), b.addr()]);
    // With fifty pages on each dyno the closes take a second: this program may get no processor for half of that.
    let crowd = Crowd::gather(&router, "lobby", 100).await;
    crowd.everyone_talks("before").await;

    router.set(&[b.addr()]);
    a.signal(Signal::SIGINT);
    let asked = Instant::now();
    tokio::join!(exits_with_0(&mut a), crowd.everyone_talks("meanwhile"));
    crowd.everyone_talks("after").await;
    crowd.lost_nothing(&redis, 12 * SECOND).await;
    crowd.saw_nobody_come_or_go();

    let closes = crowd.closes_since(asked);
    assert!(closes.iter().all(|close| close.1 == 1012), "{closes:?}");
    // About half of the pages were on the dyno that stopped.
    assert!(closes.len() >= 5, "{closes:?}");
    let (first, last) = (closes[0].0, closes[closes.len() - 1].0);
    assert!(last <= CLOSES_WITHIN + TOLERANCE, "the last: {last:?}");
    assert!(last - first >= SECOND / 10, "{first:?} to {last:?}");
}

#[tokio::test]
async fn a_member_of_a_closed_dyno_resumes_on_another_and_nobody_sees_a_change() {
    let (mut a, b, redis) = pair().await;
    let (mut hanako, mut taro) = hanako_and_taro(&a, &b).await;
    let lists = taro.members_frames();
    a.signal(Signal::SIGINT);
    let within = CLOSES_WITHIN + SECOND;
    let reason = hanako.closed_after_all_within(1012, within).await;
    assert!(!reason.is_empty(), "a page can show the reason");
    taro.say("meanwhile").await;
    let mut hanako = hanako.reconnect(&b).await;
    assert_eq!(hanako.history(), ["meanwhile"]);
    hanako.welcomed_with(json!({"gap": false}));
    hanako.say("after").await;
    taro.hears("after").await;
    exits_with_0(&mut a).await;
    sleep(2 * SECOND).await;
    taro.saw_no_change_since(lists);
    both_saw_everything(&redis, &hanako, &taro).await;
}

#[tokio::test]
async fn a_stopping_dyno_closes_its_listener_first_and_exits_when_it_has_no_members() {
    let (mut empty, _b, _redis) = pair().await;
    empty.signal(Signal::SIGTERM);
    assert_eq!(empty.exit(3 * SECOND).await.code(), Some(0));
    let mut busy = Dyno::start(&[]).await;
    let _members = members_on(&busy, 20).await;
    busy.signal(Signal::SIGTERM);
    let refused = async || match TcpStream::connect(busy.addr()).await {
        Err(_) => Ok(()),
        Ok(_) => Err("accepted"),
    };
    eventually("new connections are refused", SECOND, refused).await;
    assert!(busy.is_running(), "it is still closing connections");
    exits_with_0(&mut busy).await;
}

#[tokio::test]
async fn further_signals_within_a_second_change_nothing() {
    // One Ctrl-C can arrive as several SIGINTs: from the terminal and from a process manager.
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut dyno = Dyno::start(&[]).await;
        let mut members = members_on(&dyno, 20).await;
        let asked = Instant::now();
        for _ in 0..6 {
            dyno.signal(signal);
            sleep(SECOND / 10).await;
        }
        for member in &mut members {
            let within = CLOSES_WITHIN + SECOND;
            member.closed_after_all_within(1012, within).await;
        }
        exits_with_0(&mut dyno).await;
        assert!(asked.elapsed() < EXITS_WITHIN, "{signal}");
    }
}

#[tokio::test]
async fn a_second_sigint_after_a_second_ends_the_process_at_once() {
    let mut dyno = Dyno::start(&[]).await;
    let members = members_on(&dyno, 150).await;
    dyno.signal(Signal::SIGINT);
    sleep(Duration::from_millis(1_200)).await;
    dyno.signal(Signal::SIGTERM);
    sleep(SECOND / 10).await;
    assert!(dyno.is_running(), "SIGTERM is not SIGINT");
    dyno.signal(Signal::SIGINT);
    dyno.exit(SECOND / 2).await;
    let is_closed = |client: &&Client| client.count_heard(|h| matches!(h, Heard::Close(..))) > 0;
    let closed = members.iter().filter(is_closed).count();
    assert!((1..150).contains(&closed), "{closed} of 150 were closed");
}

#[tokio::test]
async fn the_pages_of_a_killed_dyno_lose_nothing() {
    let (mut a, b, redis) = pair().await;
    let router = Router::to(&[a.addr(), b.addr()]);
    let crowd = Crowd::gather(&router, "lobby", 40).await;
    crowd.everyone_talks("before").await;
    let pages = crowd.pages.iter();
    let on_a = pages.filter(|page| page.life().welcomes[0].1 == a.addr());
    let on_a = on_a.count();
    for page in &crowd.pages {
        page.say("on its way"); // some of these are stored, but not acknowledged
    }
    let killed = Instant::now();
    a.kill().await;
    crowd.everyone_talks("meanwhile").await;
    crowd.lost_nothing(&redis, 12 * SECOND).await;
    crowd.saw_nobody_come_or_go();
    let closes = crowd.closes_since(killed);
    let codes: Vec<u16> = closes.iter().map(|close| close.1).collect();
    assert_eq!(codes, vec![1006; on_a], "its pages only, without a Close");
}

#[tokio::test]
async fn names_of_a_killed_dyno_stay_until_their_leases_end() {
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
    sleep(LEASE / 4).await;
    let _back = back.reconnect(&b).await;
    let left = ["comes back", "jiro", "taro"];
    for client in [&mut taro, &mut jiro] {
        let within = (GONE + 4 * SECOND).saturating_sub(killed.elapsed());
        client.expect_members_within(&left, within).await;
    }
    let took = killed.elapsed();
    assert!(took > LEASE * 3 / 5, "the lease ended after {took:?}");
    taro.saw_no_change_since(lists + 1);
    check::names_are(&redis, "lobby", &left).await;
    c.join("lobby", "does not").await;
}

#[tokio::test]
async fn pages_of_a_restarted_dyno_without_redis_see_a_gap_and_send_what_was_typed() {
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
        let sees_gap = |life: &Life| life.connected && life.gaps.len() == 1;
        page.until("a gap", 15 * SECOND, sees_gap).await;
        let shows_it = |life: &Life| life.shown.iter().any(|shown| shown.cid == typed);
        page.until("what was typed", PATIENCE, shows_it).await;
        check::nothing_wrong(page);
    }
}

// ---- Redis goes away

#[tokio::test]
async fn without_redis_at_boot_the_page_is_served_and_joins_get_busy() {
    let place = Reserved::new();
    let dyno = Dyno::start(&[("REDIS_URL", &place.url())]).await;
    let page = http(dyno.addr(), &head("GET /", &dyno.host(), &[])).await;
    assert_eq!(page.status, 200);
    let mut hanako = dyno.connect().await;
    let join = join_frame("lobby", "花子", &token(), None);
    hanako.send(join.clone()).await;
    hanako.expect_redis("down", PATIENCE).await;
    hanako.expect_busy().await;
    sleep(JOIN_DEADLINE + SECOND).await; // no deadline runs while Redis is down
    hanako.send(join).await;
    hanako.expect_busy().await;

    let redis = place.start().await;
    hanako.expect_redis("up", REDIS_KNOWN_WITHIN).await;
    hanako.join("lobby", "花子", &token(), None).await;
    hanako.say("at last").await;
    check::saw_everything(&redis, &hanako);
    assert_eq!(redis.clients().len(), 1, "{:?}", redis.clients());
}

#[tokio::test]
async fn while_redis_is_stopped_everyone_knows_and_afterwards_the_chat_goes_on() {
    let (a, b, mut redis) = pair().await;
    let (mut hanako, mut taro) = hanako_and_taro(&a, &b).await;
    let lists = taro.members_frames();

    redis.stop().await;
    learn_that_redis_is_down(&mut [&mut hanako, &mut taro], Instant::now()).await;
    let kept = cid();
    hanako.talk_as("kept", &kept).await;
    assert_eq!(hanako.expect_busy().await["cid"], json!(kept));
    let mut jiro = b.connect().await;
    jiro.send(join_frame("lobby", "jiro", &token(), None)).await;
    jiro.expect_redis("down", PATIENCE).await;
    jiro.expect_busy().await;
    sleep(2 * SECOND).await;

    redis.restart().await;
    for client in [&mut hanako, &mut taro, &mut jiro] {
        client.expect_redis("up", REDIS_KNOWN_WITHIN).await;
    }
    hanako.talk_as("kept", &kept).await;
    hanako.hears("kept").await;
    taro.hears("kept").await;
    jiro.join("lobby", "jiro", &token(), None).await;
    assert_eq!(jiro.history(), ["before", "kept"]);
    jiro.quit().await;
    taro.say("and on").await;
    hanako.hears("and on").await;
    sleep(RENEWAL + SECOND).await; // until the list of members was read again
    taro.expect_members(&["hanako", "taro"]).await;
    // At most two changes: jiro joined and left.
    let changes = taro.members_frames() - lists;
    assert!(changes <= 2, "{}", taro.context());
    both_saw_everything(&redis, &hanako, &taro).await;
    assert_eq!(redis.clients().len(), 2, "{:#?}", redis.clients());
}

#[tokio::test]
async fn a_talk_sent_while_redis_hangs_is_stored_once() {
    let (a, b, redis) = pair().await;
    let (mut hanako, mut taro) = hanako_and_taro(&a, &b).await;
    redis.signal(Signal::SIGSTOP);
    let (stopped, kept) = (Instant::now(), cid());
    hanako.talk_as("sent into the hang", &kept).await; // Redis executes it later, although it timed out
    let either = ["status", "error"];
    let within = REDIS_KNOWN_WITHIN + SECOND;
    let (first, second) = (
        hanako.expect_any_within(&either, within).await,
        hanako.expect_any_within(&either, within).await,
    );
    let took = stopped.elapsed();
    let (status, busy) = match first["kind"] == "status" {
        true => (first, second),
        false => (second, first),
    };
    assert_eq!(status["redis"], "down", "{}", hanako.context());
    let refusal = (&busy["code"], &busy["cid"]);
    assert_eq!(refusal, (&json!("busy"), &json!(kept)));
    assert!(took < REDIS_KNOWN_WITHIN + TOLERANCE, "after {took:?}");
    learn_that_redis_is_down(&mut [&mut taro], stopped).await;
    sleep((8 * SECOND).saturating_sub(stopped.elapsed())).await;
    redis.signal(Signal::SIGCONT);
    // If Redis executes the script now, the talk is read from the stream, perhaps before `status up`.
    let mut is_heard = false;
    let either = ["status", "talk"];
    while hanako.expect_any_within(&either, PATIENCE).await["kind"] == "talk" {
        assert!(!is_heard, "{}", hanako.context());
        is_heard = true;
    }
    hanako.talk_as("sent into the hang", &kept).await;
    if !is_heard {
        hanako.hears("sent into the hang").await;
    }
    hanako.say("after").await;
    while taro.expect_any_within(&either, PATIENCE).await["message"] != "after" {}
    let stored = check::stream(&redis, "lobby").len();
    assert_eq!(stored, 3, "before, sent into the hang, after");
    both_saw_everything(&redis, &hanako, &taro).await;
}

#[tokio::test]
async fn names_are_claimed_again_after_flushall() {
    let (a, b, redis) = pair().await;
    let (hanako, mut taro) = hanako_and_taro(&a, &b).await;
    redis.cmd::<String>(&["FLUSHALL"]);
    let lost = Instant::now();
    eventually("the names are back", 2 * RENEWAL, async || {
        let names = check::leases(&redis, "lobby");
        if names.len() == 2 { Ok(()) } else { Err(names) }
    })
    .await;
    b.name_is_taken("lobby", "hanako").await;
    sleep((2 * RENEWAL).saturating_sub(lost.elapsed())).await;
    let mut hanako = hanako.reconnect(&a).await;
    hanako.welcomed_with(json!({"gap": false})); // this dyno still has the history
    hanako.say("after").await;
    taro.hears("after").await;
    taro.expect_members(&["hanako", "taro"]).await;
    taro.say("and on").await;
    hanako.hears("and on").await;
}

#[tokio::test]
async fn a_name_in_a_welcome_that_has_left_meanwhile_is_removed_from_the_list() {
    let dyno = Dyno::start(&[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    let mut taro = dyno.join("lobby", "taro").await;
    // The list of these two was sent; the next one is read a second later.
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
async fn a_dyno_whose_stdout_is_closed_goes_on() {
    let mut redis = Redis::start(&[]).await;
    let port = free_port();
    let mut command = Command::new(program());
    command.env_clear().env("PORT", port.to_string());
    command.env("REDIS_URL", redis.url());
    let child = bound_to_us(&mut command).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("the program starts");
    let log = BufReader::new(child.stdout.take().expect("a pipe"));
    let up = log.lines().find(|line| match line {
        Ok(line) => line.contains("redis=up"),
        Err(e) => panic!("the log: {e}"),
    });
    assert!(up.is_some()); // now the pipe is closed
    redis.stop().await; // the dyno logs that
    sleep(SECOND).await;
    redis.restart().await;
    let addr = ([127, 0, 0, 1], port).into();
    eventually("Redis is up again", PATIENCE, async || {
        let health = http(addr, &head("GET /healthz", "localhost", &[])).await;
        match health.text().contains(r#""redis":"up""#) {
            true => Ok(()),
            false => Err(health.text().to_owned()),
        }
    })
    .await;
    child.kill().expect("it is still running");
    child.wait().expect("it ends");
}

// ---- settings

/// The program did not start, because of this setting.
fn assert_refused(setting: &str, (status, said): (ExitStatus, String)) {
    let failed = status.code().is_some_and(|code| code != 0);
    assert!(failed, "{setting}: {status}: {said}");
    assert!(!said.contains("panicked"), "a sentence, no panic: {said}");
}

#[tokio::test]
async fn a_bad_setting_stops_the_boot_with_a_sentence_that_names_it() {
    let bad = [
        ("PORT", &["abc", "-1", "65536", "3000x"][..]),
        ("REDIS_URL", &["nonsense", "redis://"]),
        ("REDIS_URL", &["http://user:hunter2@127.0.0.1:1"]),
        ("REDIS_URL", &["redis://:hunter2@127.0.0.1:port"]),
        ("REDISCLOUD_URL", &["nonsense"]),
        ("REDIS_TLS_VERIFY", &["maybe"]),
        ("MAX_CONNECTIONS", &["-1", "many"]),
        ("TALK_PER_SECOND", &["fast", "-2"]),
        ("GRACE_SECONDS", &["soon", "-1", "2.5", "3601"]),
        ("ALLOWED_ORIGINS", &["not an origin"]),
        ("MAX_PER_ADDRESS", &["-1", "many", "1.5", "4294967296"]),
    ];
    for (name, values) in bad {
        join_all(values.iter().map(async |value| {
            let (status, said) = refuses_to_boot(&[(name, value)]).await;
            assert!(said.contains(name), "{name}={value}: {said}");
            assert!(!said.contains("hunter2"), "a password: {said}");
            assert!(said.lines().count() <= 3, "one sentence: {said}");
            assert_refused(&format!("{name}={value}"), (status, said));
        }))
        .await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_boot() {
    let dyno = Dyno::start(&[]).await;
    let port = dyno.port.to_string();
    let (status, said) = refuses_to_boot(&[("PORT", &port)]).await;
    assert!(said.contains(&port), "{said}");
    assert_refused("PORT", (status, said));
}

#[tokio::test]
async fn the_log_contains_no_message_no_token_and_no_password() {
    let redis = Redis::start(&["--requirepass", "hunter2"]).await;
    let url = redis.url();
    let vars = [("REDISCLOUD_URL", &*url), ("RUST_LOG", "debug"), TALKATIVE];
    let mut dyno = Dyno::start(&vars).await;
    dyno.has_redis().await;
    let mut hanako = dyno.join("lobby", "花子").await;
    hanako.say("a very private remark").await;
    hanako.talk_refused("private\u{1b}", "bad_message").await;
    dyno.name_is_taken("lobby", "花子").await;
    let token = hanako.token.clone();
    hanako.quit().await;
    redis.cut_all();
    sleep(SECOND).await;
    dyno.signal(Signal::SIGTERM);
    dyno.exit(PATIENCE).await;
    let log = dyno.log();
    for secret in ["private", "hunter2", &token, "\u{1b}"] {
        assert!(!log.contains(secret), "{secret:?} in the log:\n{log}");
    }
    assert!(log.contains("redis="), "logfmt:\n{log}");
}

// ---- TLS, as on Heroku

#[tokio::test]
async fn a_self_signed_certificate_is_refused_and_the_log_names_the_setting_that_accepts_it() {
    let (_redis, url) = Redis::start_with_tls().await;
    for verify in [&[][..], &[("REDIS_TLS_VERIFY", "true")]] {
        let dyno = Dyno::start(&[&[("REDIS_URL", &*url)], verify].concat()).await;
        let mut hanako = dyno.connect().await;
        sleep(2 * SECOND).await; // enough for many tries
        let join = join_frame("lobby", "花子", &token(), None);
        hanako.send(join).await;
        hanako.expect_redis("down", PATIENCE).await;
        hanako.expect_busy().await;
        let log = dyno.log();
        let down: Vec<_> = log.lines().filter(|l| l.contains("redis=down")).collect();
        assert_eq!(down.len(), 1, "logged once:\n{log}");
        for word in ["certificate", "REDIS_TLS_VERIFY"] {
            assert!(down[0].contains(word), "{word} in:\n{log}");
        }
    }
}

#[tokio::test]
async fn without_verification_a_self_signed_certificate_is_accepted_and_that_is_logged_once() {
    let (redis, url) = Redis::start_with_tls().await;
    let unverified = [("REDIS_TLS_VERIFY", "false")];
    let dyno = Dyno::start_with_redis_at(&url, &unverified).await;
    let mut hanako = dyno.join("lobby", "花子").await;
    hanako.say("over TLS").await;
    redis.cut_all();
    sleep(SECOND).await;
    dyno.has_redis().await; // over a new connection
    hanako.expect_kind("status").await;
    hanako.expect_kind("status").await;
    hanako.say("over TLS again").await;
    check::saw_everything(&redis, &hanako);
    let times = |log: &str| log.matches("REDIS_TLS_VERIFY=false").count();
    assert_eq!(times(&dyno.log()), 1, "{}", dyno.log());

    let plain = Dyno::start_on(&redis, &unverified).await;
    let log = plain.log();
    assert!(!log.contains("REDIS_TLS_VERIFY"), "without TLS: {log}");
}

// ---- heartbeat

#[tokio::test]
async fn ping_and_tick_come_every_25_seconds_and_50_seconds_of_silence_close_the_connection() {
    let dyno = Dyno::start(&[]).await;
    let start = Instant::now();
    let alive = dyno.join("lobby", "alive").await; // answers Pings
    let mut silent = Raw::joined(&dyno, "lobby", "silent").await; // reads, sends nothing
    let mut talking = Raw::joined(&dyno, "lobby", "talking").await; // sends pings, no Pongs
    let closed = async {
        let (code, _) = silent.closed(SILENCE + PATIENCE).await;
        (code, start.elapsed())
    };
    let talks = async {
        for _ in 0..2 {
            sleep(HEARTBEAT * 4 / 5).await;
            talking.send_json(json!({"kind": "ping"})).await;
        }
        sleep(SILENCE + 6 * SECOND - start.elapsed()).await;
    };
    let ((code, after), ()) = tokio::join!(closed, talks);
    assert_eq!(code, 4008);
    // The router cuts connections after 55 s.
    let expected = SILENCE - SECOND..SILENCE + 4 * SECOND;
    assert!(expected.contains(&after), "closed after {after:?}");
    for (what, at) in [
        ("Pings", alive.heard_at(|heard| *heard == Heard::Ping)),
        (
            "ticks",
            alive.heard_at(|heard| matches!(heard, Heard::Frame(f) if f["kind"] == "tick")),
        ),
    ] {
        assert_eq!(at.len(), 2, "{what}: {at:?}\n{}", alive.context());
        for (at, due) in at.iter().zip([HEARTBEAT, 2 * HEARTBEAT]) {
            // Early by the ticker's second at most; late when the machine is busy.
            let expected = due - 3 * SECOND / 2..due + 5 * SECOND;
            assert!(expected.contains(at), "{what} at {at:?}");
        }
    }
    let spread = SPREAD_MS.start();
    let tells_spread = |heard: &Heard| matches!(heard, Heard::Frame(f) if f["kind"] == "tick" && f["spread_ms"] == *spread);
    assert_eq!(alive.count_heard(tells_spread), 2, "{}", alive.context());
    assert_eq!(alive.count_heard(Heard::is_end), 0);
    talking.send(frame(PING, "still there?")).await;
    let answered = async { while talking.frame(PATIENCE).await.expect("it is open").0 != PONG {} };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .expect("a Pong");
}
