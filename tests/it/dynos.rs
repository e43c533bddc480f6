//! Many dynos on one Redis are one chat, also when a dyno or Redis stops, is killed, hangs, comes back, or has lost its
//! data. Each test has its own dynos and its own Redis.

use crate::support::dyno::{program, refuses_to_boot};
use crate::support::prelude::*;
use crate::support::raw::{PING, PONG, frame};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// For the limits of a time: the machine may be busy.
const TOLERANCE: Duration = Duration::from_millis(500);

/// Two dynos on one Redis.
pub async fn pair() -> (Dyno, Dyno, Redis) {
    let redis = Redis::start(&[]).await;
    let [a, b] = pair_on(&redis).await;
    (a, b, redis)
}

pub async fn pair_on(redis: &Redis) -> [Dyno; 2] {
    let start = async || Dyno::start_on(redis, &[TALKATIVE]).await;
    [start().await, start().await]
}

/// A member on each of two dynos. Both have seen one message, `before`, and each other.
pub async fn hanako_and_taro(a: &Dyno, b: &Dyno) -> (Client, Client) {
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

/// Cuts all connections to Redis. These clients are told, and also that it is back.
pub async fn cut_and_back<const N: usize>(redis: &Redis, clients: [&mut Client; N]) {
    redis.cut_all();
    for client in clients {
        client.expect_redis("down", PATIENCE).await;
        client.expect_redis("up", PATIENCE).await;
    }
}

/// The client gets `busy` for a talk and `status down`, in either order: the talk may be the first to find out. Returns
/// the error.
pub async fn gets_busy_and_down(client: &mut Client, within: Duration) -> Value {
    let mut heard = vec![];
    for _ in 0..2 {
        let either = ["error", "status"];
        heard.push(client.expect_any_within(&either, within).await);
    }
    heard.sort_by_key(|frame| frame["kind"] == "status");
    let seen = (&heard[0]["code"], &heard[1]["redis"]);
    assert_eq!(seen, (&json!("busy"), &json!("down")), "{heard:?}");
    heard.remove(0)
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
        let (room, user) = (format!("room {}", i % 30), format!("n{i}"));
        let mut client = [&a, &b][i % 2].join(&room, &user).await;
        client.say("hello").await;
        clients.push(client);
        has_two(&format!("after {i} joins"));
    }
    for second in 0..RENEWAL.as_secs() + 2 {
        sleep(SECOND).await;
        has_two(&format!("{second} seconds later"));
    }
}

// ---- a dyno goes away

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
    let ends = [&taro, &jiro].map(|client| client.count_heard(Heard::is_end));
    assert_eq!(ends, [0, 0], "the other dynos keep their connections");
    check::names_are(&redis, "lobby", &left).await;
    c.join("lobby", "does not").await;
}

/// Moves all leases of the room an hour ahead, and the life of its keys: as if the clock had stepped back an hour.
fn clock_steps_back(redis: &Redis, room: &str) {
    let hour = "for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
            redis.call('ZINCRBY', KEYS[1], 3600000, name)
        end
        for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 3620000) end
        return redis.call('ZCARD', KEYS[1])";
    let moved: usize = redis.cmd(&["EVAL", hour, "2", &names_key(room), &owners_key(room)]);
    assert!(moved > 0, "nobody has a lease in {room}");
}

/// Hanako was in each of these rooms, on the dyno that is killed.
#[tokio::test]
async fn names_of_a_killed_dyno_end_in_time_although_leases_are_lost_or_the_clock_steps_back() {
    let (mut a, b, redis) = pair().await;
    let rooms = ["evicted", "clock", "late", "empty"];
    let hanakos = join_all(rooms.map(|room| a.join(room, "hanako"))).await;
    let taro_in = async |room: &str| {
        let mut taro = b.join(room, &format!("taro in {room}")).await;
        taro.expect_members(&["hanako", &taro.user.clone()]).await;
        taro
    };
    let mut taros = vec![taro_in("evicted").await, taro_in("clock").await];
    a.kill().await;
    let killed = Instant::now();
    redis.cmd::<u64>(&["DEL", &names_key("evicted")]); // as a Redis that is short of memory does
    for room in &rooms[1..] {
        clock_steps_back(&redis, room);
    }
    // Nobody runs a script in a room while it is empty. The first who joins does: hanako is gone a lease later.
    taros.push(taro_in("late").await);
    // The first who wants the name is refused, the next one a lease later is not.
    b.name_is_taken("empty", "hanako").await;
    let refused = Instant::now();
    for taro in &mut taros {
        let within = (GONE + SECOND).saturating_sub(killed.elapsed());
        let alone = [&*taro.user.clone()];
        taro.expect_members_within(&alone, within).await;
        check::names_are(&redis, &taro.room, &alone).await;
    }
    b.join("clock", "hanako").await;
    taros[1].expect_members(&["hanako", "taro in clock"]).await;
    sleep((LEASE + SECOND).saturating_sub(refused.elapsed())).await;
    b.join("empty", "hanako").await;
    // The owner's own token is welcome at any time.
    let token = &hanakos[2].token;
    b.join_with("late", "hanako", token, None).await;
}

// ---- Redis goes away

#[tokio::test]
async fn without_redis_at_boot_the_page_is_served_and_joins_get_busy() {
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    redis.stop().await;
    let dyno = Dyno::start(&[("REDIS_URL", &redis.url())]).await;
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

    redis.restart().await;
    hanako.expect_redis("up", REDIS_KNOWN_WITHIN).await;
    hanako.join("lobby", "花子", &token(), None).await;
    hanako.say("at last").await;
    assert_eq!(redis.clients().len(), 1, "{:?}", redis.clients());

    redis.stop().await;
    let limit = REDIS_KNOWN_WITHIN + TOLERANCE;
    hanako.expect_redis("down", limit).await;
    let kept = cid();
    hanako.talk_as("kept", &kept).await;
    assert_eq!(hanako.expect_busy().await["cid"], json!(kept));
    redis.restart().await;
    hanako.expect_redis("up", REDIS_KNOWN_WITHIN).await;
    hanako.talk_as("kept", &kept).await;
    hanako.hears("kept").await;
    check::saw_everything(&redis, &hanako);
}

#[tokio::test]
async fn a_talk_sent_while_redis_hangs_is_stored_once() {
    let (a, b, redis) = pair().await;
    let (mut hanako, mut taro) = hanako_and_taro(&a, &b).await;
    redis.signal(Signal::SIGSTOP);
    let (stopped, kept) = (Instant::now(), cid());
    hanako.talk_as("sent into the hang", &kept).await; // Redis executes it later, although it timed out
    let limit = REDIS_KNOWN_WITHIN + TOLERANCE;
    let busy = gets_busy_and_down(&mut hanako, limit).await;
    assert_eq!(busy["cid"], json!(kept));
    let left = limit.checked_sub(stopped.elapsed());
    let left = left.expect("hanako knows in time");
    taro.expect_redis("down", left).await;
    sleep((8 * SECOND).saturating_sub(stopped.elapsed())).await;
    redis.signal(Signal::SIGCONT);
    // If Redis executes the script now, the talk is read from the stream, perhaps before `status up`.
    let (mut heard, either) = (0, ["status", "talk"]);
    while hanako.expect_any_within(&either, limit).await["kind"] == "talk" {
        heard += 1;
    }
    assert!(heard <= 1, "{}", hanako.context());
    hanako.talk_as("sent into the hang", &kept).await;
    if heard == 0 {
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
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
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

/// A Redis that is short of memory evicts keys with names; FLUSHALL deletes all.
#[tokio::test]
async fn nobody_is_shown_as_gone_when_redis_loses_the_names_of_a_room() {
    let (a, b, redis) = pair().await;
    let c = Dyno::start_on(&redis, &[]).await;
    let (names, owners) = (names_key("lobby"), owners_key("lobby"));
    let all = ["hanako", "jiro", "siro", "taro"];
    let mut people = vec![];
    for (name, dyno) in all.iter().zip([&a, &b, &c, &c]) {
        people.push(dyno.join("lobby", name).await);
    }
    for person in &mut people {
        person.expect_members(&all).await;
    }
    sleep(2 * SECOND).await; // the lists have been read again
    let lists: Vec<_> = people.iter().map(Client::members_frames).collect();
    for loss in [
        &["DEL", &owners][..],
        &["DEL", &names, &owners],
        &["FLUSHALL"],
    ] {
        redis.cmd::<redis::Value>(loss);
        sleep(RENEWAL + 3 * SECOND).await;
        check::names_are(&redis, "lobby", &all).await;
        for (person, lists) in people.iter().zip(&lists) {
            println!("{loss:?}: {}", person.user); // names the loss if the next line fails
            person.saw_no_change_since(*lists);
        }
    }
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
    let vars = [("PORT", port.to_string()), ("REDIS_URL", redis.url())];
    command.env_clear().envs(vars).stdout(Stdio::piped());
    let child = bound_to_us(&mut command).spawn();
    let mut child = child.expect("the program starts");
    let log = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut lines = log.lines().map(|line| line.expect("a log"));
    assert!(lines.any(|line| line.contains("redis=up")));
    drop(lines); // now the pipe is closed
    let mut hanako = Client::connect(([127, 0, 0, 1], port).into()).await;
    redis.stop().await; // the dyno logs that
    hanako.expect_redis("down", REDIS_KNOWN_WITHIN).await;
    redis.restart().await;
    hanako.expect_redis("up", REDIS_KNOWN_WITHIN).await;
    child.kill().expect("it is still running");
    child.wait().expect("it ends");
}

// ---- settings

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
        ("MAX_PER_ADDRESS", &["-1", "many", "1.5", "4294967296"]),
    ];
    for (name, values) in bad {
        join_all(values.iter().map(async |value| {
            let (status, said) = refuses_to_boot(&[(name, value)]).await;
            let at = format!("{name}={value}: {status}: {said}");
            assert_eq!(status.code(), Some(1), "{at}"); // a panic has another code
            assert!(said.contains(name), "{at}");
            assert!(!said.contains("hunter2"), "a password: {at}");
            assert!(said.lines().count() <= 3, "one sentence: {at}");
        }))
        .await;
    }
}

#[tokio::test]
async fn the_log_contains_no_message_no_token_and_no_password() {
    let redis = Redis::start(&[]).await;
    redis.cmd::<()>(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
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

// ---- heartbeat

#[tokio::test]
async fn ping_and_tick_come_every_25_seconds_and_50_seconds_of_silence_close_the_connection() {
    let dyno = Dyno::start(&[]).await;
    let start = Instant::now();
    let alive = dyno.join("lobby", "alive").await; // answers Pings
    let mut silent = Raw::joined(&dyno, "lobby", "silent").await; // reads, sends nothing
    let mut talking = Raw::joined(&dyno, "lobby", "talking").await; // sends pings, no Pongs
    let closed = async { (silent.closed(SILENCE + PATIENCE).await.0, start.elapsed()) };
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
    let is_tick = |heard: &Heard| heard.frame(&["tick"]).is_some();
    let pings = alive.heard_at(|heard| *heard == Heard::Ping);
    for at in [pings, alive.heard_at(is_tick)] {
        assert_eq!(at.len(), 2, "{at:?}\n{}", alive.context());
        for (at, due) in at.iter().zip([HEARTBEAT, 2 * HEARTBEAT]) {
            // Early by the ticker's second at most; late when the machine is busy.
            let expected = due - 3 * SECOND / 2..due + 5 * SECOND;
            assert!(expected.contains(at), "{at:?}\n{}", alive.context());
        }
    }
    let ticks = alive.frames("tick");
    let spreads: Vec<_> = ticks.iter().map(|tick| &tick["spread_ms"]).collect();
    assert_eq!(spreads, [*SPREAD_MS.start(); 2], "{}", alive.context());
    assert_eq!(alive.count_heard(Heard::is_end), 0);
    talking.send(frame(PING, "still there?")).await;
    let answered = async { while talking.frame(PATIENCE).await.expect("it is open").0 != PONG {} };
    let answered = tokio::time::timeout(PATIENCE, answered);
    answered.await.expect("a Pong");
}
