//! The upkeep of what all dynos share: the leases of those who are here, and the lists of members.
//!
//! Both run as long as the program, whatever the store. A name that is not renewed lapses by itself, so
//! nobody has to clean up after a dyno that was killed.

use std::{mem::take, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc::UnboundedReceiver};
use tokio::time::sleep;

use super::{Bus, Share, Store};
use crate::message::Code;
use crate::room::{Member, Room};

/// From renewal to renewal.
pub const RENEW: Duration = Duration::from_secs(5);
/// Names renewed in one go: bounds how long Redis is busy with it.
const RENEW_AT_ONCE: usize = 100;
/// Commands of the upkeep under way at a time: bounds the replies that wait at Redis for us.
pub const AT_ONCE: usize = 16;
/// A list of members is read once in this time, however often it changes: n joins cost n, not n².
const READ_PAUSE: Duration = Duration::from_secs(1);

impl Bus {
    /// Keeps the leases of everyone who is here.
    pub(super) async fn renew_all(self: Arc<Self>) {
        let mut link = self.link.clone();
        loop {
            let back = tokio::select! {
                biased;
                Ok(()) = link.changed() => true, // names may have lapsed, and nudges been missed
                _ = sleep(RENEW) => false,
            };
            if *link.borrow() {
                self.renew(back).await;
            }
            if let Store::Local(local) = &self.store {
                local.sweep();
            }
        }
    }

    /// Extends the leases of those who are in a room here. A list of members is read if it may have
    /// changed unnoticed: if the link is `back`, or if it is longer or shorter than it is here. Read at
    /// every beat, the lists of many are most of an idle dyno's work.
    async fn renew(&self, back: bool) {
        let (mut shares, mut names) = (Vec::new(), 0);
        for room in self.rooms.all() {
            for members in room.present().chunks(RENEW_AT_ONCE) {
                if names + members.len() > RENEW_AT_ONCE {
                    self.renew_shares(&take(&mut shares)).await;
                    names = 0;
                }
                names += members.len();
                shares.push((room.clone(), members.to_vec()));
            }
            if back {
                self.rooms.nudge(room);
            }
        }
        self.renew_shares(&shares).await;
    }

    /// Renews names in one go: for each room by itself, an idle dyno would do little else. What has
    /// lapsed is claimed again.
    async fn renew_shares(&self, shares: &[Share]) {
        let seen: Vec<_> = shares.iter().map(|(room, _)| room.last()).collect();
        let renewed = match &self.store {
            Store::Local(local) => local.renew(shares),
            Store::Redis(redis) => redis.renew(shares).await,
        };
        let (mut lost, mut changed) = (Vec::new(), Vec::new());
        for (((room, _), seen), renewed) in shares.iter().zip(seen).zip(renewed) {
            let Some(renewed) = renewed else { continue };
            if renewed.log_lost {
                room.lose_log(seen);
            }
            if renewed.count != room.count() {
                changed.push(room.clone());
            }
            let missing = renewed.missing.into_iter();
            lost.extend(missing.map(|member| (room, member)));
        }
        self.claim_again(lost).await;
        changed.into_iter().for_each(|room| self.rooms.nudge(room));
    }

    /// Claims the lapsed names of those who are still here. If somebody else has the name by now, its
    /// former owner has to go.
    async fn claim_again(&self, lost: Vec<(&Arc<Room>, Arc<Member>)>) {
        let claims = stream::iter(lost).for_each_concurrent(AT_ONCE, |(room, member)| async move {
            let here = room.has(&member);
            if here && self.claim(&room.name, &member).await == Err(Code::NameTaken) {
                room.evict(&member);
            }
        });
        claims.await;
    }

    /// Reads the lists of members that may have changed, as they are handed in.
    pub(super) async fn read_lists(self: Arc<Self>, mut nudged: UnboundedReceiver<Arc<Room>>) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        while let Some(room) = nudged.recv().await {
            tokio::spawn(self.clone().read_list(room, turns.clone()));
        }
    }

    /// Reads a list, and again until it has not changed for a while.
    async fn read_list(self: Arc<Self>, room: Arc<Room>, turns: Arc<Semaphore>) {
        while room.take_nudge() {
            let turn = turns.acquire().await; // it is never closed
            let list = match &self.store {
                Store::Local(local) => Ok(local.names(&room.name)),
                Store::Redis(redis) => redis.names(&room.name).await,
            };
            drop(turn);
            if let Ok(list) = list {
                let mut lost = room.present();
                lost.retain(|member| !list.contains_key(&member.name.folded));
                let lost = lost.into_iter().map(|member| (&room, member));
                self.claim_again(lost.collect()).await;
                room.set_members(list);
            }
            sleep(READ_PAUSE).await;
        }
    }
}
