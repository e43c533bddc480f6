//! The bus in Redis: what is asked of it, each question one script, on the one connection that
//! `link.rs` keeps. While there is none, every question fails at once with `busy`.
//!
//! Keys, the braces literal so that a room lives in one slot: `chat:{room}` is the stream and the
//! channel, `:names` who has a name until when, `:owners` whose it is, `:cid:HASH` what was said
//! lately. All expire. The scripts say what they do with them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use redis::{Client, FromRedisValue, RedisError, Script, ScriptInvocation};
use sha1_smol::Sha1;
use tokio::sync::watch;

use super::{
    Fate, LEASE, Names, Refusal, Renewed,
    link::{Link, key, shown_names},
};
use crate::{
    history,
    message::{Code, Said, Talk},
    name::RoomName,
    room::{Member, Room},
    rooms::Rooms,
};

/// A room's log lives this long after its last message or renewal.
const LOG_LIFE_S: u32 = 24 * 60 * 60;
/// How long a resend is recognised.
const CID_LIFE_S: u32 = 120;

pub struct Redis {
    link: Link,
    claim: Script,
    renew: Script,
    release: Script,
    talk: Script,
    /// A failure has been logged; the next sweep allows another line.
    grumbled: AtomicBool,
}

impl Redis {
    pub fn new(client: Client, rooms: Arc<Rooms>) -> Redis {
        Redis {
            link: Link::new(client, rooms),
            claim: Script::new(include_str!("claim.lua")),
            renew: Script::new(include_str!("renew.lua")),
            release: Script::new(include_str!("release.lua")),
            talk: Script::new(include_str!("talk.lua")),
            grumbled: AtomicBool::new(false),
        }
    }

    /// Keeps the connection, for ever.
    pub async fn run(&self) {
        self.link.run().await;
    }

    pub fn link(&self) -> watch::Receiver<bool> {
        self.link.up()
    }

    /// Subscribes to a new room and reads its log.
    pub fn read(&self, room: Arc<Room>) {
        self.link.read(room);
    }

    /// Lets go of the rooms that nobody is in.
    pub fn sweep(&self) {
        self.grumbled.store(false, Relaxed);
        self.link.sweep();
    }

    pub async fn claim(&self, room: &RoomName, member: &Member) -> Result<String, Refusal> {
        let mut script = self.claim.prepare_invoke();
        for_names(&mut script, room);
        script.arg(&member.folded).arg(member.owner.to_string());
        script.arg(&member.shown).arg(LEASE.as_millis() as u64);
        self.ask::<Option<String>>(&script)
            .await?
            .ok_or(Code::NameTaken)
    }

    pub async fn release(&self, room: &RoomName, member: &Member) -> Result<(), Refusal> {
        let mut script = self.release.prepare_invoke();
        for_names(&mut script, room);
        script.arg(&member.folded).arg(member.owner.to_string());
        self.ask(&script).await
    }

    pub async fn renew(&self, room: &RoomName, members: &[Arc<Member>]) -> Renewed {
        let mut script = self.renew.prepare_invoke();
        for_names(&mut script, room);
        script.arg(LEASE.as_millis() as u64).arg(LOG_LIFE_S);
        for member in members {
            script.arg(&member.folded).arg(member.owner.to_string());
        }
        let reply: Vec<usize> = self.ask(&script).await?;
        let (log, missing) = reply.split_first().ok_or(Code::Busy)?;
        let missing = missing
            .iter()
            .filter_map(|n| members.get(n.checked_sub(1)?).cloned());
        Ok((*log == 0, missing.collect()))
    }

    pub async fn talk(&self, room: &Room, member: &Member, talk: &Talk) -> Result<Fate, Refusal> {
        let owner = member.owner.to_string();
        let cid = Sha1::from(format!("{owner} {}", talk.cid)).digest();
        let floor = room.floor();
        let key = key(&room.name);
        let mut script = self.talk.prepare_invoke();
        script
            .key(format!("{key}:owners"))
            .key(&key)
            .key(format!("{key}:cid:{cid}"));
        script
            .arg(&member.folded)
            .arg(owner)
            .arg(Said::body(&member.shown, talk));
        script.arg(floor.ms).arg(floor.seq);
        script
            .arg(history::MAX_MESSAGES)
            .arg(LOG_LIFE_S)
            .arg(CID_LIFE_S);
        let (new, id): (bool, String) = self
            .ask::<Option<_>>(&script)
            .await?
            .ok_or(Code::NameTaken)?;
        if new {
            Ok(Fate::Said)
        } else {
            id.parse().map(Fate::Repeated).map_err(|()| Code::Busy)
        }
    }

    /// The names in a room, once every dyno has had time to renew its own.
    pub async fn names(&self, room: &RoomName) -> Result<Names, Refusal> {
        self.link.settled().await;
        let mut con = self.link.connection().ok_or(Code::Busy)?;
        let owners = redis::cmd("HGETALL")
            .arg(format!("{}:owners", key(room)))
            .query_async(&mut con)
            .await;
        owners.map(shown_names).map_err(|e| self.refuse(&e))
    }

    async fn ask<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Refusal> {
        let mut con = self.link.connection().ok_or(Code::Busy)?;
        script
            .invoke_async(&mut con)
            .await
            .map_err(|e| self.refuse(&e))
    }

    /// Whatever went wrong, it may be right in a moment. What was asked may have been done all the
    /// same: that is what cids and leases are for.
    fn refuse(&self, e: &RedisError) -> Refusal {
        if !self.grumbled.swap(true, Relaxed) {
            log::warn!("redis=refused error={:?}", e.to_string());
        }
        Code::Busy
    }
}

fn for_names(script: &mut ScriptInvocation, room: &RoomName) {
    let key = key(room);
    script
        .key(format!("{key}:names"))
        .key(format!("{key}:owners"))
        .key(key);
}
