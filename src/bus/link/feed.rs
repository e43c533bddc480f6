//! From Redis into the rooms: what it pushes, and what is read of a room's log when the room is new
//! here, when the link was away, when lines were dropped.
//!
//! Pushed are `ID BODY`, which was said, `new ID`, the log was started anew with it, and `names`, that
//! someone came or went. The first two are lines of the room's log and keep their order. A room is
//! first subscribed to, then read: what is said in between waits in the room's inbox, in 85 of 100
//! cases at full rate before the rows that were read.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::aio::MultiplexedConnection as Connection;
use redis::{ErrorKind, PushInfo, PushKind, RedisResult, ServerErrorKind, Value};
use tokio::sync::Notify;

use super::{Link, key, shown_names};
use crate::{beat, bus::AT_ONCE, history, message::Id, room::Room};

/// Redis has not read its own data yet: it knows nothing of any room.
const LOADING: ErrorKind = ErrorKind::Server(ServerErrorKind::BusyLoading);

impl Link {
    /// Takes what Redis pushes, and tells when the connection is `broken`. It runs within the
    /// connection's own task and must not wait: lines go into inboxes, for others to deliver.
    pub(super) fn receiver(
        self: &Arc<Self>,
        broken: &Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), ()> + use<> {
        let (link, broken) = (self.clone(), Arc::downgrade(broken));
        move |push| {
            let Some(broken) = broken.upgrade() else {
                return Ok(()); // what a connection still brings that has been given up
            };
            match (push.kind, <[Value; 2]>::try_from(push.data)) {
                (PushKind::Disconnection, _) => broken.notify_one(),
                (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(line)])) => {
                    let Some(room) = name_in(&channel).and_then(|name| link.rooms.get(name)) else {
                        return Ok(()); // swept, and not yet unsubscribed from
                    };
                    if line == b"names" {
                        link.rooms.nudge(room);
                    } else if room.gather(line) {
                        tokio::spawn(link.clone().deliver(room));
                    }
                }
                _ => {} // answers to SUBSCRIBE, and kinds that later versions may bring
            }
            Ok(())
        }
    }

    /// Hands out what has gathered for a room, a batch at a time.
    async fn deliver(self: Arc<Self>, room: Arc<Room>) {
        while room.deliver() {
            tokio::task::yield_now().await;
        }
        if room.lost_lines() {
            self.read(room);
        }
    }

    /// Subscribes to rooms, then reads their logs.
    pub(super) async fn read_logs(
        self: &Arc<Self>,
        con: &mut Connection,
        rooms: &[Arc<Room>],
    ) -> RedisResult<()> {
        let keys: Vec<_> = rooms.iter().map(|room| key(&room.name)).collect();
        con.subscribe(keys).await?;
        let read = |room: &Arc<Room>| self.read_log(con.clone(), room.clone());
        let reads = stream::iter(rooms.iter().map(read).collect::<Vec<_>>());
        reads.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Where the log no longer holds what the room saw last, everyone in it has to resume.
    async fn read_log(self: &Arc<Self>, mut con: Connection, room: Arc<Room>) -> RedisResult<()> {
        type Owners = BTreeMap<Vec<u8>, Vec<u8>>;
        type Reply = (bool, Option<String>, Vec<Vec<u8>>, Owners, String);
        let (key, mut from) = (key(&room.name), room.last().to_string());
        loop {
            let mut call = self.history.call(&[&key, &format!("{key}:owners")]);
            call.arg(&from);
            call.arg(history::MAX_MESSAGES).arg(history::MAX_BYTES);
            let reply: RedisResult<Reply> = self.history.run(&call, &mut con).await;
            let (whole, more, lines, owners, newest) = match reply.map_err(|e| (e.kind(), e)) {
                Ok(reply) => reply,
                Err((LOADING, e)) => return Err(e),
                // Wrong with this room alone, a key of another type for instance: tried again.
                Err((ErrorKind::Server(_) | ErrorKind::Extension, e)) => {
                    if self.refused.is_new() {
                        let room = room.name.as_str();
                        log::warn!("room={room:?} unread error={:?}", e.to_string());
                    }
                    return Ok(());
                }
                Err((_, e)) => return Err(e),
            };
            if room.is_empty() {
                room.set_members(shown_names(owners));
            }
            let newest = Id::parse(&newest).unwrap_or_default();
            let cut = room.catch_up(&lines, whole, more.is_some(), newest);
            if !cut.is_empty() {
                tokio::spawn(beat::disperse(cut, "resume"));
            }
            if !room.is_behind() {
                self.clone().deliver(room).await;
                return Ok(());
            }
            // On behind what was read, garbage too, or that would be read for ever.
            from = more.filter(|_| whole).unwrap_or(room.last().to_string());
        }
    }
}

fn name_in(channel: &[u8]) -> Option<&str> {
    let text = str::from_utf8(channel).ok()?;
    text.strip_prefix("chat:{")?.strip_suffix('}')
}
