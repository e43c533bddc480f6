//! The beat: one task that calls on every connection once a second, so that it pings and keeps its
//! deadlines; tells all when Redis goes and comes; and at the end closes them.
//!
//! It knows connections only weakly: a session that ends needs not tell it. One beat for all costs
//! nothing per idle connection, where a timer and a task each would cost more than the socket.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{conn::Conn, frame::code, lock};

/// Connections called on before others get a turn.
const AT_ONCE: usize = 256;
/// Closes are spread over this long, so that the dynos to which all those people come back are not
/// stormed, but a handful of people is not kept waiting either.
const SPREAD: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(20);

#[derive(Default)]
pub struct Beat {
    conns: Mutex<Vec<Weak<Conn>>>,
    draining: AtomicBool,
}

impl Beat {
    /// A beat that goes on as long as the program. `link`: whether Redis is there.
    pub fn start(link: watch::Receiver<bool>) -> Arc<Beat> {
        let beat = Arc::<Beat>::default();
        tokio::spawn(beat.clone().go_on(link));
        beat
    }

    /// Takes a connection in, from its upgrade until it is dropped.
    pub fn register(&self, conn: &Arc<Conn>) {
        lock(&self.conns).push(Arc::downgrade(conn));
        if self.draining.load(Relaxed) {
            conn.close(code::RESTART, "restart"); // came in while the listener was being closed
        }
    }

    async fn go_on(self: Arc<Self>, mut link: watch::Receiver<bool>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = second.tick() => {
                    let up = *link.borrow(); // not held while a connection's lock is awaited
                    self.call_on(|conn| conn.beat(up)).await;
                }
                Ok(()) = link.changed() => self.call_on(|conn| conn.status(&link)).await,
            }
        }
    }

    async fn call_on(&self, call: impl Fn(&Conn)) {
        for conns in self.alive().chunks(AT_ONCE) {
            conns.iter().for_each(|conn| call(conn));
            tokio::task::yield_now().await;
        }
    }

    /// Closes every connection with 1012 and returns when all have been told.
    pub async fn drain(&self) {
        self.draining.store(true, Relaxed);
        disperse(self.alive(), "restart").await;
    }

    /// The living connections, so that nothing is sent under the lock; the others are forgotten.
    fn alive(&self) -> Vec<Arc<Conn>> {
        let mut conns = lock(&self.conns);
        conns.retain(|conn| conn.strong_count() > 0);
        conns.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Closes connections one by one with 1012: they will all come back at once.
pub async fn disperse(conns: Vec<Arc<Conn>>, reason: &'static str) {
    let step = STEP.min(SPREAD / conns.len().max(1) as u32);
    let start = Instant::now();
    for (n, conn) in conns.into_iter().enumerate() {
        sleep((step * n as u32).saturating_sub(start.elapsed())).await;
        conn.close(code::RESTART, reason);
    }
}
