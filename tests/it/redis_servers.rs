//! Redis servers that are not what the program expects: shared with another app, too old, without a command or a right,
//! read-only after a failover, with a clock that steps back, short of memory.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::support::client::join_frame;
use crate::support::facts::{
    GONE, HISTORY_BYTES, LEASE, NEWCOMER, REDIS_KNOWN_WITHIN, names_key, owners_key, stream_key,
};
use crate::support::proxy::Proxy;
use crate::support::{
    Client, Dyno, PATIENCE, Redis, TALKATIVE, check, cid, eventually, heavy, token,
};

const SECOND: Duration = Duration::from_secs(1);
const NEEDED: &str = "Redis or Valkey 7.0 or newer is needed";

/// A dyno that does not get its Redis, after several attempts to connect. Its page is told.
async fn dyno_without_redis(url: &str) -> (Dyno, Client) {
    let dyno = Dyno::start(&[("REDIS_URL", url)]).await;
    let mut hanako = dyno.connect().await;
    hanako.expect_redis("down", PATIENCE).await;
    eventually("the log says why", 2 * PATIENCE, async || {
        let log = dyno.log();
        match log.contains("redis=down") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
    sleep(3 * SECOND).await;
    let log = dyno.log();
    assert!(!log.contains("redis=up"), "{log}");
    (dyno, hanako)
}

/// The one line of the log about a Redis that is down.
fn down_line(dyno: &Dyno) -> String {
    let log = dyno.log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("redis=down")).collect();
    assert_eq!(lines.len(), 1, "logged once: {log}");
    lines[0].to_owned()
}

/// The keys of rooms, without those of the readiness check.
fn room_keys(redis: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = redis.cmd(&["KEYS", "*"]);
    keys.retain(|key| !key.starts_with("chat:{!}"));
    keys
}

// ---- another app on the same Redis

#[tokio::test]
async fn two_apps_on_two_databases_of_one_redis_do_not_hear_each_other() {
    const TALKS: usize = 400;
    let redis = Redis::start(&[]).await;
    // No number is database 0.
    let urls = [redis.url(), redis.url() + "/1"];
    let start = async |url: &String| Dyno::start_with_redis_at(url, &[TALKATIVE]).await;
    let dynos = join_all(urls.iter().map(start)).await;
    let zero = Dyno::start_with_redis_at(&(redis.url() + "/0"), &[TALKATIVE]).await;
    let mut a = dynos[0].join("lobby", "hanako").await;
    let mut b = dynos[1].join("lobby", "hanako").await; // the same name: names are apart, too
    let mut other_a = zero.join("lobby", "taro").await;
    let talk = async |client: &mut Client, app: &str| {
        for n in 0..TALKS {
            client.talk(&format!("{app} {n}")).await;
            sleep(SECOND / 100).await;
        }
        for n in 0..TALKS {
            client.hears(&format!("{app} {n}")).await; // and nothing in between
        }
    };
    tokio::join!(talk(&mut a, "a"), talk(&mut b, "b"));
    for n in 0..TALKS {
        other_a.hears(&format!("a {n}")).await;
    }
    a.expect_members(&["hanako", "taro"]).await;
    b.expect_members(&["hanako"]).await;
    for (dyno, app) in [(&dynos[0], "a"), (&dynos[1], "b")] {
        let newcomer = dyno.join("lobby", "jiro").await;
        let newest: Vec<_> = (TALKS - NEWCOMER..TALKS).collect();
        let texts: Vec<_> = newest.iter().map(|n| format!("{app} {n}")).collect();
        assert_eq!(newcomer.history(), texts);
    }
}

// ---- too old

/// A server older than 7.0, if `OLD_REDIS_SERVER` names one.
#[tokio::test]
async fn redis_6_is_never_up_and_the_log_says_which_version_is_needed() {
    let Ok(program) = std::env::var("OLD_REDIS_SERVER") else {
        return println!("skipped: OLD_REDIS_SERVER names no program");
    };
    let redis = Redis::start_program(&program, &[]).await;
    let (dyno, _hanako) = dyno_without_redis(&redis.url()).await;
    let line = down_line(&dyno);
    assert!(line.contains(NEEDED), "{line}");
    assert!(line.contains("version 6."), "{line}");
    assert_eq!(redis.cmd::<Vec<String>>(&["KEYS", "*"]), [""; 0]);
}

#[tokio::test]
async fn a_redis_that_calls_itself_6_is_never_up_and_the_log_says_which_version_is_needed() {
    let redis = Redis::start(&[]).await;
    let info: String = redis.cmd(&["INFO", "server"]);
    let version = info.split_once("redis_version:").expect("a version").1;
    let version = format!(
        "redis_version:{}.",
        version.split('.').next().expect("a number")
    );
    let proxy = Proxy::to_redis_replacing(&redis, &version, "redis_version:6.").await;
    let (dyno, _hanako) = dyno_without_redis(&proxy.redis_url()).await;
    let line = down_line(&dyno);
    assert!(line.contains(NEEDED), "{line}");
    assert!(line.contains("version 6."), "{line}");
}

#[tokio::test]
async fn a_redis_that_cannot_compile_the_scripts_is_never_up_and_the_log_says_so() {
    let redis = Redis::start(&[]).await;
    // A Redis before 7.0 answers `#!lua` as any Redis answers this.
    let proxy = Proxy::to_redis_replacing(&redis, "#!lua", "#?lua").await;
    let (dyno, _hanako) = dyno_without_redis(&proxy.redis_url()).await;
    let line = down_line(&dyno);
    assert!(line.contains(NEEDED), "{line}");
    assert_eq!(room_keys(&redis), [""; 0]);
}

// ---- without a command or a right

#[tokio::test]
async fn a_redis_without_evalsha_is_never_up_and_the_log_names_the_command() {
    let redis = Redis::start(&["--rename-command", "EVALSHA", ""]).await;
    let (dyno, _hanako) = dyno_without_redis(&redis.url()).await;
    let line = down_line(&dyno);
    assert!(line.contains("unknown command 'EVALSHA'"), "{line}");
    assert!(
        !line.contains(NEEDED),
        "the version is not the reason: {line}"
    );
}

/// The rule for a user in the documents, with a password.
fn documented_rule() -> Vec<String> {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/REDIS.md"))
        .expect("the document");
    let rule = document
        .lines()
        .find_map(|line| line.trim().strip_prefix("ACL SETUSER chat "));
    let rule = rule
        .expect("the document has a rule")
        .replace("PASSWORD", "secret");
    rule.split(' ').map(str::to_owned).collect()
}

fn set_user(redis: &Redis, name: &str, rules: &[&str]) -> String {
    redis.cmd::<String>(&[&["ACL", "SETUSER", name, "reset"], rules].concat());
    format!("redis://{name}:secret@127.0.0.1:{}", redis.port)
}

#[tokio::test]
async fn a_user_with_the_documented_rights_chats() {
    let redis = Redis::start(&[]).await;
    let rule = documented_rule();
    let url = set_user(
        &redis,
        "chat",
        &rule.iter().map(|r| &**r).collect::<Vec<_>>(),
    );
    for database in ["", "/1"] {
        let url = format!("{url}{database}");
        let a = Dyno::start_with_redis_at(&url, &[]).await;
        let b = Dyno::start_with_redis_at(&url, &[]).await;
        let mut hanako = a.join("lobby", "hanako").await;
        let mut taro = b.join("lobby", "taro").await;
        hanako.say("hello").await;
        taro.hears("hello").await;
        let hanako = hanako.reconnect(&b).await;
        hanako.quit().await;
        taro.expect_members(&["taro"]).await;
        sleep(6 * SECOND).await; // a renewal later
        for dyno in [&a, &b] {
            let log = dyno.log();
            let quiet = !log.contains("WARN") || log.matches("WARN").count() == 0;
            assert!(quiet, "{log}");
        }
    }
    let log: Vec<redis::Value> = redis.cmd(&["ACL", "LOG"]);
    assert!(log.is_empty(), "nothing was denied: {log:?}");
}

/// Every command that the program sends or runs in a script.
const COMMANDS: &str = "ping evalsha script|load subscribe unsubscribe publish time hset hget hlen hkeys hgetall hdel zadd \
                        zcard zrem zrangebyscore set get expire pexpire xadd xrange xrevrange xinfo|stream";

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_nothing_is_written() {
    let _turn = heavy(2).await;
    let redis = Redis::start(&[]).await;
    let all = ["on", ">secret", "~*", "&*", "+@all"];
    let check = async |(n, command): (usize, &str)| {
        let denied = format!("-{command}");
        let url = set_user(
            &redis,
            &format!("user{n}"),
            &[&all[..], &[&denied]].concat(),
        );
        let (dyno, _client) = dyno_without_redis(&url).await;
        let line = down_line(&dyno);
        assert!(line.contains(&format!("'{command}'")), "{command}: {line}");
        assert!(
            line.contains("hint=\"docs/REDIS.md names the rights"),
            "{line}"
        );
    };
    join_all(COMMANDS.split_whitespace().enumerate().map(check)).await;
    assert_eq!(room_keys(&redis), [""; 0]);
}

#[tokio::test]
async fn a_user_without_channels_is_never_up_and_takes_no_name() {
    let redis = Redis::start(&[]).await;
    let url = set_user(&redis, "chat", &["on", ">secret", "~*", "+@all"]);
    let (dyno, mut hanako) = dyno_without_redis(&url).await;
    let line = down_line(&dyno);
    assert!(line.contains("channel"), "{line}");
    let join = join_frame("lobby", "hanako", &token(), None);
    hanako.send(join).await;
    hanako.expect_busy().await;
    assert_eq!(room_keys(&redis), [""; 0]);
    // With the right to use the channels it goes on by itself.
    set_user(&redis, "chat", &["on", ">secret", "~*", "&chat:*", "+@all"]);
    hanako.expect_redis("up", REDIS_KNOWN_WITHIN).await;
    hanako.join("lobby", "hanako", &token(), None).await;
    hanako.say("hello").await;
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_the_connection_until_it_is_given_back() {
    let redis = Redis::start(&[]).await;
    let all = ["on", ">secret", "~*", "&*", "+@all"];
    let url = set_user(&redis, "chat", &all);
    let dyno = Dyno::start_with_redis_at(&url, &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    redis.cmd::<String>(&["ACL", "SETUSER", "chat", "-xadd"]);
    hanako.talk("nobody can store this").await;
    let kinds = ["error", "status"];
    let mut heard = vec![];
    for _ in kinds {
        let frame = hanako.expect_any_within(&kinds, PATIENCE).await;
        heard.push(frame["kind"].as_str().map(str::to_owned));
    }
    heard.sort();
    assert_eq!(heard, kinds.map(|kind| Some(kind.to_owned())));
    assert_eq!(hanako.frames("status")[0]["redis"], "down");
    redis.cmd::<String>(&["ACL", "SETUSER", "chat", "+xadd"]);
    hanako.expect_redis("up", REDIS_KNOWN_WITHIN).await;
    hanako.say("back").await;
}

// ---- a cluster

const SLOTS: u32 = 16_384;

async fn cluster_node() -> Redis {
    let bus = crate::support::free_port().to_string();
    Redis::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await
}

async fn cluster_is_ok(node: &Redis) {
    eventually("the cluster is ok", 3 * PATIENCE, async || {
        let info: String = node.cmd(&["CLUSTER", "INFO"]);
        match info.contains("cluster_state:ok") {
            true => Ok(()),
            false => Err(info),
        }
    })
    .await;
}

fn serve_slots(node: &Redis, from: u32, to: u32) {
    let (from, to) = (from.to_string(), (to - 1).to_string());
    node.cmd::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]);
}

#[tokio::test]
async fn a_cluster_of_two_nodes_is_never_up_and_the_log_says_why() {
    let nodes = [cluster_node().await, cluster_node().await];
    serve_slots(&nodes[0], 0, SLOTS / 2);
    serve_slots(&nodes[1], SLOTS / 2, SLOTS);
    let (port, bus) = (nodes[1].port.to_string(), bus_port(&nodes[1]));
    nodes[0].cmd::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    for node in &nodes {
        cluster_is_ok(node).await;
    }
    for node in &nodes {
        let (dyno, _hanako) = dyno_without_redis(&node.url()).await;
        let line = down_line(&dyno);
        assert!(
            line.contains("one Redis is needed, not a cluster"),
            "{line}"
        );
        assert_eq!(room_keys(node), [""; 0]);
    }
}

/// The port over which the nodes of a cluster talk: `ID HOST:PORT@BUS …` in the list of nodes.
fn bus_port(node: &Redis) -> String {
    let nodes: String = node.cmd(&["CLUSTER", "NODES"]);
    let bus = nodes.split_once('@').map(|(_, rest)| rest);
    let digits = bus
        .expect("a bus port")
        .chars()
        .take_while(char::is_ascii_digit);
    digits.collect()
}

#[tokio::test]
async fn a_cluster_of_one_node_is_usable() {
    let node = cluster_node().await;
    serve_slots(&node, 0, SLOTS);
    cluster_is_ok(&node).await;
    let a = Dyno::start_on(&node, &[]).await;
    let b = Dyno::start_on(&node, &[]).await;
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    hanako.say("hello").await;
    taro.hears("hello").await;
}

// ---- TLS

#[tokio::test]
async fn a_redis_that_speaks_only_tls_1_2_is_usable() {
    let (redis, url) = Redis::start_with_tls_and(&["--tls-protocols", "TLSv1.2"]).await;
    let dyno = Dyno::start_with_redis_at(&url, &[("REDIS_TLS_VERIFY", "false")]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    hanako.say("over TLS 1.2").await;
    check::saw_everything(&redis, &hanako);
}

// ---- failover

/// A master and its replica, which has everything; and a proxy that leads to the master.
async fn master_and_replica() -> (Redis, Redis, Proxy) {
    let master = Redis::start(&[]).await;
    let replica = Redis::start(&["--repl-diskless-sync-delay", "0"]).await;
    replica.cmd::<()>(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    eventually(
        "the replica has a link to its master",
        PATIENCE,
        async || {
            let info: String = replica.cmd(&["INFO", "replication"]);
            match info.contains("master_link_status:up") {
                true => Ok(()),
                false => Err(info),
            }
        },
    )
    .await;
    let proxy = Proxy::to_redis(&master).await;
    (master, replica, proxy)
}

/// Waits until the replica has the first message in the lobby.
async fn is_copied(replica: &Redis) {
    eventually("the replica has it", PATIENCE, async || {
        let length: usize = replica.cmd(&["XLEN", &stream_key("lobby")]);
        if length == 1 { Ok(()) } else { Err(length) }
    })
    .await;
}

/// The replica is a master already. Now the address leads to it, and the old master stays up, read-only.
fn fail_over(old: &Redis, new: &Redis, proxy: &Proxy) -> Instant {
    proxy.lead_to(([127, 0, 0, 1], new.port).into(), Duration::ZERO);
    old.cmd::<()>(&["REPLICAOF", "127.0.0.1", "1"]); // read-only, and it never gets what the new master has
    Instant::now()
}

#[tokio::test]
async fn after_a_failover_the_dyno_finds_the_new_master_and_tells_what_is_missing_as_a_gap() {
    let (old, new, proxy) = master_and_replica().await;
    let dyno = Dyno::start_with_redis_at(&proxy.redis_url(), &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    hanako.say("copied").await;
    is_copied(&new).await;
    new.cmd::<()>(&["REPLICAOF", "NO", "ONE"]);
    hanako.say("lost").await; // stored by the old master only
    let switched = fail_over(&old, &new, &proxy);
    hanako.expect_redis("down", 5 * SECOND).await;
    // The room may find out that messages are missing before the page is told that Redis is up.
    let reason = hanako.closed_after_all(1012).await;
    assert_eq!(reason, "resume");
    let found_after = switched.elapsed();
    println!("measured: the new master was found after {found_after:?}");
    assert!(found_after < 5 * SECOND, "{found_after:?}");
    let mut hanako = hanako.reconnect(&dyno).await;
    assert_eq!(hanako.welcome["gap"], true, "{}", hanako.welcome);
    assert_eq!(hanako.history(), ["copied"]);
    hanako.say("after").await;
    let stored: usize = new.cmd(&["XLEN", &stream_key("lobby")]);
    assert_eq!(stored, 2, "copied, after");
    dyno.name_is_taken("lobby", "hanako").await;
}

#[tokio::test]
async fn a_failover_that_loses_nothing_is_no_gap() {
    let (old, new, proxy) = master_and_replica().await;
    let dyno = Dyno::start_with_redis_at(&proxy.redis_url(), &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    hanako.say("copied").await;
    is_copied(&new).await;
    new.cmd::<()>(&["REPLICAOF", "NO", "ONE"]);
    fail_over(&old, &new, &proxy);
    // The talk may be the first to find out; then the page sends it again.
    let kept = cid();
    hanako.talk_as("kept", &kept).await;
    hanako
        .expect_any_within(&["error", "status"], PATIENCE)
        .await;
    eventually("the new master is used", 5 * SECOND, async || {
        match new.clients().len() {
            0 => Err(dyno.log()),
            _ => Ok(()),
        }
    })
    .await;
    dyno.has_redis().await;
    hanako.talk_as("kept", &kept).await;
    let kinds = ["error", "status", "talk"];
    let heard = loop {
        let frame = hanako.expect_any_within(&kinds, PATIENCE).await;
        if frame["kind"] == "talk" {
            break frame;
        }
    };
    assert_eq!(heard["message"], "kept");
    check::saw_everything(&new, &hanako);
}

// ---- a clock that steps back

/// Moves all leases of the room an hour ahead, and the life of its keys: as if the clock had stepped back an hour.
fn clock_steps_back(redis: &Redis, room: &str) {
    let (names, owners) = (names_key(room), owners_key(room));
    let hour = "for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
            redis.call('ZINCRBY', KEYS[1], 3600000, name)
        end
        for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 3620000) end
        return redis.call('ZCARD', KEYS[1])";
    let moved: usize = redis.cmd(&["EVAL", hour, "2", &names, &owners]);
    assert!(moved > 0, "nobody has a lease");
}

#[tokio::test]
async fn a_member_of_a_killed_dyno_is_gone_in_time_although_the_clock_of_redis_stepped_back() {
    let redis = Redis::start(&[]).await;
    let mut a = Dyno::start_on(&redis, &[]).await;
    let b = Dyno::start_on(&redis, &[]).await;
    let _hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    taro.expect_members(&["hanako", "taro"]).await;
    a.kill().await;
    clock_steps_back(&redis, "lobby");
    taro.expect_members_within(&["taro"], GONE + SECOND).await;
    check::names_are(&redis, "lobby", &["taro"]).await;
    b.join("lobby", "hanako").await;
    taro.expect_members(&["hanako", "taro"]).await;
}

/// Nobody runs a script in the room while it is empty. The first who joins does.
#[tokio::test]
async fn an_empty_room_frees_its_names_in_time_although_the_clock_of_redis_stepped_back() {
    let redis = Redis::start(&[]).await;
    let mut a = Dyno::start_on(&redis, &[]).await;
    let b = Dyno::start_on(&redis, &[]).await;
    let hanako = a.join("lobby", "hanako").await;
    let _jiro = a.join("library", "jiro").await;
    let token = hanako.token.clone();
    a.kill().await;
    for room in ["lobby", "library"] {
        clock_steps_back(&redis, room);
    }
    // Somebody else in the lobby: hanako is gone a lease later.
    let mut taro = b.join("lobby", "taro").await;
    taro.expect_members(&["hanako", "taro"]).await;
    // Nobody in the library: the first who wants the name is refused, the next one a lease later is not.
    b.name_is_taken("library", "jiro").await;
    let first = Instant::now();
    taro.expect_members_within(&["taro"], GONE + SECOND).await;
    sleep((LEASE + SECOND).saturating_sub(first.elapsed())).await;
    b.join("library", "jiro").await;
    // The owner's own token is welcome at any time.
    b.join_with("lobby", "hanako", &token, None).await;
}

// ---- short of memory

/// As long as a message may be: 1,000 code points of four bytes.
fn longest() -> String {
    "\u{1f4ac}".repeat(1_000)
}

#[tokio::test]
async fn a_memory_limit_without_eviction_is_logged_once_with_what_helps() {
    let limit = ["--maxmemory", "50mb"];
    let redis = Redis::start(&[&limit[..], &["--maxmemory-policy", "noeviction"]].concat()).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    redis.cut_all();
    sleep(2 * SECOND).await;
    dyno.has_redis().await;
    let log = dyno.log();
    assert!(log.matches("redis=up").count() >= 2, "{log}");
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("volatile-lru")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].starts_with("WARN"), "{log}");
    let evicts = [&limit[..], &["--maxmemory-policy", "volatile-lru"]].concat();
    for options in [&[][..], &evicts] {
        let redis = Redis::start(options).await;
        let dyno = Dyno::start_on(&redis, &[]).await;
        assert!(!dyno.log().contains("WARN"), "{options:?}: {}", dyno.log());
    }
}

#[tokio::test]
async fn a_stream_of_the_longest_messages_is_bounded_in_bytes() {
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let b = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut talkers = [
        a.join("lobby", "hanako").await,
        b.join("lobby", "taro").await,
    ];
    let longest = longest();
    let short = "x".repeat(10);
    for (what, text, count) in [("longest", &longest, 100), ("short", &short, 1_500)] {
        for n in 0..count {
            talkers[n % 2].say(text).await;
        }
        let length: usize = redis.cmd(&["XLEN", &stream_key("lobby")]);
        let usage = ["MEMORY", "USAGE", &stream_key("lobby"), "SAMPLES", "0"];
        let bytes: usize = redis.cmd(&usage);
        println!(
            "measured: a stream of {length} of the {what} messages takes {bytes} bytes in Redis"
        );
        assert!(bytes < HISTORY_BYTES * 3 / 2, "{bytes}");
    }
}

/// Sixty connections of one visitor go from room to room and say ten of the longest messages in each, until Redis has
/// evicted many keys. Meanwhile others talk, keep their names, and get every acknowledgement.
#[tokio::test]
async fn a_visitor_who_fills_rooms_silences_nobody_where_redis_evicts() {
    const EVICTED: u64 = 6_000;
    let _turn = heavy(2).await;
    let redis = Redis::start(&["--maxmemory", "15mb", "--maxmemory-policy", "volatile-lru"]).await;
    let a = Dyno::start_on(&redis, &[]).await;
    let b = Dyno::start_on(&redis, &[]).await;
    let mut people = vec![];
    for n in 0..10 {
        let dyno = if n % 2 == 0 { &a } else { &b };
        people.push(dyno.join("lobby", &format!("n{n}")).await);
    }
    let names: Vec<String> = people.iter().map(|p| p.user.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for person in &mut people {
        person.expect_members(&names).await;
        person.settle_loosely().await;
    }
    let lists: Vec<usize> = people.iter().map(Client::members_frames).collect();
    let evicted = || {
        let stats: String = redis.cmd(&["INFO", "stats"]);
        let line = stats.lines().find_map(|l| l.strip_prefix("evicted_keys:"));
        line.and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    let text = longest();
    let filling = async |n: usize| {
        for round in 0.. {
            let mut visitor = a.join(&format!("room {n} {round}"), "visitor").await;
            for _ in 0..10 {
                visitor.talk(&text).await;
            }
            visitor.settle_loosely().await;
            if evicted() > EVICTED {
                return round;
            }
        }
        0
    };
    let done = std::cell::Cell::new(false);
    let talking = async {
        let mut said = 0;
        while !done.get() {
            let speaker = said % people.len();
            people[speaker].say(&format!("number {said}")).await;
            said += 1;
            sleep(SECOND / 16).await;
        }
        said
    };
    let start = Instant::now();
    let filling = async {
        let rounds = join_all((0..60).map(filling)).await;
        done.set(true);
        rounds.iter().sum::<usize>()
    };
    let (said, rooms) = tokio::join!(talking, filling);
    let took = start.elapsed();
    println!(
        "measured: {rooms} rooms filled in {took:.0?}, {} keys evicted; {said} messages of others",
        evicted()
    );
    assert!(said > 20, "{said} messages of others");
    check::names_are(&redis, "lobby", &names).await;
    for (person, lists) in people.iter().zip(lists) {
        let (_, errors) = person.talks_and_refusals();
        assert!(errors.is_empty(), "{errors:?}");
        person.saw_no_change_since(lists);
        check::saw_everything(&redis, person);
    }
}
