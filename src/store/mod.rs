//! The state that all dynos share: leases of names, and the stream of each room. It is in Redis, or in the
//! memory of a single process; nothing above this folder knows which.
//!
//! Messages come back by [`follow`](Store::follow): it returns what was missed and a channel of live events.
//! The channel ends whenever messages may be missing; the room follows again then.

mod entry;
mod follower;
mod lease;
mod memory;
mod redis;

use std::sync::Arc;

use ::redis::Client;
use tokio::sync::{Notify, watch};

use self::memory::Memory;
use self::redis::Redis;
use crate::protocol::{ErrorCode, Id, RoomName};

#[cfg(test)]
pub use self::entry::Past;
pub use self::entry::{Entry, MAX_BYTES, MAX_MESSAGES, Stored, Talk};
pub use self::follower::Following;
pub use self::lease::{Member, Names, Renewal};
pub use self::redis::client as redis_client;

pub enum Store {
    Memory(Memory),
    Redis(Redis),
}

impl Store {
    /// Redis, or without a client the memory of this process.
    pub fn start(client: Option<Client>) -> Store {
        match client {
            None => Store::Memory(Memory::default()),
            Some(client) => Store::Redis(Redis::start(client)),
        }
    }

    /// Whether Redis can be used; always true in memory. While it is false, every request fails at once.
    pub fn up(&self) -> watch::Receiver<bool> {
        match self {
            Store::Memory(memory) => memory.up(),
            Store::Redis(redis) => redis.up(),
        }
    }

    /// Leases the name to its owner. Returns the name as it was first claimed.
    pub async fn claim(&self, room: &RoomName, member: &Member) -> Result<String, ErrorCode> {
        match self {
            Store::Memory(memory) => memory.claim(room, member),
            Store::Redis(redis) => redis.claim(room, member).await,
        }
    }

    /// Extends leases. Returns, for each renewal, those who have lost their name.
    pub async fn renew(&self, renewals: &[Renewal]) -> Vec<Vec<Arc<Member>>> {
        match self {
            Store::Memory(memory) => memory.renew(renewals),
            Store::Redis(redis) => redis.renew(renewals).await,
        }
    }

    /// Ends the lease, if it is still the member's. If this fails, the lease ends by itself.
    pub async fn release(&self, room: &RoomName, member: &Member) {
        match self {
            Store::Memory(memory) => memory.release(room, member),
            Store::Redis(redis) => redis.release(room, member).await,
        }
    }

    /// Everyone in the room, on all dynos.
    pub async fn names(&self, room: &RoomName) -> Result<Names, ErrorCode> {
        match self {
            Store::Memory(memory) => Ok(memory.names(room)),
            Store::Redis(redis) => redis.names(room).await,
        }
    }

    /// Stores a message in the room's stream and sends it to everyone who follows the room, if the name is
    /// still the member's and the cid is new.
    pub async fn talk(&self, talk: &Talk<'_>) -> Result<Stored, ErrorCode> {
        match self {
            Store::Memory(memory) => {
                let stored = memory.talk(talk);
                tokio::task::yield_now().await; // the room's task delivers it meanwhile
                stored
            }
            Store::Redis(redis) => redis.talk(talk).await,
        }
    }

    /// Follows the room's stream from the message `from`, which the caller has (`0-0`: none).
    /// `names_changed` is notified when someone came or left. Replaces an earlier following of the room.
    pub async fn follow(
        &self,
        room: &RoomName,
        from: Id,
        names_changed: Arc<Notify>,
    ) -> Result<Following, ErrorCode> {
        match self {
            Store::Memory(memory) => Ok(memory.follow(room, from, names_changed)),
            Store::Redis(redis) => redis.follow(room, from, names_changed).await,
        }
    }

    /// Ends the following of a room.
    pub async fn unfollow(&self, room: &RoomName) {
        match self {
            Store::Memory(memory) => memory.unfollow(room),
            Store::Redis(redis) => redis.unfollow(room).await,
        }
    }
}
