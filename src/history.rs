//! A room's log as one dyno holds it: history for newcomers, and what a returning page has missed.
//!
//! Entries are the JSON that was sent, as slices of those very frames, in log order. It belongs to a
//! [`Room`](crate::room), which locks it; what outlives the dyno is the stream in Redis.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::message::Id;

/// Messages a log holds, on a dyno and in Redis.
pub const MAX_MESSAGES: usize = 1_000;
/// Messages a newcomer, or someone who missed too much, is shown.
const NEWCOMER: usize = 50;
/// Bytes a log holds on a dyno; with the names it must fit into an outbox at once.
pub const MAX_BYTES: usize = 128 * 1024;

#[derive(Default)]
pub struct History {
    entries: VecDeque<(Id, Bytes)>,
    bytes: usize,
    /// The newest id there ever was: the log may be lost, but no message may get an id at or below it.
    pub floor: Id,
    /// Something that was once in this log is in it no more.
    pub trimmed: bool,
}

/// What a page that saw `last` has to be sent.
#[derive(Debug, PartialEq)]
pub struct Replay {
    /// Something between `last` and these messages may be missing.
    pub gap: bool,
    /// The lowest id this replay would hold: whatever lies before, it does not cover.
    pub covers: Id,
    /// The messages' JSON, oldest first, joined by commas.
    pub messages: String,
}

impl History {
    /// The newest id; `0-0` while there is none.
    pub fn last(&self) -> Id {
        self.entries.back().map(|(id, _)| *id).unwrap_or_default()
    }

    /// Adds a message that is newer than [`last`](Self::last), and drops the oldest beyond the limits.
    pub fn append(&mut self, id: Id, json: Bytes) {
        self.floor = self.floor.max(id);
        self.bytes += json.len();
        self.entries.push_back((id, json));
        while self.entries.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            self.drop_oldest();
        }
    }

    /// The log was started anew at `id` (Redis lost it): what is older exists nowhere else.
    pub fn forget_before(&mut self, id: Id) {
        while self.entries.front().is_some_and(|(first, _)| *first < id) {
            self.drop_oldest();
        }
    }

    /// The log is gone: all that is here exists nowhere else.
    pub fn forget(&mut self) {
        self.forget_before(Id(u64::MAX, 0));
    }

    fn drop_oldest(&mut self) {
        if let Some((_, json)) = self.entries.pop_front() {
            self.bytes -= json.len();
            self.trimmed = true;
        }
    }

    /// Everything after `last`; the newest few where that cannot be told, or for a newcomer (`None`).
    pub fn after(&self, last: Option<Id>) -> Replay {
        let place = |id| self.entries.binary_search_by_key(&id, |(id, _)| *id).ok();
        let start = match last {
            None => None,
            Some(last) if last == Id::default() => (!self.trimmed).then_some(0),
            Some(last) => place(last).map(|n| n + 1),
        };
        // What the page has is not sent again, gap or not; a page ahead of all ids has another log's.
        let seen = last.filter(|last| *last <= self.floor).unwrap_or_default();
        let known = self.entries.partition_point(|(id, _)| *id <= seen);
        let from = start.unwrap_or(known.max(self.entries.len().saturating_sub(NEWCOMER)));
        let missed = self.entries.range(from..);
        let missed = missed.map(|(_, json)| String::from_utf8_lossy(json));
        let messages = missed.collect::<Vec<_>>().join(",");
        let covers = match (start, self.entries.get(from)) {
            (Some(_), _) => last.map(next).unwrap_or_default(),
            (None, Some((first, _))) => *first,
            (None, None) => next(self.last()),
        };
        Replay {
            gap: last.is_some() && start.is_none(),
            covers,
            messages,
        }
    }
}

/// The lowest id above this one.
pub fn next(id: Id) -> Id {
    Id(id.0, id.1.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> Id {
        Id(ms, 0)
    }

    fn log(ids: std::ops::Range<u64>) -> History {
        let mut log = History::default();
        ids.for_each(|ms| log.append(id(ms), Bytes::from(ms.to_string())));
        log
    }

    #[test]
    fn a_page_gets_what_it_missed_and_nothing_else() {
        let replay = log(1..6).after(Some(id(3)));
        assert_eq!(
            (replay.gap, &*replay.messages, replay.covers),
            (false, "4,5", Id(3, 1))
        );
        let replay = log(1..6).after(Some(id(5)));
        assert_eq!((replay.gap, &*replay.messages), (false, ""));
    }

    #[test]
    fn a_newcomer_gets_the_newest_fifty_without_a_gap() {
        let replay = log(1..100).after(None);
        assert_eq!((replay.gap, replay.covers), (false, id(50)));
        assert!(replay.messages.starts_with("50,51") && replay.messages.ends_with("98,99"));
    }

    #[test]
    fn an_id_the_log_does_not_know_is_a_gap() {
        assert!(log(1..6).after(Some(id(9))).gap);
        assert!(log(0..0).after(Some(id(9))).gap);
        let replay = log(1..1200).after(Some(id(7)));
        assert_eq!((replay.gap, replay.covers), (true, id(1150)));
        let replay = log(1..6).after(Some(Id(3, 7)));
        assert_eq!((replay.gap, &*replay.messages), (true, "4,5"));
        let mut log = log(1..6);
        let replay = log.after(Some(id(9)));
        assert_eq!((replay.gap, &*replay.messages), (true, "1,2,3,4,5"));
        log.floor = id(9); // it was deleted
        let replay = log.after(Some(id(9)));
        assert_eq!((replay.gap, &*replay.messages), (true, ""));
    }

    #[test]
    fn an_empty_room_is_a_gap_only_once_the_log_was_trimmed() {
        let replay = log(1..3).after(Some(Id::default()));
        assert_eq!((replay.gap, &*replay.messages), (false, "1,2"));
        assert!(!log(0..0).after(Some(Id::default())).gap);
        assert!(log(1..1200).after(Some(Id::default())).gap);
        let mut lost = log(1..3);
        lost.forget_before(id(9));
        assert!(lost.after(Some(Id::default())).gap);
        assert_eq!(lost.last(), Id::default());
    }

    #[test]
    fn the_log_is_bounded_in_messages_and_in_bytes() {
        assert_eq!(log(0..2000).entries.len(), MAX_MESSAGES);
        let mut log = History::default();
        (0..200).for_each(|ms| log.append(id(ms), Bytes::from(vec![0; 4096])));
        assert_eq!((log.bytes, log.last()), (MAX_BYTES, id(199)));
    }
}
