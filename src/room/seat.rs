//! Coming into a room, and leaving it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Member, Room};
use crate::conn::{Conn, PING};
use crate::message::{self, Id, MAX_MESSAGE};
use crate::{frame, lock, name::Name};

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
        state.emptied = Some(Instant::now());
    }
}

impl Room {
    /// Sends `welcome` and takes the connection in, in one step: nothing falls between history and
    /// live. `greeting` is the part of the frame that the session knows. `None` while behind.
    pub fn enter(
        self: &Arc<Room>,
        conn: &Arc<Conn>,
        member: Arc<Member>,
        last: Option<Id>,
        greeting: &str,
    ) -> Option<Seat> {
        let mut state = lock(&self.state);
        if self.is_behind() || lock(&self.inbox).lost {
            return None;
        }
        // What the page saw on another dyno was gathered here before its claim was answered.
        while let lines = lock(&self.inbox).batch()
            && !lines.is_empty()
        {
            self.publish(&mut state, &lines);
        }
        let replay = state.log.after(last);
        let (newest, gap, history) = (state.log.last(), replay.gap, replay.messages);
        let Name { folded, shown } = &member.name;
        state.members.insert(folded.clone(), shown.clone());
        let members = message::members(state.members.values());
        if state.seats.is_empty() {
            state.sent.clone_from(&members); // nobody else has to hear of it
        } else if state.sent != members {
            state.sent.clear(); // the next list is news for someone, whatever it says
        }
        let tick_ms = PING * 1000;
        conn.push(&frame::text(&format!(
            r#"{{"kind":"welcome",{greeting},"last":"{newest}","gap":{gap},"history":[{history}],{members},"tick_ms":{tick_ms},"max_message":{MAX_MESSAGE}}}"#
        )));
        let seat = (conn.clone(), member.clone());
        state.seats.insert(Arc::as_ptr(conn) as usize, seat);
        Some(Seat {
            room: self.clone(),
            member,
            covers: replay.covers,
            conn: conn.clone(),
        })
    }
}
