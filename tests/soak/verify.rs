//! The checks at the end, when everything is at rest. A failure says who, what, and on which dyno.

use super::simulation::{Simulation, UserRef};
use super::streams::{Entry, Streams, read};
use super::support::check;
use super::user::{Outcome, User};
use std::collections::{BTreeSet, HashMap};

/// A history holds 1,000 messages or 128 KiB, in any case more than this: if fewer are missing, a gap is false.
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

/// Compares what each user saw and sent with the streams.
pub fn messages(sim: &Simulation, streams: &Streams, flushed: bool) -> Count {
    let mut count = Count::default();
    let entries = streams.entries();
    if !flushed {
        compare_streams(sim, &entries);
    }
    for user in sim.users.borrow().iter() {
        let user = user.borrow();
        let stream = entries.get(&user.room).map_or(&[][..], Vec::as_slice);
        let fail = |what: String| sim.fail(format!("{} in {}: {what}", user.name, user.room));
        for what in &user.wrong {
            count.doubled += usize::from(what.starts_with("doubled"));
            count.disordered += usize::from(what.starts_with("out of order"));
            fail(what.clone());
        }
        compare_shown(&user, stream, &mut count, fail);
        compare_sent(&user, stream, &mut count, fail);
    }
    count
}

/// Each stream in Redis must equal the last part of the recording.
fn compare_streams(sim: &Simulation, entries: &HashMap<String, Vec<Entry>>) {
    let redis = sim.redis.borrow();
    let redis = redis.as_ref().expect("no fault is left");
    let client = redis::Client::open(redis.url()).expect("the URL of our own Redis");
    let mut connection = client.get_connection().expect("Redis is there");
    for (room, recorded) in entries {
        let left = read(&mut connection, room, "-").expect("a stream can be read");
        if !recorded.ends_with(&left) {
            sim.fail(format!(
                "the stream of {room} has changed: {} of {} entries were recorded",
                left.iter().filter(|e| recorded.contains(e)).count(),
                left.len()
            ));
        }
    }
}

fn compare_shown(user: &User, stream: &[Entry], count: &mut Count, fail: impl Fn(String)) {
    for (n, stretch) in user.stretches.iter().enumerate() {
        count.shown += stretch.ids.len();
        let is_last = n + 1 == user.stretches.len();
        let end = match stretch.ids.last() {
            _ if is_last && user.gone.is_none() => stream.last().map_or(stretch.after, |e| e.id),
            Some(last) => *last,
            None => stretch.after,
        };
        let expected: BTreeSet<_> = stream
            .iter()
            .map(|e| e.id)
            .filter(|id| *id > stretch.after && *id <= end)
            .collect();
        let ids: BTreeSet<_> = stretch.ids.iter().copied().collect();
        if !stretch.ids.is_sorted_by(|a, b| a < b) {
            count.disordered += 1;
            fail(format!("saw ids out of order: {:?}", stretch.ids));
        }
        let missing: Vec<_> = expected.difference(&ids).map(|id| id.to_string()).collect();
        if !missing.is_empty() {
            count.lost += missing.len();
            fail(format!(
                "missed {missing:?} after {} (dynos {:?})",
                stretch.after, user.dynos
            ));
        }
        let extra: Vec<_> = ids.difference(&expected).map(|id| id.to_string()).collect();
        if !extra.is_empty() {
            count.disordered += extra.len();
            fail(format!("saw {extra:?}, which the stream never held"));
        }
        if let Some((from, to)) = stretch.gap {
            count.gaps += 1;
            let between = stream.iter().filter(|e| e.id > from && e.id <= to).count();
            if between < SURELY_HELD && stream.iter().any(|e| e.id == from) {
                count.false_gaps += 1;
                fail(format!(
                    "got a gap between {from} and {to} with only {between} messages (dynos {:?})",
                    user.dynos
                ));
            }
        }
    }
}

fn compare_sent(user: &User, stream: &[Entry], count: &mut Count, fail: impl Fn(String)) {
    let mut by_cid: HashMap<&str, Vec<usize>> = HashMap::new();
    for (n, entry) in stream.iter().enumerate() {
        if entry.user == user.name {
            by_cid.entry(&entry.cid).or_default().push(n);
        }
    }
    let mut previous = None;
    for message in &user.messages {
        let cid = &message.cid;
        let places = by_cid.get(&**cid).map_or(&[][..], Vec::as_slice);
        let times = places.len();
        if times > 1 {
            count.doubled += 1;
            fail(format!("the talk {cid} is in the stream {times} times"));
        }
        match message.outcome {
            Outcome::Confirmed(id) => {
                count.confirmed += 1;
                if places.first().map(|n| stream[*n].id) != Some(id) {
                    count.lost += 1;
                    fail(format!(
                        "{cid} was acknowledged as {id}, the stream has it at {places:?}"
                    ));
                }
            }
            Outcome::GivenUp => count.given_up += 1,
            Outcome::Pending => {
                count.lost += 1;
                fail(format!(
                    "{cid} was never acknowledged; in the stream {times} times"
                ));
            }
        }
        if let Some(place) = places.first() {
            if previous.is_some_and(|previous| previous > *place) {
                count.disordered += 1;
                fail(format!("{cid} is stored before an earlier message"));
            }
            previous = Some(*place);
        }
    }
}

/// In each room, the names with a lease, the names shown and the users there must be the same. Returns the differences.
pub fn names(sim: &Simulation, rooms: &[String]) -> Vec<String> {
    let redis = sim.redis.borrow();
    let Some(redis) = redis.as_ref() else {
        return vec!["Redis is down".into()];
    };
    let mut wrong = vec![];
    for room in rooms {
        let mut here = present(sim);
        here.retain(|user| user.borrow().room == *room);
        let real: BTreeSet<String> = here.iter().map(|user| user.borrow().name.clone()).collect();
        let leased = check::leases(redis, room);
        if leased != real {
            let ghosts: Vec<_> = leased.difference(&real).collect();
            let missing: Vec<_> = real.difference(&leased).collect();
            wrong.push(format!(
                "in {room} these names have a lease and no user: {ghosts:?}; these have no lease: {missing:?}"
            ));
        }
        for user in &here {
            let user = user.borrow();
            let shown: BTreeSet<String> = user.users.iter().cloned().collect();
            if shown != real {
                wrong.push(format!(
                    "{} on {:?} is shown {:?} too many and {:?} too few of {} in {room}",
                    user.name,
                    user.connected.map(|(dyno, _)| dyno),
                    shown.difference(&real).collect::<Vec<_>>(),
                    real.difference(&shown).collect::<Vec<_>>(),
                    real.len(),
                ));
            }
        }
    }
    wrong
}

/// The users who have not left.
pub fn present(sim: &Simulation) -> Vec<UserRef> {
    let mut users = sim.users.borrow().clone();
    users.retain(|user| user.borrow().gone.is_none());
    users
}
