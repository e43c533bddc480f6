//! One room, many readers: goals 1 and 2, and of goal 8 that a delivery costs the same however many
//! read.

use crate::hall::Hall;
use crate::machine::Server;
use crate::support::Bus;
use crate::table::Wanted::{AtLeast, AtMost, FloorPlus, TimesFloor, Told};
use crate::table::{Row, median};
use crate::{Plan, progress};

fn halls(plan: &Plan, people: usize) -> (Hall, Hall) {
    let chat = Hall::new(plan, Server::chat(Bus::Redis), people, |_| 0);
    (chat, Hall::new(plan, Server::floor(), people, |_| 0))
}

/// Goal 1.
pub fn full(plan: &Plan) -> Vec<Row> {
    let (people, speakers) = (plan.size(500, 20), plan.size(50, 5));
    let lasting = plan.time(2.0, 0.3);
    let (mut chat, mut floor) = halls(plan, people);
    let (mut rate, mut wall, mut cost, mut bare, mut joined, mut single) = <_>::default();
    chat.rush(speakers, 1, lasting / 4); // the log fills up
    for turn in plan.pairs() {
        let talk = chat.rush(speakers, 1, lasting);
        let loops = floor.rush(speakers, talk.joined.round() as usize, lasting);
        let one = floor.rush(speakers, 1, lasting / 2);
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
        chat.crowd.frame.abs_diff(floor.crowd.frame) <= 4,
        "the floor writes the same bytes"
    );
    vec![
        Row::new(
            1,
            "full: deliveries per second of CPU; floor: not joined",
            rate,
            AtLeast(1.2e6),
        )
        .over(single),
        Row::new(1, "full: deliveries per second that passed", wall, Told),
        Row::new(1, "full: messages in one write", joined, Told),
        Row::new(
            1,
            "full: CPU per delivery, µs; floor: the same joined bytes",
            cost,
            TimesFloor(1.1),
        )
        .over(bare),
    ]
}

/// Goal 2.
pub fn paced(plan: &Plan) -> Vec<Row> {
    let people = plan.size(500, 20);
    let (mut chat, mut floor) = halls(plan, people);
    let (mut cost, mut p50, mut p99) = <(Vec<_>, Vec<_>, Vec<_>)>::default();
    let (mut bare, mut bare50, mut bare99) = <(Vec<_>, Vec<_>, Vec<_>)>::default();
    for turn in plan.pairs() {
        progress(&format!("paced {turn}"));
        for (hall, costs, middles, ends) in [
            (&mut chat, &mut cost, &mut p50, &mut p99),
            (&mut floor, &mut bare, &mut bare50, &mut bare99),
        ] {
            let stretch = hall.pace(200, plan.time(2.0, 0.3), people, |n| n % people);
            costs.push(stretch.cpu_per_delivery());
            middles.push(stretch.delay(500));
            ends.push(stretch.delay(990));
        }
    }
    vec![
        Row::new(2, "paced: CPU per delivery, µs", cost, TimesFloor(1.0)).over(bare),
        Row::new(2, "paced: p50, ms", p50, Told).over(bare50),
        Row::new(2, "paced: p99, ms", p99, FloorPlus(2.0)).over(bare99),
    ]
}

/// Of goal 8: readers.
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
                let mut hall = Hall::new(plan, server, *people, |_| 0);
                let stretch = hall.pace(per_second, plan.time(3.0, 0.3), *people, |n| n % people);
                stretch.cpu_per_delivery()
            };
            cost.push(measure(Server::chat(Bus::Redis)));
            bare.push(measure(Server::floor()));
        }
        let what = format!("{people} readers, {per_second} messages/s: CPU per delivery, µs");
        Row::new(8, what, cost, Told).over(bare)
    };
    let mut rows: Vec<_> = sizes.iter().map(measure).collect();
    let grown = median(&rows[rows.len() - 1].values) / median(&rows[0].values);
    rows.push(Row::new(
        8,
        "the most readers by the fewest: per delivery",
        vec![grown],
        AtMost(1.1),
    ));
    rows
}
