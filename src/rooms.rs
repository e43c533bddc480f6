//! The register of the rooms that this dyno has. Sessions and buses find a room here by its name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::UnboundedSender;

use crate::{lock, name::RoomName, room::Room};

pub struct Rooms {
    rooms: Mutex<HashMap<RoomName, Arc<Room>>>,
    /// To whoever reads the lists of members. A room is in it once, so its length is bounded.
    nudges: UnboundedSender<Arc<Room>>,
}

impl Rooms {
    pub fn new(nudges: UnboundedSender<Arc<Room>>) -> Rooms {
        let rooms = Mutex::default();
        Rooms { rooms, nudges }
    }

    pub fn get(&self, name: &str) -> Option<Arc<Room>> {
        lock(&self.rooms).get(name).cloned()
    }

    /// The room of that name, and whether it was made now.
    pub fn open(&self, name: &RoomName) -> (Arc<Room>, bool) {
        let mut rooms = lock(&self.rooms);
        if let Some(room) = rooms.get(name) {
            return (room.clone(), false);
        }
        let room = Arc::new(Room::new(name.clone()));
        rooms.insert(name.clone(), room.clone());
        (room, true)
    }

    pub fn all(&self) -> Vec<Arc<Room>> {
        lock(&self.rooms).values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        lock(&self.rooms).len()
    }

    /// The room's list of members may have changed.
    pub fn nudge(&self, room: Arc<Room>) {
        if room.nudge() {
            let _ = self.nudges.send(room); // fails when the program ends
        }
    }

    /// Drops the rooms that nobody sits in or is about to enter, but for the last `keep`. Says which.
    pub fn sweep(&self, keep: usize) -> Vec<RoomName> {
        let mut rooms = lock(&self.rooms);
        // Who sits in a room or is about to holds it, and can only have got it from here.
        let idle = |room: &&Arc<Room>| Arc::strong_count(room) == 1;
        let idle = rooms.values().filter(idle);
        let mut idle: Vec<_> = idle.map(|r| (r.emptied(), r.name.clone())).collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(idle.len().saturating_sub(keep));
        let names = idle.into_iter().map(|(_, name)| name);
        names.inspect(|name| drop(rooms.remove(name))).collect()
    }
}
