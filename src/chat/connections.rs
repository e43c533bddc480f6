//! The connections in a room on this dyno, and the member of each.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::close_code;
use crate::socket::{Conn, HEARTBEAT_SECS, stagger};
use crate::store::Member;

/// A member counts as present if heard from since the last heartbeat: a dead socket must not keep a name.
const PRESENT_SECS: u32 = HEARTBEAT_SECS + 5;

/// By the address of the `Arc<Conn>`, which is unique while the entry exists.
#[derive(Default)]
pub struct Connections(HashMap<usize, (Arc<Conn>, Arc<Member>)>);

impl Connections {
    pub fn insert(&mut self, conn: &Arc<Conn>, member: &Arc<Member>) {
        self.0.insert(address(conn), (conn.clone(), member.clone()));
    }

    pub fn remove(&mut self, conn: &Arc<Conn>) {
        self.0.remove(&address(conn));
        self.0.shrink_to(2 * self.0.len()); // gives the memory of many connections back
    }

    pub fn all(&self) -> Vec<Arc<Conn>> {
        self.0.values().map(|(conn, _)| conn.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The connections of a member. Somebody else who had the same name before is not this member.
    pub fn of(&self, member: &Member) -> Vec<Arc<Conn>> {
        let same =
            |other: &Member| other.name.folded == member.name.folded && other.owner == member.owner;
        let theirs = self.0.values().filter(|(_, other)| same(other));
        theirs.map(|(conn, _)| conn.clone()).collect()
    }

    /// The members that were heard from lately, once for each of their connections.
    pub fn present(&self) -> impl Iterator<Item = &Arc<Member>> {
        let is_present = |conn: &Conn| conn.silent_secs() < PRESENT_SECS && conn.is_open();
        let present = self.0.values().filter(move |(conn, _)| is_present(conn));
        present.map(|(_, member)| member)
    }

    pub fn send(&self, frames: &Bytes) {
        self.0.values().for_each(|(conn, _)| conn.push(frames));
    }

    /// Takes all out and closes them with 1012, spread over a few seconds.
    pub fn close_all(&mut self) {
        let conns = self.all();
        self.0.clear();
        tokio::spawn(stagger(conns, |conn| {
            conn.close(close_code::RESTART, "resume")
        }));
    }
}

fn address(conn: &Arc<Conn>) -> usize {
    Arc::as_ptr(conn) as usize
}
