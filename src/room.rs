//! A room on this dyno: its connections, its log, its members; and the register of all rooms.
//!
//! A bus brings lines ([`gather`](Room::gather)) and has them delivered ([`deliver`](Room::deliver)):
//! parsed, encoded once, joined, and pushed as the same bytes to every connection. Sessions
//! [`enter`](Room::enter) and leave. A room is *behind* until its log has been read from where it
//! broke off; until then lines only gather. Nothing here waits: one short lock, never across an await.

use std::{
    collections::{BTreeMap, HashMap},
    mem::{replace, take},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use crate::{
    beat::PING,
    conn::{Conn, lock},
    frame::{self, code},
    history::History,
    inbox::Inbox,
    message::{self, Code, Id, MAX_MESSAGE, Said},
    name::RoomName,
};

/// A person is renewed only if heard from since the last ping: a dead socket must not keep a name.
const LATELY: Duration = Duration::from_secs(PING as u64 + 5);

/// Messages taken in and frames handed out since the start, for the metrics line.
pub static MESSAGES: AtomicU64 = AtomicU64::new(0);
pub static DELIVERIES: AtomicU64 = AtomicU64::new(0);

/// Someone who owns a name in a room.
pub struct Member {
    /// The name as it was first claimed, and as it is compared.
    pub shown: String,
    pub folded: String,
    /// Hash of the token that owns the name.
    pub owner: sha1_smol::Digest,
}

pub struct Room {
    pub name: RoomName,
    inbox: Mutex<Inbox>,
    state: Mutex<State>,
    /// Wakes those who wait for the room to be no longer behind.
    caught_up: Notify,
}

struct State {
    behind: bool,
    /// By the connection's address, which is its own as long as it sits here.
    seats: HashMap<usize, (Arc<Conn>, Arc<Member>)>,
    log: History,
    /// Folded name → shown name, of everyone in the room on all dynos.
    members: BTreeMap<String, String>,
    /// The last list that everyone was sent.
    sent: String,
    /// The log is lost, but no message may get an id at or below this.
    floor: Id,
    /// When the last one left.
    emptied: Instant,
    /// The list is being read; and it has changed since.
    reading: bool,
    nudged: bool,
    /// Garbage was found in this room's channel or stream, and logged.
    grumbled: bool,
}

/// What [`Room::deliver`] has left to do.
#[derive(PartialEq)]
pub enum Delivery {
    Done,
    /// Call again, after letting others work.
    More,
    /// Lines were dropped: the room is behind and must catch up.
    Lost,
}

/// What was read of a room's log, from its newest message here on.
pub struct Rows {
    pub lines: Vec<Vec<u8>>,
    /// The log still holds the message from which on it was read.
    pub found: bool,
    /// There is more behind these lines.
    pub more: bool,
    /// The log once held something that is neither in it nor in these lines.
    pub trimmed: bool,
}

/// What [`Room::catch_up`] needs next.
pub enum CatchUp {
    Done,
    /// Read on.
    More,
    /// What lies between could not be read. These connections are cut loose: close them, so that each
    /// resumes and is told of the gap. Then read again.
    Gap(Vec<Arc<Conn>>),
}

/// A connection's place in a room, until dropped.
pub struct Seat {
    pub room: Arc<Room>,
    pub member: Arc<Member>,
    /// What lies before this id, the welcome did not cover.
    pub covers: Id,
    conn: Arc<Conn>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = lock(&self.room.state);
        state.seats.remove(&(Arc::as_ptr(&self.conn) as usize));
        state.emptied = Instant::now();
    }
}

impl Room {
    pub fn new(name: RoomName, behind: bool) -> Room {
        let state = State {
            behind,
            seats: HashMap::new(),
            log: History::default(),
            members: BTreeMap::new(),
            sent: String::new(),
            floor: Id::default(),
            emptied: Instant::now(),
            reading: false,
            nudged: false,
            grumbled: false,
        };
        Room {
            name,
            inbox: Mutex::default(),
            state: Mutex::new(state),
            caught_up: Notify::new(),
        }
    }

    /// Takes a line of the room's log, `ID BODY`, or `new ID` where the log was started anew. True if
    /// someone has to call [`deliver`](Self::deliver). Never waits for a delivery under way.
    pub fn gather(&self, line: Vec<u8>) -> bool {
        lock(&self.inbox).gather(line)
    }

    /// Delivers one batch of what has gathered.
    pub fn deliver(&self) -> Delivery {
        let mut state = lock(&self.state);
        let mut inbox = lock(&self.inbox);
        if !state.behind && !inbox.lost {
            let lines = inbox.batch();
            if !lines.is_empty() {
                drop(inbox);
                self.publish(&mut state, lines);
                return Delivery::More;
            }
        }
        inbox.delivering = false;
        // While behind, an overflow is the business of whoever reads the log.
        if !state.behind && take(&mut inbox.lost) {
            state.behind = true;
            return Delivery::Lost;
        }
        Delivery::Done
    }

    /// Appends lines to the log and hands their frames, encoded once and joined, to everyone here.
    fn publish(&self, state: &mut State, lines: Vec<Vec<u8>>) {
        let mut joined = Vec::with_capacity(lines.iter().map(|line| line.len() + 32).sum());
        let mut ends = Vec::with_capacity(lines.len());
        let mut last = state.log.last();
        for line in lines {
            if let Some(id) = line
                .strip_prefix(b"new ")
                .and_then(|id| str::from_utf8(id).ok()?.parse().ok())
            {
                state.log.forget_before(id);
                continue;
            }
            let Some(said) = Said::parse(&line) else {
                if !replace(&mut state.grumbled, true) {
                    log::warn!(
                        "room={:?} skipped=garbage hint=\"something else writes to this room's keys\"",
                        self.name.as_str()
                    );
                }
                continue;
            };
            if said.id > last {
                last = said.id;
                frame::put_text(&mut joined, &said.to_json());
                ends.push((said.id, joined.len()));
            }
        }
        let joined = Bytes::from(joined);
        let mut start = 0;
        for &(id, end) in &ends {
            state.log.append(id, joined.slice(start..end));
            start = end;
        }
        if !ends.is_empty() {
            state
                .seats
                .values()
                .for_each(|(conn, _)| conn.push(&joined));
            MESSAGES.fetch_add(ends.len() as u64, Relaxed);
            DELIVERIES.fetch_add((ends.len() * state.seats.len()) as u64, Relaxed);
        }
    }

    /// Sends `welcome` and takes the connection in, in one step: nothing falls between history and
    /// live. `greeting` is the part of the frame that the session knows. `None` while the room is
    /// behind.
    pub fn enter(
        self: &Arc<Room>,
        conn: &Arc<Conn>,
        member: &Arc<Member>,
        last: Option<Id>,
        greeting: &str,
    ) -> Option<Seat> {
        let mut state = lock(&self.state);
        if state.behind || lock(&self.inbox).lost {
            return None;
        }
        // What the page saw on another dyno was gathered here before its claim was answered.
        while let lines = lock(&self.inbox).batch()
            && !lines.is_empty()
        {
            self.publish(&mut state, lines);
        }
        let replay = state.log.after(last);
        state
            .members
            .insert(member.folded.clone(), member.shown.clone());
        let members = message::members(state.members.values());
        if state.seats.is_empty() {
            state.sent.clone_from(&members);
        }
        let history = String::from_utf8(replay.messages).unwrap_or_default(); // it was text when encoded
        let welcome = format!(
            r#"{{"kind":"welcome",{greeting},"last":"{}","gap":{},"history":[{history}],{members},"tick_ms":{},"max_message":{MAX_MESSAGE}}}"#,
            state.log.last(),
            replay.gap,
            PING * 1000,
        );
        conn.joined();
        conn.push(&frame::text(&welcome));
        state
            .seats
            .insert(Arc::as_ptr(conn) as usize, (conn.clone(), member.clone()));
        Some(Seat {
            room: self.clone(),
            member: member.clone(),
            covers: replay.covers,
            conn: conn.clone(),
        })
    }

    /// The newest message here, from which on the log is to be read.
    pub fn last(&self) -> Id {
        lock(&self.state).log.last()
    }

    /// The id that the next message must exceed.
    pub fn floor(&self) -> Id {
        let state = lock(&self.state);
        state.log.last().max(state.floor)
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
        loop {
            let turn = self.caught_up.notified();
            if !self.is_behind() {
                return;
            }
            turn.await;
        }
    }

    /// Takes what was read of the log; the room is up when nothing is missing any more.
    pub fn catch_up(&self, rows: Rows) -> CatchUp {
        let mut state = lock(&self.state);
        let empty = state.log.last() == Id::default();
        let whole = if empty {
            state.seats.is_empty() || !rows.trimmed
        } else {
            rows.found
        };
        if !whole {
            self.forget(&mut state);
            return CatchUp::Gap(
                take(&mut state.seats)
                    .into_values()
                    .map(|(conn, _)| conn)
                    .collect(),
            );
        }
        state.log.trimmed |= empty && rows.trimmed;
        self.publish(&mut state, rows.lines);
        if take(&mut lock(&self.inbox).lost) || rows.more {
            return CatchUp::More;
        }
        state.behind = false;
        self.caught_up.notify_waiters();
        CatchUp::Done
    }

    /// The log is gone from Redis. Whoever resumes is told so.
    pub fn lose_log(&self) {
        self.forget(&mut lock(&self.state));
    }

    fn forget(&self, state: &mut State) {
        state.floor = state.log.last().max(state.floor);
        state.log.forget_before(Id {
            ms: u64::MAX,
            seq: 0,
        });
    }
}

/// Who is here: the half of a room that renewals and lists of members are about.
impl Room {
    /// The people on this dyno that were heard from lately, each once.
    pub fn present(&self) -> Vec<Arc<Member>> {
        let state = lock(&self.state);
        let here = state
            .seats
            .values()
            .filter(|(conn, _)| conn.silent() < LATELY);
        let once: BTreeMap<_, _> = here.map(|(_, m)| (m.folded.as_str(), m.clone())).collect();
        once.into_values().collect()
    }

    /// Has someone here this name?
    pub fn has(&self, member: &Member) -> bool {
        lock(&self.state)
            .seats
            .values()
            .any(|(_, m)| m.folded == member.folded)
    }

    /// Someone else owns the name now: whoever has it here must choose another.
    pub fn evict(&self, member: &Member) {
        let taken = frame::text(&message::error(Code::NameTaken, None, None));
        let state = lock(&self.state);
        for (conn, _) in state
            .seats
            .values()
            .filter(|(_, m)| m.folded == member.folded)
        {
            conn.push(&taken);
            conn.close(code::REFUSED, Code::NameTaken.words().0);
        }
    }

    /// Takes the list of members, and sends it if it is another than the last one sent.
    pub fn set_members(&self, members: BTreeMap<String, String>) {
        let mut state = lock(&self.state);
        state.members = members;
        let list = message::members(state.members.values());
        if state.sent != list {
            let frame = frame::text(&format!(r#"{{"kind":"members",{list}}}"#));
            state.seats.values().for_each(|(conn, _)| conn.push(&frame));
            state.sent = list;
        }
    }

    /// Notes that the list may have changed. True if someone has to read it, at once and then as long
    /// as [`changed`](Self::changed) says so.
    pub fn nudge(&self) -> bool {
        let mut state = lock(&self.state);
        state.nudged = true;
        !replace(&mut state.reading, true)
    }

    /// Has there been a nudge since this was last asked? If not, the reading is over.
    pub fn changed(&self) -> bool {
        let mut state = lock(&self.state);
        state.reading = replace(&mut state.nudged, false);
        state.reading
    }

    /// Since when nobody is here; `None` while somebody is.
    pub fn empty_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        state.seats.is_empty().then_some(state.emptied)
    }
}
