//! Facts of the program that tests rely on: its keys in Redis, its periods and its limits. They are written down here
//! and not taken from the source, so that a change of one of them fails a test.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A Ping and a `tick` this often.
pub const HEARTBEAT: Duration = Duration::from_secs(25);
/// A peer from which nothing was heard for this long is closed.
pub const SILENCE: Duration = Duration::from_secs(50);
/// A connection that has not joined is closed after this time, and so is one whose request head is incomplete.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// A write without progress for this long ends the connection.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// A name belongs to its owner for this long after the last renewal.
pub const LEASE: Duration = Duration::from_secs(20);
/// A name that nobody renews is off every list after this time: the lease, a renewal and a pause between two reads.
pub const GONE: Duration = Duration::from_secs(26);
/// A dyno renews its leases and drops unused rooms this often.
pub const RENEWAL: Duration = Duration::from_secs(5);
/// A change of the members is shown within this time: the list is read at most once a second.
pub const MEMBERS_SHOWN_WITHIN: Duration = Duration::from_secs(3);
/// All pages know within this time that Redis is down, or up again.
pub const REDIS_KNOWN_WITHIN: Duration = Duration::from_secs(5);
/// A dyno that stops has asked every page to move within this time, and asks again this often.
pub const ASKED_TO_MOVE_WITHIN: Duration = Duration::from_secs(5);
pub const MOVE_EVERY: Duration = Duration::from_secs(4);
/// Pages may move for this long after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(25);
/// A dyno that closes its connections spreads the Closes over this time.
pub const CLOSES_WITHIN: Duration = Duration::from_secs(4);
/// From the first Close to the exit.
pub const EXITS_WITHIN: Duration = Duration::from_secs(5);
/// The least and the most of `spread_ms`, and what each connection of the dyno adds to it.
pub const SPREAD_MS: RangeInclusive<u64> = 100..=10_000;
pub const SPREAD_MS_PER_CONNECTION: u64 = 3;
/// Messages that a history holds, on a dyno and in Redis.
pub const HISTORY: usize = 1_000;
/// Bytes that a history holds, on a dyno and about as many in Redis.
pub const HISTORY_BYTES: usize = 128 * 1024;
/// Messages that a newcomer is shown, and a page after a gap.
pub const NEWCOMER: usize = 50;
/// Code points of a message.
pub const MAX_MESSAGE: usize = 1_000;
/// Code points of a member's name.
pub const MAX_NAME: usize = 24;
/// Code points of a room's name.
pub const MAX_ROOM: usize = 32;
/// Characters of a token.
pub const TOKEN: RangeInclusive<usize> = 16..=64;
/// Characters of a cid.
pub const MAX_CID: usize = 64;
/// Names in a list of members.
pub const MAX_LIST: usize = 200;
/// Rooms without members that a dyno without Redis keeps.
pub const EMPTY_ROOMS: usize = 1_000;
/// Bytes of a frame, and of a message of any number of frames.
pub const MAX_FRAME: usize = 8 * 1024;
/// Talks that a connection may send at once.
pub const TALK_BURST: usize = 10;
/// Talks per second that a connection may send after that.
pub const TALK_REFILL: f64 = 2.0;
/// Refused talks in a row after which the connection is closed.
pub const TALK_REFUSALS: usize = 20;
/// Bad messages after which the connection is closed.
pub const BAD_MESSAGES: usize = 3;
/// The `retry_ms` of `busy`, in ms.
pub const BUSY_RETRY_MS: RangeInclusive<u64> = 1_000..=3_000;
/// Bytes of a request's head.
pub const MAX_HEAD: usize = 32 * 1024;
/// Connections of one address where the platform sets `DYNO`.
pub const MAX_PER_ADDRESS: usize = 100;
/// Headers of a request.
pub const MAX_HEADERS: usize = 100;

/// The stream of a room.
pub fn stream_key(room: &str) -> String {
    format!("chat:{{{room}}}")
}

/// The channel of a room, in this database of a Redis.
pub fn channel(room: &str, database: u32) -> String {
    format!("chat:{{{room}}}@{database}")
}

/// The leases of a room: folded name by the end of its lease, in ms by the clock of Redis.
pub fn names_key(room: &str) -> String {
    format!("chat:{{{room}}}:names")
}

/// The owners of a room's names: folded name to token hash and shown name.
pub fn owners_key(room: &str) -> String {
    format!("chat:{{{room}}}:owners")
}
