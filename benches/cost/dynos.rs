//! From one dyno to another: the delay of a message, and the commands that Redis runs for it.

use std::time::{Duration, Instant};

use crate::clients::Clients;
use crate::machine::{Server, Wire, start_dyno};
use crate::support::{Redis, Store};
use crate::table::Limit::AtMost;
use crate::table::Row;
use crate::{Plan, progress};

pub fn between(plan: &Plan) -> Vec<Row> {
    let (readers, per_second) = (plan.size(100, 5), plan.size(1_000, 50));
    let server = Server::chat(Store::Redis);
    let other = start_dyno(Some(server.redis()));
    let (mut p50, mut p99, mut few, mut many) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    // Ten clients send on one dyno, and one reads on the other: only its delays count.
    let mut speakers = Clients::join_all(&server, 10, |_| 0);
    let mut reader = Clients::new(Wire::Chat);
    reader.join(other.addr(), 1, |_| 0);
    speakers.receive_for(Duration::from_secs(1));
    for turn in plan.repeats() {
        progress(&format!("two dynos {turn}"));
        reader.delays = Some(vec![]);
        few.push(talk(
            &mut speakers,
            &mut reader,
            server.redis(),
            per_second,
            plan.time(5.0, 0.3),
        ));
        let mut delays = reader.delays.take().expect("they are recorded");
        delays.sort_by(f64::total_cmp);
        p50.push(delays[delays.len() / 2] / 1000.0);
        p99.push(delays[delays.len() * 99 / 100] / 1000.0);
    }
    reader.join(other.addr(), readers, |_| 0);
    for _ in plan.repeats() {
        many.push(talk(
            &mut speakers,
            &mut reader,
            server.redis(),
            per_second,
            plan.time(1.0, 0.3),
        ));
    }
    vec![
        Row::new(
            "dynos",
            format!("{per_second} messages/s, delay p50, ms"),
            p50,
            AtMost(1.0),
        ),
        Row::new("dynos", "delay p99, ms", p99, AtMost(5.0)),
        Row::new(
            "dynos",
            "commands per message, one reader",
            few,
            AtMost(1.05),
        ),
        Row::new(
            "dynos",
            format!("commands per message, {} readers", readers + 1),
            many,
            AtMost(1.05),
        ),
    ]
}

/// Sends messages at an even rate. Returns how many commands Redis received per message.
fn talk(
    speakers: &mut Clients,
    readers: &mut Clients,
    redis: &Redis,
    per_second: usize,
    time: Duration,
) -> f64 {
    let (start, commands, mut sent) = (Instant::now(), commands_of(redis), 0);
    let (received, own) = (readers.talks, speakers.talks);
    while let due = Duration::from_secs(1).mul_f64(sent as f64 / per_second as f64)
        && due < time
    {
        if due <= start.elapsed() {
            speakers.send(sent % speakers.list.len(), 1);
            sent += 1;
        }
        readers.poll(Duration::from_micros(100));
        speakers.poll(Duration::ZERO);
    }
    readers.receive_until(received + (sent * readers.list.len()) as u64);
    speakers.receive_until(own + (sent * speakers.list.len()) as u64);
    (commands_of(redis) - commands) as f64 / sent as f64
}

/// How many scripts Redis was asked to run. Commands inside a script do not count.
fn commands_of(redis: &Redis) -> u64 {
    let stats: String = redis.cmd(&["INFO", "commandstats"]);
    let calls = |line: &str| {
        line.strip_prefix("cmdstat_evalsha:calls=")?
            .split(',')
            .next()?
            .parse()
            .ok()
    };
    stats.lines().find_map(calls).unwrap_or(0)
}
