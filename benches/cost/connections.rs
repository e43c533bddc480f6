//! Many connections: memory and CPU of idle ones, the cost of a join, and the memory of a stuck reader.

use std::time::Instant;

use crate::clients::Clients;
use crate::machine::Server;
use crate::support::Store;
use crate::table::Limit::{AtMost, Info};
use crate::table::Row;
use crate::{Plan, progress};

/// The limit of an outbox, in kB (`src/socket/outbox.rs`).
const OUTBOX_KB: f64 = 256.0;

/// Ten thousand clients in rooms of a hundred, who say nothing for a minute.
pub fn idle(plan: &Plan) -> Vec<Row> {
    let (people, room) = (plan.size(10_000, 100), plan.size(100, 10));
    let server = Server::chat(Store::Redis);
    let base = server.rss();
    let mut clients = Clients::new(server.wire);
    let half = |clients: &mut Clients| {
        clients.join(server.addr, people / 2, |n| n / room);
        clients.receive_for(plan.time(3.0, 0.2));
        server.rss()
    };
    progress(&format!("idle: {people} join; {base} kB before"));
    let (first, second) = (half(&mut clients), half(&mut clients));
    let (cpu, start) = (server.cpu(), Instant::now());
    let mut highest = second;
    while start.elapsed() < plan.time(60.0, 0.5) {
        clients.receive_for(plan.time(1.0, 0.1));
        highest = server.rss().max(highest);
    }
    let share = (server.cpu() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    assert_eq!(clients.ended, 0, "no idle client is closed");
    let kb = |more: f64, of: usize| vec![more / of as f64];
    let grown = (second - first) / (first - base).max(1.0);
    vec![
        Row::new("idle", "memory without connections, kB", vec![base], Info),
        Row::new(
            "idle",
            "memory per joined connection, kB",
            kb(highest - base, people),
            AtMost(3.0),
        ),
        Row::new(
            "idle",
            "CPU, % of a core, with heartbeats and renewals",
            vec![100.0 * share],
            AtMost(1.0),
        ),
        Row::new(
            "idle",
            "memory: second half / first half",
            vec![grown],
            AtMost(1.1),
        ),
    ]
}

/// Ten thousand clients join at once, as after a restart.
pub fn join(plan: &Plan) -> Vec<Row> {
    let people = plan.size(10_000, 60);
    let ten = |n| n / 10;
    let (mut rows, mut floors) = (vec![], vec![]);
    let (mut redis, mut alone, mut one, mut wall) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for turn in plan.repeats() {
        progress(&format!("join {turn}"));
        floors.push(join_all(&Server::floor(), people, ten).0);
        let (cpu, seconds) = join_all(&Server::chat(Store::Redis), people, ten);
        redis.push(cpu);
        wall.push(seconds);
        if plan.single_file {
            continue;
        }
        one.push(join_all(&Server::chat(Store::Redis), people, |_| 0).0);
        alone.push(join_all(&Server::chat(Store::Memory), people, ten).0);
    }
    let grown: Vec<_> = one.iter().zip(&redis).map(|(one, ten)| one / ten).collect();
    let mut row = |what: &str, values, limit, floors: &[f64]| {
        rows.push(Row::new("join", what, values, limit).with_floor(floors.to_vec()));
    };
    row(
        "rooms of 10, with Redis: CPU per join, µs",
        redis,
        AtMost(150.0),
        &floors,
    );
    row(
        &format!("{people} have joined, with Redis, after, s"),
        wall,
        AtMost(5.0),
        &[],
    );
    if plan.single_file {
        return rows;
    }
    row(
        "rooms of 10, without Redis: CPU per join, µs",
        alone,
        AtMost(60.0),
        &floors,
    );
    row(
        &format!("one room of {people}: CPU per join, µs"),
        one,
        Info,
        &[],
    );
    row(
        "CPU per join: one room / rooms of 10",
        grown,
        AtMost(1.0),
        &[],
    );
    rows
}

/// The server's CPU time per join in µs, and the time until all have joined in s.
fn join_all(server: &Server, people: usize, room: impl Fn(usize) -> usize) -> (f64, f64) {
    let (cpu, start) = (server.cpu(), Instant::now());
    let clients = Clients::join_all(server, people, room);
    let (cpu, wall) = (server.cpu() - cpu, start.elapsed());
    assert_eq!(clients.ended, 0, "no client is closed");
    (cpu.as_secs_f64() * 1e6 / people as f64, wall.as_secs_f64())
}

/// Readers that stop reading. They are sent more than the buffers of the kernel and their outbox hold.
pub fn stuck(plan: &Plan) -> Vec<Row> {
    let (reading, stuck, rounds) = (10, plan.size(100, 5), 500);
    let server = Server::chat(Store::Redis);
    let mut clients = Clients::join_all(&server, reading + stuck, |_| 0);
    let round = |clients: &mut Clients| {
        (0..reading).for_each(|speaker| clients.send(speaker, 1));
        let deliveries = clients.reading() * reading;
        clients.receive_until(clients.talks + deliveries as u64);
        server.rss()
    };
    (0..rounds).for_each(|_| _ = round(&mut clients)); // fills the history first
    (reading..reading + stuck).for_each(|member| clients.stall(member));
    let base = server.rss();
    let highest = (0..rounds)
        .map(|_| round(&mut clients))
        .fold(base, f64::max);
    progress(&format!("stuck: {stuck}, from {base} to {highest} kB"));
    let each = (highest - base) / stuck as f64;
    vec![Row::new(
        "stuck",
        "memory per stuck reader, kB",
        vec![each],
        AtMost(OUTBOX_KB),
    )]
}
