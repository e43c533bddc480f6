//! The rooms that follow over one connection, and what Redis pushes to them.

use std::collections::HashMap;
use std::sync::Mutex;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use crate::lock::lock;
use crate::log_throttle::LogThrottle;
use crate::protocol::Id;
use crate::store::entry::Entry;
use crate::store::follower::Follower;

/// By channel. Belongs to one connection: when that is given up, [`clear`](Followers::clear) ends them all.
#[derive(Default)]
pub struct Followers {
    by_channel: Mutex<HashMap<String, Follower>>,
    /// For invalid messages in channels.
    garbage: LogThrottle,
}

impl Followers {
    /// Replaces an earlier follower of the channel.
    pub fn insert(&self, channel: &str, follower: Follower) {
        lock(&self.by_channel).insert(channel.to_owned(), follower);
    }

    pub fn remove(&self, channel: &str) {
        lock(&self.by_channel).remove(channel);
    }

    /// Ends all.
    pub fn clear(&self) {
        lock(&self.by_channel).clear();
    }

    /// Handles what Redis pushes over the connection; sends a reason to `lost` when that is closed. Runs
    /// inside the task of the redis crate that reads the connection, so it must not wait.
    pub fn handle(&self, push: PushInfo, lost: &mpsc::Sender<String>) {
        match (push.kind, <[Value; 2]>::try_from(push.data)) {
            (PushKind::Disconnection, _) => {
                let _ = lost.try_send("connection closed".to_owned()); // or there is a reason already
            }
            (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(payload)])) => {
                if let Ok(channel) = str::from_utf8(&channel) {
                    self.deliver(channel, payload);
                }
            }
            _ => {} // confirmations of SUBSCRIBE, and kinds of later versions
        }
    }

    /// `names`: someone came or left. `ID BODY`: a message was stored. Step 3 of a message: it only goes into the
    /// room's channel.
    fn deliver(&self, channel: &str, mut payload: Vec<u8>) {
        let mut followers = lock(&self.by_channel);
        let Some(follower) = followers.get_mut(channel) else {
            return; // unfollowed, and UNSUBSCRIBE is on its way
        };
        if payload == b"names" {
            return follower.notify_names_changed();
        }
        let space = payload.iter().position(|byte| *byte == b' ');
        let id = space.and_then(|n| Id::parse(str::from_utf8(&payload[..n]).ok()?));
        let Some((space, id)) = space.zip(id) else {
            if self.garbage.is_due() {
                log::warn!("channel={channel:?} skipped=\"invalid message\"");
            }
            return;
        };
        payload.drain(..=space);
        log::debug!("step=3 event=pushed channel={channel:?} id={id}");
        if !follower.send(Entry { id, body: payload }) {
            log::debug!("event=following_ended channel={channel:?} id={id}");
            followers.remove(channel);
        }
    }
}
