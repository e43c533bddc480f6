//! The list of members that people in a room see.
//!
//! The whole list is sent whenever it differs from the last one. After a lost "joined" or "left" event a list would
//! stay wrong; a full list corrects it.

use crate::protocol::{Name, outgoing};
use crate::store::Names;

#[derive(Default)]
pub struct Members {
    /// Everyone in the room, on all dynos.
    all: Names,
    /// The last list that was sent to every connection on this dyno, as JSON; empty if they were sent different ones.
    last_sent: String,
}

impl Members {
    /// The list of a room that nobody on this dyno is in yet.
    pub fn new(all: Names) -> Members {
        Members {
            all,
            last_sent: String::new(),
        }
    }

    /// Adds somebody who joins, and returns the list for the welcome. `first`: nobody else is in the room
    /// on this dyno.
    pub fn add(&mut self, name: &Name, first: bool) -> String {
        self.all.insert(name.folded.clone(), name.shown.clone());
        let list = outgoing::member_fields(self.all.values());
        if first {
            self.last_sent.clone_from(&list);
        } else if self.last_sent != list {
            self.last_sent.clear(); // whatever comes next differs from what somebody was sent
        }
        list
    }

    /// Takes a new list, and returns the `members` frame to send, if the list differs from the last one.
    pub fn replace(&mut self, all: Names) -> Option<String> {
        let list = outgoing::member_fields(all.values());
        self.all = all;
        (self.last_sent != list).then(|| {
            let frame = outgoing::members(&list);
            self.last_sent = list;
            frame
        })
    }
}
