//! How a dyno stops, after its listener is closed: it asks its pages to move to another dyno and keeps serving
//! them meanwhile; then it closes the connections that are left.
//!
//! `server.rs` says when. On `move` a page connects a second time, and closes its first connection when the
//! second one has its welcome. The page does not retry by itself, because the timers of a background tab run
//! once a minute: the dyno repeats `move`.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{interval, sleep, timeout};

use crate::chat::{App, MOVE, Phase};
use crate::protocol::close_code;
use crate::socket::{Heartbeat, stagger};

/// Between two `move` frames to a page that is still joined.
const MOVE_EVERY: Duration = Duration::from_secs(4);
/// From the first Close to the exit, in any case. After the default of `GRACE_SECONDS`, this is half a second
/// before the platform's SIGKILL, which comes 30 s after its SIGTERM.
const CLOSE_DEADLINE: Duration = Duration::from_millis(4_500);
/// The pause between two checks whether a socket is open.
const LOOK: Duration = Duration::from_millis(50);

/// Returns when no socket is open, or when the time is over. Pages have `grace` to move; `interrupt` ends it.
/// Without a store that another dyno shares, they cannot move.
pub async fn drain(
    app: &App,
    heartbeat: &Heartbeat,
    grace: Duration,
    interrupt: impl Future<Output = ()>,
    open_sockets: impl Fn() -> usize,
) {
    let none_is_open = async || {
        while open_sockets() > 0 {
            sleep(LOOK).await;
        }
    };
    let moves = !grace.is_zero() && app.redis_status() == "up";
    log::info!("drain=begun sockets={} move={moves}", open_sockets());
    if moves {
        app.phase.send_replace(Phase::Moving);
        tokio::select! {
            never = ask_to_move(app) => match never {},
            () = none_is_open() => {}
            () = sleep(grace) => {}
            () = interrupt => {}
        }
    }
    app.phase.send_replace(Phase::Closing);
    let closed = async {
        let close = stagger(heartbeat.conns(), |conn| {
            conn.close(close_code::RESTART, "restart");
        });
        close.await;
        none_is_open().await;
    };
    let complete = timeout(CLOSE_DEADLINE, closed).await.is_ok();
    log::info!("drain=ended complete={complete}");
}

/// Sends `move` to every joined connection, again and again. The phase is set before: a connection that joins
/// later gets it from its session.
async fn ask_to_move(app: &App) -> Infallible {
    let mut round = interval(MOVE_EVERY);
    loop {
        round.tick().await;
        stagger(app.rooms.conns(), |conn| conn.push(&MOVE)).await;
    }
}
