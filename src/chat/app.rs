//! The state that all sessions of a process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::watch;

use super::leases::renew_all;
use super::rooms::Rooms;
use crate::store::Store;

/// For each connection that a dyno had, its pages spread their reconnects over this long.
const SPREAD_MS: usize = 3;
/// A handful of people is back at once.
const MIN_SPREAD_MS: usize = 100;
const MAX_SPREAD_MS: usize = 10_000;

/// The phases of a dyno, in this order.
#[derive(Clone, Copy, PartialEq)]
pub enum Phase {
    Serving,
    /// It serves as before, and asks its pages to move to another dyno.
    Moving,
    /// It closes all connections.
    Closing,
}

pub struct App {
    /// The dyno's name, which is only shown: it is not unique during a restart.
    pub dyno: String,
    /// Random, another one for each start.
    pub boot: String,
    /// Messages per second that a connection may send; 0 means no limit.
    pub talk_per_second: f64,
    pub rooms: Arc<Rooms>,
    pub phase: watch::Sender<Phase>,
    /// The highest number of connections so far.
    pub most_connections: AtomicUsize,
}

impl App {
    /// Starts the renewal of leases, which runs as long as the program.
    pub fn start(dyno: String, talk_per_second: f64, store: Store) -> Arc<App> {
        let rooms = Rooms::new(store);
        tokio::spawn(renew_all(rooms.clone()));
        Arc::new(App {
            dyno,
            boot: format!("{:016x}", rand::random::<u64>()),
            talk_per_second,
            rooms,
            phase: watch::Sender::new(Phase::Serving),
            most_connections: AtomicUsize::new(0),
        })
    }

    /// Over how many milliseconds a page spreads its first try after its connection ended unexpectedly.
    pub fn spread_ms(&self) -> usize {
        let spread_ms = SPREAD_MS * self.most_connections.load(Relaxed);
        spread_ms.clamp(MIN_SPREAD_MS, MAX_SPREAD_MS)
    }

    /// `none`, `up` or `down`.
    pub fn redis_status(&self) -> &'static str {
        match &self.rooms.store {
            Store::Memory(_) => "none",
            store if *store.up().borrow() => "up",
            _ => "down",
        }
    }
}
