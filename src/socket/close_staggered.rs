//! Closes many connections over a few seconds: they all reconnect at once, and a thundering herd would
//! overload the dynos they reconnect to.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::conn::Conn;

/// All closes together take at most this long.
const SPREAD: Duration = Duration::from_secs(4);
/// Between two closes, at most: a handful of people is closed at once.
const STEP: Duration = Duration::from_millis(20);

/// Closes `conns` one by one. Returns when the last one has its Close.
pub async fn close_staggered(conns: Vec<Arc<Conn>>, code: u16, reason: &'static str) {
    let step = STEP.min(SPREAD / conns.len().max(1) as u32);
    let start = Instant::now();
    for (n, conn) in conns.into_iter().enumerate() {
        sleep((step * n as u32).saturating_sub(start.elapsed())).await;
        conn.close(code, reason);
    }
}
