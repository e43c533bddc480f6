//! The promise as a check: what every client saw against the room's stream, names against leases, descriptors and
//! memory against what they were before.

use super::client::Id;
use super::{Client, Dyno, PATIENCE, Page, Redis, eventually};
use std::collections::BTreeSet;
use std::time::Duration;

/// The ids in a room's stream, oldest first.
pub fn stream(redis: &Redis, room: &str) -> Vec<Id> {
    stream_between(redis, room, "-", "+")
}

/// A part of them, both ends included.
pub fn stream_between(redis: &Redis, room: &str, from: &str, to: &str) -> Vec<Id> {
    type Entry = (String, Vec<String>);
    let entries: Vec<Entry> = redis.cmd(&["XRANGE", &format!("chat:{{{room}}}"), from, to]);
    entries
        .iter()
        .map(|(id, _)| id.parse().expect("a stream entry has an id"))
        .collect()
}

/// I1 for a connection in a room where others go on talking: up to the last message it saw.
pub fn saw_everything_so_far(redis: &Redis, client: &Client) {
    let seen = client.ids();
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
        return;
    };
    slice_of(
        &stream_between(redis, &client.room, &first.to_string(), &last.to_string()),
        &client.user,
        &seen,
        &[],
    );
}

/// I1 for one connection: from the first id it saw, it saw everything in the stream, in order, once.
pub fn saw_everything(redis: &Redis, client: &Client) {
    slice_of(
        &stream(redis, &client.room),
        &client.user,
        &client.ids(),
        &[],
    );
}

/// I1 for pages: the same over all their connections, unless a gap was announced; and nothing typed twice.
pub fn pages_saw_everything(redis: &Redis, pages: &[Page]) {
    for page in pages {
        let log = stream(redis, &page.room);
        let gaps = page.life().gaps.clone();
        slice_of(&log, &page.user, &page.ids(), &gaps);
        nothing_wrong(page);
    }
}

/// Whatever a page lived through, it noticed nothing against the contract, and saw no talk under two ids.
pub fn nothing_wrong(page: &Page) {
    let life = page.life();
    assert!(
        life.wrong.is_empty(),
        "{} in {}: {:?}",
        page.user,
        page.room,
        life.wrong
    );
    let mut cids = BTreeSet::new();
    for shown in &life.shown {
        assert!(
            cids.insert(&shown.cid),
            "{} saw the talk {shown:?} under two ids",
            page.user
        );
    }
}

/// `seen` is in order, has nothing twice, and is the end of `log` from its first id on; holes only right before `gaps`.
/// What is older than the log (which is trimmed at its old end) cannot be compared.
pub fn slice_of(log: &[Id], who: &str, seen: &[Id], gaps: &[Id]) {
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "{who} saw ids out of order or twice: {seen:?}"
    );
    let Some(oldest) = log.first() else { return };
    let comparable: Vec<Id> = seen.iter().copied().filter(|id| id >= oldest).collect();
    let Some(first) = comparable.first() else {
        assert!(
            seen.is_empty() && gaps.is_empty() || log.is_empty(),
            "{who} saw nothing of {} in the log",
            log.len()
        );
        return;
    };
    let expected: Vec<Id> = log.iter().copied().filter(|id| id >= first).collect();
    let extra: Vec<_> = comparable
        .iter()
        .filter(|id| !expected.contains(id))
        .collect();
    assert!(
        extra.is_empty(),
        "{who} saw {extra:?}, which the log does not hold"
    );
    let missing: Vec<Id> = expected
        .iter()
        .copied()
        .filter(|id| !comparable.contains(id))
        .collect();
    let unexplained: Vec<_> = missing
        .iter()
        // A missing id is explained if the next thing this client saw is where an announced gap ends.
        .filter(|id| {
            !comparable
                .iter()
                .find(|next| next > id)
                .is_some_and(|next| gaps.contains(next))
        })
        .collect();
    assert!(
        unexplained.is_empty(),
        "{who} missed {} of {}: {unexplained:?}",
        unexplained.len(),
        expected.len()
    );
}

/// Folded names with a live lease, by the clock of Redis.
pub fn leases(redis: &Redis, room: &str) -> BTreeSet<String> {
    let (seconds, micros): (u64, u64) = redis.cmd(&["TIME"]);
    let names: Vec<(String, f64)> = redis.cmd(&[
        "ZRANGE",
        &format!("chat:{{{room}}}:names"),
        "0",
        "-1",
        "WITHSCORES",
    ]);
    let now_ms = (seconds * 1_000 + micros / 1_000) as f64;
    // A lease end is in milliseconds, or else in seconds.
    let live = |end: f64| {
        if end > 1e11 {
            end > now_ms
        } else {
            end * 1_000.0 > now_ms
        }
    };
    names
        .into_iter()
        .filter(|(_, end)| live(*end))
        .map(|(name, _)| name)
        .collect()
}

/// I2: the names shown are the names with a live lease, here `names` (which fold to themselves).
pub async fn names_are(redis: &Redis, room: &str, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|n| n.to_string()).collect();
    eventually(
        "the live leases are the names shown",
        PATIENCE,
        async || {
            let live = leases(redis, room);
            if live == wanted {
                Ok(())
            } else {
                Err(format!("leases {live:?}, shown {wanted:?}"))
            }
        },
    )
    .await;
}

/// What a dyno held before the test put load on it.
pub struct Base {
    fds: usize,
    rss_kb: u64,
}

impl Base {
    /// Once connections that were closed just now are gone from it.
    pub async fn of(dyno: &Dyno) -> Base {
        let (mut fds, mut steady) = (dyno.fds(), 0);
        eventually(
            "the number of descriptors is steady",
            PATIENCE,
            async || {
                let before = std::mem::replace(&mut fds, dyno.fds());
                steady = if before == fds { steady + 1 } else { 0 };
                if steady == 10 {
                    Ok(())
                } else {
                    Err((before, fds))
                }
            },
        )
        .await;
        Base {
            fds,
            rss_kb: dyno.rss_kb(),
        }
    }

    /// The same with so many connections more that are to stay.
    pub fn and(self, connections: usize) -> Base {
        Base {
            fds: self.fds + connections,
            ..self
        }
    }

    /// I4: the descriptors are back to what they were, and memory within `growth_kb` of it.
    pub async fn is_back(&self, dyno: &Dyno, within: Duration, growth_kb: u64) {
        eventually(
            "descriptors and memory are back to base",
            within,
            async || {
                let (fds, rss) = (dyno.fds(), dyno.rss_kb());
                if fds <= self.fds && rss <= self.rss_kb + growth_kb {
                    return Ok(());
                }
                Err(format!(
                    "{fds} descriptors after {}, {rss} kB after {} (allowed growth {growth_kb})",
                    self.fds, self.rss_kb
                ))
            },
        )
        .await;
    }
}
