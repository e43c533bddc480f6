//! A room on this dyno: its connections (`room/seat.rs`), its members (`room/members.rs`), its log.
//!
//! A bus brings lines ([`gather`](Room::gather)) and has them delivered ([`deliver`](Room::deliver)):
//! parsed, encoded once, joined, and pushed as the same bytes to every connection. A room is *behind*
//! until its log has been read from where it broke off; until then lines only gather. Nothing here
//! waits: one short lock, never held across an await.

mod members;
mod seat;

use std::collections::HashMap;
use std::mem::{replace, take};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use self::members::Members;
pub use self::{members::Member, seat::Seat};
use crate::conn::{Conn, lock};
use crate::message::{self, Id};
use crate::{frame, history::History, inbox::Inbox, name::RoomName};

/// Messages taken in and frames handed out since the start, for the metrics line.
pub static MESSAGES: AtomicU64 = AtomicU64::new(0);
pub static DELIVERIES: AtomicU64 = AtomicU64::new(0);

pub struct Room {
    pub name: RoomName,
    /// Apart from the rest, for those who bring lines must not wait for those who deliver them.
    inbox: Mutex<Inbox>,
    state: Mutex<State>,
    /// Wakes those who wait for the room to be no longer behind.
    caught_up: Notify,
}

struct State {
    behind: bool,
    /// By the connection's address, which is its own as long as it sits here.
    seats: HashMap<usize, (Arc<Conn>, Arc<Member>)>,
    /// When the last one left.
    emptied: Instant,
    log: History,
    members: Members,
    /// Garbage was found in this room's channel or stream, and reported.
    grumbled: bool,
}

impl Room {
    /// An empty room. `behind`: there is a log to be read.
    pub fn new(name: RoomName, behind: bool) -> Room {
        let state = State {
            behind,
            seats: HashMap::new(),
            emptied: Instant::now(),
            log: History::default(),
            members: Members::default(),
            grumbled: false,
        };
        let (inbox, caught_up) = (Mutex::default(), Notify::new());
        Room {
            name,
            inbox,
            state: Mutex::new(state),
            caught_up,
        }
    }

    /// Takes a line of the room's log, `ID BODY`, or `new ID` where the log was started anew. True if
    /// someone has to [`deliver`](Self::deliver). Never waits for a delivery under way.
    pub fn gather(&self, line: Vec<u8>) -> bool {
        lock(&self.inbox).gather(line)
    }

    /// Delivers a batch of what has gathered. True if there may be more.
    pub fn deliver(&self) -> bool {
        let mut state = lock(&self.state);
        let mut inbox = lock(&self.inbox);
        let idle = state.behind || inbox.lost;
        let lines = if idle { Vec::new() } else { inbox.batch() };
        inbox.delivering = !lines.is_empty();
        drop(inbox);
        self.publish(&mut state, &lines);
        !lines.is_empty()
    }

    /// Have lines been dropped, so that the log must be read again? Says so once.
    pub fn lost_lines(&self) -> bool {
        let mut state = lock(&self.state);
        // If it is being read, whoever does so sees to it.
        let lost = !state.behind && take(&mut lock(&self.inbox).lost);
        state.behind |= lost;
        lost
    }

    /// Appends lines to the log and hands their frames, encoded once and joined, to everyone here.
    fn publish(&self, state: &mut State, lines: &[Vec<u8>]) {
        let mut joined = Vec::with_capacity(lines.iter().map(|line| line.len() + 32).sum());
        let mut fresh = Vec::with_capacity(lines.len());
        let mut last = state.log.last();
        for line in lines {
            if let Some((id, json)) = message::read_line(line) {
                if id > last {
                    last = id;
                    frame::put_text(&mut joined, &json);
                    fresh.push((id, joined.len() - json.len()..joined.len()));
                }
            } else if let Some(id) = started_anew(line) {
                state.log.forget_before(id);
            } else if !replace(&mut state.grumbled, true) {
                let room = self.name.as_str();
                log::warn!("room={room:?} skipped=garbage cause=\"something else writes here\"");
            }
        }
        if fresh.is_empty() {
            return;
        }
        let joined = Bytes::from(joined);
        let conns = state.seats.values().map(|(conn, _)| conn);
        conns.for_each(|conn| conn.push(&joined));
        MESSAGES.fetch_add(fresh.len() as u64, Relaxed);
        DELIVERIES.fetch_add((fresh.len() * state.seats.len()) as u64, Relaxed);
        for (id, json) in fresh {
            state.log.append(id, joined.slice(json));
        }
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
        lock(&self.state).behind = true;
    }

    pub fn is_behind(&self) -> bool {
        lock(&self.state).behind
    }

    /// Waits until the room is no longer behind.
    pub async fn caught_up(&self) {
        while let turn = self.caught_up.notified()
            && self.is_behind()
        {
            turn.await;
        }
    }

    /// Takes what was read of the log. `whole`: the log still holds the newest message here, or where
    /// there is none, all that was ever said. `more`: there is more to read. Returns whether the room
    /// is up, and the connections that have a gap now: they are cut loose, and have to be closed.
    pub fn catch_up(&self, lines: &[Vec<u8>], whole: bool, more: bool) -> (bool, Vec<Arc<Conn>>) {
        let mut state = lock(&self.state);
        let fresh = state.log.last() == Id::default() && state.seats.is_empty();
        if !whole && !fresh {
            state.log.forget_before(Id(u64::MAX, 0));
            let cut = take(&mut state.seats).into_values().map(|(conn, _)| conn);
            return (false, cut.collect());
        }
        state.log.trimmed |= !whole;
        self.publish(&mut state, lines);
        state.behind = take(&mut lock(&self.inbox).lost) || more;
        if !state.behind {
            self.caught_up.notify_waiters();
        }
        (!state.behind, Vec::new())
    }

    /// The log is gone from Redis; whoever resumes is told so.
    pub fn lose_log(&self) {
        lock(&self.state).log.forget_before(Id(u64::MAX, 0));
    }
}

/// The id from which on the log was started anew, if that is what the line says.
fn started_anew(line: &[u8]) -> Option<Id> {
    Id::parse(str::from_utf8(line).ok()?.strip_prefix("new ")?)
}
