//! The same figures for every program that the page can talk to: what its users missed, saw twice, or saw wrong. Here
//! nothing fails: a program without history, leases and acknowledgements can be compared with one that has them.

use super::simulation::Simulation;
use super::support::Id;
use super::user::{Outcome, PageLife, wall_ms};
use super::verify::present;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Every message that anyone was shown, by room and id: its cid.
pub type Seen = HashMap<String, BTreeMap<Id, String>>;

pub fn print(sim: &Simulation) {
    let users = sim.users.borrow();
    let seen = sim.seen.borrow();
    let (mut expected, mut missed, mut unconfirmed) = (0, 0, 0);
    let (mut offline, mut time) = (Duration::ZERO, Duration::ZERO);
    for user in users.iter().map(|user| user.borrow()) {
        let none = BTreeMap::new();
        let room = seen.get(&user.room).unwrap_or(&none);
        for PageLife { from_ms, end } in user.pages() {
            let (end_ms, newest) = end.unwrap_or((wall_ms(), Id(u64::MAX, 0)));
            time += Duration::from_millis(end_ms - from_ms);
            let first = Id(from_ms + 1, 0);
            for (id, _) in room.range(first..=newest.max(first)) {
                expected += 1;
                missed += usize::from(!user.seen.contains(id));
            }
        }
        let pending = user.messages.iter();
        let pending = pending.filter(|message| message.outcome == Outcome::Pending);
        unconfirmed += pending.count();
        offline += user.offline();
    }
    let mut doubled = 0;
    for room in seen.values() {
        let cids: BTreeSet<&String> = room.values().collect();
        doubled += room.len() - cids.len();
    }
    let (mut ghosts, mut missing, mut wrong) = (BTreeSet::new(), BTreeSet::new(), 0);
    let present = present(sim);
    for user in present.iter().map(|user| user.borrow()) {
        let here = present.iter().map(|other| other.borrow());
        let here = here.filter(|other| other.room == user.room);
        let here: BTreeSet<String> = here.map(|other| other.name.clone()).collect();
        let shown: BTreeSet<String> = user.users.iter().cloned().collect();
        wrong += usize::from(shown != here);
        ghosts.extend(shown.difference(&here).cloned());
        missing.extend(here.difference(&shown).cloned());
    }
    let tally = sim.tally.borrow();
    let hours = time.as_secs_f64() / 3600.0;
    println!(
        "compared: messages sent={} not_confirmed={unconfirmed} doubled={doubled}",
        tally.said
    );
    println!("compared: deliveries expected={expected} missed={missed}");
    println!(
        "compared: member_lists during={} wrong={}; at_the_end={} wrong={wrong} ghosts={} missing={}",
        tally.lists,
        tally.wrong_lists,
        present.len(),
        ghosts.len(),
        missing.len()
    );
    println!(
        "compared: connection users={} hours={hours:.1} seconds_without_per_hour={:.1}",
        users.len(),
        offline.as_secs_f64() / hours
    );
}
