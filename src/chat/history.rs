//! The history: the copy of a room's newest messages that a dyno holds, for newcomers and for returning
//! pages.
//!
//! Entries are the JSON that was sent, oldest first. `room.rs` locks it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::protocol::{Id, Message};
use crate::socket::Buffer;
use crate::store::{MAX_BYTES, MAX_MESSAGES};

/// Messages that a newcomer is sent, and a page after a gap.
const NEWCOMER: usize = 50;
/// More than the longest message as JSON: 1,000 code points of 4 bytes, a name, an id and a cid.
const LONGEST: usize = 8 * 1024;

#[derive(Default)]
pub struct History {
    entries: VecDeque<(Id, Box<[u8]>)>,
    bytes: usize,
    /// The messages of the latest replay, and the first of them. Another page that needs the same ones shares
    /// them, as long as an outbox holds them.
    latest_replay: (Id, Weak<Buffer>),
    /// The newest id that the stream ever gave. No message gets an id at or below it, also if the newest
    /// was deleted.
    pub newest_given: Id,
    /// Messages that were once in the stream are missing at the old end.
    pub trimmed: bool,
}

/// The messages that a page needs in its welcome.
pub struct Replay {
    /// Messages between `last` and `messages` may be missing.
    pub gap: bool,
    /// Lower bound of the ids in `messages`: this replay holds no message with a lower id.
    pub from: Id,
    /// The messages' JSON, oldest first, joined by commas.
    pub messages: Arc<Buffer>,
}

impl History {
    /// The newest id; `0-0` if there is no message.
    pub fn last(&self) -> Id {
        self.entries.back().map(|(id, _)| *id).unwrap_or_default()
    }

    /// The JSON of a message.
    pub fn get(&self, id: Id) -> Option<&[u8]> {
        let place = self.entries.binary_search_by_key(&id, |(id, _)| *id);
        place.ok().map(|n| &*self.entries[n].1)
    }

    /// The id of this message: the same user sent one with this cid.
    pub fn find(&self, message: &Message) -> Option<Id> {
        let end = format!(r#""cid":"{}"}}"#, message.cid); // of the JSON that `put_talk` writes
        let mut same_cid = self
            .entries
            .iter()
            .filter(|(_, json)| json.ends_with(end.as_bytes()));
        let same = |json| Message::from_json(json).is_some_and(|m| m.user == message.user);
        same_cid.find(|(_, json)| same(json)).map(|(id, _)| *id)
    }

    /// How many messages the stream should keep with the next one: as many as the history will hold.
    /// This bounds the stream in bytes, too.
    pub fn keep(&self) -> usize {
        let full = self.bytes + LONGEST > MAX_BYTES;
        let keep = if full {
            self.entries.len() + 1
        } else {
            MAX_MESSAGES
        };
        keep.min(MAX_MESSAGES)
    }

    /// Adds a message that is newer than [`last`](Self::last). Drops the oldest beyond the limits.
    pub fn append(&mut self, id: Id, json: &[u8]) {
        self.latest_replay = Default::default();
        self.newest_given = self.newest_given.max(id);
        self.bytes += json.len();
        self.entries.push_back((id, json.into()));
        while self.entries.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let oldest = self.entries.pop_front();
            self.bytes -= oldest.map_or(0, |(_, json)| json.len());
            self.trimmed = true;
        }
    }

    /// Everything after `last`. The newest few for a newcomer (`None`), and where messages after `last`
    /// may be missing.
    pub fn after(&mut self, last: Option<Id>) -> Replay {
        let place = |id| self.entries.binary_search_by_key(&id, |(id, _)| *id).ok();
        let start = match last {
            None => None,
            Some(last) if last == Id::default() => (!self.trimmed).then_some(0),
            Some(last) => place(last).map(|n| n + 1),
        };
        // Do not send again what the page has, with or without a gap. A `last` above every id that was
        // ever given belongs to another stream, which is lost: ignore it.
        let seen = last
            .filter(|last| *last <= self.newest_given)
            .unwrap_or_default();
        let unseen = self.entries.partition_point(|(id, _)| *id <= seen);
        let newest_few = self.entries.len().saturating_sub(NEWCOMER);
        let first = start.unwrap_or(unseen.max(newest_few));
        Replay {
            gap: last.is_some() && start.is_none(),
            from: match (start, self.entries.get(first)) {
                (Some(_), _) => last.map(Id::next).unwrap_or_default(),
                (None, Some((first, _))) => *first,
                (None, None) => self.last().next(),
            },
            messages: self.joined(first),
        }
    }

    /// The messages from the n-th on.
    fn joined(&mut self, first: usize) -> Arc<Buffer> {
        let first_id = self.entries.get(first).map(|(id, _)| *id);
        let first_id = first_id.unwrap_or_default();
        let (latest_id, latest) = &self.latest_replay;
        if let Some(latest) = latest.upgrade()
            && *latest_id == first_id
        {
            return latest;
        }
        let messages: Vec<&[u8]> = self
            .entries
            .range(first..)
            .map(|(_, json)| &**json)
            .collect();
        let joined = Arc::new(Buffer::new(messages.join(&b","[..])));
        self.latest_replay = (first_id, Arc::downgrade(&joined));
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MAX_NAME, MAX_USERS};
    use crate::socket::OUTBOX_LIMIT;

    fn id(ms: u64) -> Id {
        Id(ms, 0)
    }

    fn history(ids: std::ops::Range<u64>) -> History {
        let mut history = History::default();
        ids.for_each(|ms| history.append(id(ms), ms.to_string().as_bytes()));
        history
    }

    fn text(replay: &Replay) -> &str {
        str::from_utf8(replay.messages.bytes()).expect("JSON")
    }

    #[test]
    fn a_page_gets_what_it_missed_and_nothing_else() {
        let replay = history(1..6).after(Some(id(3)));
        assert_eq!(
            (replay.gap, text(&replay), replay.from),
            (false, "4,5", Id(3, 1))
        );
        let replay = history(1..6).after(Some(id(5)));
        assert_eq!((replay.gap, text(&replay)), (false, ""));
    }

    #[test]
    fn a_newcomer_gets_the_newest_fifty_without_a_gap() {
        let replay = history(1..100).after(None);
        assert_eq!((replay.gap, replay.from), (false, id(50)));
        let text = text(&replay);
        assert!(text.starts_with("50,51") && text.ends_with("98,99"));
    }

    #[test]
    fn an_id_the_history_does_not_know_is_a_gap() {
        assert!(history(1..6).after(Some(id(9))).gap);
        assert!(history(0..0).after(Some(id(9))).gap);
        let replay = history(1..1200).after(Some(id(7)));
        assert_eq!((replay.gap, replay.from), (true, id(1150)));
        let replay = history(1..6).after(Some(Id(3, 7)));
        assert_eq!((replay.gap, text(&replay)), (true, "4,5"));
        let mut history = history(1..6);
        let replay = history.after(Some(id(9)));
        assert_eq!((replay.gap, text(&replay)), (true, "1,2,3,4,5"));
        history.newest_given = id(9); // it was deleted
        let replay = history.after(Some(id(9)));
        assert_eq!((replay.gap, text(&replay)), (true, ""));
    }

    #[test]
    fn an_empty_room_is_a_gap_only_once_the_history_was_trimmed() {
        let replay = history(1..3).after(Some(Id::default()));
        assert_eq!((replay.gap, text(&replay)), (false, "1,2"));
        assert!(!history(0..0).after(Some(Id::default())).gap);
        assert!(history(1..1200).after(Some(Id::default())).gap);
    }

    #[test]
    fn pages_that_need_the_same_messages_share_their_bytes() {
        let mut history = history(1..100);
        let first = history.after(None).messages;
        let same = |history: &mut History, last| {
            let messages = history.after(last).messages;
            Arc::ptr_eq(&messages, &first) && messages.bytes().starts_with(b"50,51")
        };
        assert!(same(&mut history, None));
        assert!(same(&mut history, Some(id(49))), "the same fifty");
        assert!(!same(&mut history, Some(id(50))));
        history.append(id(100), b"100");
        let newer = history.after(None).messages;
        assert!(newer.bytes().starts_with(b"51,52") && newer.bytes().ends_with(b",100"));
        drop(newer);
        assert!(
            history.latest_replay.1.upgrade().is_none(),
            "only outboxes hold them"
        );
    }

    #[test]
    fn the_history_is_bounded_in_messages_and_in_bytes() {
        assert_eq!(history(0..2000).entries.len(), MAX_MESSAGES);
        let mut history = History::default();
        (0..200).for_each(|ms| history.append(id(ms), &[0; 4096]));
        assert_eq!((history.bytes, history.last()), (MAX_BYTES, id(199)));
    }

    #[test]
    fn a_whole_history_and_all_names_fit_into_an_outbox() {
        // A code point has at most 4 bytes; a name has quotes and a comma around it.
        let names = MAX_USERS * (4 * MAX_NAME + 3);
        let commas = MAX_MESSAGES;
        let other_fields = 1024;
        assert!(MAX_BYTES + commas + names + other_fields < OUTBOX_LIMIT);
    }
}
