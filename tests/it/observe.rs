//! Tests of what an operator sees: `/healthz`, a log line for each start and end, and a line of metrics every minute.

use crate::support::prelude::*;

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

/// The pairs of a line of logfmt: keys of visible characters, values bare or quoted. Each escape becomes a dot.
fn logfmt(line: &str) -> Vec<(String, String)> {
    let line = line.replace(r"\\", ".").replace(r#"\""#, ".");
    let mut is_quoted = false;
    let words = line.split(|c| {
        is_quoted ^= c == '"';
        c == ' ' && !is_quoted
    });
    let pairs = words.map(|word| {
        let (key, value) = word.split_once('=').expect(word);
        let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        let text = quoted.unwrap_or(value);
        let is_value = !text.contains('"') && (quoted.is_some() || !text.contains('='));
        assert!(is_value && !key.is_empty() && !key.contains('"'), "{word}");
        (key.to_string(), text.to_string())
    });
    pairs.collect()
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
    let mut events = vec![];
    for line in log.lines() {
        // Level and module, as the log crate writes them; then pairs.
        let (head, pairs) = line.split_once("] ").expect(line);
        let (level, module) = head.split_once('[').expect(line);
        let known = ["INFO", "WARN"].contains(&level.trim()) && module.starts_with("dynochat");
        assert!(known, "{line}");
        let pairs = logfmt(pairs);
        let (key, value) = &pairs[0];
        events.push(match key.as_str() {
            "listening" => format!("{key} {pairs:?}"),
            _ => format!("{key} {value}"),
        });
    }
    let first = &events[0];
    let settings = r#"("dyno", "web.1"), ("redis", "redis")"#;
    assert!(first.contains(settings), "{first}");
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
