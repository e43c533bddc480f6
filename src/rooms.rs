//! The register of the rooms that this dyno has. Sessions and buses find a room here by its name.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::mpsc::UnboundedSender;

use crate::{conn::lock, name::RoomName, room::Room};

pub struct Rooms {
    rooms: Mutex<HashMap<RoomName, Arc<Room>>>,
    /// To whoever reads the lists of members. A room is in it once, so its length is bounded.
    nudges: UnboundedSender<Arc<Room>>,
}

impl Rooms {
    pub fn new(nudges: UnboundedSender<Arc<Room>>) -> Rooms {
        Rooms {
            rooms: Mutex::default(),
            nudges,
        }
    }

    pub fn get(&self, name: &str) -> Option<Arc<Room>> {
        lock(&self.rooms).get(name).cloned()
    }

    /// The room of that name, and whether it was made now.
    pub fn open(&self, name: &RoomName, behind: bool) -> (Arc<Room>, bool) {
        let mut rooms = lock(&self.rooms);
        let known = rooms.len();
        let room = rooms.entry(name.clone());
        let room = room
            .or_insert_with(|| Arc::new(Room::new(name.clone(), behind)))
            .clone();
        (room, rooms.len() > known)
    }

    pub fn all(&self) -> Vec<Arc<Room>> {
        lock(&self.rooms).values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        lock(&self.rooms).len()
    }

    /// The room's list of members may have changed.
    pub fn nudge(&self, room: &Arc<Room>) {
        if room.nudge() {
            let _ = self.nudges.send(room.clone()); // fails when the program ends
        }
    }

    /// Drops the rooms that nobody sits in or is about to enter, but for the `keep` that were left
    /// last. Returns their names.
    pub fn sweep(&self, keep: usize) -> Vec<RoomName> {
        let mut rooms = lock(&self.rooms);
        // Who is about to enter holds the room, and can only have got it from here.
        let idle = rooms.values().filter(|room| Arc::strong_count(room) == 1);
        let idle = idle.filter_map(|room| Some((room.empty_since()?, room.name.clone())));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable_by_key(|(since, _)| Reverse(*since));
        let names: Vec<_> = idle.into_iter().skip(keep).map(|(_, name)| name).collect();
        names.iter().for_each(|name| drop(rooms.remove(name)));
        names
    }
}
