//! Many people: what it costs to be there and to come in. Goals 3 and 4, and of goal 8 that memory grows
//! with the people and that a stuck reader costs at most its outbox.

use std::time::Instant;

use crate::crowd::Crowd;
use crate::machine::Server;
use crate::support::Bus;
use crate::table::Row;
use crate::table::Wanted::{AtMost, Told};
use crate::{Plan, progress};

/// Bytes a connection may be behind: `outbox.rs` says so, and a log fits into it.
const OUTBOX_KB: f64 = 256.0;

/// Goal 3, and memory of goal 8.
pub fn idle(plan: &Plan) -> Vec<Row> {
    let (people, room) = (plan.size(10_000, 100), plan.size(100, 10));
    let server = Server::chat(Bus::Redis);
    let base = server.rss();
    let mut crowd = Crowd::new(server.wire);
    let half = |crowd: &mut Crowd| {
        crowd.join(server.addr, people / 2, |n| n / room);
        crowd.sit(plan.time(3.0, 0.2));
        server.rss()
    };
    progress(&format!("idle: {people} come in, {base} kB without them"));
    let (first, second) = (half(&mut crowd), half(&mut crowd));
    let (cpu, start) = (server.cpu(), Instant::now());
    let mut highest = second;
    while start.elapsed() < plan.time(60.0, 0.5) {
        crowd.sit(plan.time(1.0, 0.1));
        highest = server.rss().max(highest);
    }
    let share = (server.cpu() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    assert_eq!(crowd.ended, 0, "nobody who is idle is put out");
    let kb = |more: f64, of: usize| vec![more / of as f64];
    let grown = (second - first) / (first - base).max(1.0);
    vec![
        Row::new(
            3,
            "idle: process memory without connections, kB",
            vec![base],
            Told,
        ),
        Row::new(
            3,
            "idle: kB per joined connection",
            kb(highest - base, people),
            AtMost(3.0),
        ),
        Row::new(
            3,
            "idle: % of a core, with pings and renewals",
            vec![100.0 * share],
            AtMost(1.0),
        ),
        Row::new(
            8,
            "memory: the second half by the first",
            vec![grown],
            AtMost(1.1),
        ),
    ]
}

/// Goal 4.
pub fn join(plan: &Plan) -> Vec<Row> {
    let people = plan.size(10_000, 60);
    let ten = |n| n / 10;
    let (mut rows, mut floors) = (vec![], vec![]);
    let (mut redis, mut alone, mut one, mut wall) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for turn in plan.repeats() {
        progress(&format!("join {turn}"));
        floors.push(come_in(&Server::floor(), people, ten).0);
        let (cpu, seconds) = come_in(&Server::chat(Bus::Redis), people, ten);
        redis.push(cpu);
        wall.push(seconds);
        one.push(come_in(&Server::chat(Bus::Redis), people, |_| 0).0);
        alone.push(come_in(&Server::chat(Bus::Alone), people, ten).0);
    }
    let grown: Vec<_> = one.iter().zip(&redis).map(|(one, ten)| one / ten).collect();
    let mut row = |what: &str, values, wanted, over: &[f64]| {
        rows.push(Row::new(4, what, values, wanted).over(over.to_vec()));
    };
    row(
        "join, rooms of 10, with Redis: CPU each, µs",
        redis,
        AtMost(150.0),
        &floors,
    );
    row(
        "join, rooms of 10, without: CPU each, µs",
        alone,
        AtMost(60.0),
        &floors,
    );
    row(
        &format!("{people} are back, with Redis: s"),
        wall,
        AtMost(5.0),
        &[],
    );
    row(
        &format!("join, one room of {people}: CPU each, µs"),
        one,
        Told,
        &[],
    );
    row("the same by rooms of 10", grown, AtMost(1.0), &[]);
    rows
}

/// The server's CPU for each who comes in, in µs, and how long it took for all, in s.
fn come_in(server: &Server, people: usize, room: impl Fn(usize) -> usize) -> (f64, f64) {
    let (cpu, start) = (server.cpu(), Instant::now());
    let crowd = Crowd::at(server, people, room);
    let (cpu, wall) = (server.cpu() - cpu, start.elapsed());
    assert_eq!(crowd.ended, 0, "nobody who comes in is put out");
    (cpu.as_secs_f64() * 1e6 / people as f64, wall.as_secs_f64())
}

/// Of goal 8: readers that are stuck, until each is behind by more than the kernel and its outbox hold.
pub fn stuck(plan: &Plan) -> Vec<Row> {
    let (reading, stuck, rounds) = (10, plan.size(100, 5), 500);
    let server = Server::chat(Bus::Redis);
    let mut crowd = Crowd::at(&server, reading + stuck, |_| 0);
    let round = |crowd: &mut Crowd| {
        (0..reading).for_each(|speaker| crowd.say(speaker, 1));
        let ears = crowd.reading() * reading;
        crowd.hear(crowd.talks + ears as u64);
        server.rss()
    };
    (0..rounds).for_each(|_| _ = round(&mut crowd)); // the log fills up, which is nobody's fault
    (reading..reading + stuck).for_each(|member| crowd.stall(member));
    let base = server.rss();
    let highest = (0..rounds).map(|_| round(&mut crowd)).fold(base, f64::max);
    progress(&format!("stuck: {stuck}, from {base} to {highest} kB"));
    let each = (highest - base) / stuck as f64;
    vec![Row::new(
        8,
        "memory: kB for each reader that is stuck",
        vec![each],
        AtMost(OUTBOX_KB),
    )]
}
