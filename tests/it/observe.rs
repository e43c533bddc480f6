//! Proves what whoever runs it can see from outside: `/healthz`, a line for each thing that begins or ends, and one of
//! metrics a minute.

use crate::support::raw::{head, http};
use crate::support::{Dyno, PATIENCE, Redis, TALKATIVE, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

async fn health(dyno: &Dyno) -> Value {
    let answer = http(dyno.addr(), &head("GET /healthz", &dyno.host(), &[])).await;
    assert_eq!(answer.status, 200, "whatever is the matter with Redis");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    serde_json::from_str(answer.text()).expect("JSON")
}

async fn redis_is(dyno: &Dyno, state: &str) {
    eventually("/healthz says how Redis is", PATIENCE, async || {
        let health = health(dyno).await;
        if health["redis"] == state {
            Ok(())
        } else {
            Err(health)
        }
    })
    .await;
}

#[tokio::test]
async fn healthz_tells_version_boot_uptime_connections_rooms_and_redis() {
    let mut redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let hanako = dyno.join("lobby", "花子").await;
    let taro = dyno.join("lobby", "太郎").await;
    let jiro = dyno.join("library", "次郎").await;
    let seen = health(&dyno).await;
    assert_eq!(seen["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(seen["boot"], hanako.welcome["boot"]);
    eventually("three people in two rooms", PATIENCE, async || {
        let seen = health(&dyno).await;
        if seen["connections"] == 3 && seen["rooms"] == 2 {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    let before = seen["uptime_s"].as_u64().expect("seconds");
    sleep(Duration::from_millis(1_100)).await;
    assert!(health(&dyno).await["uptime_s"].as_u64() > Some(before));

    redis.stop().await;
    redis_is(&dyno, "down").await;
    redis.restart().await;
    redis_is(&dyno, "up").await;
    drop((hanako, taro, jiro));
    eventually("nobody is left", PATIENCE, async || {
        let seen = health(&dyno).await;
        if seen["connections"] == 0 {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
}

#[tokio::test]
async fn healthz_of_a_single_process_says_that_there_is_no_redis() {
    let dyno = Dyno::start(&[]).await;
    assert_eq!(health(&dyno).await["redis"], "none");
}

#[tokio::test]
async fn one_line_of_metrics_a_minute_and_none_for_a_message() {
    let dyno = Dyno::start(&[TALKATIVE]).await;
    let mut hanako = dyno.join("lobby", "花子").await;
    let _taro = dyno.join("lobby", "太郎").await;
    let _jiro = dyno.join("library", "次郎").await;
    for n in 0..50 {
        hanako.say(&format!("number {n}")).await;
    }
    sleep(Duration::from_secs(62)).await;
    let log = dyno.log();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "one of the boot and one of metrics:\n{log}");
    let metrics = "sample#connections=3 sample#rooms=2 count#messages=50 count#deliveries=100";
    assert!(lines[1].ends_with(metrics), "{log}");
    sleep(Duration::from_secs(60)).await;
    let log = dyno.log();
    let metrics = "sample#connections=3 sample#rooms=2 count#messages=0 count#deliveries=0";
    assert_eq!(log.lines().count(), 3, "{log}");
    assert!(
        log.ends_with(&format!("{metrics}\n")),
        "counts are those of one minute:\n{log}"
    );
}

/// Takes a line apart as logfmt: keys of visible characters, values bare or quoted. Says what is wrong with it.
fn logfmt(line: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut pairs = vec![];
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or(format!("no value in {rest:?}"))?;
        let end = match after.strip_prefix('"') {
            None => after.find(' ').unwrap_or(after.len()),
            Some(text) => {
                let mut escaped = false;
                let end = text.find(|c| {
                    let end = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    end
                });
                end.ok_or(format!("a quote without end in {after:?}"))? + 2
            }
        };
        let (value, after) = after.split_at(end);
        let bare = value.trim_matches('"');
        if key.is_empty()
            || key.contains([' ', '"'])
            || !value.starts_with('"') && bare.contains(['=', '"'])
        {
            return Err(format!("{key:?}={value:?}"));
        }
        pairs.push((key, bare));
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    Ok(pairs)
}

#[tokio::test]
async fn a_life_is_told_in_logfmt_a_line_for_each_thing_that_begins_or_ends() {
    let (mut redis, url) = Redis::start_with_tls().await;
    let vars = [("DYNO", "web.1"), ("REDIS_TLS_VERIFY", "false")];
    let mut dyno = Dyno::start_with_redis_at(&url, &vars).await;
    let mut hanako = dyno.join("lobby", "花子").await;
    redis.cmd::<u32>(&["PUBLISH", "chat:{lobby}", "garbage"]);
    hanako.say("after the garbage").await;
    redis.stop().await;
    redis_is(&dyno, "down").await;
    redis.restart().await;
    redis_is(&dyno, "up").await;
    dyno.signal(Signal::SIGTERM);
    dyno.exit(PATIENCE).await;

    let log = dyno.log();
    let mut story = vec![];
    for line in log.lines() {
        // Level and module first, as the log crate has them; then pairs.
        let (head, pairs) = line.split_once("] ").unwrap_or_else(|| panic!("{line}"));
        let (level, module) = head.split_once('[').unwrap_or_else(|| panic!("{line}"));
        assert!(
            ["INFO", "WARN"].contains(&level.trim()) && module.starts_with("dynochat"),
            "{line}"
        );
        let pairs = logfmt(pairs).unwrap_or_else(|why| panic!("{why} in {line}"));
        let (key, value) = pairs[0];
        story.push(match key {
            "listening" => format!("{key} {pairs:?}"),
            _ => format!("{key} {value}"),
        });
    }
    assert!(
        story[0].contains(r#"("dyno", "web.1"), ("redis", "redis")"#),
        "{}",
        story[0]
    );
    let rest = [
        "redis_certificate unverified",
        "redis up",
        "room lobby",
        "redis down",
        "redis up",
        "drain begun",
        "drain ended",
    ];
    assert_eq!(story[1..], rest, "{log}");
}
