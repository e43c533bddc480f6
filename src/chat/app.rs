//! The state that all sessions of a process share.

use std::sync::Arc;

use super::leases::renew_all;
use super::rooms::Rooms;
use crate::store::Store;

pub struct App {
    /// The dyno's name, which is only shown: it is not unique during a restart.
    pub dyno: String,
    /// Random, another one for each start.
    pub boot: String,
    /// Messages per second that a connection may send; 0 means no limit.
    pub talk_per_second: f64,
    pub rooms: Arc<Rooms>,
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
        })
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
