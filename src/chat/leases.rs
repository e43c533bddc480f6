//! Renews the leases of the members on this dyno. A lease that is not renewed ends by itself, so nobody
//! has to clean up after a dyno that was killed.

use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use super::follow::claim_again;
use super::room::Room;
use super::rooms::Rooms;
use crate::store::{Member, Renewal};

/// From renewal to renewal.
const RENEW: Duration = Duration::from_secs(5);
/// Names renewed in one request: bounds how long Redis is busy with it. One request per room would take
/// most of an idle dyno's CPU.
const BATCH: usize = 100;
/// Lost names claimed again at a time.
const CLAIMS: usize = 16;

/// Renews all leases every 5 s, and at once when Redis is back: leases may have ended meanwhile.
pub async fn renew_all(rooms: Arc<Rooms>) {
    let mut up = rooms.store.up();
    loop {
        tokio::select! {
            biased;
            Ok(()) = up.changed() => {}
            () = sleep(RENEW) => {}
        }
        if *up.borrow() {
            renew(&rooms).await;
        }
    }
}

async fn renew(rooms: &Rooms) {
    let (mut batch, mut names) = (Vec::new(), 0);
    for room in rooms.all() {
        for members in room.present().chunks(BATCH) {
            if names + members.len() > BATCH {
                renew_batch(rooms, take(&mut batch)).await;
                names = 0;
            }
            names += members.len();
            batch.push((room.clone(), members.to_vec()));
        }
    }
    renew_batch(rooms, batch).await;
}

async fn renew_batch(rooms: &Rooms, batch: Vec<(Arc<Room>, Vec<Arc<Member>>)>) {
    let renewal = |(room, members): &(Arc<Room>, Vec<_>)| Renewal {
        room: room.name.clone(),
        members: members.clone(),
    };
    let renewals: Vec<_> = batch.iter().map(renewal).collect();
    let lost = rooms.store.renew(&renewals).await;
    let lost = batch
        .iter()
        .zip(lost)
        .flat_map(|((room, _), lost)| lost.into_iter().map(move |member| (room, member)));
    let claims = stream::iter(lost).for_each_concurrent(CLAIMS, async |(room, member)| {
        claim_again(&rooms.store, room, &member).await;
    });
    claims.await;
}
