//! From Redis into the rooms: what it pushes, and what is read of a room's log when the room is new
//! here, when the link was away, when lines were dropped.
//!
//! Pushed are `ID BODY`, which was said, `new ID`, the log was started anew with it, and `names`, that
//! someone came or went. The first two are lines of the room's log and keep their order. A room is
//! first subscribed to, then read: what is said in between waits in the room's inbox, in 85 of 100
//! cases at full rate before the rows that were read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::aio::MultiplexedConnection as Connection;
use redis::{ErrorKind, PushInfo, PushKind, RedisResult, ServerErrorKind, Value};
use tokio::{sync::Notify, time::sleep};

use super::{Link, key, shown_names};
use crate::{bus::AT_ONCE, conn::Conn, frame::code, history, message::Id, room::Room};

/// Over this long the connections of a room with a gap are closed.
const SPREAD: Duration = Duration::from_secs(3);

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
        type Reply = (bool, bool, Vec<Vec<u8>>, BTreeMap<Vec<u8>, Vec<u8>>);
        let (key, mut from) = (key(&room.name), room.last());
        loop {
            let mut call = self.history.call(&[&key, &format!("{key}:owners")]);
            call.arg(from.to_string());
            call.arg(history::MAX_MESSAGES).arg(history::MAX_BYTES);
            let reply: RedisResult<Reply> = self.history.run(&call, &mut con).await;
            let (whole, more, lines, owners) = match reply.map_err(|e| (e.kind(), e)) {
                Ok(reply) => reply,
                // Wrong with this room alone, a key of another type for instance: tried again.
                Err((ErrorKind::Server(kind), e)) if kind != ServerErrorKind::BusyLoading => {
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
            let (up, cut) = room.catch_up(&lines, whole, more);
            if !cut.is_empty() {
                tokio::spawn(close_spread(cut));
            }
            if up {
                self.clone().deliver(room).await;
                return Ok(());
            }
            // On behind what was read, garbage too, or that would be read for ever.
            let read = lines.last().filter(|_| whole).and_then(|line| id_of(line));
            from = room.last().max(read.unwrap_or_default());
        }
    }
}

/// The id that a line begins with, whatever comes behind it.
fn id_of(line: &[u8]) -> Option<Id> {
    Id::parse(str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?)
}

fn name_in(channel: &[u8]) -> Option<&str> {
    let text = str::from_utf8(channel).ok()?;
    text.strip_prefix("chat:{")?.strip_suffix('}')
}

/// Tells connections to resume, one by one, for they will all come to the same dynos.
async fn close_spread(conns: Vec<Arc<Conn>>) {
    let pause = SPREAD / conns.len().max(1) as u32;
    for conn in conns {
        conn.close(code::RESTART, "resume");
        sleep(pause).await;
    }
}
