//! The beat: one task that pings every connection, keeps its deadlines, tells it when Redis goes and
//! comes, and at the end closes them all.
//!
//! It knows connections only weakly: a session that ends needs not tell it. One wheel for all costs
//! nothing per idle connection, where a timer and a task each would cost more than the socket.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    conn::{Conn, lock},
    frame::{self, code},
};

/// Seconds from ping to ping: twice within the router's 55 s of silence.
pub const PING: usize = 25;
/// A restart's Closes are spread over this long, so that the sibling dynos are not stormed, but a
/// handful of people is not kept waiting either.
const DRAIN: Duration = Duration::from_secs(4);
const DRAIN_STEP: Duration = Duration::from_millis(20);

pub struct Beat {
    /// A slot for each second of the period; a connection is pinged in the second it came in.
    slots: [Mutex<Vec<Weak<Conn>>>; PING],
    hand: AtomicUsize,
    draining: AtomicBool,
    /// Whether Redis is there, for those who come in while it is not.
    link: watch::Receiver<bool>,
}

impl Beat {
    /// A wheel that turns as long as the program runs. `link`: whether Redis is there.
    pub fn start(link: watch::Receiver<bool>) -> Arc<Beat> {
        let (slots, hand, draining) = Default::default();
        let beat = Arc::new(Beat {
            slots,
            hand,
            draining,
            link,
        });
        tokio::spawn(beat.clone().turn());
        beat
    }

    /// Takes a connection into the wheel, from its upgrade until it is dropped.
    pub fn register(&self, conn: &Arc<Conn>) {
        lock(&self.slots[self.hand.load(Relaxed)]).push(Arc::downgrade(conn));
        if self.draining.load(Relaxed) {
            conn.close(code::RESTART, "restart"); // came in while the listener was being closed
        }
        if !*self.link.borrow() {
            conn.status(false);
        }
    }

    async fn turn(self: Arc<Self>) {
        let mut link = self.link.clone();
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = second.tick() => self.beat().await,
                Ok(()) = link.changed() => {
                    let up = *link.borrow_and_update();
                    self.slots.iter().flat_map(alive).for_each(|conn| conn.status(up));
                }
            }
        }
    }

    async fn beat(&self) {
        let up = *self.link.borrow();
        let now = (self.hand.load(Relaxed) + 1) % PING;
        for (slot, conns) in self.slots.iter().enumerate() {
            lock(conns).retain(|conn| conn.strong_count() > 0);
            for conn in alive(conns) {
                conn.sweep(up);
                if slot == now {
                    conn.push(&frame::BEAT);
                }
            }
            tokio::task::yield_now().await;
        }
        self.hand.store(now, Relaxed); // only now: who came in meanwhile has just begun its period
    }

    /// Closes every connection with 1012 and returns when all have been told.
    pub async fn drain(&self) {
        self.draining.store(true, Relaxed);
        let conns: Vec<_> = self.slots.iter().flat_map(alive).collect();
        let step = DRAIN_STEP.min(DRAIN / conns.len().max(1) as u32);
        let start = Instant::now();
        for (n, conn) in conns.into_iter().enumerate() {
            sleep((step * n as u32).saturating_sub(start.elapsed())).await;
            conn.close(code::RESTART, "restart");
        }
    }
}

/// The living connections of a slot, so that nothing is sent under its lock.
fn alive(slot: &Mutex<Vec<Weak<Conn>>>) -> Vec<Arc<Conn>> {
    lock(slot).iter().filter_map(Weak::upgrade).collect()
}
