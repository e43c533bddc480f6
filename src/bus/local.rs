//! The bus of a single process: without `REDIS_URL` the room's log *is* the log, and names and cids
//! live here. What it promises is what `redis.rs` promises, as long as the process lives.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sha1_smol::Digest;

use super::{Fate, LEASE, Names, Refusal, Renewed};
use crate::{
    conn::lock,
    history,
    message::{self, Code, Id, Talk},
    name::RoomName,
    room::{Member, Room},
    rooms::Rooms,
};

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
    names: HashMap<String, Lease>,
    /// The newest message: ids only rise, also if the clock goes back.
    last: Id,
    /// Owner and cid of what was said lately, and when.
    cids: HashMap<(Digest, String), Id>,
    said: VecDeque<(Instant, (Digest, String))>,
}

struct Lease {
    shown: String,
    owner: Digest,
    end: Instant,
}

impl Local {
    pub fn new(rooms: Arc<Rooms>) -> Local {
        Local {
            rooms,
            ledgers: Mutex::default(),
        }
    }

    pub fn claim(&self, room: &RoomName, member: &Member) -> Result<String, Refusal> {
        let mut ledgers = lock(&self.ledgers);
        let names = &mut ledgers.entry(room.clone()).or_default().names;
        names.retain(|_, lease| lease.end > Instant::now());
        let known = names.len();
        let lease = names
            .entry(member.name.folded.clone())
            .or_insert_with(|| Lease {
                shown: member.name.shown.clone(),
                owner: member.owner,
                end: Instant::now(),
            });
        if lease.owner != member.owner {
            return Err(Code::NameTaken);
        }
        lease.end = Instant::now() + LEASE;
        let shown = lease.shown.clone();
        if names.len() != known {
            self.nudge(room);
        }
        Ok(shown)
    }

    /// Extends the leases of `members`; returns those whose lease is gone.
    pub fn renew(&self, room: &RoomName, members: &[Arc<Member>]) -> Renewed {
        let mut ledgers = lock(&self.ledgers);
        let names = &mut ledgers.entry(room.clone()).or_default().names;
        let mut missing = Vec::new();
        for member in members {
            match names
                .get_mut(&member.name.folded)
                .filter(|lease| lease.owner == member.owner)
            {
                Some(lease) => lease.end = Instant::now() + LEASE,
                None => missing.push(member.clone()),
            }
        }
        Ok((false, missing))
    }

    pub fn release(&self, room: &RoomName, member: &Member) -> Result<(), Refusal> {
        if let Some(ledger) = lock(&self.ledgers).get_mut(room) {
            ledger.names.retain(|folded, lease| {
                *folded != member.name.folded || lease.owner != member.owner
            });
        }
        self.nudge(room);
        Ok(())
    }

    pub fn names(&self, room: &RoomName) -> Result<Names, Refusal> {
        let mut ledgers = lock(&self.ledgers);
        let names = &mut ledgers.entry(room.clone()).or_default().names;
        names.retain(|_, lease| lease.end > Instant::now());
        Ok(names
            .iter()
            .map(|(folded, lease)| (folded.clone(), lease.shown.clone()))
            .collect())
    }

    pub fn talk(&self, room: &Room, member: &Member, talk: &Talk) -> Result<Fate, Refusal> {
        let mut ledgers = lock(&self.ledgers);
        let ledger = ledgers.entry(room.name.clone()).or_default();
        if ledger
            .names
            .get(&member.name.folded)
            .is_some_and(|lease| lease.owner != member.owner)
        {
            return Err(Code::NameTaken);
        }
        let old = |(at, _): &(Instant, _)| at.elapsed() > CID_LIFE;
        while ledger.said.len() > MAX_CIDS || ledger.said.front().is_some_and(old) {
            ledger
                .said
                .pop_front()
                .and_then(|(_, key)| ledger.cids.remove(&key));
        }
        let key = (member.owner, talk.cid.clone());
        if let Some(id) = ledger.cids.get(&key) {
            return Ok(Fate::Repeated(*id));
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as u64;
        let id = Id(now, 0).max(history::next(ledger.last));
        ledger.last = id;
        ledger.said.push_back((Instant::now(), key.clone()));
        ledger.cids.insert(key, id);
        room.gather(
            format!(
                "{id} {}",
                message::body(&member.name.shown, &talk.message, &talk.cid)
            )
            .into_bytes(),
        );
        drop(ledgers);
        while room.deliver() {}
        Ok(Fate::Said)
    }

    /// Forgets what nobody can ask for any more.
    pub fn sweep(&self) {
        let swept = self.rooms.sweep(EMPTY_ROOMS);
        let mut ledgers = lock(&self.ledgers);
        swept.iter().for_each(|room| drop(ledgers.remove(room)));
    }

    fn nudge(&self, room: &RoomName) {
        if let Some(room) = self.rooms.get(room.as_str()) {
            self.rooms.nudge(&room);
        }
    }
}
