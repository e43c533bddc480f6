//! The four invariants, once everything has come to rest. Each failure is a sentence with who, what, and on which dyno.

use super::record::{Fate, Person};
use super::support::check;
use super::town::{Someone, Town};
use super::truth::{Entry, Truth, read};
use std::collections::{BTreeSet, HashMap};

/// A log holds 1,000 messages and 128 KiB: whoever missed fewer than this has no reason to be told of a gap.
const SURELY_HELD: usize = 400;

#[derive(Default)]
pub struct Count {
    pub confirmed: usize,
    pub given_up: usize,
    pub shown: usize,
    pub lost: usize,
    pub doubled: usize,
    pub disordered: usize,
    pub false_gaps: usize,
    pub gaps: usize,
}

/// I1. What everyone saw and said, against the streams.
pub fn messages(town: &Town, truth: &Truth, flushed: bool) -> Count {
    let mut count = Count::default();
    let logs = truth.logs();
    if !flushed {
        compare_streams(town, &logs);
    }
    for person in town.people.borrow().iter() {
        let person = person.borrow();
        let empty = vec![];
        let log = logs.get(&person.room).unwrap_or(&empty);
        for what in &person.wrong {
            count.doubled += usize::from(what.starts_with("doubled"));
            count.disordered += usize::from(what.starts_with("out of order"));
            town.fail(format!("{} in {}: {what}", person.user, person.room));
        }
        seen(town, &person, log, &mut count);
        said(town, &person, log, &mut count);
    }
    count
}

/// What is left of each stream is the end of what was read of it all along.
fn compare_streams(town: &Town, logs: &HashMap<String, Vec<Entry>>) {
    let redis = town.redis.borrow();
    let redis = redis.as_ref().expect("no fault is left");
    let client = redis::Client::open(redis.url()).expect("the URL of our own Redis");
    let mut connection = client.get_connection().expect("Redis is there");
    for (room, log) in logs {
        let left = read(&mut connection, room, "-").expect("a stream can be read");
        if !log.ends_with(&left) {
            town.fail(format!(
                "the stream of {room} has changed: {} of {} entries are its own",
                left.iter().filter(|e| log.contains(e)).count(),
                left.len()
            ));
        }
    }
}

fn seen(town: &Town, person: &Person, log: &[Entry], count: &mut Count) {
    let who = format!("{} in {}", person.user, person.room);
    let stays = person.gone.is_none();
    for (n, stretch) in person.stretches.iter().enumerate() {
        count.shown += stretch.ids.len();
        let last_one = n + 1 == person.stretches.len();
        let end = match stretch.ids.last() {
            _ if last_one && stays => log.last().map_or(stretch.after, |e| e.id),
            Some(last) => *last,
            None => stretch.after,
        };
        let due: BTreeSet<_> = log
            .iter()
            .map(|e| e.id)
            .filter(|id| *id > stretch.after && *id <= end)
            .collect();
        let ids: BTreeSet<_> = stretch.ids.iter().copied().collect();
        if !stretch.ids.is_sorted_by(|a, b| a < b) {
            count.disordered += 1;
            town.fail(format!("{who} saw ids out of order: {:?}", stretch.ids));
        }
        let missing: Vec<_> = due.difference(&ids).map(|id| id.to_string()).collect();
        if !missing.is_empty() {
            count.lost += missing.len();
            town.fail(format!(
                "{who} missed {missing:?} after {} (dynos {:?})",
                stretch.after, person.dynos
            ));
        }
        let extra: Vec<_> = ids.difference(&due).map(|id| id.to_string()).collect();
        if !extra.is_empty() {
            count.disordered += extra.len();
            town.fail(format!("{who} saw {extra:?}, which the stream never held"));
        }
        if let Some((from, to)) = stretch.gap {
            count.gaps += 1;
            let between = log.iter().filter(|e| e.id > from && e.id <= to).count();
            if between < SURELY_HELD && log.iter().any(|e| e.id == from) {
                count.false_gaps += 1;
                town.fail(format!(
                    "{who} was told of a gap between {from} and {to}, where only {between} messages lie (dynos {:?})",
                    person.dynos
                ));
            }
        }
    }
}

fn said(town: &Town, person: &Person, log: &[Entry], count: &mut Count) {
    let who = format!("{} in {}", person.user, person.room);
    let mut by_cid: HashMap<&str, Vec<usize>> = HashMap::new();
    for (n, entry) in log.iter().enumerate() {
        if entry.user == person.user {
            by_cid.entry(&entry.cid).or_default().push(n);
        }
    }
    let mut before = None;
    for saying in &person.sayings {
        let places = by_cid.get(&*saying.cid).cloned().unwrap_or_default();
        let (cid, fate) = (&saying.cid, saying.fate);
        if places.len() > 1 {
            count.doubled += 1;
            town.fail(format!(
                "{who}: the talk {cid} is in the stream {} times",
                places.len()
            ));
        }
        match fate {
            Fate::Confirmed(id) => {
                count.confirmed += 1;
                if places.first().map(|n| log[*n].id) != Some(id) {
                    count.lost += 1;
                    town.fail(format!(
                        "{who}: {cid} was confirmed as {id}, the stream has {places:?}"
                    ));
                }
            }
            Fate::GivenUp => count.given_up += 1,
            Fate::Pending => {
                count.lost += 1;
                town.fail(format!(
                    "{who}: {cid} was never confirmed; in the stream {} times",
                    places.len()
                ));
            }
        }
        if let Some(place) = places.first() {
            if before.is_some_and(|before| before > *place) {
                count.disordered += 1;
                town.fail(format!(
                    "{who}: {cid} stands before what was said before it"
                ));
            }
            before = Some(*place);
        }
    }
}

/// I2. Names shown, names with a lease and people there are the same; or a sentence for each room where not.
pub fn names(town: &Town, rooms: &[String]) -> Vec<String> {
    let redis = town.redis.borrow();
    let Some(redis) = redis.as_ref() else {
        return vec!["Redis is away".into()];
    };
    let mut wrong = vec![];
    for room in rooms {
        let live = check::leases(redis, room);
        let here: Vec<Someone> = present(town)
            .into_iter()
            .filter(|p| p.borrow().room == *room)
            .collect();
        let real: BTreeSet<String> = here.iter().map(|p| p.borrow().user.clone()).collect();
        if live != real {
            let ghosts: Vec<_> = live.difference(&real).collect();
            let missing: Vec<_> = real.difference(&live).collect();
            wrong.push(format!(
                "in {room} these names have a lease and nobody there: {ghosts:?}; these have none: {missing:?}"
            ));
        }
        for person in &here {
            let person = person.borrow();
            let shown: BTreeSet<String> = person.users.iter().cloned().collect();
            if shown != real {
                wrong.push(format!(
                    "{} on {:?} is shown {:?} too many and {:?} too few of {} in {room}",
                    person.user,
                    person.seat.map(|s| s.0),
                    shown.difference(&real).collect::<Vec<_>>(),
                    real.difference(&shown).collect::<Vec<_>>(),
                    real.len(),
                ));
            }
        }
    }
    wrong
}

/// Who has not left.
pub fn present(town: &Town) -> Vec<Someone> {
    let people = town.people.borrow();
    let stay = people.iter().filter(|p| p.borrow().gone.is_none());
    stay.cloned().collect()
}
