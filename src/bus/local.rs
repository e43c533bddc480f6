//! The bus of a single process: without `REDIS_URL` the room's log *is* the log, and names and cids
//! live here. What it promises is what `redis.rs` promises, as long as the process lives.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{LEASE, Names, Renewed, Said, Share};
use crate::message::{Code, Id};
use crate::name::{Name, RoomName};
use crate::room::{Member, Room};
use crate::{history, lock, rooms::Rooms};

/// Empty rooms whose log is kept, the oldest goes first: 128 MB when every one of them is full.
const EMPTY_ROOMS: usize = 1_000;
/// How long a resend is recognised.
const CID_LIFE: Duration = Duration::from_secs(120);
/// Resends recognised in one room: two minutes of 80 messages a second.
const MAX_CIDS: usize = 10_000;

pub struct Local {
    rooms: Arc<Rooms>,
    ledgers: Mutex<HashMap<RoomName, Ledger>>,
}

/// What is on record of a room besides its log.
#[derive(Default)]
struct Ledger {
    /// By the folded name, who has it and until when.
    names: HashMap<String, (Member, Instant)>,
    /// The newest message: ids only rise, also if the clock goes back.
    last: Id,
    /// Owner and cid of what was said lately, and when.
    cids: HashMap<(String, String), Id>,
    said: VecDeque<(Instant, (String, String))>,
}

impl Local {
    pub fn new(rooms: &Arc<Rooms>) -> Local {
        let (rooms, ledgers) = (rooms.clone(), Mutex::default());
        Local { rooms, ledgers }
    }

    pub fn claim(&self, room: &RoomName, member: &Member) -> Result<String, Code> {
        let mut ledgers = lock(&self.ledgers);
        let names = &mut ledgers.entry(room.clone()).or_default().names;
        let now = Instant::now();
        let lease = names.entry(member.name.folded.clone());
        let (holder, end) = lease.or_insert_with(|| (member.clone(), now));
        let lapsed = *end <= now;
        if lapsed {
            *holder = member.clone();
        } else if holder.owner != member.owner {
            return Err(Code::NameTaken);
        }
        *end = now + LEASE;
        let shown = holder.name.shown.clone();
        if let Some(room) = self.rooms.get(room.as_str()).filter(|_| lapsed) {
            self.rooms.nudge(room);
        }
        Ok(shown)
    }

    /// Claims all names again; those that someone else has taken meanwhile are missing.
    pub fn renew(&self, shares: &[Share]) -> Vec<Option<Renewed>> {
        let renewed = |(room, members): &Share| {
            let lost = |member: &&Arc<Member>| self.claim(&room.name, member).is_err();
            let missing = members.iter().filter(lost).cloned().collect();
            let mut ledgers = lock(&self.ledgers);
            let names = &mut ledgers.entry(room.name.clone()).or_default().names;
            names.retain(|_, (_, end)| *end > Instant::now());
            Some(Renewed {
                log_lost: false,
                count: names.len(),
                missing,
            })
        };
        shares.iter().map(renewed).collect()
    }

    pub fn release(&self, room: &Arc<Room>, member: &Member) {
        if let Some(ledger) = lock(&self.ledgers).get_mut(&room.name) {
            let other = |holder: &Member| holder.owner != member.owner;
            let names = &mut ledger.names;
            names.retain(|folded, (holder, _)| *folded != member.name.folded || other(holder));
        }
        self.rooms.nudge(room.clone());
    }

    pub fn names(&self, room: &RoomName) -> Names {
        let mut ledgers = lock(&self.ledgers);
        let names = ledgers.entry(room.clone()).or_default().names.values();
        let alive = names.filter(|(_, end)| *end > Instant::now());
        let name = |Name { folded, shown }: &Name| (folded.clone(), shown.clone());
        alive.map(|(holder, _)| name(&holder.name)).collect()
    }

    pub fn talk(&self, room: &Room, member: &Member, cid: &str, body: &str) -> Said {
        let mut ledgers = lock(&self.ledgers);
        let ledger = ledgers.entry(room.name.clone()).or_default();
        let holder = ledger.names.get(&member.name.folded);
        if holder.is_some_and(|(holder, _)| holder.owner != member.owner) {
            return Err(Code::NameTaken);
        }
        ledger.forget_cids();
        let key = (member.owner.clone(), cid.to_owned());
        if let Some(id) = ledger.cids.get(&key) {
            return Ok(Some(*id));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis() as u64;
        let id = Id(now, 0).max(history::next(ledger.last));
        ledger.last = id;
        ledger.said.push_back((Instant::now(), key.clone()));
        ledger.cids.insert(key, id);
        room.gather(format!("{id} {body}").into_bytes());
        drop(ledgers);
        while room.deliver() {}
        Ok(None)
    }

    /// Forgets what nobody can ask for any more.
    pub fn sweep(&self) {
        let swept = self.rooms.sweep(EMPTY_ROOMS);
        let mut ledgers = lock(&self.ledgers);
        swept.iter().for_each(|room| drop(ledgers.remove(room)));
        ledgers.values_mut().for_each(Ledger::forget_cids);
    }
}

impl Ledger {
    fn forget_cids(&mut self) {
        let old = |(at, _): &(Instant, _)| at.elapsed() > CID_LIFE;
        while self.said.len() > MAX_CIDS || self.said.front().is_some_and(old) {
            let oldest = self.said.pop_front();
            oldest.and_then(|(_, key)| self.cids.remove(&key));
        }
    }
}
