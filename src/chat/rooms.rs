//! The register of the rooms on this dyno, and the life of each room's task.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::follow::follow;
use super::metrics::Metrics;
use super::room::Room;
use crate::lock::lock;
use crate::protocol::RoomName;
use crate::socket::Conn;
use crate::store::Store;

/// An empty room stays live about this long: a page that reloads finds it as it was.
const KEEP: Duration = Duration::from_secs(5);

pub struct Rooms {
    pub store: Store,
    pub metrics: Arc<Metrics>,
    rooms: Mutex<HashMap<RoomName, Registered>>,
}

struct Registered {
    room: Arc<Room>,
    /// How many [`RoomHandle`]s there are.
    users: usize,
    /// Notified when the last of them is dropped.
    unused: Arc<Notify>,
}

impl Registered {
    fn is_unused(&self) -> bool {
        self.users == 0
    }
}

/// A room that somebody uses. Its task runs at least until this is dropped.
pub struct RoomHandle {
    rooms: Arc<Rooms>,
    room: Arc<Room>,
}

impl Deref for RoomHandle {
    type Target = Room;

    fn deref(&self) -> &Room {
        &self.room
    }
}

impl Drop for RoomHandle {
    fn drop(&mut self) {
        let mut rooms = lock(&self.rooms.rooms);
        if let Some(registered) = rooms.get_mut(&self.room.name)
            && Arc::ptr_eq(&registered.room, &self.room)
        {
            registered.users -= 1;
            if registered.is_unused() {
                registered.unused.notify_one();
            }
        }
    }
}

impl Rooms {
    pub fn new(store: Store) -> Arc<Rooms> {
        let (metrics, rooms) = Default::default();
        Arc::new(Rooms {
            store,
            metrics,
            rooms,
        })
    }

    /// The room of that name. It is made, and its task started, if there is none.
    pub fn open(self: &Arc<Self>, name: &RoomName) -> RoomHandle {
        let mut rooms = lock(&self.rooms);
        let registered = rooms.entry(name.clone()).or_insert_with(|| {
            let room = Arc::new(Room::new(name.clone(), self.metrics.clone()));
            let unused = Arc::new(Notify::new());
            tokio::spawn(self.clone().run(room.clone(), unused.clone()));
            Registered {
                room,
                users: 0,
                unused,
            }
        });
        registered.users += 1;
        RoomHandle {
            rooms: self.clone(),
            room: registered.room.clone(),
        }
    }

    pub fn all(&self) -> Vec<Arc<Room>> {
        let rooms = lock(&self.rooms);
        let rooms = rooms.values().map(|registered| registered.room.clone());
        rooms.collect()
    }

    /// Every joined connection.
    pub fn conns(&self) -> Vec<Arc<Conn>> {
        self.all().iter().flat_map(|room| room.conns()).collect()
    }

    pub fn count(&self) -> usize {
        lock(&self.rooms).len()
    }

    /// The task of a room: follows until the room has been unused for a while. There is one task per room,
    /// so an UNSUBSCRIBE cannot overtake a newer SUBSCRIBE.
    async fn run(self: Arc<Self>, room: Arc<Room>, unused: Arc<Notify>) {
        let _removed = RemoveOnDrop(&self, &room);
        loop {
            tokio::select! {
                never = follow(&self.store, &room) => match never {},
                () = self.stop_unused(&room, &unused) => {}
            }
            self.store.unfollow(&room.name).await;
            let mut rooms = lock(&self.rooms);
            if rooms.get(&room.name).is_none_or(Registered::is_unused) {
                rooms.remove(&room.name);
                let twice = 2 * rooms.len();
                rooms.shrink_to(twice); // gives the memory of many rooms back
                return;
            }
        }
    }

    /// Waits until nobody has used the room for a while, and stops it. Under the lock of the register, so
    /// that nobody can enter in between.
    async fn stop_unused(&self, room: &Room, unused: &Notify) {
        loop {
            unused.notified().await;
            sleep(KEEP).await;
            let rooms = lock(&self.rooms);
            if rooms.get(&room.name).is_none_or(Registered::is_unused) {
                return room.stop();
            }
        }
    }
}

/// Takes a room out of the register when its task ends, also by a panic: without a task it would never
/// get another message. Its connections are closed, and resume.
struct RemoveOnDrop<'a>(&'a Rooms, &'a Arc<Room>);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        let RemoveOnDrop(rooms, room) = self;
        let mut rooms = lock(&rooms.rooms);
        let registered = rooms.get(&room.name);
        if registered.is_some_and(|registered| Arc::ptr_eq(&registered.room, room)) {
            rooms.remove(&room.name);
            room.stop();
        }
    }
}
