//! The store in Redis: leases and talk are a script each, the rest are plain commands, all on the one
//! connection that `link.rs` keeps. While the link is down, every request fails at once with `busy`.

mod connection;
mod followers;
mod keys;
mod link;
mod read;
mod readiness;
mod script;
mod server_info;

use std::{sync::Arc, time::Duration};

use redis::{Client, Cmd, RedisResult};
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use self::keys::Keys;
use self::link::Link;
pub use self::link::client;
use super::entry::{CID_LIFE, Stored, Talk};
use super::follower::Following;
use super::lease::{LEASE, Member, Names, Renewal};
use crate::log_throttle::LogThrottle;
use crate::protocol::{ErrorCode, Id, RoomName};

/// A room's stream lives this long after its last message or renewal.
const STREAM_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Redis {
    link: Arc<Link>,
    failed: LogThrottle,
}

impl Redis {
    pub fn start(client: Client) -> Redis {
        Redis {
            link: Link::start(client),
            failed: LogThrottle::default(),
        }
    }

    pub fn up(&self) -> watch::Receiver<bool> {
        self.link.up()
    }

    pub async fn claim(&self, room: &RoomName, member: &Member) -> Result<String, ErrorCode> {
        let mut call = self.lease_call("claim", room);
        add_member(&mut call, member);
        let reply = self.link.connection()?.query(&call).await;
        let shown: Option<String> = self.answered(reply)?;
        shown.ok_or(ErrorCode::NameTaken)
    }

    /// Names whose renewal failed do not count as lost.
    pub async fn renew(&self, renewals: &[Renewal]) -> Vec<Vec<Arc<Member>>> {
        let connection = self.link.connection().ok().filter(|_| !renewals.is_empty());
        let Some(connection) = connection else {
            return Vec::new();
        };
        let mut calls = redis::pipe();
        for renewal in renewals {
            let mut call = self.lease_call("renew", &renewal.room);
            for member in &renewal.members {
                add_member(&mut call, member);
            }
            calls.add_command(call);
        }
        let replies = connection.query_all::<Vec<usize>>(&mut calls).await;
        let replies = self.answered(replies).unwrap_or_default();
        let lost = |(reply, renewal): (RedisResult<Vec<usize>>, &Renewal)| {
            let positions = self.answered(reply).unwrap_or_default().into_iter();
            let member = |n: usize| renewal.members.get(n.checked_sub(1)?).cloned();
            positions.filter_map(member).collect()
        };
        replies.into_iter().zip(renewals).map(lost).collect()
    }

    pub async fn release(&self, room: &RoomName, member: &Member) {
        let mut call = self.lease_call("release", room);
        add_member(&mut call, member);
        if let Ok(connection) = self.link.connection() {
            let _: Result<(), _> = self.answered(connection.query(&call).await);
        }
    }

    /// Waits after an outage until every dyno has had time to renew its leases.
    pub async fn names(&self, room: &RoomName) -> Result<Names, ErrorCode> {
        let connection = self.link.connection()?;
        sleep_until(connection.names_complete_at).await;
        self.answered(connection.read_names(&self.keys(room)).await)
    }

    pub async fn talk(&self, talk: &Talk<'_>) -> Result<Stored, ErrorCode> {
        let keys = self.keys(talk.room);
        let cid = keys.cid(&talk.member.owner, talk.cid);
        let script = &self.link.scripts.talk;
        let mut call = script.call(&[&keys.owners, &keys.stream, &cid]);
        call.arg(&keys.channel).arg(&talk.member.name.folded);
        call.arg(&talk.member.owner).arg(talk.body).arg(talk.keep);
        call.arg(STREAM_LIFE.as_secs()).arg(CID_LIFE.as_secs());
        let reply: RedisResult<Vec<String>> = self.link.connection()?.query(&call).await;
        match &self.answered(reply)?[..] {
            [word, id] => match (&word[..], Id::parse(id)) {
                ("stored", Some(id)) => Ok(Stored::New(id)),
                ("duplicate", Some(id)) => Ok(Stored::Duplicate(id)),
                _ => Err(ErrorCode::Busy),
            },
            _ => Err(ErrorCode::NameTaken),
        }
    }

    pub async fn follow(
        &self,
        room: &RoomName,
        from: Id,
        names_changed: Arc<Notify>,
    ) -> Result<Following, ErrorCode> {
        let keys = self.keys(room);
        let (connection, events) = self.link.open_channel(&keys.channel, from, names_changed)?;
        let past = self.answered(connection.subscribe_and_read(&keys, from).await)?;
        Ok(Following { past, events })
    }

    pub async fn unfollow(&self, room: &RoomName) {
        let keys = self.keys(room);
        if let Ok(connection) = self.link.connection() {
            connection.followers.remove(&keys.channel);
            let _ = self.answered(connection.unsubscribe(&keys).await);
        }
    }

    fn keys(&self, room: &RoomName) -> Keys {
        self.link.keys(room.as_str())
    }

    fn lease_call(&self, verb: &str, room: &RoomName) -> Cmd {
        let keys = self.keys(room);
        let script = &self.link.scripts.lease;
        let mut call = script.call(&[&keys.names, &keys.owners, &keys.stream]);
        call.arg(&keys.channel)
            .arg(verb)
            .arg(LEASE.as_millis() as u64)
            .arg(STREAM_LIFE.as_secs());
        call
    }

    /// Every error of Redis becomes `busy`. The command may have been executed all the same: cids and
    /// leases make a retry safe.
    fn answered<T>(&self, reply: RedisResult<T>) -> Result<T, ErrorCode> {
        reply.map_err(|error| {
            if self.failed.is_due() {
                log::warn!("redis=refused error={:?}", error.to_string());
            }
            ErrorCode::Busy
        })
    }
}

fn add_member(call: &mut Cmd, member: &Member) {
    call.arg(&member.name.folded)
        .arg(&member.owner)
        .arg(&member.name.shown);
}
