//! Facts of the program that tests rely on: its keys in Redis, its periods and its limits. They are written down here
//! and not taken from the source, so that a change of one of them fails a test.

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
/// What a history holds, on a dyno and in Redis.
pub const HISTORY: usize = 1_000;
/// What a newcomer is shown, and a page after a gap.
pub const NEWCOMER: usize = 50;
/// Code points of a message.
pub const MAX_MESSAGE: usize = 1_000;
/// Bytes of a frame, and of a message of any number of frames.
pub const MAX_FRAME: usize = 8 * 1024;

/// The stream of a room, which is also its channel.
pub fn stream_key(room: &str) -> String {
    format!("chat:{{{room}}}")
}

/// The leases of a room: folded name by the end of its lease, in ms by the clock of Redis.
pub fn names_key(room: &str) -> String {
    format!("chat:{{{room}}}:names")
}

/// The owners of a room's names: folded name to token hash and shown name.
pub fn owners_key(room: &str) -> String {
    format!("chat:{{{room}}}:owners")
}
