//! Who is in a room: on this dyno, for renewals, and on all of them, for the list that people see.

use std::{
    collections::BTreeMap,
    mem::{replace, take},
    sync::Arc,
};

use tokio::time::Instant;

use super::Room;
use crate::{
    beat::PING,
    conn::lock,
    frame::{self, code},
    message::{self, Code},
    name::Name,
};

/// A person is renewed only if heard from since the last ping: a dead socket must not keep a name.
/// In beats.
const LATELY: usize = PING + 5;

/// Someone who owns a name in a room.
pub struct Member {
    /// Shown as it was first claimed.
    pub name: Name,
    /// Hash of the token that owns the name.
    pub owner: sha1_smol::Digest,
}

#[derive(Default)]
pub struct Members {
    /// Folded name → shown name, of everyone in the room on all dynos.
    all: BTreeMap<String, String>,
    /// The list that everyone here was sent last, as JSON.
    sent: String,
    /// Someone reads the list; it has changed since.
    reading: bool,
    nudged: bool,
}

impl Members {
    /// The list with someone who enters now, as JSON. `alone`: nobody else has to hear of it.
    pub fn with(&mut self, member: &Member, alone: bool) -> String {
        self.all
            .insert(member.name.folded.clone(), member.name.shown.clone());
        let list = message::members(self.all.values());
        if alone {
            self.sent.clone_from(&list);
        }
        list
    }
}

impl Room {
    /// The people on this dyno that were heard from lately, each once.
    pub fn present(&self) -> Vec<Arc<Member>> {
        let state = lock(&self.state);
        let here = state
            .seats
            .values()
            .filter(|(conn, _)| conn.is_heard(LATELY));
        let once: BTreeMap<_, _> = here
            .map(|(_, m)| (m.name.folded.as_str(), m.clone()))
            .collect();
        once.into_values().collect()
    }

    /// Has someone here this name?
    pub fn has(&self, member: &Member) -> bool {
        lock(&self.state)
            .seats
            .values()
            .any(|(_, m)| m.name.folded == member.name.folded)
    }

    /// Since when nobody is here; `None` while somebody is.
    pub fn empty_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        state.seats.is_empty().then_some(state.emptied)
    }

    /// Someone else owns the name now: whoever has it here must choose another.
    pub fn evict(&self, member: &Member) {
        let taken = frame::text(&message::error(&Code::NameTaken.into()));
        let state = lock(&self.state);
        for (conn, _) in state
            .seats
            .values()
            .filter(|(_, m)| m.name.folded == member.name.folded)
        {
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
            if !all.contains_key(&member.name.folded) && conn.is_heard(LATELY) && conn.is_open() {
                all.insert(member.name.folded.clone(), member.name.shown.clone());
            }
        }
        let list = message::members(all.values());
        if state.members.sent != list {
            let frame = frame::text(&format!(r#"{{"kind":"members",{list}}}"#));
            state.seats.values().for_each(|(conn, _)| conn.push(&frame));
            state.members.sent = list;
        }
        state.members.all = all;
    }

    /// Notes that the list may have changed. True if someone has to read it, at once and then as long
    /// as [`changed`](Self::changed) says so.
    pub fn nudge(&self) -> bool {
        let members = &mut lock(&self.state).members;
        members.nudged = true;
        !replace(&mut members.reading, true)
    }

    /// Has the list changed since this was last asked? If not, the reading is over.
    pub fn changed(&self) -> bool {
        let members = &mut lock(&self.state).members;
        members.reading = take(&mut members.nudged);
        members.reading
    }
}
