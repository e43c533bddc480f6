//! Checks of the promise: what every client saw against the room's stream, names against leases, descriptors and memory
//! against what they were before.

use super::client::Id;
use super::facts::{names_key, stream_key};
use super::page::Life;
use super::{Client, Dyno, PATIENCE, Page, Redis, eventually};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

/// A message in a room's stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: Id,
    pub cid: String,
    pub user: String,
}

/// Reads the answer to XRANGE, which is the id and the fields of each entry.
pub fn entries(rows: Vec<(String, Vec<String>)>) -> Vec<Entry> {
    let entry = |(id, fields): (String, Vec<String>)| {
        let body: Value = serde_json::from_str(&fields[1]).unwrap_or_default();
        let word = |field: &str| body[field].as_str().unwrap_or("?").to_string();
        Entry {
            id: Id::parse(&id),
            cid: word("cid"),
            user: word("user"),
        }
    };
    rows.into_iter().map(entry).collect()
}

/// The ids in a room's stream, oldest first.
pub fn stream(redis: &Redis, room: &str) -> Vec<Id> {
    let rows = redis.cmd(&["XRANGE", &stream_key(room), "-", "+"]);
    entries(rows).iter().map(|entry| entry.id).collect()
}

/// From the first message it saw, a client saw everything in the stream, in order and once.
pub fn saw_everything(redis: &Redis, client: &Client) {
    let stream = stream(redis, &client.room);
    slice_of(&stream, &client.user, &client.ids(), &[]);
}

/// The same up to the last message it saw, in a room where others go on talking.
pub fn saw_everything_so_far(redis: &Redis, client: &Client) {
    let seen = client.ids();
    let Some(last) = seen.last() else { return };
    let mut stream = stream(redis, &client.room);
    stream.retain(|id| id <= last);
    slice_of(&stream, &client.user, &seen, &[]);
}

/// The same for pages, over all their connections, except where a page got a gap.
pub fn pages_saw_everything(redis: &Redis, pages: &[Page]) {
    let mut streams = BTreeMap::new();
    for page in pages {
        let read = || stream(redis, &page.room);
        let stream = streams.entry(&page.room).or_insert_with(read);
        nothing_wrong(page);
        let (ids, life) = (page.ids(), page.life());
        let from = life.from.unwrap_or_default();
        agrees(stream, &page.user, from, &ids, &life.gaps);
    }
}

/// A page found no violation, and saw no message under two ids.
pub fn nothing_wrong(page: &Page) {
    let (wrong, room) = (violations(&page.life()), &page.room);
    assert!(wrong.is_empty(), "{} in {room}: {wrong:?}", page.user);
}

/// What a page found wrong, and the messages that it saw under two ids.
pub fn violations(life: &Life) -> Vec<String> {
    let mut cids = BTreeSet::new();
    let twice = life.shown.iter().filter(|shown| !cids.insert(&shown.cid));
    let twice = twice.map(|shown| format!("saw {shown:?} under another id before"));
    life.wrong.iter().cloned().chain(twice).collect()
}

/// `seen` is in order, has no id twice, and holds all of `stream` from its first id on. Ids may be missing only right
/// before one of `gaps`. Ids older than the stream cannot be compared: it is trimmed at its old end.
pub fn slice_of(stream: &[Id], who: &str, seen: &[Id], gaps: &[Id]) {
    if let Some(from) = seen.first() {
        agrees(stream, who, *from, seen, gaps);
    }
}

fn agrees(stream: &[Id], who: &str, from: Id, seen: &[Id], gaps: &[Id]) {
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "{who} saw ids out of order or twice: {seen:?}"
    );
    let Some(oldest) = stream.first() else { return };
    let seen = &seen[seen.partition_point(|id| id < oldest)..];
    let (missing, extra) = differences(stream, from, seen, gaps);
    let n = stream.len();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{who} missed {missing:?} of {n} in the stream, and saw {extra:?}, which it does not hold"
    );
}

/// The ids of `stream` from this id on that are missing in `seen`, except right before one of `gaps`; and the ids in
/// `seen` that the stream does not hold. Both are in order.
pub fn differences(stream: &[Id], from: Id, seen: &[Id], gaps: &[Id]) -> (Vec<Id>, Vec<Id>) {
    let not_in = |ids: &[Id], id: &Id| ids.binary_search(id).is_err();
    // A gap explains a missing id if nothing that was seen is between them.
    let explained = |id: &Id| {
        let next = seen.get(seen.partition_point(|seen| seen < id));
        let mut gaps = gaps.iter().filter(|gap| id < gap);
        gaps.any(|gap| next.is_none_or(|next| next >= gap))
    };
    let missing = stream.iter().filter(|id| **id >= from && not_in(seen, id));
    let extra = seen.iter().filter(|id| not_in(stream, id));
    let missing = missing.filter(|id| !explained(id));
    (missing.copied().collect(), extra.copied().collect())
}

/// Folded names whose lease has not ended, by the clock of Redis.
pub fn leases(redis: &Redis, room: &str) -> BTreeSet<String> {
    let (seconds, micros): (u64, u64) = redis.cmd(&["TIME"]);
    let after_now = format!("({}", seconds * 1_000 + micros / 1_000);
    let names: Vec<String> = redis.cmd(&["ZRANGEBYSCORE", &names_key(room), &after_now, "+inf"]);
    names.into_iter().collect()
}

/// Waits until the names with a lease are these, which fold to themselves.
pub async fn names_are(redis: &Redis, room: &str, names: &[&str]) {
    let names = names.iter().map(|name| name.to_string()).collect();
    let what = "the names with a lease are the names shown";
    becomes(what, PATIENCE, names, async || leases(redis, room)).await;
}

/// Waits until `probe` gives this value.
pub async fn becomes<T: PartialEq + Debug>(
    what: &str,
    within: Duration,
    wanted: T,
    mut probe: impl AsyncFnMut() -> T,
) {
    let what = format!("{what}: {wanted:?}");
    eventually(&what, within, async || {
        let seen = probe().await;
        if seen == wanted { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// The descriptors and the memory of a dyno before a test puts load on it.
pub struct Base {
    fds: usize,
    rss_kb: u64,
}

impl Base {
    /// Waits first until the dyno has freed the connections that were closed just before.
    pub async fn of(dyno: &Dyno) -> Base {
        let (mut fds, mut steady) = (dyno.fds(), 0);
        let what = "the number of descriptors is steady";
        eventually(what, PATIENCE, async || {
            let before = std::mem::replace(&mut fds, dyno.fds());
            steady = if before == fds { steady + 1 } else { 0 };
            if steady < 10 { Err(fds) } else { Ok(()) }
        })
        .await;
        let rss_kb = dyno.rss_kb();
        Base { fds, rss_kb }
    }

    /// Waits until the descriptors are back to what they were, and memory to at most `growth_kb` more.
    pub async fn is_back(&self, dyno: &Dyno, within: Duration, growth_kb: u64) {
        let (fds, rss_kb) = (self.fds, self.rss_kb + growth_kb);
        let what = format!("up to {fds} descriptors and {rss_kb} kB");
        eventually(&what, within, async || {
            let now = (dyno.fds(), dyno.rss_kb());
            let back = now.0 <= fds && now.1 <= rss_kb;
            if back { Ok(()) } else { Err(now) }
        })
        .await;
    }
}
