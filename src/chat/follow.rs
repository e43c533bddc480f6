//! Following: how a room gets its messages. One loop: follow, catch up, live, and again.
//!
//! The store ends a room's channel whenever messages may be missing: the link was lost, or the room's channel
//! was full. Start, outage, restart of Redis and a burst that is too large are one case.

use std::sync::atomic::Ordering::Relaxed;
use std::{convert::Infallible, future::poll_fn, time::Duration};

use tokio::time::sleep;

use super::room::Room;
use crate::protocol::{ErrorCode, close_code, outgoing};
use crate::socket::frame;
use crate::store::{Member, Store};

/// After a room could not be followed although the link is up: a key of another type, for instance.
const RETRY: Duration = Duration::from_secs(1);
/// The list of members is read at most once in this time, however often it changes: n joins cost n reads,
/// not n².
const LIST_PAUSE: Duration = Duration::from_secs(1);

/// Keeps a room live, until this future is dropped.
pub async fn follow(store: &Store, room: &Room) -> Infallible {
    let mut up = store.up();
    loop {
        // An error means that there is no sender: in memory the value never changes.
        let _ = up.wait_for(|up| *up).await;
        match room.catch_up(store).await {
            Ok(true) => tokio::select! {
                () = deliver(room) => {}
                never = keep_list(store, room) => match never {},
            },
            Ok(false) => {} // the connections were closed, and resume
            Err(_) => tokio::select! {
                () = sleep(RETRY) => {}
                _ = up.changed() => {}
            },
        }
    }
}

/// Delivers live events until the room's channel ends.
async fn deliver(room: &Room) {
    while poll_fn(|cx| room.poll_deliver(cx)).await {
        tokio::task::yield_now().await;
    }
}

/// Reads the list of members whenever it has changed. Claims again the names that members on this dyno have lost.
/// Where they have lost one, members on other dynos may have, too: the list is sent when those had time to claim.
async fn keep_list(store: &Store, room: &Room) -> Infallible {
    loop {
        room.names_changed.notified().await;
        let mut lost = room.present(); // before the read: a member who joins during it has lost nothing
        let names = store.names(&room.name).await;
        if let Ok(names) = &names {
            lost.retain(|member| !names.contains_key(&member.name.folded));
            for member in lost {
                claim_again(store, room, &member).await;
            }
        }
        let was_lost = room.name_was_lost.swap(false, Relaxed);
        match names {
            Ok(names) if !was_lost => room.set_members(names),
            _ => room.names_changed.notify_one(), // read again after the pause
        }
        sleep(LIST_PAUSE).await;
    }
}

/// Claims a name again that was lost, if the member is still on this dyno. If somebody else has it by now, closes
/// the connections of its former owner.
pub async fn claim_again(store: &Store, room: &Room, member: &Member) {
    if room.conns_of(member).is_empty() {
        return;
    }
    room.name_was_lost.store(true, Relaxed); // before others hear of the claim
    let claimed = store.claim(&room.name, member).await;
    let conns = room.conns_of(member);
    if conns.is_empty() {
        store.release(&room.name, member).await; // the member left meanwhile
    } else if claimed == Err(ErrorCode::NameTaken) {
        let error = frame::text(outgoing::error(&ErrorCode::NameTaken.into()));
        for conn in conns {
            conn.push(&error);
            conn.close(close_code::REFUSED, ErrorCode::NameTaken.word());
        }
    }
}
