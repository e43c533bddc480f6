//! The bus in Redis: each question is one script, on the one connection that `link.rs` keeps. While
//! there is none, every question fails at once with `busy`.
//!
//! Keys, the braces literal so that a room lives in one slot: `chat:{room}` is the stream and the
//! channel, `:names` who has a name until when, `:owners` whose it is, `:cid:HASH` what was said
//! lately. All expire. The scripts say what they do with them.

use std::sync::Arc;

use redis::{Client, FromRedisValue, RedisResult, Script, ScriptInvocation};
use sha1_smol::Sha1;
use tokio::time::sleep_until;

use super::link::{Link, key, shown_names};
use super::{LEASE, Names, Refusal, Renewed, Said};
use crate::message::{self, Code, Id, Talk};
use crate::room::{Member, Room};
use crate::{bucket::Minute, history, name::RoomName, rooms::Rooms};

/// A room's log lives this long after its last message or renewal.
const LOG_LIFE_S: u32 = 24 * 60 * 60;
/// How long a resend is recognised.
const CID_LIFE_S: u32 = 120;

pub struct Redis {
    pub link: Arc<Link>,
    claim: Script,
    renew: Script,
    release: Script,
    talk: Script,
    /// One line is enough for all that fails in a minute.
    refused: Minute,
}

impl Redis {
    pub fn start(client: Client, rooms: &Arc<Rooms>) -> Redis {
        Redis {
            link: Link::start(client, rooms.clone()),
            claim: Script::new(include_str!("claim.lua")),
            renew: Script::new(include_str!("renew.lua")),
            release: Script::new(include_str!("release.lua")),
            talk: Script::new(include_str!("talk.lua")),
            refused: Minute::default(),
        }
    }

    pub async fn claim(&self, room: &RoomName, member: &Member) -> Result<String, Refusal> {
        let mut script = for_names(&self.claim, room);
        script.arg(owned(member)).arg(&member.name.shown);
        script.arg(LEASE.as_millis() as u64);
        let shown: Option<String> = self.ask(&script).await?;
        shown.ok_or(Code::NameTaken)
    }

    pub async fn release(&self, room: &RoomName, member: &Member) {
        let mut script = for_names(&self.release, room);
        let _: Result<(), _> = self.ask(script.arg(owned(member))).await; // or its lease runs out
    }

    pub async fn renew(&self, room: &RoomName, members: &[Arc<Member>]) -> Renewed {
        let mut script = for_names(&self.renew, room);
        script.arg(LEASE.as_millis() as u64).arg(LOG_LIFE_S);
        for member in members {
            script.arg(owned(member));
        }
        let reply: Vec<usize> = self.ask(&script).await?;
        let [log, count, missing @ ..] = &reply[..] else {
            return Err(Code::Busy);
        };
        let member = |n: &usize| members.get(n.checked_sub(1)?).cloned();
        Ok((
            *log == 0,
            *count,
            missing.iter().filter_map(member).collect(),
        ))
    }

    pub async fn talk(&self, room: &Room, member: &Member, talk: &Talk) -> Said {
        let (key, floor) = (key(&room.name), room.floor());
        let cid = Sha1::from(format!("{} {}", member.owner, talk.cid)).digest();
        let mut script = self.talk.key(format!("{key}:owners"));
        script.key(&key).key(format!("{key}:cid:{cid}"));
        let body = message::body(&member.name.shown, &talk.message, &talk.cid);
        script.arg(owned(member)).arg(body);
        script.arg(floor.0).arg(floor.1).arg(history::MAX_MESSAGES);
        script.arg(LOG_LIFE_S).arg(CID_LIFE_S);
        let said: Option<String> = self.ask(&script).await?;
        Ok(Id::parse(&said.ok_or(Code::NameTaken)?))
    }

    /// The names in a room, once every dyno has had time to renew its own.
    pub async fn names(&self, room: &RoomName) -> Result<Names, Refusal> {
        let (mut con, settled) = self.link.connection().ok_or(Code::Busy)?;
        sleep_until(settled).await;
        let mut ask = redis::cmd("HGETALL");
        ask.arg(format!("{}:owners", key(room)));
        let owners = self.answer(ask.query_async(&mut con).await)?;
        Ok(shown_names(owners))
    }

    async fn ask<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Refusal> {
        let (mut con, _) = self.link.connection().ok_or(Code::Busy)?;
        self.answer(script.invoke_async(&mut con).await)
    }

    /// Whatever went wrong may be right in a moment. What was asked may have been done all the same:
    /// that is what cids and leases are for.
    fn answer<T>(&self, reply: RedisResult<T>) -> Result<T, Refusal> {
        reply.map_err(|e| {
            if self.refused.is_new() {
                log::warn!("redis=refused error={:?}", e.to_string());
            }
            Code::Busy
        })
    }
}

fn for_names<'a>(script: &'a Script, room: &RoomName) -> ScriptInvocation<'a> {
    let key = key(room);
    let mut script = script.key(format!("{key}:names"));
    script.key(format!("{key}:owners")).key(key);
    script
}

/// A name and whose it is, as two arguments.
fn owned(member: &Member) -> (&str, &str) {
    (&member.name.folded, &member.owner)
}
