//! One Redis at 40,000 messages per second: its CPU, and the delay of a message. Two connections, as of two dynos, call
//! the talk script, and follow every room. Programs and pages are left out: they would need more cores.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, PushInfo, PushKind, Value};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::machine::{measured, redis_cpu, wait_for};
use crate::support::{Redis, facts};
use crate::table::Limit::{AtMost, Info};
use crate::table::Row;
use crate::{Plan, progress};

const SCRIPT: &str = include_str!("../../src/store/redis/talk.lua");
const OWNER: &str = "0123456789012345678901234567890123456789";
const DYNOS: usize = 2;

pub fn most(plan: &Plan) -> Vec<Row> {
    let (rooms, per_second) = (plan.size(500, 10), plan.size(40_000, 500));
    let redis = measured(|| wait_for(Redis::start(&[])));
    let (mut p50, mut p99, mut cpu) = <(Vec<_>, Vec<_>, Vec<_>)>::default();
    for turn in plan.repeats() {
        progress(&format!("redis {per_second}/s {turn}"));
        let before = redis_cpu(&redis);
        let mut delays = wait_for(talk(&redis, rooms, per_second, plan.time(4.0, 0.3)));
        cpu.push((redis_cpu(&redis) - before) / (delays.len() / DYNOS) as f64);
        delays.sort();
        let at = |share: usize| delays[(delays.len() - 1) * share / 100].as_secs_f64() * 1e3;
        p50.push(at(50));
        p99.push(at(99));
    }
    let what = |figure| format!("one Redis, {per_second} messages/s to {DYNOS} dynos: {figure}");
    vec![
        Row::new("redis", what("delay p50, ms"), p50, Info),
        Row::new("redis", what("delay p99, ms"), p99, AtMost(20.0)),
        Row::new("redis", what("CPU of Redis per message, µs"), cpu, Info),
    ]
}

/// What the pushes of all connections say: how long after its time each message came.
struct Arrivals {
    start: Instant,
    pause: Duration,
    delays: Vec<Duration>,
}

fn lock(arrivals: &Mutex<Arrivals>) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends messages at an even rate. Returns the delay of each one on each connection.
async fn talk(redis: &Redis, rooms: usize, per_second: usize, time: Duration) -> Vec<Duration> {
    let count = (time.as_secs_f64() * per_second as f64) as usize;
    let pause = Duration::from_secs(1) / per_second as u32;
    let arrivals = Arc::new(Mutex::new(Arrivals {
        start: Instant::now(),
        pause,
        delays: Vec::with_capacity(DYNOS * count),
    }));
    let mut dynos = vec![];
    for _ in 0..DYNOS {
        dynos.push(connect(redis, rooms, arrivals.clone()).await);
    }
    let load = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).clone();
    let hash: String = load.query_async(&mut dynos[0]).await.expect("it loads");
    let run: u32 = rand::random(); // another one in each run: a cid is remembered
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = Instant::now();
    lock(&arrivals).start = start;
    let mut sent = 0;
    while sent < count {
        tick.tick().await;
        let due = (start.elapsed().as_nanos() / pause.as_nanos()) as usize;
        for n in sent..due.min(count) {
            let mut dyno = dynos[n % DYNOS].clone();
            let call = call(&hash, n % rooms, n, run);
            tokio::spawn(async move {
                let stored: Vec<String> = call.query_async(&mut dyno).await.expect("an answer");
                assert_eq!(stored[0], "stored");
            });
        }
        sent = due.min(count);
    }
    while lock(&arrivals).delays.len() < DYNOS * count {
        sleep(Duration::from_millis(1)).await;
    }
    std::mem::take(&mut lock(&arrivals).delays)
}

/// A connection that follows every room.
async fn connect(
    redis: &Redis,
    rooms: usize,
    arrivals: Arc<Mutex<Arrivals>>,
) -> MultiplexedConnection {
    let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
        if push.kind == PushKind::Message
            && let Some(Value::BulkString(payload)) = push.data.last()
        {
            // The cid ends with the number of the message: `…-17"}`.
            let text = String::from_utf8_lossy(payload);
            let number = text.trim_end_matches("\"}").rsplit('-').next();
            let number = number
                .and_then(|n| n.parse::<u32>().ok())
                .expect("a number");
            let mut arrivals = lock(&arrivals);
            let time = arrivals.start + arrivals.pause * number;
            arrivals.delays.push(time.elapsed());
        }
        Ok::<(), ()>(())
    });
    let client = Client::open(redis.url() + "?protocol=resp3").expect("a URL");
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let mut dyno = connecting.await.expect("Redis answers");
    for room in 0..rooms {
        dyno.subscribe(channel(room)).await.expect("an answer");
    }
    dyno
}

fn channel(room: usize) -> String {
    facts::channel(&room.to_string(), 0)
}

/// The call that `src/store/redis/mod.rs` makes for a message.
fn call(hash: &str, room: usize, n: usize, run: u32) -> Cmd {
    let name = room.to_string();
    let (stream, owners) = (facts::stream_key(&name), facts::owners_key(&name));
    let cid = format!("{run:x}-{n}");
    let body = format!(
        r#"{{"user":"hanako","message":"{}","cid":"{cid}"}}"#,
        "x".repeat(100)
    );
    let mut call = Cmd::new();
    call.arg("EVALSHA").arg(hash).arg(3);
    call.arg(&owners)
        .arg(&stream)
        .arg(format!("{stream}:cid:{OWNER}:{cid}"));
    call.arg(channel(room)).arg("hanako").arg(OWNER).arg(body);
    call.arg(1_000).arg(24 * 60 * 60).arg(120);
    call
}
