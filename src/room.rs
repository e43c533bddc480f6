//! A room on this dyno: its connections (`room/seat.rs`), its members (`room/members.rs`), its log.
//!
//! A bus brings lines ([`gather`](Room::gather)) and has them delivered ([`deliver`](Room::deliver)):
//! parsed, encoded once, joined, and pushed as the same bytes to every connection. A room is *behind*
//! until its log has been read from where it broke off; until then lines only gather. Nothing here
//! waits: one short lock, never held across an await.

mod members;
mod seat;

use std::collections::{BTreeMap, HashMap};
use std::mem::{replace, take};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

pub use self::{members::Member, seat::Seat};
use crate::history::{self, History};
use crate::message::{self, Id};
use crate::{conn::Conn, frame, inbox::Inbox, lock, name::RoomName};

/// Messages taken in and frames handed out since the start, for the metrics line.
pub static MESSAGES: AtomicU64 = AtomicU64::new(0);
pub static DELIVERIES: AtomicU64 = AtomicU64::new(0);

pub struct Room {
    pub name: RoomName,
    /// Apart from the rest, for those who bring lines must not wait for those who deliver them.
    inbox: Mutex<Inbox>,
    state: Mutex<State>,
    /// Changed only under the lock of `state`, so that no delivery is under way.
    behind: watch::Sender<bool>,
    /// Whether the list of members is being read. Apart, for a nudge must not wait for a delivery.
    list: AtomicU8,
}

#[derive(Default)]
struct State {
    /// By the connection's address, which is its own as long as it sits here.
    seats: HashMap<usize, (Arc<Conn>, Arc<Member>)>,
    /// When the last one left.
    emptied: Option<Instant>,
    log: History,
    /// Folded name → shown name, of everyone in the room on all dynos.
    members: BTreeMap<String, String>,
    /// The list of them that everyone here was sent last, as JSON; empty if someone saw another.
    sent: String,
    /// Garbage was found in this room's channel or stream, and reported.
    grumbled: bool,
}

impl Room {
    /// An empty room, behind whatever log there is.
    pub fn new(name: RoomName) -> Room {
        let (inbox, state, list) = Default::default();
        let behind = watch::Sender::new(true);
        Room {
            name,
            inbox,
            state,
            behind,
            list,
        }
    }

    /// Takes a line of the room's log, `ID BODY`, or `new ID` where the log was started anew. True if
    /// someone has to [`deliver`](Self::deliver). Never waits for a delivery under way.
    pub fn gather(&self, line: Vec<u8>) -> bool {
        lock(&self.inbox).gather(line)
    }

    /// Delivers a batch of what has gathered. True if there is more.
    pub fn deliver(&self) -> bool {
        let mut state = lock(&self.state);
        let behind = self.is_behind();
        if !behind {
            let lines = lock(&self.inbox).batch();
            self.publish(&mut state, &lines);
        }
        lock(&self.inbox).go_on(behind)
    }

    /// Have lines been dropped, so that the log must be read again? Says so once.
    pub fn lost_lines(&self) -> bool {
        let _state = lock(&self.state);
        // If it is being read, whoever does so sees to it.
        let lost = !self.is_behind() && take(&mut lock(&self.inbox).lost);
        if lost {
            self.behind.send_replace(true);
        }
        lost
    }

    /// Appends lines to the log and hands their frames, encoded once and joined, to everyone here.
    fn publish(&self, state: &mut State, lines: &[Vec<u8>]) {
        let mut joined = Vec::with_capacity(lines.iter().map(|line| line.len() + 32).sum());
        let mut fresh = Vec::with_capacity(lines.len());
        let (mut last, mut anew) = (state.log.last(), Id::default());
        for line in lines {
            if let Some((id, json)) = message::read_line(line) {
                if id > last {
                    last = id;
                    frame::put_text(&mut joined, &json);
                    fresh.push((id, joined.len() - json.len()..joined.len()));
                }
            } else if let Some(id) = started_anew(line) {
                anew = id;
            } else if !replace(&mut state.grumbled, true) {
                let room = self.name.as_str();
                log::warn!("room={room:?} skipped=garbage cause=\"something else writes here\"");
            }
        }
        let joined = Bytes::from(joined.into_boxed_slice()); // cut to what it holds: the log keeps it
        if !joined.is_empty() {
            state.push(&joined);
        }
        MESSAGES.fetch_add(fresh.len() as u64, Relaxed);
        DELIVERIES.fetch_add((fresh.len() * state.seats.len()) as u64, Relaxed);
        for (id, json) in fresh {
            state.log.append(id, joined.slice(json));
        }
        state.log.forget_before(anew); // what came in the same batch as well
    }

    /// The newest message here, from which on the log is to be read.
    pub fn last(&self) -> Id {
        lock(&self.state).log.last()
    }

    /// The id that the next message must exceed.
    pub fn floor(&self) -> Id {
        lock(&self.state).log.floor
    }

    /// The line to the log is broken: what comes now only gathers until [`catch_up`](Self::catch_up).
    pub fn fall_behind(&self) {
        let _state = lock(&self.state);
        self.behind.send_replace(true);
    }

    pub fn is_behind(&self) -> bool {
        *self.behind.borrow()
    }

    /// Waits until the room is no longer behind.
    pub async fn caught_up(&self) {
        let caught_up = |behind: &bool| !behind;
        // An error would mean that there is no sender, but the room is one.
        let _ = self.behind.subscribe().wait_for(caught_up).await;
    }

    /// Takes what was read of the log. `whole`: the log still holds the newest message here, or where
    /// there is none, all that was ever said. `more`: there is more to read. `newest`: the newest id
    /// that the log ever had. Returns the connections that have a gap now: they are cut loose, and
    /// have to be closed.
    pub fn catch_up(
        &self,
        lines: &[Vec<u8>],
        whole: bool,
        more: bool,
        newest: Id,
    ) -> Vec<Arc<Conn>> {
        let mut state = lock(&self.state);
        state.log.floor = state.log.floor.max(newest);
        let fresh = state.log.last() == Id::default() && state.seats.is_empty();
        if !whole && !fresh {
            state.log.forget();
            self.behind.send_replace(true); // whatever it was: the log is to be read anew
            let cut = take(&mut state.seats).into_values().map(|(conn, _)| conn);
            return cut.collect();
        }
        state.log.trimmed |= !whole;
        self.publish(&mut state, lines);
        let behind = take(&mut lock(&self.inbox).lost) || more;
        self.behind.send_replace(behind);
        Vec::new()
    }

    /// The log up to `last` is gone from Redis; whoever resumes is told so.
    pub fn lose_log(&self, last: Id) {
        lock(&self.state).log.forget_before(history::next(last));
    }
}

impl State {
    fn push(&self, frames: &Bytes) {
        self.seats.values().for_each(|(conn, _)| conn.push(frames));
    }
}

/// The id from which on the log was started anew, if that is what the line says.
fn started_anew(line: &[u8]) -> Option<Id> {
    Id::parse(str::from_utf8(line).ok()?.strip_prefix("new ")?)
}
