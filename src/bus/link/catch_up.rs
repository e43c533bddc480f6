//! Reading a room's log: when the room is new here, when the link was away, when lines were dropped.
//!
//! First subscribe, then read: what is said in between comes by push and waits in the room's inbox,
//! in 85 of 100 cases at full rate before the rows that were read. Where the log no longer holds what
//! the room saw last, everyone in it has to resume and is told of the gap.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{ErrorKind, RedisResult, ServerErrorKind, aio::MultiplexedConnection};
use tokio::time::sleep;

use super::{Link, key, shown_names};
use crate::{bus::AT_ONCE, conn::Conn, frame::code, history, room::Room};

/// Over this long the connections of a room with a gap are closed.
const SPREAD: Duration = Duration::from_secs(3);

impl Link {
    /// Subscribes to rooms, then reads their logs: what is said in between comes by push.
    pub(super) async fn read_logs(
        self: &Arc<Self>,
        con: &mut MultiplexedConnection,
        rooms: &[Arc<Room>],
    ) -> RedisResult<()> {
        if rooms.is_empty() {
            return Ok(());
        }
        con.subscribe(rooms.iter().map(|room| key(&room.name)).collect::<Vec<_>>())
            .await?;
        let rooms = rooms.iter().cloned();
        let reads = rooms.map(|room| self.read_log(con.clone(), room));
        stream::iter(reads)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn read_log(
        self: &Arc<Self>,
        mut con: MultiplexedConnection,
        room: Arc<Room>,
    ) -> RedisResult<()> {
        type Reply = (bool, bool, Vec<Vec<u8>>, BTreeMap<String, String>);
        let key = key(&room.name);
        loop {
            let mut script = self.history.prepare_invoke();
            script
                .key(&key)
                .key(format!("{key}:owners"))
                .arg(room.last().to_string());
            script.arg(history::MAX_MESSAGES).arg(history::MAX_BYTES);
            let (whole, more, lines, owners): Reply = match script.invoke_async(&mut con).await {
                Ok(reply) => reply,
                Err(e) => match e.kind() {
                    // Wrong with this room alone, a key of another type for instance: tried again.
                    ErrorKind::Server(kind) if kind != ServerErrorKind::BusyLoading => {
                        log::warn!(
                            "room={:?} unread error={:?}",
                            room.name.as_str(),
                            e.to_string()
                        );
                        return Ok(());
                    }
                    _ => return Err(e),
                },
            };
            if room.empty_since().is_some() {
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
        }
    }
}

/// Tells connections to resume, one by one, for they will all come to the same dynos.
async fn close_spread(conns: Vec<Arc<Conn>>) {
    let pause = SPREAD / conns.len().max(1) as u32;
    for conn in conns {
        conn.close(code::RESTART, "resume");
        sleep(pause).await;
    }
}
