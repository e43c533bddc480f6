//! The register of the rooms that this dyno has, and of those whose list of members has changed.
//!
//! Sessions and buses find a room here by its name. A room leaves the register when it is swept.

use std::{
    cmp::Reverse,
    collections::HashMap,
    mem::take,
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;

use crate::{conn::lock, name::RoomName, room::Room};

#[derive(Default)]
pub struct Rooms {
    rooms: Mutex<HashMap<RoomName, Arc<Room>>>,
    /// Each room at most once, so bounded by the number of rooms.
    nudged: Mutex<Vec<Arc<Room>>>,
    wake: Notify,
}

impl Rooms {
    pub fn get(&self, name: &str) -> Option<Arc<Room>> {
        lock(&self.rooms).get(name).cloned()
    }

    /// The room of that name, and whether it was made now.
    pub fn open(&self, name: &RoomName, behind: bool) -> (Arc<Room>, bool) {
        let mut rooms = lock(&self.rooms);
        if let Some(room) = rooms.get(name.as_str()) {
            return (room.clone(), false);
        }
        let room = Arc::new(Room::new(name.clone(), behind));
        rooms.insert(name.clone(), room.clone());
        (room, true)
    }

    pub fn all(&self) -> Vec<Arc<Room>> {
        lock(&self.rooms).values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        lock(&self.rooms).len()
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

    /// The room's list of members may have changed.
    pub fn nudge(&self, room: &Arc<Room>) {
        if room.nudge() {
            lock(&self.nudged).push(room.clone());
            self.wake.notify_one();
        }
    }

    /// Waits for nudges, and takes the rooms that got one.
    pub async fn nudged(&self) -> Vec<Arc<Room>> {
        self.wake.notified().await;
        take(&mut *lock(&self.nudged))
    }
}
