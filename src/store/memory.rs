//! The store of a single process: leases and streams in memory, with the rules of `redis/lease.lua` and
//! `redis/talk.lua`. It lives as long as the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};

use super::entry::{CID_LIFE, Entry, Past, Stored, Talk};
use super::follower::{Follower, Following};
use super::lease::{LEASE, Member, Names, Renewal};
use crate::lock::lock;
use crate::protocol::{ErrorCode, Id, RoomName};

/// How many rooms without a follower keep their stream. The room that was unused for longest is dropped first. 128 MB
/// of streams if all are full.
const EMPTY_ROOMS: usize = 1_000;
/// Resends recognised in one room: two minutes of 80 messages a second.
const MAX_CIDS: usize = 10_000;

#[derive(Default)]
pub struct Memory {
    rooms: Mutex<HashMap<RoomName, Room>>,
}

#[derive(Default)]
struct Room {
    /// By folded name: who has it, and until when.
    leases: HashMap<String, (Member, Instant)>,
    stream: VecDeque<Entry>,
    /// The newest id: ids only rise, even if the clock goes back.
    newest: Id,
    /// Entries were dropped at the old end of the stream.
    trimmed: bool,
    /// By owner and cid: the id of a message stored lately. `cid_ages` has the oldest first.
    cids: HashMap<(String, String), Id>,
    cid_ages: VecDeque<(Instant, (String, String))>,
    follower: Option<Follower>,
    /// When the room was last followed.
    unfollowed: Option<Instant>,
}

impl Memory {
    pub fn up(&self) -> watch::Receiver<bool> {
        watch::channel(true).1
    }

    pub fn claim(&self, room: &RoomName, member: &Member) -> Result<String, ErrorCode> {
        self.with(room, |room| {
            room.drop_ended_leases();
            let folded = &member.name.folded;
            let holder = room.leases.get(folded).map(|(holder, _)| holder.clone());
            if holder.as_ref().is_some_and(|h| h.owner != member.owner) {
                return Err(ErrorCode::NameTaken);
            }
            if holder.is_none() {
                room.notify_names_changed();
            }
            let holder = holder.unwrap_or(member.clone());
            let shown = holder.name.shown.clone();
            let end = Instant::now() + LEASE;
            room.leases.insert(folded.clone(), (holder, end));
            Ok(shown)
        })
    }

    pub fn renew(&self, renewals: &[Renewal]) -> Vec<Vec<Arc<Member>>> {
        let renew = |Renewal { room, members }: &Renewal| {
            self.with(room, |room| {
                room.drop_ended_leases();
                let lost = members.iter().filter(|member| {
                    let lease = room.leases.get_mut(&member.name.folded);
                    match lease.filter(|(holder, _)| holder.owner == member.owner) {
                        Some((_, end)) => *end = Instant::now() + LEASE,
                        None => return true,
                    }
                    false
                });
                lost.cloned().collect()
            })
        };
        renewals.iter().map(renew).collect()
    }

    pub fn release(&self, room: &RoomName, member: &Member) {
        self.with(room, |room| {
            let folded = &member.name.folded;
            let holder = room.leases.get(folded);
            if holder.is_some_and(|(holder, _)| holder.owner == member.owner) {
                room.leases.remove(folded);
                room.notify_names_changed();
            }
        });
    }

    pub fn names(&self, room: &RoomName) -> Names {
        self.with(room, |room| room.names())
    }

    pub fn talk(&self, talk: &Talk) -> Result<Stored, ErrorCode> {
        self.with(talk.room, |room| {
            let holder = room.leases.get(&talk.member.name.folded);
            if holder.is_some_and(|(holder, _)| holder.owner != talk.member.owner) {
                return Err(ErrorCode::NameTaken);
            }
            let cid = (talk.member.owner.clone(), talk.cid.to_owned());
            if let Some(id) = room.cids.get(&cid) {
                return Ok(Stored::Duplicate(*id));
            }
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = Id(since.unwrap_or_default().as_millis() as u64, 0);
            let id = now.max(room.newest.next());
            let body = talk.body.as_bytes().to_vec();
            room.append(Entry { id, body }, talk.keep);
            room.remember_cid(cid, id);
            Ok(Stored::New(id))
        })
    }

    pub fn follow(&self, room: &RoomName, from: Id, names_changed: Arc<Notify>) -> Following {
        self.with(room, |room| {
            let (follower, events) = Follower::new(room.newest, names_changed);
            room.follower = Some(follower);
            let known = room.stream.partition_point(|entry| entry.id <= from);
            let newest_known = known.checked_sub(1).map(|n| room.stream[n].id);
            let past = Past {
                entries: room.stream.range(known..).cloned().collect(),
                contiguous: match newest_known {
                    None => from == Id::default() && !room.trimmed,
                    Some(id) => id == from,
                },
                newest: room.newest,
                names: room.names(),
            };
            Following { past, events }
        })
    }

    pub fn unfollow(&self, room: &RoomName) {
        self.with(room, |room| {
            room.follower = None;
            room.drop_ended_cids();
            room.unfollowed = Some(Instant::now());
        });
        let mut rooms = lock(&self.rooms);
        let unused = rooms.iter().filter(|(_, room)| room.is_unused());
        let mut unused: Vec<_> = unused
            .map(|(name, r)| (r.unfollowed, name.clone()))
            .collect();
        if unused.len() > EMPTY_ROOMS {
            unused.sort_unstable_by_key(|(since, _)| *since);
            let excess = unused.len() - EMPTY_ROOMS;
            for (_, name) in &unused[..excess] {
                rooms.remove(name);
            }
            let twice = 2 * rooms.len();
            rooms.shrink_to(twice); // gives the memory of many rooms back
        }
    }

    /// Runs `f` on a room, which is made if there is none.
    fn with<T>(&self, name: &RoomName, f: impl FnOnce(&mut Room) -> T) -> T {
        f(lock(&self.rooms).entry(name.clone()).or_default())
    }
}

impl Room {
    /// Neither followed, nor about to be by somebody who has just claimed a name.
    fn is_unused(&self) -> bool {
        let live = |(_, end): &(Member, Instant)| *end > Instant::now();
        self.follower.is_none() && !self.leases.values().any(live)
    }

    fn drop_ended_leases(&mut self) {
        let (now, before) = (Instant::now(), self.leases.len());
        self.leases.retain(|_, (_, end)| *end > now);
        if self.leases.len() < before {
            self.notify_names_changed();
        }
    }

    fn names(&self) -> Names {
        let live = self
            .leases
            .iter()
            .filter(|(_, (_, end))| *end > Instant::now());
        live.map(|(folded, (holder, _))| (folded.clone(), holder.name.shown.clone()))
            .collect()
    }

    fn notify_names_changed(&self) {
        if let Some(follower) = &self.follower {
            follower.notify_names_changed();
        }
    }

    fn append(&mut self, entry: Entry, keep: usize) {
        self.newest = entry.id;
        self.stream.push_back(entry.clone());
        while self.stream.len() > keep {
            self.stream.pop_front();
            self.trimmed = true;
        }
        if self
            .follower
            .as_mut()
            .is_some_and(|follower| !follower.send(entry))
        {
            self.follower = None;
        }
    }

    fn remember_cid(&mut self, cid: (String, String), id: Id) {
        self.drop_ended_cids();
        self.cids.insert(cid.clone(), id);
        self.cid_ages.push_back((Instant::now(), cid));
    }

    fn drop_ended_cids(&mut self) {
        let ended = |(at, _): &(Instant, _)| at.elapsed() > CID_LIFE;
        while self.cid_ages.len() >= MAX_CIDS || self.cid_ages.front().is_some_and(ended) {
            let oldest = self.cid_ages.pop_front();
            oldest.and_then(|(_, cid)| self.cids.remove(&cid));
        }
    }
}
