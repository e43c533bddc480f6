//! Many small rooms: the cost of a delivery, and that more rooms do not raise it.

use crate::load::Load;
use crate::machine::{Server, redis_cpu};
use crate::support::Store;
use crate::table::Limit::{AtMost, Info, TimesFloor};
use crate::table::{Limit, Row, median};
use crate::{Plan, progress};

/// 2,500 rooms of four clients, with a message per second in each.
pub fn small(plan: &Plan) -> Vec<Row> {
    let (rooms, size) = (plan.size(2_500, 10), 4);
    vec![measure(plan, "small", rooms, size, TimesFloor(1.5))]
}

/// 500 rooms of four clients, beside `examples/single_file.rs`, which only publishes and subscribes: it stores nothing,
/// and recognises no resend.
pub fn naive(plan: &Plan) -> Vec<Row> {
    const NAMES: [&str; 4] = [
        "CPU per delivery, µs",
        "CPU of Redis per message, µs",
        "p50, ms",
        "p99, ms",
    ];
    let (rooms, size) = (plan.size(500, 10), 4);
    let rates: &[u64] = match plan.short {
        true => &[50],
        false => &[1_000, 2_000, 6_000],
    };
    let start = |server| Load::new(plan, server, rooms * size, |n| n / size);
    let mut chat = start(Server::chat(Store::Redis));
    let mut naive = start(Server::single_file());
    let mut rows = vec![];
    for per_second in rates {
        let (mut ours, mut theirs) = <([Vec<f64>; 4], [Vec<f64>; 4])>::default();
        for turn in plan.repeats() {
            progress(&format!("naive {per_second}/s {turn}"));
            for (load, lists) in [(&mut chat, &mut ours), (&mut naive, &mut theirs)] {
                let redis = redis_cpu(load.server.redis());
                let (time, speaker) = (plan.time(4.0, 0.3), in_turn(rooms, size));
                let talk = load.at_rate(*per_second, time, size, speaker);
                let redis = redis_cpu(load.server.redis()) - redis;
                let messages = talk.deliveries / size as f64;
                let (cpu, redis) = (talk.cpu_per_delivery(), redis / messages);
                let figures = [cpu, redis, talk.delay(500), talk.delay(990)];
                for (list, figure) in lists.iter_mut().zip(figures) {
                    list.push(figure);
                }
            }
        }
        for (what, (ours, theirs)) in NAMES.into_iter().zip(ours.into_iter().zip(theirs)) {
            let what = format!("{rooms} rooms of {size}, {per_second} messages/s: {what}");
            rows.push(Row::new("naive", what, ours, Info).with_floor(theirs));
        }
    }
    rows
}

/// The sender of the nth message: in each room in turn, and in each room each of its clients in turn.
fn in_turn(rooms: usize, size: usize) -> impl Fn(usize) -> usize {
    move |n| n % rooms * size + n / rooms % size
}

/// A delivery costs the same, however many rooms there are.
pub fn growth(plan: &Plan) -> Vec<Row> {
    let counts: &[usize] = if plan.short {
        &[1, 5]
    } else {
        &[1, 100, 5_000]
    };
    let measure = |rooms: &usize| measure(plan, "rooms", *rooms, 2, Info);
    let mut rows: Vec<_> = counts.iter().map(measure).collect();
    let grown = median(&rows[rows.len() - 1].values) / median(&rows[0].values);
    rows.push(Row::new(
        "rooms",
        "CPU per delivery: most rooms / fewest rooms",
        vec![grown],
        AtMost(1.1),
    ));
    rows
}

fn measure(plan: &Plan, part: &'static str, rooms: usize, size: usize, limit: Limit) -> Row {
    let per_second = match limit {
        Info => plan.size(1_000, 50),
        _ => rooms,
    } as u64;
    let (mut cost, mut bare) = (vec![], vec![]);
    for turn in plan.repeats() {
        progress(&format!("{rooms} rooms {turn}"));
        let measure = |server| {
            let mut load = Load::new(plan, server, rooms * size, |n| n / size);
            let measured =
                load.at_rate(per_second, plan.time(5.0, 0.3), size, in_turn(rooms, size));
            measured.cpu_per_delivery()
        };
        cost.push(measure(Server::chat(Store::Redis)));
        bare.push(measure(Server::floor()));
    }
    let what = format!("{rooms} rooms of {size}, {per_second} messages/s: CPU per delivery, µs");
    Row::new(part, what, cost, limit).with_floor(bare)
}
