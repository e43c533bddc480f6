//! What all dynos share, and the upkeep of it: who owns which name, what was said, who is there.
//!
//! A session asks ([`claim`](Bus::claim), [`open`](Bus::open), [`talk`](Bus::talk),
//! [`release`](Bus::release)); what was said comes back through the rooms. Two stores answer: one in
//! this process (`bus/local.rs`) and one in Redis (`bus/redis.rs`).

mod link;
mod local;
mod redis;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::redis::Client;
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::{local::Local, redis::Redis};
use crate::message::{Code, Id, Talk};
use crate::room::{Member, Room};
use crate::{name::RoomName, rooms::Rooms};

/// How long a name stays its owner's without renewal. A reload, a restart and a kill take less, and so
/// nobody sees them.
const LEASE: Duration = Duration::from_secs(20);
/// From renewal to renewal.
const RENEW: Duration = Duration::from_secs(5);
/// Names renewed by one command: bounds how long Redis is busy with it.
const RENEW_AT_ONCE: usize = 100;
/// Commands of the upkeep under way at a time: bounds the replies that wait at Redis for us.
const AT_ONCE: usize = 16;
/// A list of members is read once in this time, however often it changes: n joins cost n, not n².
const READ_PAUSE: Duration = Duration::from_secs(1);
/// How long someone who joins waits for the room to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a store says of a message.
pub enum Fate {
    /// It is in the log and comes back through the room.
    Said,
    /// It was said before, with this id.
    Repeated(Id),
}

/// Why a store did not do what it was asked: [`Code::NameTaken`] or [`Code::Busy`].
type Refusal = Code;
/// Folded name → shown name of everyone in a room.
type Names = BTreeMap<String, String>;
/// Whether the room's log is gone, and those whose name is.
type Renewed = Result<(bool, Vec<Arc<Member>>), Refusal>;

pub struct Bus {
    pub rooms: Arc<Rooms>,
    store: Store,
}

enum Store {
    Local(Local),
    Redis(Box<Redis>),
}

impl Bus {
    /// A bus over Redis, or one for this process alone. Its upkeep runs as long as the program.
    pub fn start(client: Option<Client>) -> Arc<Bus> {
        let (nudges, mut nudged) = mpsc::unbounded_channel();
        let rooms = Arc::new(Rooms::new(nudges));
        let store = match client {
            Some(client) => Store::Redis(Box::new(Redis::start(client, rooms.clone()))),
            None => Store::Local(Local::new(rooms.clone())),
        };
        let bus = Arc::new(Bus { rooms, store });
        tokio::spawn(bus.clone().renew_all());
        let lists = bus.clone();
        tokio::spawn(async move {
            while let Some(room) = nudged.recv().await {
                tokio::spawn(lists.clone().read_list(room));
            }
        });
        bus
    }

    /// Whether other processes can share it.
    pub fn is_shared(&self) -> bool {
        matches!(self.store, Store::Redis(_))
    }

    /// Whether anything can be said: false while Redis is away.
    pub fn link(&self) -> watch::Receiver<bool> {
        match &self.store {
            Store::Local(_) => watch::channel(true).1,
            Store::Redis(redis) => redis.link(),
        }
    }

    /// Takes the name for its owner, for a lease. Returns it as it was first claimed.
    pub async fn claim(&self, room: &RoomName, member: &Member) -> Result<String, Refusal> {
        match &self.store {
            Store::Local(local) => local.claim(room, member),
            Store::Redis(redis) => redis.claim(room, member).await,
        }
    }

    /// The room as it is here, with everything that has been said in it.
    pub async fn open(&self, name: &RoomName) -> Result<Arc<Room>, Refusal> {
        let (room, new) = self.rooms.open(name, self.is_shared());
        if let (Store::Redis(redis), true) = (&self.store, new) {
            redis.read(room.clone());
        }
        timeout(PATIENCE, room.caught_up())
            .await
            .map_err(|_| Code::Busy)?;
        Ok(room)
    }

    /// Says it to everyone in the room, the speaker included, if the name is still the speaker's.
    pub async fn talk(&self, room: &Room, member: &Member, talk: &Talk) -> Result<Fate, Refusal> {
        match &self.store {
            Store::Local(local) => local.talk(room, member, talk),
            Store::Redis(redis) => redis.talk(room, member, talk).await,
        }
    }

    /// Gives the name back, unless someone on this dyno still goes by it. On another dyno someone may:
    /// that dyno claims it again as soon as it reads the list, and for up to a second it is free.
    pub async fn release(&self, room: &Room, member: &Member) -> Result<(), Refusal> {
        match &self.store {
            _ if room.has(member) => Ok(()),
            Store::Local(local) => local.release(&room.name, member),
            Store::Redis(redis) => redis.release(&room.name, member).await,
        }
    }

    /// Keeps the leases of everyone who is here.
    async fn renew_all(self: Arc<Self>) {
        let mut beat = interval(RENEW);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut link = self.link();
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                Ok(()) = link.changed() => {} // when it is back, names may have lapsed
            }
            if *link.borrow_and_update() {
                let rooms = stream::iter(self.rooms.all());
                rooms
                    .for_each_concurrent(AT_ONCE, |room| self.renew(room))
                    .await;
            }
            if let Store::Local(local) = &self.store {
                local.sweep();
            }
        }
    }

    /// Extends the leases of those who are in a room here, and claims again what has lapsed.
    async fn renew(&self, room: Arc<Room>) {
        for members in room.present().chunks(RENEW_AT_ONCE) {
            let renewed = match &self.store {
                Store::Local(local) => local.renew(&room.name, members),
                Store::Redis(redis) => redis.renew(&room.name, members).await,
            };
            let Ok((log_lost, missing)) = renewed else {
                return;
            };
            if log_lost {
                room.lose_log();
            }
            for member in missing {
                self.claim_again(&room, &member).await;
            }
            self.rooms.nudge(&room); // for a nudge from Redis can be lost
        }
    }

    async fn claim_again(&self, room: &Room, member: &Member) {
        if self.claim(&room.name, member).await == Err(Code::NameTaken) {
            room.evict(member);
        }
    }

    /// Reads the list of members, and again until it has not changed for a while.
    async fn read_list(self: Arc<Self>, room: Arc<Room>) {
        while room.changed() {
            let list = match &self.store {
                Store::Local(local) => local.names(&room.name),
                Store::Redis(redis) => redis.names(&room.name).await,
            };
            if let Ok(list) = list {
                for member in room.present() {
                    if !list.contains_key(&member.name.folded) {
                        self.claim_again(&room, &member).await;
                    }
                }
                room.set_members(list);
            }
            sleep(READ_PAUSE).await;
        }
    }
}
