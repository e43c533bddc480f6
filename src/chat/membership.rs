//! A connection's place in a room, from the welcome until it is dropped.

use std::sync::Arc;

use super::rooms::{RoomHandle, Rooms};
use crate::protocol::{Id, outgoing::Welcome};
use crate::socket::Conn;
use crate::store::Member;

pub struct Membership {
    pub room: RoomHandle,
    pub member: Arc<Member>,
    /// Messages with a lower id were not part of this connection's welcome.
    pub replay_from: Id,
    conn: Arc<Conn>,
}

impl Membership {
    /// Sends the welcome once the room is live. `last`: the last message that the page has seen.
    pub async fn enter(
        room: RoomHandle,
        conn: Arc<Conn>,
        member: Arc<Member>,
        last: Option<Id>,
        welcome: Welcome<'_>,
    ) -> Membership {
        let replay_from = room.enter(&conn, &member, last, welcome).await;
        Membership {
            room,
            member,
            replay_from,
            conn,
        }
    }

    /// Leaves, and releases the name, unless the member has another connection on this dyno. A connection on
    /// another dyno claims the name again as soon as that dyno reads the list: within a second.
    pub async fn quit(self, rooms: &Rooms) {
        self.room.leave(&self.conn);
        if self.room.conns_of(&self.member).is_empty() {
            rooms.store.release(&self.room.name, &self.member).await;
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.room.leave(&self.conn);
    }
}
