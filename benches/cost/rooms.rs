//! Many small rooms: goal 5, and of goal 8 that a delivery costs the same however many rooms there are.

use crate::hall::Hall;
use crate::machine::Server;
use crate::support::Bus;
use crate::table::Wanted::{AtMost, TimesFloor, Told};
use crate::table::{Row, Wanted, median};
use crate::{Plan, progress};

/// Goal 5.
pub fn small(plan: &Plan) -> Vec<Row> {
    let (rooms, size) = (plan.size(2_500, 10), 4);
    vec![measure(plan, 5, rooms, size, TimesFloor(1.5))]
}

/// Of goal 8: rooms.
pub fn growth(plan: &Plan) -> Vec<Row> {
    let counts: &[usize] = if plan.short {
        &[1, 5]
    } else {
        &[1, 100, 5_000]
    };
    let measure = |rooms: &usize| measure(plan, 8, *rooms, 2, Told);
    let mut rows: Vec<_> = counts.iter().map(measure).collect();
    let grown = median(&rows[rows.len() - 1].values) / median(&rows[0].values);
    rows.push(Row::new(
        8,
        "the most rooms by the fewest: per delivery",
        vec![grown],
        AtMost(1.1),
    ));
    rows
}

/// The rooms talk in turn, and in each its members.
fn measure(plan: &Plan, goal: u8, rooms: usize, size: usize, wanted: Wanted) -> Row {
    let per_second = match wanted {
        Told => plan.size(1_000, 50),
        _ => rooms,
    } as u64;
    let speaker = |n: usize| n % rooms * size + n / rooms % size;
    let (mut cost, mut bare) = (vec![], vec![]);
    for turn in plan.repeats() {
        progress(&format!("{rooms} rooms {turn}"));
        let measure = |server| {
            let mut hall = Hall::new(plan, server, rooms * size, |n| n / size);
            let stretch = hall.pace(per_second, plan.time(5.0, 0.3), size, speaker);
            stretch.cpu_per_delivery()
        };
        cost.push(measure(Server::chat(Bus::Redis)));
        bare.push(measure(Server::floor()));
    }
    let what = format!("{rooms} rooms of {size}, {per_second} messages/s: CPU per delivery, µs");
    Row::new(goal, what, cost, wanted).over(bare)
}
