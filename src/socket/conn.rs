//! One socket, from the accept to its end: its outbox and its deadlines.
//!
//! Any task may [`push`](Conn::push) frames at any time; that never waits. What the kernel does not take
//! at once is written by [`flushed`](Conn::flushed), which the session polls beside its reader.
//! `heartbeat.rs` calls [`on_second`](Conn::on_second): a connection has no timer of its own.

use std::io::{self, ErrorKind::WouldBlock, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::sync::{Mutex, atomic::AtomicU32, atomic::Ordering::Relaxed};
use std::{future::poll_fn, task::Poll, task::ready, time::Duration};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream, time::timeout};

use super::frame;
use super::outbox::Outbox;
use crate::lock::lock;
use crate::protocol::close_code;

/// The kernel's send buffer of a connection, in bytes. Large enough for a joined batch, small enough to
/// notice a stuck reader. Linux doubles it.
pub const SEND_BUFFER: u32 = 64 * 1024;
/// Seconds between two heartbeats: twice within the router's 55 s idle timeout.
pub const HEARTBEAT_SECS: u32 = 25;
/// Seconds after which a silent peer is closed: two heartbeats are unanswered. Less than the router's
/// 55 s, because the router would log an error.
const SILENCE_SECS: u32 = 2 * HEARTBEAT_SECS;
/// Lingering close: how long to read on after our Close (RFC 6455 §7.1.1). Otherwise late client data
/// triggers a RST, which can discard the Close frame.
const LINGER: Duration = Duration::from_secs(2);

pub struct Conn {
    stream: TcpStream,
    state: Mutex<State>,
    /// Wakes `flushed`: something was queued, or the connection is closed.
    wake: AtomicWaker,
    /// Seconds since bytes last arrived.
    silent_secs: AtomicU32,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    /// Seconds since the connection was registered for heartbeats.
    age_secs: u32,
}

impl Conn {
    pub fn new(stream: TcpStream) -> Conn {
        let (state, wake, silent_secs) = Default::default();
        Conn {
            stream,
            state,
            wake,
            silent_secs,
        }
    }

    /// The address at the other end.
    pub fn peer(&self) -> io::Result<IpAddr> {
        self.stream.peer_addr().map(|addr| addr.ip())
    }

    /// Sends whole frames, or queues them. Never waits. Does nothing after a Close.
    pub fn push(&self, frames: &Bytes) {
        self.change(|state| state.outbox.push(frames));
    }

    /// Sends one frame that comes in pieces.
    pub fn push_pieces(&self, pieces: Vec<Bytes>) {
        self.change(|state| state.outbox.push_pieces(pieces));
    }

    /// Sends a Close frame as the last frame. `flushed` returns when it is written, or after the write
    /// deadline.
    pub fn close(&self, code: u16, reason: &'static str) {
        self.change(|state| state.outbox.close(code, reason));
    }

    /// Sends nothing more than what is queued.
    pub fn finish(&self) {
        self.change(|state| state.outbox.end());
    }

    /// How far the peer is behind, in bytes.
    pub(super) fn queued_bytes(&self) -> usize {
        lock(&self.state).outbox.bytes()
    }

    /// Closes the connection, because all outboxes together hold too much.
    pub(super) fn shed(&self) {
        self.change(|state| state.outbox.shed());
    }

    /// Called once a second: sends the heartbeat `frames` when they are due, and checks deadlines.
    pub(super) fn on_second(&self, frames: &Bytes) {
        let silent_secs = self.silent_secs.fetch_add(1, Relaxed);
        self.change(|state| {
            state.age_secs += 1;
            state.outbox.on_second();
            if state.age_secs.is_multiple_of(HEARTBEAT_SECS) {
                state.outbox.push(frames);
            }
            if silent_secs >= SILENCE_SECS {
                state.outbox.close(close_code::TOO_SLOW, "silent");
            }
        });
    }

    /// Changes the outbox, then writes what the kernel takes. Step 6 of a message: the rest waits in the outbox.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        state.outbox.flush(|bytes| self.stream.try_write(bytes));
        if state.outbox.is_blocked() {
            log::debug!("step=6 event=queued");
        }
        if state.outbox.is_blocked() || !state.outbox.is_open() {
            self.wake.wake();
        }
    }

    /// Writes what is queued, until the connection is closed from this side and all is written, or the
    /// socket fails. Must be polled by one task only, as [`readable`](Self::readable): tokio's own futures
    /// support many tasks and take 250 bytes per connection.
    pub fn flushed(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            self.wake.register(cx.waker()); // before looking, so that no change is missed
            let mut state = lock(&self.state);
            while state.outbox.is_blocked() {
                let _ = ready!(self.stream.poll_write_ready(cx)); // the write sees the same error
                state.outbox.flush(|bytes| self.stream.try_write(bytes));
            }
            match state.outbox.is_open() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
    }

    /// Whether this side has not closed.
    pub fn is_open(&self) -> bool {
        lock(&self.state).outbox.is_open()
    }

    /// For how many seconds nothing has arrived from the peer.
    pub fn silent_secs(&self) -> u32 {
        self.silent_secs.load(Relaxed)
    }

    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        poll_fn(|cx| self.stream.poll_read_ready(cx))
    }

    /// Shuts down writing, then discards what the peer still sends until it closes, or for 2 s.
    pub async fn linger(&self) {
        // Fails if the peer is gone already: nothing is left to do then.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
        let drain = async {
            while self.readable().await.is_ok() {
                let read = (&*self).read(&mut [0; 2048]); // not kept in the future across an await
                match read {
                    Ok(0) => break,
                    Err(e) if e.kind() != WouldBlock => break,
                    _ => tokio::task::coop::consume_budget().await, // some peers never stop sending
                }
            }
        };
        let _ = timeout(LINGER, drain).await; // the socket is closed in either case
    }
}

/// Never waits.
impl Read for &Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (socket, mut n) = (SockRef::from(&self.stream), 0);
        let read = self.stream.try_io(Interest::READABLE, || {
            n = (&*socket).read(buf)?;
            // A buffer that was not filled means that the socket is empty now. WouldBlock tells tokio so,
            // and saves the next read's system call.
            let full = n == 0 || n == buf.len();
            full.then_some(()).ok_or(WouldBlock.into())
        });
        if n == 0 {
            read?;
        }
        self.silent_secs.store(0, Relaxed);
        Ok(n)
    }
}

/// Pongs and the answer to a Close. They go through the outbox, so that none of them can land inside a
/// half-written frame.
impl Write for &Conn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let bytes = Bytes::copy_from_slice(buf);
        self.change(|state| {
            state.outbox.push(&bytes);
            // In the same step, so that no frame of the room can follow a Close (RFC 6455 §5.5.1).
            if buf.first() == Some(&frame::CLOSE) {
                state.outbox.end();
            }
        });
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
