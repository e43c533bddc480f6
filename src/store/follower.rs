//! The sending end of a followed room, and what `follow` returns.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::entry::{Entry, Past};
use crate::protocol::Id;

/// Live entries that may wait for a room's task. With more, the channel ends, and the room follows again.
const CHANNEL: usize = 1_000;

/// A room's stream from a message on.
pub struct Following {
    pub past: Past,
    /// Every entry after `past`, in order; some of `past` may come again. Ends when entries may be missing.
    pub events: mpsc::Receiver<Entry>,
}

/// Sends live entries to a room. Dropping it ends the room's channel.
pub struct Follower {
    events: mpsc::Sender<Entry>,
    /// The newest id sent.
    newest: Id,
    names_changed: Arc<Notify>,
}

impl Follower {
    /// `from`: the newest message that the room has.
    pub fn new(from: Id, names_changed: Arc<Notify>) -> (Follower, mpsc::Receiver<Entry>) {
        let (events, receiver) = mpsc::channel(CHANNEL);
        let follower = Follower {
            events,
            newest: from,
            names_changed,
        };
        (follower, receiver)
    }

    /// Sends an entry. False if the channel has to end: the channel is full, or ids went back because
    /// the stream was lost and the clock of Redis is behind.
    pub fn send(&mut self, entry: Entry) -> bool {
        let rises = entry.id > self.newest;
        self.newest = entry.id;
        rises && self.events.try_send(entry).is_ok()
    }

    /// Tells the room that someone came or left.
    pub fn notify_names_changed(&self) {
        self.names_changed.notify_one();
    }
}
