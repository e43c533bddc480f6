//! The record of the streams, and the checks at the end, when everything is at rest. A failure says who, and what.

use super::ROOMS;
use super::simulation::{Simulation, User};
use super::support::check::{self, Entry, entries};
use super::support::page::Life;
use super::support::{Id, facts::stream_key};
use redis::RedisResult;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// A history holds 1,000 messages or 128 KiB, in any case more than this: if fewer are missing, a gap is false.
const SURELY_HELD: usize = 400;
const PAUSE: Duration = Duration::from_millis(500);

/// Records every message of every room's stream, for ever.
pub async fn record_streams(sim: Rc<Simulation>) {
    let url = sim.redis.borrow().as_ref().map(|redis| redis.url());
    let client = redis::Client::open(url.expect("no fault yet")).expect("our own URL");
    loop {
        let _ = follow_streams(&sim, &client).await; // while Redis is down: try again soon
        sleep(PAUSE).await;
    }
}

async fn follow_streams(sim: &Simulation, client: &redis::Client) -> RedisResult<()> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    loop {
        for (room, _) in ROOMS {
            let later = format!("({}", sim.newest(room));
            let mut read = redis::cmd("XRANGE");
            read.arg(&[stream_key(room), later, "+".into()]);
            let new = entries(read.query_async(&mut connection).await?);
            let mut streams = sim.streams.borrow_mut();
            streams.entry(room.into()).or_default().extend(new);
        }
        sleep(PAUSE).await;
    }
}

/// Compares what each user saw and sent with the streams.
pub fn messages(sim: &Simulation) {
    compare_streams(sim);
    for user in sim.users.borrow().iter() {
        let user = user.borrow();
        let streams = sim.streams.borrow();
        let stream = streams.get(&user.room).map_or(&[][..], Vec::as_slice);
        let ids: Vec<Id> = stream.iter().map(|entry| entry.id).collect();
        let fail = |what: String| sim.fail(format!("{} in {}: {what}", user.name, user.room));
        for (life, end) in user.lives() {
            check::violations(life).into_iter().for_each(fail);
            // Later messages may have been on their way when the page ended.
            let last = life.shown.last().map(|shown| shown.id);
            let until = ids.partition_point(|id| end.is_none() || Some(*id) <= last);
            compare_shown(life, &ids[..until], fail);
        }
        compare_sent(&user, stream, fail);
    }
}

/// Each stream in Redis must equal the last part of the recording.
fn compare_streams(sim: &Simulation) {
    let redis = sim.redis.borrow();
    let redis = redis.as_ref().expect("no fault is left");
    for (room, recorded) in sim.streams.borrow().iter() {
        let left = entries(redis.cmd(&["XRANGE", &stream_key(room), "-", "+"]));
        if !recorded.ends_with(&left) {
            let (left, recorded) = (left.len(), recorded.len());
            sim.fail(format!(
                "{room} has {left} messages that are not the last of {recorded}"
            ));
        }
    }
}

fn compare_shown(life: &Life, stream: &[Id], fail: impl Fn(String)) {
    let Some(from) = life.from else { return };
    let recent = life.recent();
    let seen: Vec<Id> = life.shown.iter().map(|shown| shown.id).collect();
    let (missing, extra) = check::differences(stream, from, &seen, &life.gaps);
    if !missing.is_empty() {
        fail(format!(
            "missed {missing:?}, was to see all from {from} on; {recent}"
        ));
    }
    if !extra.is_empty() {
        fail(format!("saw {extra:?}, which the stream never held"));
    }
    for gap in &life.gaps {
        let resumed = seen[..seen.partition_point(|id| id < gap)].last();
        let resumed = resumed.unwrap_or(&from);
        let between = stream.iter().filter(|id| resumed < id && id <= &gap);
        let between = between.count();
        if between < SURELY_HELD && stream.contains(resumed) {
            fail(format!(
                "got a gap from {resumed} to {gap} with only {between} messages; {recent}"
            ));
        }
    }
}

fn compare_sent(user: &User, stream: &[Entry], fail: impl Fn(String)) {
    let mut by_cid: HashMap<&str, Vec<Id>> = HashMap::new();
    for entry in stream.iter().filter(|entry| entry.user == user.name) {
        by_cid.entry(&entry.cid).or_default().push(entry.id);
    }
    let mut previous = Id::default();
    for own in &user.life.own {
        let cid = &own.cid;
        let stored = by_cid.get(&**cid).map_or(&[][..], Vec::as_slice);
        if stored.len() > 1 {
            fail(format!("the talk {cid} is in the stream as {stored:?}"));
        }
        match own.id {
            Some(id) if stored.first() == Some(&id) => {}
            None if user.gone.is_some() => {} // the user left before it came
            acknowledged => fail(format!(
                "{cid} is acknowledged as {acknowledged:?}, the stream has it as {stored:?}"
            )),
        }
        if let Some(first) = stored.first() {
            if previous > *first {
                fail(format!("{cid} is stored before an earlier message"));
            }
            previous = *first;
        }
    }
}

/// In each room, the names with a lease, the names shown and the users there must be the same. Returns the differences.
pub fn names(sim: &Simulation) -> Vec<String> {
    let redis = sim.redis.borrow();
    let Some(redis) = redis.as_ref() else {
        return vec!["Redis is down".into()];
    };
    let mut wrong = vec![];
    for (room, _) in ROOMS {
        let mut here = sim.present();
        here.retain(|user| user.borrow().room == room);
        let real: BTreeSet<String> = here.iter().map(|user| user.borrow().name.clone()).collect();
        let mut compare = |who: &str, names: BTreeSet<String>| {
            let (more, fewer) = (&names - &real, &real - &names);
            if names != real {
                wrong.push(format!(
                    "{who} in {room}: {more:?} too many and {fewer:?} too few"
                ));
            }
        };
        compare("names with a lease", check::leases(redis, room));
        for user in here.iter().map(|user| user.borrow()) {
            let shown = user.life.users.iter().cloned().collect();
            compare(&format!("{} is shown", user.name), shown);
        }
    }
    wrong
}
