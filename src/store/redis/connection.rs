//! A connection that has passed the readiness check: requests over it, and who follows over it.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisResult};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::followers::Followers;
use super::keys::Keys;
use super::read::{read_names, read_past};
use crate::protocol::Id;
use crate::store::entry::Past;
use crate::store::lease::Names;

/// Streams read at a time: bounds the replies that wait in Redis for this dyno.
const READS: usize = 16;
/// Answers after which the connection is of no use: this Redis cannot be written to, or has forgotten the
/// scripts.
const UNUSABLE: [&str; 6] = [
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "LOADING",
    "MASTERDOWN",
    "NOSCRIPT",
];

/// The beginning of the error when a script lacks a right, which has no code of its own: in Redis 7.0, and in newer
/// versions.
const DENIED_IN_SCRIPT: [&str; 2] = ["The user executing the script", "ACL failure in script"];

pub struct Connection {
    con: MultiplexedConnection,
    pub followers: Arc<Followers>,
    /// Takes the reason why the connection has to be given up; one is enough.
    lost: mpsc::Sender<String>,
    /// After an outage every dyno needs a moment to renew its leases. Until then lists of names miss people.
    pub names_complete_at: Instant,
    reads: Semaphore,
}

impl Connection {
    pub fn new(
        con: MultiplexedConnection,
        followers: Arc<Followers>,
        lost: mpsc::Sender<String>,
        names_complete_at: Instant,
    ) -> Connection {
        Connection {
            con,
            followers,
            lost,
            names_complete_at,
            reads: Semaphore::new(READS),
        }
    }

    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.checked(command.query_async(&mut self.con.clone()).await)
    }

    /// Several commands at once, each with its own answer. There must be at least one.
    pub async fn query_all<T: FromRedisValue>(
        &self,
        commands: &mut Pipeline,
    ) -> RedisResult<Vec<RedisResult<T>>> {
        let replies: Vec<RedisResult<T>> = commands
            .ignore_errors()
            .query_async(&mut self.con.clone())
            .await?;
        Ok(replies
            .into_iter()
            .map(|reply| self.checked(reply))
            .collect())
    }

    /// Subscribes to the room's channel, then reads its stream. In this order: a message that is stored in
    /// between is pushed or read, or both.
    pub async fn subscribe_and_read(&self, keys: &Keys, from: Id) -> RedisResult<Past> {
        let _turn = self.reads.acquire().await.map_err(|_| given_up())?;
        let mut con = self.con.clone();
        self.checked(con.subscribe(&keys.channel).await)?;
        self.checked(read_past(&mut con, keys, from).await)
    }

    pub async fn read_names(&self, keys: &Keys) -> RedisResult<Names> {
        let _turn = self.reads.acquire().await.map_err(|_| given_up())?;
        self.checked(read_names(&mut self.con.clone(), keys).await)
    }

    pub async fn unsubscribe(&self, keys: &Keys) -> RedisResult<()> {
        self.checked(self.con.clone().unsubscribe(&keys.channel).await)
    }

    /// Ends following in all rooms, and fails requests that wait for their turn.
    pub fn give_up(&self) {
        self.followers.clear();
        self.reads.close();
    }

    /// Passes an answer on, and gives the connection up if it is of no use.
    fn checked<T>(&self, reply: RedisResult<T>) -> RedisResult<T> {
        reply.inspect_err(|error| {
            let unusable = error.code().is_some_and(|code| UNUSABLE.contains(&code));
            if unusable || is_denied(error) {
                let _ = self.lost.try_send(error.to_string());
            }
        })
    }
}

/// The user of Redis lacks a right.
pub fn is_denied(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    let in_script = DENIED_IN_SCRIPT.iter().any(|text| detail.starts_with(text));
    in_script || error.code() == Some("NOPERM")
}

fn given_up() -> RedisError {
    (redis::ErrorKind::Io, "connection given up").into()
}
