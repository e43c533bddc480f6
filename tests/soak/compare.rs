//! The same figures for every program that the page can talk to: what its users missed, saw twice, or saw wrong. Here
//! nothing fails: a program without history, leases and acknowledgements can be compared with one that has them.

use super::simulation::{Simulation, User};
use super::support::Id;
use std::cell::Ref;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

pub fn print(sim: &Simulation) {
    let users = sim.users.borrow();
    let users: Vec<Ref<User>> = users.iter().map(|user| user.borrow()).collect();
    // Every message that anyone was shown, by room and id: its cid.
    let mut rooms: HashMap<&str, BTreeMap<Id, &str>> = HashMap::new();
    let mut seen_by = vec![];
    for user in &users {
        let room = rooms.entry(&user.room).or_default();
        let mut seen = BTreeMap::new();
        for (life, _) in user.lives() {
            let all = life.shown.iter().chain(&life.late);
            seen.extend(all.map(|shown| (shown.id, &*shown.cid)));
        }
        room.extend(&seen);
        seen_by.push(seen);
    }
    let (mut expected, mut missed) = (0, 0);
    let (mut offline, mut time) = (Duration::ZERO, Duration::ZERO);
    for (user, seen) in users.iter().zip(&seen_by) {
        for (life, end) in user.lives() {
            // Later messages may have been on their way when the page ended.
            let newest = life.shown.last().map(|shown| shown.id).unwrap_or_default();
            let newest = end.map_or(Id(u64::MAX, 0), |_| newest);
            let end = end.unwrap_or_else(Instant::now);
            offline += life.away.iter().sum::<Duration>();
            offline += life.lost_at.map_or(Duration::ZERO, |lost| end - lost);
            let Some((begin, _)) = life.welcomes.first() else {
                continue;
            };
            time += end - *begin;
            let began = (SystemTime::now() - begin.elapsed()).duration_since(UNIX_EPOCH);
            let first = Id(began.unwrap_or_default().as_millis() as u64 + 1, 0);
            for (id, _) in rooms[&*user.room].range(first..=newest.max(first)) {
                expected += 1;
                missed += usize::from(!seen.contains_key(id));
            }
        }
    }
    let twice = |room: &BTreeMap<_, _>| room.len() - BTreeSet::from_iter(room.values()).len();
    let doubled: usize = rooms.values().map(twice).sum();
    let present: Vec<_> = users.iter().filter(|user| user.gone.is_none()).collect();
    let is_wrong = |viewer: &&&Ref<User>| {
        let here = present.iter().filter(|user| user.room == viewer.room);
        let here: BTreeSet<&String> = here.map(|user| &user.name).collect();
        viewer.life.users.iter().collect::<BTreeSet<_>>() != here
    };
    let wrong = present.iter().filter(is_wrong).count();
    let tally = sim.tally.borrow();
    let hours = time.as_secs_f64() / 3600.0;
    let (said, lists, wrong_lists) = (tally.said, tally.lists, tally.wrong_lists);
    println!("compared: messages sent={said} doubled={doubled}");
    println!("compared: deliveries expected={expected} missed={missed}");
    println!("compared: member_lists during={lists} wrong={wrong_lists}");
    println!(
        "compared: members at_the_end={} with_a_wrong_list={wrong}",
        present.len()
    );
    let (users, offline) = (users.len(), offline.as_secs_f64() / hours);
    println!(
        "compared: connection users={users} hours={hours:.1} seconds_without_per_hour={offline:.1}"
    );
}
