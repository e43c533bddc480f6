//! Tests of what an operator sees: `/healthz`, a log line for each start and end, and a line of metrics every minute.

use crate::support::prelude::*;
use regex_lite::Regex;

#[tokio::test]
async fn healthz_reports_version_boot_uptime_connections_rooms_and_redis() {
    let mut redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    let hanako = dyno.join("lobby", "花子").await;
    let taro = dyno.join("lobby", "太郎").await;
    let jiro = dyno.join("library", "次郎").await;
    let seen = dyno.health().await;
    assert_eq!(seen["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(seen["boot"], hanako.welcome["boot"]);
    dyno.health_becomes("connections", 3).await;
    dyno.health_becomes("rooms", 2).await;
    let before = seen["uptime_s"].as_u64().expect("seconds");
    sleep(Duration::from_millis(1_100)).await;
    assert!(dyno.health().await["uptime_s"].as_u64() > Some(before));

    redis.stop().await;
    dyno.health_becomes("redis", "down").await;
    redis.restart().await;
    dyno.health_becomes("redis", "up").await;
    drop((hanako, taro, jiro));
    dyno.health_becomes("connections", 0).await;

    let single_process = Dyno::start(&[]).await;
    assert_eq!(single_process.health().await["redis"], "none");
}

/// Takes two minutes: only the second line of metrics shows that its counts are those of one minute.
#[tokio::test]
async fn metrics_are_logged_once_a_minute_and_messages_are_not_logged() {
    const MINUTE: Duration = Duration::from_secs(60);
    const MARGIN: Duration = Duration::from_secs(10);
    let dyno = Dyno::start(&[TALKATIVE]).await;
    let begin = Instant::now();
    let mut hanako = dyno.join("lobby", "花子").await;
    let _taro = dyno.join("lobby", "太郎").await;
    let _jiro = dyno.join("library", "次郎").await;
    for n in 0..50 {
        hanako.say(&format!("number {n}")).await;
    }
    // After the line of the boot, at the end of each minute: what it counted.
    for (minute, counts) in [
        (1, "count#messages=50 count#deliveries=100"),
        (2, "count#messages=0 count#deliveries=0"),
    ] {
        let lines = 1 + minute as usize;
        let line = async || {
            let log = dyno.log();
            let complete = log.lines().count() == lines && log.ends_with('\n');
            complete.then(|| log.clone()).ok_or(log)
        };
        let log = eventually("a line, and no other", MINUTE + MARGIN, line).await;
        let after = begin.elapsed();
        assert!(after > minute * MINUTE - MARGIN, "{after:?}:\n{log}");
        let metrics = format!("sample#connections=3 sample#rooms=2 {counts}\n");
        assert!(log.ends_with(&metrics), "minute {minute}:\n{log}");
    }
}

#[tokio::test]
async fn lifecycle_events_are_logged_as_logfmt() {
    let (mut redis, url) = Redis::start_with_tls().await;
    let vars = [("DYNO", "web.1"), ("REDIS_TLS_VERIFY", "false")];
    let mut dyno = Dyno::start_with_redis_at(&url, &vars).await;
    let mut hanako = dyno.join("lobby", "花子").await;
    redis.cmd::<u32>(&["PUBLISH", &channel("lobby", 0), "garbage"]);
    hanako.say("after the garbage").await;
    redis.stop().await;
    dyno.health_becomes("redis", "down").await;
    redis.restart().await;
    dyno.health_becomes("redis", "up").await;
    drop(hanako);
    dyno.signal(Signal::SIGTERM);
    dyno.exit(PATIENCE).await;

    let log = dyno.log();
    // Level and module, as the log crate writes them; then pairs: keys, and values bare or quoted.
    let pair = r#"([\w#]+)=("(?:[^"\\]|\\.)*"|[^"=\s]+)"#;
    let line = Regex::new(&format!(
        r"^(?:INFO |WARN ) \[dynochat[:\w]*\] {pair}(?: {pair})*$"
    ));
    let line = line.expect("a regular expression");
    let mut events = vec![];
    for text in log.lines() {
        let parts = line
            .captures(text)
            .unwrap_or_else(|| panic!("not logfmt: {text}"));
        let (key, value) = (&parts[1], parts[2].trim_matches('"'));
        events.push(format!("{key} {value}"));
    }
    let settings = log.contains(" dyno=\"web.1\" redis=\"redis\"\n");
    assert!(settings && events[0].starts_with("listening http"), "{log}");
    let rest = [
        "redis_certificate unverified",
        "redis up",
        "channel chat:{lobby}@0",
        "redis down",
        "redis up",
        "drain begun",
        "drain ended",
    ];
    assert_eq!(events[1..], rest, "{log}");
}
