//! Redis servers that are not what the program expects: shared with another app, too old, without a command or a right,
//! read-only after a failover, short of memory.

use crate::dynos::{cut_and_back, gets_busy_and_down, hanako_and_taro, pair};
use crate::support::prelude::*;
use std::cell::Cell;

const NEEDED: &str = "Redis or Valkey 7.0 or newer is needed";

/// A dyno that does not get its Redis, after several attempts to connect. Its log says why in one line, with these words;
/// its page is told, and cannot join.
async fn never_up(what: &str, url: &str, vars: &[(&str, &str)], words: &[&str]) -> (Dyno, Client) {
    let dyno = Dyno::start(&[&[("REDIS_URL", url)], vars].concat()).await;
    let mut hanako = dyno.connect().await;
    hanako.expect_redis("down", PATIENCE).await;
    let join = join_frame("lobby", "hanako", &token(), None);
    hanako.send(join).await;
    hanako.expect_busy().await;
    dyno.warns_once(&[]).await;
    sleep(3 * SECOND).await;
    let log = dyno.log();
    assert!(!log.contains("redis=up"), "{what}: {log}");
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("redis=down")).collect();
    assert_eq!(lines.len(), 1, "{what}: logged once: {log}");
    for word in words {
        assert!(lines[0].contains(word), "{what}: {word:?} in: {log}");
    }
    let too_old = words.contains(&NEEDED);
    assert_eq!(lines[0].contains(NEEDED), too_old, "{what}: {log}");
    (dyno, hanako)
}

/// Waits until a command's answer contains this text.
async fn says(redis: &Redis, command: &[&str], text: &str) {
    eventually(text, 3 * PATIENCE, async || {
        let answer: String = redis.cmd(command);
        let found = answer.contains(text);
        found.then_some(()).ok_or(answer)
    })
    .await;
}

/// No room has a key; the readiness check has.
fn no_room_is_in(redis: &Redis) {
    let mut keys: Vec<String> = redis.cmd(&["KEYS", "*"]);
    keys.retain(|key| !key.starts_with("chat:{!}"));
    assert_eq!(keys, [""; 0]);
}

// ---- another app on the same Redis

#[tokio::test]
async fn two_apps_on_two_databases_of_one_redis_do_not_hear_each_other() {
    const TALKS: usize = 400;
    let redis = Redis::start(&[]).await;
    // No number is database 0.
    let urls = ["", "/1", "/0"].map(|database| redis.url() + database);
    let start = async |url: &String| Dyno::start_with_redis_at(url, &[TALKATIVE]).await;
    let dynos = join_all(urls.iter().map(start)).await;
    let mut a = dynos[0].join("lobby", "hanako").await;
    let mut b = dynos[1].join("lobby", "hanako").await; // the same name: names are apart, too
    let mut other_a = dynos[2].join("lobby", "taro").await;
    // Each of them hears its own messages, and nothing in between.
    let (said_in_a, said_in_b) = tokio::join!(a.say_many(TALKS), b.say_many(TALKS));
    for said in &said_in_a {
        assert_eq!(other_a.expect_kind("talk").await, *said);
    }
    a.expect_members(&["hanako", "taro"]).await;
    b.expect_members(&["hanako"]).await;
    for (dyno, said) in [(&dynos[0], said_in_a), (&dynos[1], said_in_b)] {
        let newcomer = dyno.join("lobby", "jiro").await;
        newcomer.welcomed_with(json!({"history": said[TALKS - NEWCOMER..]}));
    }
}

// ---- never up

/// A server older than 7.0, if `OLD_REDIS_SERVER` names one.
#[tokio::test]
async fn redis_6_is_never_up_and_the_log_says_which_version_is_needed() {
    let Ok(program) = std::env::var("OLD_REDIS_SERVER") else {
        return println!("skipped: OLD_REDIS_SERVER names no program");
    };
    let redis = Redis::start_program(&program, &[]).await;
    never_up("Redis 6", &redis.url(), &[], &[NEEDED, "version 6."]).await;
    assert_eq!(redis.cmd::<Vec<String>>(&["KEYS", "*"]), [""; 0]);
}

#[tokio::test]
async fn an_unusable_redis_is_never_up_and_the_log_says_why() {
    let redis = Redis::start(&[]).await;
    let info: String = redis.cmd(&["INFO", "server"]);
    let version = info.split_once("redis_version:").expect("a version").1;
    let major = version.split('.').next().expect("a number");
    let version = format!("redis_version:{major}.");
    let six = Proxy::to_redis(&redis).await;
    six.replace(&version, "redis_version:6.");
    let cannot_compile = Proxy::to_redis(&redis).await;
    // A Redis before 7.0 answers `#!lua` as any Redis answers this.
    cannot_compile.replace("#!lua", "#?lua");
    let no_evalsha = Redis::start(&["--rename-command", "EVALSHA", ""]).await;
    let nodes = cluster(2).await;
    let (tls, tls_url) = Redis::start_with_tls().await;
    let no = &[][..];
    let version_6 = &[NEEDED, "version 6."][..];
    let evalsha = &["unknown command 'EVALSHA'"];
    let cluster = &["one Redis is needed, not a cluster"];
    let verify = &[("REDIS_TLS_VERIFY", "true")];
    let certificate = &["certificate", "REDIS_TLS_VERIFY"];
    join_all([
        never_up("calls itself 6", &six.redis_url(), no, version_6),
        never_up("cannot compile", &cannot_compile.redis_url(), no, &[NEEDED]),
        never_up("no EVALSHA", &no_evalsha.url(), no, evalsha),
        never_up("first node of a cluster", &nodes[0].url(), no, cluster),
        never_up("second node of a cluster", &nodes[1].url(), no, cluster),
        never_up("self-signed certificate", &tls_url, no, certificate),
        never_up("verified certificate", &tls_url, verify, certificate),
    ])
    .await;
    for redis in [&redis, &no_evalsha, &nodes[0], &nodes[1], &tls] {
        no_room_is_in(redis);
    }
}

/// Every command that the program sends or runs in a script.
const COMMANDS: &str = "ping evalsha script|load subscribe unsubscribe publish time hset hget hlen hkeys hgetall hdel zadd \
                        zcard zrem zrangebyscore set get expire pexpire xadd xrange xrevrange xinfo|stream";

fn set_user(redis: &Redis, name: &str, rules: &str) -> String {
    let command = ["ACL", "SETUSER", name, "reset"];
    let rules: Vec<&str> = rules.split(' ').collect();
    redis.cmd::<String>(&[&command, &*rules].concat());
    format!("redis://{name}:secret@127.0.0.1:{}", redis.port)
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_nothing_is_written() {
    let _turn = heavy(2).await;
    let redis = Redis::start(&[]).await;
    let check = async |(n, command): (usize, &str)| {
        let rules = format!("on >secret ~* &* +@all -{command}");
        let url = set_user(&redis, &format!("user{n}"), &rules);
        let hint = "hint=\"docs/REDIS.md names the rights";
        let words = [&*format!("'{command}'"), hint];
        never_up(command, &url, &[], &words).await
    };
    join_all(COMMANDS.split_whitespace().enumerate().map(check)).await;
    no_room_is_in(&redis);
}

// ---- up while it is usable

#[tokio::test]
async fn a_redis_is_up_as_soon_as_it_is_usable_and_only_as_long() {
    let channels = Redis::start(&[]).await;
    let user = set_user(&channels, "chat", "on >secret ~* +@all");
    let replicas = Redis::start(&["--min-replicas-to-write", "1"]).await;
    let rights = ["&chat:* +xadd", "-xadd"].map(|r| format!("ACL SETUSER chat {r}"));
    let least = [0, 1].map(|n| format!("CONFIG SET min-replicas-to-write {n}"));
    let rows = [
        (&channels, user, "channel", rights),
        (&replicas, replicas.url(), "NOREPLICAS", least),
    ];
    for (redis, url, reason, [mend, spoil]) in rows {
        let run = |command: &str| redis.cmd::<String>(&command.split(' ').collect::<Vec<_>>());
        let (_dyno, mut hanako) = never_up(reason, &url, &[], &[reason]).await;
        no_room_is_in(redis);
        run(&mend);
        hanako.expect_redis("up", REDIS_KNOWN_WITHIN).await;
        hanako.join("lobby", "hanako", &token(), None).await;
        hanako.say("hello").await;
        run(&spoil);
        hanako.talk(&format!("nobody stores this: {reason}")).await;
        gets_busy_and_down(&mut hanako, PATIENCE).await;
        run(&mend);
        hanako.expect_redis("up", REDIS_KNOWN_WITHIN).await;
        hanako.say("back").await;
    }
}

#[tokio::test]
async fn a_user_with_the_documented_rights_chats() {
    let redis = Redis::start(&[]).await;
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/REDIS.md"))
        .expect("the document");
    let mut lines = document.lines().map(str::trim);
    let rule = lines.find_map(|line| line.strip_prefix("ACL SETUSER chat "));
    let rule = rule.expect("the document has a rule");
    let url = set_user(&redis, "chat", &rule.replace("PASSWORD", "secret"));
    for database in ["", "/1"] {
        let url = format!("{url}{database}");
        let a = Dyno::start_with_redis_at(&url, &[]).await;
        let b = Dyno::start_with_redis_at(&url, &[]).await;
        let (hanako, mut taro) = hanako_and_taro(&a, &b).await;
        let hanako = hanako.reconnect(&b).await;
        hanako.quit().await;
        taro.expect_members(&["taro"]).await;
        sleep(6 * SECOND).await; // a renewal later
        for log in [a.log(), b.log()] {
            assert!(!log.contains("WARN"), "{log}");
        }
    }
    let log: Vec<redis::Value> = redis.cmd(&["ACL", "LOG"]);
    assert!(log.is_empty(), "nothing was denied: {log:?}");
}

// ---- a cluster

/// A cluster of so many nodes.
async fn cluster(count: u32) -> Vec<Redis> {
    let mut nodes: Vec<Redis> = vec![];
    let slots = 16_384 / count;
    for n in 0..count {
        let bus = free_port().to_string();
        let node = Redis::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await;
        let [first, last] = [n * slots, (n + 1) * slots - 1].map(|slot| slot.to_string());
        node.cmd::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        if let Some(met) = nodes.first() {
            let port = node.port.to_string();
            met.cmd::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        nodes.push(node);
    }
    for node in &nodes {
        says(node, &["CLUSTER", "INFO"], "cluster_state:ok").await;
    }
    nodes
}

#[tokio::test]
async fn a_cluster_of_one_node_is_usable() {
    let nodes = cluster(1).await;
    let a = Dyno::start_on(&nodes[0], &[]).await;
    let b = Dyno::start_on(&nodes[0], &[]).await;
    hanako_and_taro(&a, &b).await;
}

// ---- TLS

#[tokio::test]
async fn without_verification_a_self_signed_certificate_is_accepted_and_that_is_logged_once() {
    let (redis, url) = Redis::start_with_tls().await;
    let unverified = [("REDIS_TLS_VERIFY", "false")];
    let dyno = Dyno::start_with_redis_at(&url, &unverified).await;
    let mut hanako = dyno.join("lobby", "花子").await;
    hanako.say("over TLS").await;
    redis.cmd::<()>(&["CONFIG", "SET", "tls-protocols", "TLSv1.2"]);
    cut_and_back(&redis, [&mut hanako]).await;
    hanako.say("over TLS 1.2").await;
    check::saw_everything(&redis, &hanako);
    let log = dyno.log();
    let times = log.matches("REDIS_TLS_VERIFY=false").count();
    assert_eq!(times, 1, "{log}");

    let plain = Dyno::start_on(&redis, &unverified).await;
    let log = plain.log();
    assert!(!log.contains("REDIS_TLS_VERIFY"), "without TLS: {log}");
}

// ---- failover

/// The master of a dyno is replaced by its replica, which has "copied" and not what was said after that. The old master
/// stays up, read-only. Returns the old one, the new one, the proxy that leads to it, the dyno and its member.
async fn failed_over(lost: &[&str]) -> (Redis, Redis, Proxy, Dyno, Client) {
    let old = Redis::start(&[]).await;
    let new = Redis::start(&["--repl-diskless-sync-delay", "0"]).await;
    new.cmd::<()>(&["REPLICAOF", "127.0.0.1", &old.port.to_string()]);
    says(&new, &["INFO", "replication"], "master_link_status:up").await;
    let proxy = Proxy::to_redis(&old).await;
    let dyno = Dyno::start_with_redis_at(&proxy.redis_url(), &[]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    hanako.say("copied").await;
    let copied = async || new.cmd::<usize>(&["XLEN", &stream_key("lobby")]);
    check::becomes("messages on the replica", PATIENCE, 1, copied).await;
    new.cmd::<()>(&["REPLICAOF", "NO", "ONE"]);
    for text in lost {
        hanako.say(text).await;
    }
    proxy.lead_to(([127, 0, 0, 1], new.port).into(), Duration::ZERO);
    old.cmd::<()>(&["REPLICAOF", "127.0.0.1", "1"]); // read-only, and it never gets what the new master has
    (old, new, proxy, dyno, hanako)
}

#[tokio::test]
async fn after_a_failover_the_dyno_finds_the_new_master_and_tells_what_is_missing_as_a_gap() {
    let (_old, new, _proxy, dyno, mut hanako) = failed_over(&["lost"]).await;
    let switched = Instant::now();
    hanako.expect_redis("down", 5 * SECOND).await;
    // The room may find out that messages are missing before the page is told that Redis is up.
    assert_eq!(hanako.closed_after_all(1012).await, "resume");
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
    let (_old, new, _proxy, dyno, mut hanako) = failed_over(&[]).await;
    // The talk may be the first to find out; then the page sends it again.
    let (kept, kinds) = (cid(), ["error", "status", "talk"]);
    hanako.talk_as("kept", &kept).await;
    hanako.expect_any_within(&kinds[..2], PATIENCE).await;
    let is_used = async || !new.clients().is_empty();
    check::becomes("the new master is used", 5 * SECOND, true, is_used).await;
    dyno.has_redis().await;
    hanako.talk_as("kept", &kept).await;
    while hanako.expect_any_within(&kinds, PATIENCE).await["message"] != "kept" {}
    check::saw_everything(&new, &hanako);
}

// ---- short of memory

#[tokio::test]
async fn a_memory_limit_without_eviction_is_logged_once_with_what_helps() {
    let rows = [
        ("50mb", "noeviction", 1),
        ("50mb", "volatile-lru", 0),
        ("0", "noeviction", 0),
    ];
    let check = async |(limit, policy, times): (&str, &str, usize)| {
        let options = ["--maxmemory", limit, "--maxmemory-policy", policy];
        let redis = Redis::start(&options).await;
        let dyno = Dyno::start_on(&redis, &[]).await;
        redis.cut_all();
        sleep(2 * SECOND).await;
        dyno.has_redis().await;
        let log = dyno.log();
        assert!(log.matches("redis=up").count() >= 2, "{options:?}: {log}");
        let warnings = log.lines().filter(|line| line.starts_with("WARN"));
        let of_limit: Vec<_> = warnings.filter(|w| !w.contains("redis=down")).collect();
        assert_eq!(of_limit.len(), times, "{options:?}: {log}");
        let help = of_limit.iter().all(|line| line.contains("volatile-lru"));
        assert!(help, "{options:?}: {log}");
    };
    join_all(rows.map(check)).await;
}

#[tokio::test]
async fn a_stream_of_the_longest_messages_is_bounded_in_bytes() {
    let (a, b, redis) = pair().await;
    let (hanako, taro) = hanako_and_taro(&a, &b).await;
    let mut talkers = [hanako, taro];
    let longest = "😀".repeat(MAX_MESSAGE);
    let short = "x".repeat(10);
    for (what, text, count) in [("longest", &longest, 100), ("short", &short, 1_500)] {
        for n in 0..count {
            talkers[n % 2].say(text).await;
        }
        let length: usize = redis.cmd(&["XLEN", &stream_key("lobby")]);
        let usage = ["MEMORY", "USAGE", &stream_key("lobby"), "SAMPLES", "0"];
        let bytes: usize = redis.cmd(&usage);
        println!("measured: a stream of {length} {what} messages takes {bytes} bytes in Redis");
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
    let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut people = vec![];
    for (name, dyno) in names.iter().zip([&a, &b].repeat(5)) {
        people.push(dyno.join("lobby", name).await);
    }
    for person in &mut people {
        person.expect_members(&names).await;
        person.settle().await;
    }
    let lists: Vec<usize> = people.iter().map(Client::members_frames).collect();
    let evicted = || {
        let stats: String = redis.cmd(&["INFO", "stats"]);
        let line = stats.lines().find_map(|l| l.strip_prefix("evicted_keys:"));
        line.and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    let text = "😀".repeat(MAX_MESSAGE);
    let fill = async |n: usize| {
        let mut rooms = 0;
        while rooms == 0 || evicted() <= EVICTED {
            let room = format!("room {n} {rooms}");
            let (mut visitor, answer) = Raw::asked_to_join(&a, &room, "visitor").await;
            if answer["kind"] == "welcome" {
                for _ in 0..10 {
                    let talk = json!({"kind": "talk", "message": text, "cid": cid()});
                    visitor.send_json(talk).await;
                }
                for _ in 0..10 {
                    visitor.json().await; // a talk, or an error
                }
                rooms += 1;
            } // otherwise the dyno is busy
        }
        rooms
    };
    let (start, filled) = (Instant::now(), Cell::new(0));
    let filling = async {
        let rooms = join_all((0..60).map(fill)).await;
        filled.set(rooms.iter().sum());
    };
    let talking = async {
        let mut said = 0;
        while filled.get() == 0 {
            let speaker = said % people.len();
            people[speaker].say(&format!("number {said}")).await;
            said += 1;
            sleep(SECOND / 16).await;
        }
        said
    };
    let (said, ()) = tokio::join!(talking, filling);
    println!(
        "measured: {} rooms filled in {:.0?}, {} keys evicted; {said} messages of others",
        filled.get(),
        start.elapsed(),
        evicted()
    );
    assert!(said > 20, "{said} messages of others");
    check::names_are(&redis, "lobby", &names).await;
    for (person, lists) in people.iter().zip(lists) {
        let errors = person.frames("error");
        assert!(errors.is_empty(), "{errors:?}");
        person.saw_no_change_since(lists);
        check::saw_everything(&redis, person);
    }
}
