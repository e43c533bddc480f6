//! One room with many readers: what a delivery costs at full speed, at an even rate, and with more readers.

use crate::load::Load;
use crate::machine::Server;
use crate::support::Store;
use crate::table::Limit::{AtLeast, AtMost, FloorPlus, Info, TimesFloor};
use crate::table::{Row, median};
use crate::{Plan, progress};

fn chat_and_floor(plan: &Plan, people: usize) -> (Load, Load) {
    let chat = Load::new(plan, Server::chat(Store::Redis), people, |_| 0);
    (chat, Load::new(plan, Server::floor(), people, |_| 0))
}

/// Fifty clients send as fast as they can to five hundred.
pub fn full_speed(plan: &Plan) -> Vec<Row> {
    let (people, speakers) = (plan.size(500, 20), plan.size(50, 5));
    let time = plan.time(2.0, 0.3);
    let (mut chat, mut floor) = chat_and_floor(plan, people);
    let (mut rate, mut wall, mut cost, mut bare, mut joined, mut single) = <_>::default();
    chat.full_speed(speakers, 1, time / 4); // fills the history
    for turn in plan.pairs() {
        let talk = chat.full_speed(speakers, 1, time);
        let loops = floor.full_speed(speakers, talk.joined.round() as usize, time);
        let one = floor.full_speed(speakers, 1, time / 2);
        progress(&format!(
            "full {turn}: {:.0}/s",
            talk.deliveries / talk.wall * 1e6
        ));
        for (list, figure) in [
            (&mut rate, talk.deliveries / talk.cpu * 1e6),
            (&mut wall, talk.deliveries / talk.wall * 1e6),
            (&mut cost, talk.cpu_per_delivery()),
            (&mut bare, loops.cpu_per_delivery()),
            (&mut single, one.deliveries / one.cpu * 1e6),
            (&mut joined, talk.joined),
        ] {
            Vec::push(list, figure);
        }
    }
    assert!(
        chat.clients.frame.abs_diff(floor.clients.frame) <= 4,
        "the floor writes the same bytes as the chat"
    );
    vec![
        Row::new(
            "full",
            "deliveries per second of CPU; the floor does not join messages",
            rate,
            AtLeast(1.2e6),
        )
        .with_floor(single),
        Row::new("full", "deliveries per second of time", wall, Info),
        Row::new("full", "messages in one write", joined, Info),
        Row::new(
            "full",
            "CPU per delivery, µs; the floor writes the same joined bytes",
            cost,
            TimesFloor(1.1),
        )
        .with_floor(bare),
    ]
}

/// 200 messages per second to five hundred clients.
pub fn paced(plan: &Plan) -> Vec<Row> {
    let people = plan.size(500, 20);
    let (mut chat, mut floor) = chat_and_floor(plan, people);
    let (mut cost, mut p50, mut p99) = <(Vec<_>, Vec<_>, Vec<_>)>::default();
    let (mut bare, mut bare50, mut bare99) = <(Vec<_>, Vec<_>, Vec<_>)>::default();
    for turn in plan.pairs() {
        progress(&format!("paced {turn}"));
        for (load, costs, middles, ends) in [
            (&mut chat, &mut cost, &mut p50, &mut p99),
            (&mut floor, &mut bare, &mut bare50, &mut bare99),
        ] {
            let measured = load.at_rate(200, plan.time(2.0, 0.3), people, |n| n % people);
            costs.push(measured.cpu_per_delivery());
            middles.push(measured.delay(500));
            ends.push(measured.delay(990));
        }
    }
    vec![
        Row::new("paced", "CPU per delivery, µs", cost, TimesFloor(1.0)).with_floor(bare),
        Row::new("paced", "delay p50, ms", p50, Info).with_floor(bare50),
        Row::new("paced", "delay p99, ms", p99, FloorPlus(2.0)).with_floor(bare99),
    ]
}

/// A delivery costs the same, however many readers a room has.
pub fn readers(plan: &Plan) -> Vec<Row> {
    let sizes: &[usize] = if plan.short {
        &[5, 20]
    } else {
        &[10, 100, 1_000, 10_000]
    };
    let measure = |people: &usize| {
        let per_second = (60_000 / *people as u64).clamp(6, 400);
        let (mut cost, mut bare) = (vec![], vec![]);
        for turn in plan.repeats() {
            progress(&format!("{people} readers {turn}"));
            let measure = |server| {
                let mut load = Load::new(plan, server, *people, |_| 0);
                let measured =
                    load.at_rate(per_second, plan.time(3.0, 0.3), *people, |n| n % people);
                measured.cpu_per_delivery()
            };
            cost.push(measure(Server::chat(Store::Redis)));
            bare.push(measure(Server::floor()));
        }
        let what = format!("{people} readers, {per_second} messages/s: CPU per delivery, µs");
        Row::new("readers", what, cost, Info).with_floor(bare)
    };
    let mut rows: Vec<_> = sizes.iter().map(measure).collect();
    let grown = median(&rows[rows.len() - 1].values) / median(&rows[0].values);
    rows.push(Row::new(
        "readers",
        "CPU per delivery: most readers / fewest readers",
        vec![grown],
        AtMost(1.1),
    ));
    rows
}
