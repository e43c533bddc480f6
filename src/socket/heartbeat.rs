//! A task that visits every connection once a second, to send the heartbeat and check deadlines.
//!
//! One task for all connections: a timer for each would take more memory than the rest of an idle
//! connection. It holds weak references, so a session that ends need not unregister.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use super::conn::Conn;
use crate::lock::lock;

/// Connections visited before other tasks get a turn.
const CHUNK: usize = 256;

#[derive(Default)]
pub struct Heartbeat {
    conns: Mutex<Vec<Weak<Conn>>>,
}

impl Heartbeat {
    /// Starts the task, which runs as long as the program. `frames` gives what a connection is sent at a
    /// heartbeat.
    pub fn start(frames: impl Fn() -> Bytes + Send + 'static) -> Arc<Heartbeat> {
        let heartbeat = Arc::<Heartbeat>::default();
        tokio::spawn(heartbeat.clone().run(frames));
        heartbeat
    }

    /// Visits `conn` from now on, until it is dropped.
    pub fn register(&self, conn: &Arc<Conn>) {
        lock(&self.conns).push(Arc::downgrade(conn));
    }

    /// The connections that exist now.
    pub fn conns(&self) -> Vec<Arc<Conn>> {
        let mut conns = lock(&self.conns);
        conns.retain(|conn| conn.strong_count() > 0);
        conns.iter().filter_map(Weak::upgrade).collect()
    }

    async fn run(self: Arc<Self>, frames: impl Fn() -> Bytes) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            second.tick().await;
            let frames = frames();
            for conns in self.conns().chunks(CHUNK) {
                conns.iter().for_each(|conn| conn.on_second(&frames));
                tokio::task::yield_now().await;
            }
        }
    }
}
