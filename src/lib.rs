//! dynochat: a chat over WebSockets for a platform that cuts idle connections, runs many processes
//! and restarts them every day.
//!
//! A browser's request comes in through `server`, becomes a `session`, and what it says goes to
//! the `bus`: Redis, or this process alone. From there it comes back into the `room`, on this dyno
//! and on every other, and out through each `conn`.

#![forbid(unsafe_code)]

mod beat;
mod bucket;
mod bus;
pub mod config;
mod conn;
pub mod frame;
mod history;
pub mod http;
mod inbox;
pub mod message;
pub mod name;
mod outbox;
pub mod reader;
mod room;
mod rooms;
mod server;
mod session;
mod web;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed};
use std::time::Duration;

use tokio::{net::TcpListener, time::interval};

use crate::{bus::Bus, config::Config, server::Server, session::Dyno};

pub use crate::server::listen;

const METRICS: Duration = Duration::from_secs(60);

/// Serves on `listener` until `shutdown`, then drains. Returns when all connections are closed.
pub async fn run(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) {
    let server = Server::new(Dyno {
        boot: format!("{:016x}", rand::random::<u64>()),
        bus: Bus::start(config.redis.clone()),
        config,
    });
    tokio::spawn(measure(server.clone()));
    server.run(listener, shutdown).await;
}

/// One line a minute, in the form that the platform's log makes metrics of.
async fn measure(server: Arc<Server>) {
    let mut minute = interval(METRICS);
    minute.tick().await; // the first comes at once
    loop {
        minute.tick().await;
        log::info!(
            "sample#connections={} sample#rooms={} count#messages={} count#deliveries={}",
            server.connections(),
            server.dyno.bus.rooms.count(),
            room::MESSAGES.swap(0, Relaxed),
            room::DELIVERIES.swap(0, Relaxed),
        );
    }
}

/// A locked mutex, also after a panic elsewhere: one session's end must not be everyone's.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
