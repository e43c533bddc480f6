//! What all dynos share: who owns which name, what was said, who is there. `bus/upkeep.rs` keeps it so.
//!
//! A session asks ([`claim`](Bus::claim), [`open`](Bus::open), [`talk`](Bus::talk),
//! [`leave`](Bus::leave)); what was said comes back through the rooms. Two stores answer: one in
//! this process (`bus/local.rs`) and one in Redis (`bus/redis.rs`).

mod link;
mod local;
mod redis;
mod script;
mod upkeep;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::redis::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::upkeep::{AT_ONCE, RENEW};
use self::{local::Local, redis::Redis};
use crate::message::{Code, Id};
use crate::room::{Member, Room, Seat};
use crate::{name::RoomName, rooms::Rooms};

/// A name stays its owner's this long unrenewed: nobody sees a reload, a restart or a kill.
const LEASE: Duration = Duration::from_secs(20);
/// How long someone who joins waits for the room to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Nothing: it was said and comes back through the room. An id: it was said before, with that id.
type Said = Result<Option<Id>, Code>;
/// Folded name → shown name of everyone in a room.
type Names = BTreeMap<String, String>;
/// A room, and some who are in it here.
type Share = (Arc<Room>, Vec<Arc<Member>>);

/// What was found when a share's names were renewed.
struct Renewed {
    /// The room's log is gone.
    log_lost: bool,
    /// How many names there are in the room.
    count: usize,
    /// Whose name is gone.
    missing: Vec<Arc<Member>>,
}

pub struct Bus {
    pub rooms: Arc<Rooms>,
    /// Whether anything can be said: false while Redis is away.
    pub link: watch::Receiver<bool>,
    store: Store,
}

enum Store {
    Local(Local),
    Redis(Box<Redis>),
}

impl Bus {
    /// A bus over Redis, or one for this process alone. Its upkeep runs as long as the program.
    pub fn start(client: Option<Client>) -> Arc<Bus> {
        let (nudges, nudged) = mpsc::unbounded_channel();
        let rooms = Arc::new(Rooms::new(nudges));
        let (store, link) = match client {
            None => (Store::Local(Local::new(&rooms)), watch::channel(true).1),
            Some(client) => {
                let redis = Box::new(Redis::start(client, &rooms));
                let up = redis.link.up.subscribe();
                (Store::Redis(redis), up)
            }
        };
        let bus = Arc::new(Bus { rooms, link, store });
        tokio::spawn(bus.clone().renew_all());
        tokio::spawn(bus.clone().read_lists(nudged));
        bus
    }

    /// Takes the name for its owner, for a lease. Returns it as it was first claimed.
    pub async fn claim(&self, room: &RoomName, member: &Member) -> Result<String, Code> {
        match &self.store {
            Store::Local(local) => local.claim(room, member),
            Store::Redis(redis) => redis.claim(room, member).await,
        }
    }

    /// The room as it is here, with everything that has been said in it.
    pub async fn open(&self, name: &RoomName) -> Result<Arc<Room>, Code> {
        let (room, new) = self.rooms.open(name);
        match &self.store {
            _ if !new => {}
            Store::Local(_) => drop(room.catch_up(&[], true, false, Id::default())), // nothing yet
            Store::Redis(redis) => redis.link.read(room.clone()),
        }
        let caught_up = timeout(PATIENCE, room.caught_up()).await;
        caught_up.map(|()| room).map_err(|_| Code::Busy)
    }

    /// Says it to everyone in the room, the speaker included, if the name is still the speaker's.
    pub async fn talk(&self, room: &Room, member: &Member, cid: &str, body: &str) -> Said {
        match &self.store {
            Store::Local(local) => local.talk(room, member, cid, body),
            Store::Redis(redis) => redis.talk(room, member, cid, body).await,
        }
    }

    /// Gives the name back, unless someone on this dyno still goes by it. On another dyno someone may:
    /// that dyno claims it again as soon as it reads the list, and for up to a second it is free. If
    /// it fails, the lease runs out.
    pub async fn leave(&self, seat: Seat) {
        let (room, member) = (seat.room.clone(), seat.member.clone());
        drop(seat);
        match &self.store {
            _ if room.has(&member) => {}
            Store::Local(local) => local.release(&room, &member),
            Store::Redis(redis) => redis.release(&room.name, &member).await,
        }
    }
}
