//! Checks of the promise: what every client saw against the room's stream, names against leases, descriptors and memory
//! against what they were before.

use super::client::Id;
use super::facts::{names_key, stream_key};
use super::{Client, Dyno, PATIENCE, Page, Redis, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

/// The ids in a room's stream, oldest first.
pub fn stream(redis: &Redis, room: &str) -> Vec<Id> {
    let entries: Vec<(String, Vec<String>)> = redis.cmd(&["XRANGE", &stream_key(room), "-", "+"]);
    let id = |entry: &(String, _)| entry.0.parse().expect("a stream entry has an id");
    entries.iter().map(id).collect()
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
        let gaps = page.life().gaps.clone();
        slice_of(stream, &page.user, &page.ids(), &gaps);
        nothing_wrong(page);
    }
}

/// A page found no violation, and saw no message under two ids.
pub fn nothing_wrong(page: &Page) {
    let (life, user) = (page.life(), &page.user);
    assert!(
        life.wrong.is_empty(),
        "{user} in {}: {:?}",
        page.room,
        life.wrong
    );
    let mut cids = BTreeSet::new();
    for shown in &life.shown {
        let new = cids.insert(&shown.cid);
        assert!(new, "{user} saw the message {shown:?} under two ids");
    }
}

/// `seen` is in order, has no id twice, and holds all of `stream` from its first id on. Ids may be missing only right
/// before one of `gaps`. Ids older than the stream cannot be compared: it is trimmed at its old end.
pub fn slice_of(stream: &[Id], who: &str, seen: &[Id], gaps: &[Id]) {
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "{who} saw ids out of order or twice: {seen:?}"
    );
    let Some(oldest) = stream.first() else { return };
    let seen_none = seen.is_empty() && gaps.is_empty();
    let seen = &seen[seen.partition_point(|id| id < oldest)..];
    let Some(first) = seen.first() else {
        let n = stream.len();
        assert!(seen_none, "{who} saw nothing of {n} in the stream");
        return;
    };
    let stream = &stream[stream.partition_point(|id| id < first)..];
    let not_in = |ids: &[Id], id: &Id| ids.binary_search(id).is_err();
    let extra: Vec<_> = seen.iter().filter(|id| not_in(stream, id)).collect();
    assert!(
        extra.is_empty(),
        "{who} saw {extra:?}, which the stream does not hold"
    );
    // A gap explains a missing id if the next id that this client saw is where the gap ends.
    let explained = |id: &Id| {
        let next = seen.get(seen.partition_point(|seen| seen < id));
        next.is_some_and(|next| gaps.contains(next))
    };
    let missing = stream.iter().filter(|id| not_in(seen, id));
    let missing: Vec<_> = missing.filter(|id| !explained(id)).collect();
    assert!(
        missing.is_empty(),
        "{who} missed {} of {}: {missing:?}",
        missing.len(),
        stream.len()
    );
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
            match steady {
                10.. => Ok(()),
                _ => Err((before, fds)),
            }
        })
        .await;
        let rss_kb = dyno.rss_kb();
        Base { fds, rss_kb }
    }

    /// The same with this many more connections that stay open.
    pub fn and(self, connections: usize) -> Base {
        Base {
            fds: self.fds + connections,
            ..self
        }
    }

    /// Waits until the descriptors are back to what they were, and memory to at most `growth_kb` more.
    pub async fn is_back(&self, dyno: &Dyno, within: Duration, growth_kb: u64) {
        let what = "descriptors and memory are back to base";
        eventually(what, within, async || {
            let (fds, rss_kb) = (dyno.fds(), dyno.rss_kb());
            match fds <= self.fds && rss_kb <= self.rss_kb + growth_kb {
                true => Ok(()),
                false => Err(format!(
                    "{fds} descriptors after {}, {rss_kb} kB after {} (allowed growth {growth_kb})",
                    self.fds, self.rss_kb
                )),
            }
        })
        .await;
    }
}
