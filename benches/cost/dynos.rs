//! From dyno to dyno: goal 6.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::machine::{Server, Wire, start_dyno};
use crate::support::{Bus, Redis};
use crate::table::Row;
use crate::table::Wanted::AtMost;
use crate::{Plan, progress};

pub fn between(plan: &Plan) -> Vec<Row> {
    let (readers, per_second) = (plan.size(100, 5), plan.size(1_000, 50));
    let server = Server::chat(Bus::Redis);
    let other = start_dyno(Some(server.redis()));
    let (mut p50, mut p99, mut few, mut many) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    // Ten speak on one dyno, one reads on the other; the speakers' own dyno is not timed.
    let mut speakers = Crowd::at(&server, 10, |_| 0);
    let mut reader = Crowd::new(Wire::Chat);
    reader.join(other.addr(), 1, |_| 0);
    speakers.sit(Duration::from_secs(1));
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
        let mut delays = reader.delays.take().expect("they were being taken");
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
            6,
            format!("dyno to dyno, {per_second} messages/s: p50, ms"),
            p50,
            AtMost(1.0),
        ),
        Row::new(6, "dyno to dyno: p99, ms", p99, AtMost(5.0)),
        Row::new(6, "commands for a message, one reader", few, AtMost(1.05)),
        Row::new(
            6,
            format!("commands for a message, {} readers", readers + 1),
            many,
            AtMost(1.05),
        ),
    ]
}

/// Talks at an even pace; returns how many commands Redis had for each message.
fn talk(
    speakers: &mut Crowd,
    readers: &mut Crowd,
    redis: &Redis,
    per_second: usize,
    lasting: Duration,
) -> f64 {
    let (start, commands, mut said) = (Instant::now(), commands_of(redis), 0);
    let (heard, own) = (readers.talks, speakers.talks);
    while let due = Duration::from_secs(1).mul_f64(said as f64 / per_second as f64)
        && due < lasting
    {
        if due <= start.elapsed() {
            speakers.say(said % speakers.members.len(), 1);
            said += 1;
        }
        readers.turn(Duration::from_micros(100));
        speakers.turn(Duration::ZERO);
    }
    readers.hear(heard + (said * readers.members.len()) as u64);
    speakers.hear(own + (said * speakers.members.len()) as u64);
    (commands_of(redis) - commands) as f64 / said as f64
}

/// Scripts that Redis has been asked to run. What a script does inside is not asked for.
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
