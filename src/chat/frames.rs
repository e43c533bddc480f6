//! Frames that are the same for every connection, encoded once.

use std::sync::LazyLock;

use bytes::Bytes;

use super::app::App;
use crate::protocol::outgoing;
use crate::socket::frame;

pub static TICK: LazyLock<Bytes> = LazyLock::new(|| frame::text(outgoing::TICK));
pub static MOVE: LazyLock<Bytes> = LazyLock::new(|| frame::text(outgoing::MOVE));
pub static REDIS_DOWN: LazyLock<Bytes> = LazyLock::new(|| frame::text(outgoing::REDIS_DOWN));
pub static REDIS_UP: LazyLock<Bytes> = LazyLock::new(|| frame::text(outgoing::REDIS_UP));

/// The frames of a heartbeat at this moment: a Ping and a `tick`. Ping and Pong reset the router's idle timer in both
/// directions; the `tick` shows the page a live connection, because a page cannot see Pings.
pub fn heartbeat(app: &App) -> Bytes {
    let tick = frame::text(outgoing::tick(app.spread_ms()));
    [&frame::PING, &tick[..]].concat().into()
}
