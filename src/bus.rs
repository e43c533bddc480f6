//! What all dynos share, and the upkeep of it: who owns which name, what was said, who is there.
//!
//! A session asks ([`claim`](Bus::claim), [`open`](Bus::open), [`talk`](Bus::talk),
//! [`leave`](Bus::leave)); what was said comes back through the rooms. Two stores answer: one in
//! this process (`bus/local.rs`) and one in Redis (`bus/redis.rs`).

mod link;
mod local;
mod redis;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::redis::Client;
use futures_util::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::{local::Local, redis::Redis};
use crate::message::{Code, Id, Talk};
use crate::room::{Member, Room, Seat};
use crate::{name::RoomName, rooms::Rooms};

/// A name stays its owner's this long unrenewed: nobody sees a reload, a restart or a kill.
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

/// Why a store did not do what it was asked: [`Code::NameTaken`] or [`Code::Busy`].
type Refusal = Code;
/// Nothing: it was said and comes back through the room. An id: it was said before, with that id.
type Said = Result<Option<Id>, Refusal>;
/// Folded name → shown name of everyone in a room.
type Names = BTreeMap<String, String>;
/// Whether the room's log is gone, how many names there are, and those whose name is gone.
type Renewed = Result<(bool, usize, Vec<Arc<Member>>), Refusal>;

pub struct Bus {
    pub rooms: Arc<Rooms>,
    /// Whether anything can be said: false while Redis is away.
    pub link: watch::Receiver<bool>,
    store: Store,
    /// A permit for each list of members that is being read.
    reads: Semaphore,
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
        let (store, link) = match client {
            None => (Store::Local(Local::new(&rooms)), watch::channel(true).1),
            Some(client) => {
                let redis = Box::new(Redis::start(client, &rooms));
                let up = redis.link.up.subscribe();
                (Store::Redis(redis), up)
            }
        };
        let bus = Arc::new(Bus {
            rooms,
            link,
            store,
            reads: Semaphore::new(AT_ONCE),
        });
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
            redis.link.read(room.clone());
        }
        let caught_up = timeout(PATIENCE, room.caught_up()).await;
        caught_up.map(|()| room).map_err(|_| Code::Busy)
    }

    /// Says it to everyone in the room, the speaker included, if the name is still the speaker's.
    pub async fn talk(&self, room: &Room, member: &Member, talk: &Talk) -> Said {
        match &self.store {
            Store::Local(local) => local.talk(room, member, talk),
            Store::Redis(redis) => redis.talk(room, member, talk).await,
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

    /// Keeps the leases of everyone who is here.
    async fn renew_all(self: Arc<Self>) {
        let mut beat = interval(RENEW);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut link = self.link.clone();
        loop {
            let back = tokio::select! {
                biased;
                Ok(()) = link.changed() => true, // names may have lapsed, and nudges been missed
                _ = beat.tick() => false,
            };
            if *link.borrow() {
                let rooms = stream::iter(self.rooms.all());
                let renewals = rooms.for_each_concurrent(AT_ONCE, |room| self.renew(room, back));
                renewals.await;
            }
            if let Store::Local(local) = &self.store {
                local.sweep();
            }
        }
    }

    /// Extends the leases of those who are in a room here, and claims again what has lapsed. The list
    /// of members is read if it may have changed unnoticed: if the link is `back`, or if it is longer
    /// or shorter than it is here. Read at every beat, the lists of many are most of an idle dyno's work.
    async fn renew(&self, room: Arc<Room>, back: bool) {
        let mut changed = back;
        for members in room.present().chunks(RENEW_AT_ONCE) {
            let renewed = match &self.store {
                Store::Local(local) => local.renew(&room.name, members),
                Store::Redis(redis) => redis.renew(&room.name, members).await,
            };
            let Ok((log_lost, count, missing)) = renewed else {
                break;
            };
            changed |= count != room.count();
            if log_lost {
                room.lose_log();
            }
            for member in missing {
                self.claim_again(&room, &member).await;
            }
        }
        if changed {
            self.rooms.nudge(room);
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
            let turn = self.reads.acquire().await; // it is never closed
            let list = match &self.store {
                Store::Local(local) => Ok(local.names(&room.name)),
                Store::Redis(redis) => redis.names(&room.name).await,
            };
            drop(turn);
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
