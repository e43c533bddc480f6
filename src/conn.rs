//! One socket, from the accept to its end: its outbox and its deadlines. Anybody may
//! [`push`](Conn::push) frames at any time; it never waits. What the kernel does not take at once is
//! written by [`pump`](Conn::pump), which the session runs beside its reader. `beat.rs` calls
//! [`beat`](Conn::beat) once a second, and that is its clock: a connection has no timer of its own.

use std::io::{self, ErrorKind::WouldBlock, Read, Write};
use std::sync::{Mutex, atomic::AtomicU32, atomic::Ordering::Relaxed};
use std::{future::poll_fn, net::Shutdown, task::Poll, task::ready, time::Duration};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream, sync::watch, time::timeout};

use crate::{frame, frame::code, lock, outbox::Outbox};

/// The kernel's share per connection: enough for a joined batch, small enough to notice who is stuck.
pub const SEND_BUFFER: u32 = 64 * 1024;
/// After our Close: how long the peer's last bytes are awaited (RFC 6455 §7.1.1), for the kernel would
/// answer them with a reset that overtakes it.
const LINGER: Duration = Duration::from_secs(2);
/// Seconds from ping to ping: twice within the router's 55 s of silence.
pub const PING: u32 = 25;
/// Two pings have gone unanswered. Less than the router's 55 s, or it would report an error.
const SILENCE: u32 = 2 * PING;
/// Seconds for which a join is awaited.
const JOIN_DEADLINE: u32 = 10;

pub struct Conn {
    stream: TcpStream,
    state: Mutex<State>,
    /// Wakes the pump: something was queued, or the connection is over.
    wake: AtomicWaker,
    /// Beats since bytes last arrived.
    silent: AtomicU32,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    /// Beats since the upgrade.
    age: u32,
    /// Beats for which a join has been awaited; none while it is not.
    waited: Option<u32>,
    /// Has this page been told that Redis is away?
    told_down: bool,
}

impl Conn {
    pub fn new(stream: TcpStream) -> Conn {
        let (state, wake, silent) = Default::default();
        Conn {
            stream,
            state,
            wake,
            silent,
        }
    }

    /// Sends whole frames, or queues them. Never waits; after a Close it does nothing.
    pub fn push(&self, frames: &Bytes) {
        self.change(|state| state.outbox.push(frames));
    }

    /// Sends a Close frame as the last one. The session ends when it is written, or 10 s later.
    pub fn close(&self, code: u16, reason: &'static str) {
        self.change(|state| state.outbox.close(code, reason));
    }

    /// Nothing more is to be sent.
    pub fn hang_up(&self) {
        self.change(|state| state.outbox.end());
    }

    /// Tells the page that Redis is away, or is back. Says nothing twice, and nothing good unasked.
    pub fn status(&self, link: &watch::Receiver<bool>) {
        self.change(|state| {
            let up = *link.borrow(); // here, so that whoever comes last says what is so last
            if state.told_down == up {
                state.told_down = !up;
                let frame = if up { &frame::UP } else { &frame::DOWN };
                state.outbox.push(frame);
            }
        });
    }

    /// Whether a join is expected, within a deadline that begins now.
    pub fn expect_join(&self, expected: bool) {
        lock(&self.state).waited = expected.then_some(0);
    }

    /// Pings, and keeps the deadlines. Nobody is blamed for not joining while Redis is not `up`.
    pub fn beat(&self, up: bool) {
        let silent = self.silent.fetch_add(1, Relaxed);
        self.change(|state| {
            state.age += 1;
            state.outbox.beat();
            if state.age.is_multiple_of(PING) {
                state.outbox.push(&frame::BEAT);
            }
            state.waited = state.waited.map(|n| if up { n + 1 } else { 0 });
            if state.waited > Some(JOIN_DEADLINE) {
                state.outbox.close(code::NOT_OURS, "join_expected");
            }
            if silent >= SILENCE {
                state.outbox.close(code::TOO_SLOW, "silent");
            }
        });
    }

    /// Makes a change to what is to be sent, and sends what the kernel takes of it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        state.outbox.flush(|bytes| self.stream.try_write(bytes));
        if state.outbox.is_blocked() || !state.outbox.is_open() {
            self.wake.wake();
        }
    }

    /// Writes what is queued, until the last frame is out or the socket fails. For one task only, as is
    /// [`readable`](Self::readable): tokio's own futures are for many, and take 250 bytes of everybody.
    pub fn pump(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            self.wake.register(cx.waker()); // before looking, so that no change goes unseen
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

    /// Not closed from our side.
    pub fn is_open(&self) -> bool {
        lock(&self.state).outbox.is_open()
    }

    /// For how many seconds nothing has been heard from the peer.
    pub fn silent(&self) -> u32 {
        self.silent.load(Relaxed)
    }

    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        poll_fn(|cx| self.stream.poll_read_ready(cx))
    }

    /// Ends the connection: our side first, then what the peer still sends is dropped until it ends.
    pub async fn linger(&self) {
        // Fails when the peer has gone already, which is all we want.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
        let drain = async {
            while self.readable().await.is_ok() {
                let read = (&*self).read(&mut [0; 2048]); // not kept while others have a turn
                match read {
                    Ok(0) => break,
                    Err(e) if e.kind() != WouldBlock => break,
                    _ => tokio::task::coop::consume_budget().await, // some send without end
                }
            }
        };
        let _ = timeout(LINGER, drain).await; // late or not, the socket is closed now
    }
}

/// What the frame reader reads from. Never waits.
impl Read for &Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (socket, mut n) = (SockRef::from(&self.stream), 0);
        let read = self.stream.try_io(Interest::READABLE, || {
            n = (&*socket).read(buf)?;
            // Not filled, so the socket is empty now: the next read fails without asking the kernel.
            let full = n == 0 || n == buf.len();
            full.then_some(()).ok_or(WouldBlock.into())
        });
        if n == 0 {
            read?;
        }
        self.silent.store(0, Relaxed);
        Ok(n)
    }
}

/// What it writes its Pongs and its answer to a Close to: the outbox, so that none of them can land
/// inside a half-written frame.
impl Write for &Conn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.push(&Bytes::copy_from_slice(buf));
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
