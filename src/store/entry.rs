//! Messages on their way into a room's stream and out of it.

use std::time::Duration;

use super::lease::{Member, Names};
use crate::protocol::{Id, RoomName};

/// Messages that a history holds, and a stream about as many.
pub const MAX_MESSAGES: usize = 1_000;
/// Bytes that a history holds, and a stream about as many. With 200 names, a whole history must fit into
/// an outbox.
pub const MAX_BYTES: usize = 128 * 1024;
/// A resend with the same cid is recognised for this long.
pub const CID_LIFE: Duration = Duration::from_secs(2 * 60);

/// An entry of a room's stream.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: Id,
    /// JSON, see `protocol/message.rs`. Anything at all if somebody else wrote it.
    pub body: Vec<u8>,
}

/// The part of a room's stream that `follow` read.
pub struct Past {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// No entry is missing between `from` and `entries`: the stream still holds `from`; or, where `from`
    /// was `0-0`, `entries` is all that the stream ever held.
    pub contiguous: bool,
    /// The newest id that the stream ever gave, even if that entry was deleted.
    pub newest: Id,
    /// Everyone in the room.
    pub names: Names,
}

/// A message to be stored.
pub struct Talk<'a> {
    pub room: &'a RoomName,
    pub member: &'a Member,
    pub cid: &'a str,
    /// The entry's body.
    pub body: &'a str,
    /// About how many messages the stream keeps, this one included.
    pub keep: usize,
}

/// The result of a talk.
#[derive(Debug, PartialEq)]
pub enum Stored {
    New(Id),
    /// The cid was stored before, with this id.
    Duplicate(Id),
}
