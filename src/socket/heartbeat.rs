//! Tasks for all connections: one visits each once a second, to send the heartbeat and check deadlines; one
//! closes those furthest behind when all outboxes together hold too much.
//!
//! A timer for each connection would take more memory than the rest of an idle one. The tasks hold weak
//! references, so a session that ends need not unregister.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use super::buffer::{TOTAL_LIMIT, over_limit, total};
use super::conn::Conn;
use crate::lock::lock;
use crate::log_throttle::LogThrottle;

/// Connections visited before other tasks get a turn.
const CHUNK: usize = 256;
/// Connections are closed until all outboxes together hold at most this. Less than the limit, so that the next
/// frame is no reason to visit all connections again.
const SHED_TO: usize = TOTAL_LIMIT / 8 * 7;

#[derive(Default)]
pub struct Heartbeat {
    conns: Mutex<Vec<Weak<Conn>>>,
}

impl Heartbeat {
    /// Starts the tasks, which run as long as the program. `frames` gives what a connection is sent at a
    /// heartbeat.
    pub fn start(frames: impl Fn() -> Bytes + Send + 'static) -> Arc<Heartbeat> {
        let heartbeat = Arc::<Heartbeat>::default();
        tokio::spawn(heartbeat.clone().run(frames));
        tokio::spawn(heartbeat.clone().bound_memory());
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
        let twice = 2 * conns.len();
        conns.shrink_to(twice); // gives the memory of many connections back
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

    /// Closes the connections furthest behind whenever all outboxes together are over the limit.
    async fn bound_memory(self: Arc<Self>) {
        let logged = LogThrottle::default();
        loop {
            over_limit().await;
            let held = total();
            if held <= TOTAL_LIMIT {
                continue; // it has become less since
            }
            let closed = self.shed();
            if logged.is_due() {
                log::warn!("outboxes=full bytes={held} closed={closed}");
            }
        }
    }

    /// Returns how many connections it closed.
    fn shed(&self) -> usize {
        let conns = self.conns().into_iter();
        let mut conns: Vec<_> = conns.map(|conn| (conn.queued_bytes(), conn)).collect();
        conns.retain(|(bytes, _)| *bytes > 0);
        conns.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        let victims = conns.iter().take_while(|_| total() > SHED_TO);
        victims.map(|(_, conn)| conn.shed()).count()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::sleep;

    use super::*;
    use crate::socket::{counted, frame};

    const KIB: usize = 1024;

    /// A connection that is so many bytes behind, and its peer.
    async fn behind(listener: &TcpListener, bytes: usize) -> (Arc<Conn>, TcpStream) {
        let addr = listener.local_addr().expect("an address");
        let peer = TcpStream::connect(addr).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("the peer");
        let buffer = SockRef::from(&stream).set_send_buffer_size(4 * KIB);
        buffer.expect("a small buffer");
        let conn = Arc::new(Conn::new(stream));
        while conn.queued_bytes() < bytes {
            conn.push(&frame::text("x".repeat(8 * KIB)));
        }
        (conn, peer)
    }

    #[tokio::test]
    async fn the_connections_furthest_behind_are_closed_when_outboxes_hold_too_much() {
        let heartbeat = Heartbeat::start(|| frame::text("tick"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (mut far, mut near, mut peers) = (Vec::new(), Vec::new(), Vec::new());
        let held = total();
        for n in 0..180 {
            let bytes = [0, 16 * KIB, 200 * KIB][n % 3];
            let (conn, peer) = behind(&listener, bytes).await;
            heartbeat.register(&conn);
            if bytes > 100 * KIB {
                &mut far
            } else {
                &mut near
            }
            .push(conn);
            peers.push(peer);
        }
        let all = total() - held;
        assert!((12 << 20..16 << 20).contains(&all), "{all} bytes");
        let _ballast = counted(vec![0; TOTAL_LIMIT - (10 << 20)]);
        let open = |conns: &[Arc<Conn>]| conns.iter().filter(|conn| conn.is_open()).count();
        let begin = Instant::now();
        while total() > SHED_TO && begin.elapsed() < Duration::from_secs(10) {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(total() <= SHED_TO, "{}", total());
        let all = far.len();
        assert!((1..all).contains(&open(&far)), "{} of {all}", open(&far));
        assert_eq!(open(&near), near.len());
    }
}
