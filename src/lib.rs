//! dynochat: a chat over WebSockets for a platform that cuts idle connections, runs many processes and
//! restarts them every day.
//!
//! Five boxes, each a folder: `web` accepts and upgrades; a `chat::Session` serves one browser; a
//! `chat::Room` follows its stream and sends the same bytes to every connection in the room; `store` holds
//! the streams and the leases of names, in Redis or in memory; a `socket::Conn` writes without ever
//! waiting. `protocol` has every frame that travels.

#![forbid(unsafe_code)]

mod chat;
pub mod config;
mod lock;
mod log_throttle;
pub mod logger;
pub mod protocol;
pub mod socket;
mod store;
pub mod web;

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::interval};

use crate::chat::App;
use crate::config::Config;
use crate::store::Store;
use crate::web::{Limits, Server};

/// Between two metrics lines.
const METRICS: Duration = Duration::from_secs(60);

/// Serves on `listener` until `terminate` or `interrupt`. After `terminate`, pages may move to another dyno while this
/// one serves on; `interrupt` ends that. Returns when all connections are closed.
pub async fn run(
    listener: TcpListener,
    config: Config,
    terminate: impl Future<Output = ()>,
    interrupt: impl Future<Output = ()>,
) {
    let store = Store::start(config.redis);
    let app = App::start(config.dyno, config.talk_per_second, store);
    let limits = Limits {
        allowed_origins: config.allowed_origins,
        max_connections: config.max_connections,
        grace: config.grace,
        max_per_address: config.max_per_address,
        behind_router: config.behind_router,
    };
    let server = Server::new(app.clone(), limits);
    tokio::spawn(log_metrics(app, server.clone()));
    server.run(listener, terminate, interrupt).await;
}

/// Logs one line per minute, in the form that the platform turns into metrics.
async fn log_metrics(app: Arc<App>, server: Arc<Server>) {
    let mut minute = interval(METRICS);
    minute.tick().await; // the first tick comes at once
    loop {
        minute.tick().await;
        let (connections, rooms) = (server.connections(), app.rooms.count());
        let (messages, deliveries) = app.rooms.metrics.take();
        log::info!(
            "sample#connections={connections} sample#rooms={rooms} count#messages={messages} count#deliveries={deliveries}"
        );
    }
}
