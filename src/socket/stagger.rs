//! Acts on many connections over a few seconds. Their pages connect again at once, and a thundering herd would
//! overload the dynos they connect to.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::conn::Conn;

/// All connections together take at most this long.
const SPREAD: Duration = Duration::from_secs(3);
/// Between two connections, at most: for a handful of people it takes no time.
const STEP: Duration = Duration::from_millis(20);

/// Calls `act` with each connection, one by one. Returns after the last one.
pub async fn stagger(conns: Vec<Arc<Conn>>, act: impl Fn(&Conn)) {
    let step = STEP.min(SPREAD / conns.len().max(1) as u32);
    let start = Instant::now();
    for (n, conn) in conns.into_iter().enumerate() {
        sleep((step * n as u32).saturating_sub(start.elapsed())).await;
        act(&conn);
    }
}
