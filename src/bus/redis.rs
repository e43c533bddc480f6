//! The bus in Redis: each question is one script, on the one connection that `link.rs` keeps. While
//! there is none, every question fails at once with `busy`.
//!
//! Keys, the braces literal so that a room lives in one slot: `chat:{room}` is the stream and the
//! channel, `:names` who has a name until when, `:owners` whose it is, `:cid:OWNER:CID` what was
//! said lately. All expire. The scripts say what they do with them.

use std::sync::Arc;

use redis::{Client, Cmd, FromRedisValue, RedisResult};
use tokio::time::sleep_until;

use super::link::{Link, key, shown_names};
use super::script::Script;
use super::{LEASE, Names, Renewed, Said, Share};
use crate::message::{Code, Id};
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

    pub async fn claim(&self, room: &RoomName, member: &Member) -> Result<String, Code> {
        let mut call = for_names(&self.claim, room);
        call.arg(owned(member)).arg(&member.name.shown);
        call.arg(LEASE.as_millis() as u64);
        let shown: Option<String> = self.ask(&self.claim, &call).await?;
        shown.ok_or(Code::NameTaken)
    }

    pub async fn release(&self, room: &RoomName, member: &Member) {
        let mut call = for_names(&self.release, room);
        let call = call.arg(owned(member));
        let _: Result<(), _> = self.ask(&self.release, call).await; // or its lease runs out
    }

    /// Renews the names of many rooms in one go. Without the names of a room where that failed.
    pub async fn renew(&self, shares: &[Share]) -> Vec<Option<Renewed>> {
        let connection = self.link.connection().filter(|_| !shares.is_empty());
        let Some((mut con, _)) = connection else {
            return Vec::new();
        };
        let mut calls = redis::pipe();
        calls.ignore_errors();
        calls.add_command(self.renew.load()).ignore(); // known or not: one for up to 100 names
        for (room, members) in shares {
            let mut call = for_names(&self.renew, &room.name);
            call.arg(LEASE.as_millis() as u64).arg(LOG_LIFE_S);
            for member in members {
                call.arg(owned(member));
            }
            calls.add_command(call);
        }
        type Reply = RedisResult<Vec<usize>>;
        let replies: RedisResult<Vec<Reply>> = calls.query_async(&mut con).await;
        let replies = self.answer(replies).unwrap_or_default();
        let renewed = |(reply, (_, members)): (Reply, &Share)| {
            let reply = self.answer(reply).ok()?;
            let [log, count, missing @ ..] = &reply[..] else {
                return None;
            };
            let member = |n: &usize| members.get(n.checked_sub(1)?).cloned();
            Some(Renewed {
                log_lost: *log == 0,
                count: *count,
                missing: missing.iter().filter_map(member).collect(),
            })
        };
        replies.into_iter().zip(shares).map(renewed).collect()
    }

    pub async fn talk(&self, room: &Room, member: &Member, cid: &str, body: &str) -> Said {
        let (key, id) = (key(&room.name), history::next(room.floor()).to_string());
        let cid = [&key, ":cid:", &member.owner, ":", cid].concat();
        let owners = [&key, ":owners"].concat();
        let mut call = self.talk.call(&[&owners, &key, &cid]);
        call.arg(owned(member)).arg(body).arg(id);
        call.arg(history::MAX_MESSAGES)
            .arg(LOG_LIFE_S)
            .arg(CID_LIFE_S);
        let said: Option<String> = self.ask(&self.talk, &call).await?;
        Ok(Id::parse(&said.ok_or(Code::NameTaken)?))
    }

    /// The names in a room, once every dyno has had time to renew its own.
    pub async fn names(&self, room: &RoomName) -> Result<Names, Code> {
        let (mut con, settled) = self.link.connection().ok_or(Code::Busy)?;
        sleep_until(settled).await;
        let mut ask = redis::cmd("HGETALL");
        ask.arg(format!("{}:owners", key(room)));
        let owners = self.answer(ask.query_async(&mut con).await)?;
        Ok(shown_names(owners))
    }

    async fn ask<T: FromRedisValue>(&self, script: &Script, call: &Cmd) -> Result<T, Code> {
        let (mut con, _) = self.link.connection().ok_or(Code::Busy)?;
        self.answer(script.run(call, &mut con).await)
    }

    /// Whatever went wrong may be right in a moment. What was asked may have been done all the same:
    /// that is what cids and leases are for.
    fn answer<T>(&self, reply: RedisResult<T>) -> Result<T, Code> {
        reply.map_err(|e| {
            if self.refused.is_new() {
                log::warn!("redis=refused error={:?}", e.to_string());
            }
            Code::Busy
        })
    }
}

fn for_names(script: &Script, room: &RoomName) -> Cmd {
    let key = key(room);
    script.call(&[&format!("{key}:names"), &format!("{key}:owners"), &key])
}

/// A name and whose it is, as two arguments.
fn owned(member: &Member) -> (&str, &str) {
    (&member.name.folded, &member.owner)
}
