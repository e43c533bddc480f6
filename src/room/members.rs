//! Who is in a room: on this dyno, for renewals, and on all of them, for the list that people see.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{Room, State};
use crate::conn::{Conn, PING};
use crate::frame::{self, code};
use crate::message::{self, Code};
use crate::{lock, name::Name};

/// A person is renewed only if heard from since the last ping: a dead socket must not keep a name.
const LATELY: u32 = PING + 5;
/// The list of members is not being read; it is; it is, and has changed since.
const IDLE: u8 = 0;
const READING: u8 = 1;
const STALE: u8 = 2;

/// Someone who owns a name in a room.
#[derive(Clone)]
pub struct Member {
    /// Shown as it was first claimed.
    pub name: Name,
    /// Hash of the token that owns the name, in hex: Redis is told it with every word and renewal.
    pub owner: String,
}

impl State {
    /// The connections here of someone. Who once had the same name is somebody else.
    fn conns_of<'a>(&'a self, one: &'a Member) -> impl Iterator<Item = &'a Arc<Conn>> {
        let key = |member: &'a Member| (&member.name.folded, &member.owner);
        let same = move |(_, member): &&'a (_, Arc<Member>)| key(member) == key(one);
        self.seats.values().filter(same).map(|(conn, _)| conn)
    }
}

impl Room {
    /// The people on this dyno that were heard from lately, once for each of their connections.
    pub fn present(&self) -> Vec<Arc<Member>> {
        let state = lock(&self.state);
        let seats = state.seats.values();
        let here = seats.filter(|(conn, _)| conn.silent() < LATELY);
        here.map(|(_, member)| member.clone()).collect()
    }

    /// How many the list of members has.
    pub fn count(&self) -> usize {
        lock(&self.state).members.len()
    }

    /// Is this person here?
    pub fn has(&self, member: &Member) -> bool {
        lock(&self.state).conns_of(member).next().is_some()
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.state).seats.is_empty()
    }

    /// When the last one left; `None` if nobody has been here yet.
    pub fn emptied(&self) -> Option<Instant> {
        lock(&self.state).emptied
    }

    /// Someone else owns the name now: whoever had it has to choose another.
    pub fn evict(&self, member: &Member) {
        let taken = frame::text(&message::error(&Code::NameTaken.into()));
        for conn in lock(&self.state).conns_of(member) {
            conn.push(&taken);
            conn.close(code::REFUSED, Code::NameTaken.words().0);
        }
    }

    /// Takes the list of members, folded name → shown name, and sends it if it is another than the
    /// last one sent: a whole list heals itself, where a lost "left" or "joined" would stay lost.
    pub fn set_members(&self, mut all: BTreeMap<String, String>) {
        let mut state = lock(&self.state);
        // Who came in while the list was under way is not in it, but has the name.
        for (conn, member) in state.seats.values() {
            let Name { folded, shown } = &member.name;
            if !all.contains_key(folded) && conn.silent() < LATELY && conn.is_open() {
                all.insert(folded.clone(), shown.clone());
            }
        }
        let list = message::members(all.values());
        if state.sent != list {
            state.push(&frame::text(&format!(r#"{{"kind":"members",{list}}}"#)));
            state.sent = list;
        }
        state.members = all;
    }

    /// Notes that the list may have changed. True if someone has to read it, at once and then as long
    /// as [`take_nudge`](Self::take_nudge) says so.
    pub fn nudge(&self) -> bool {
        self.list.swap(STALE, Relaxed) == IDLE
    }

    /// Has the list changed since this was last asked? If not, the reading is over. For whoever reads.
    pub fn take_nudge(&self) -> bool {
        self.list.fetch_sub(1, Relaxed) > READING // one step back
    }
}
