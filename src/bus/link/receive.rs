//! What Redis pushes: on its way from the connection into the rooms.
//!
//! `ID BODY` was said, `new ID` says that the log was started anew with it, `names` that someone came
//! or went. The first two are lines of the room's log and keep their order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::Link;
use crate::room::Room;

impl Link {
    /// Takes what Redis pushes. It runs within the connection's own task and so must not wait: lines
    /// are put into the room's inbox, and someone is asked to deliver them.
    pub(super) fn receiver(
        self: &Arc<Self>,
        alive: Arc<AtomicBool>,
        broken: Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), ()> + use<> {
        let link = self.clone();
        move |push| {
            match (push.kind, <[Value; 2]>::try_from(push.data)) {
                _ if !alive.load(Relaxed) => {} // what a dropped connection still brings
                (PushKind::Disconnection, _) => broken.notify_one(),
                (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(line)])) => {
                    let Some(room) = name_in(&channel).and_then(|name| link.rooms.get(name)) else {
                        return Ok(()); // swept, and not yet unsubscribed from
                    };
                    if line == b"names" {
                        link.rooms.nudge(&room);
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
    pub(super) async fn deliver(self: Arc<Self>, room: Arc<Room>) {
        while room.deliver() {
            tokio::task::yield_now().await;
        }
        if room.lost_lines() {
            self.read(room);
        }
    }
}

fn name_in(channel: &[u8]) -> Option<&str> {
    str::from_utf8(channel)
        .ok()?
        .strip_prefix("chat:{")?
        .strip_suffix('}')
}
