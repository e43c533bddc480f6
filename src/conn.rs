//! One socket, from the accept to its end: its outbox and its deadlines. Anybody may
//! [`push`](Conn::push) frames at any time; it never waits. What the kernel does not take at once is
//! written by [`pump`](Conn::pump), which the session runs beside its reader. `beat.rs` calls
//! [`sweep`](Conn::sweep) once a second, so a connection has no timer of its own.

use std::{
    io::{self, ErrorKind::WouldBlock, Read, Write},
    net::Shutdown,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;
use tokio::{net::TcpStream, sync::Notify};

use crate::{
    frame::{self, code},
    outbox::{Outbox, Phase},
};

/// The kernel's share per connection: enough for a joined batch, small enough to notice a reader
/// that is stuck. Linux doubles it for its own bookkeeping.
pub const SEND_BUFFER: u32 = 64 * 1024;
/// After our Close: how long the peer's last bytes are awaited (RFC 6455 §7.1.1), so that the kernel
/// does not answer them with a reset that would overtake the Close.
const LINGER: Duration = Duration::from_secs(2);
/// Two pings have gone unanswered: beats. Less than the router's 55 s, or it would report an error.
const SILENCE: u32 = 50;
/// From the upgrade to the welcome: beats.
const JOIN_DEADLINE: u32 = 10;

/// A locked mutex, also after a panic elsewhere: one session's end must not be everyone's.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Conn {
    stream: TcpStream,
    outbox: Mutex<Outbox>,
    /// Wakes the pump: something was queued, or the connection is over.
    wake: Notify,
    /// Beats since bytes last arrived. Not a time: a process that was frozen for a minute must not
    /// take everyone for dead.
    silent: AtomicU32,
    /// Beats without a welcome.
    unjoined: AtomicU32,
    joined: AtomicBool,
    /// Has this page been told that Redis is away?
    told_down: AtomicBool,
}

impl Conn {
    pub fn new(stream: TcpStream) -> Conn {
        Conn {
            stream,
            outbox: Mutex::new(Outbox::new()),
            wake: Notify::new(),
            silent: AtomicU32::new(0),
            unjoined: AtomicU32::new(0),
            joined: AtomicBool::new(false),
            told_down: AtomicBool::new(false),
        }
    }

    /// Sends whole frames, or queues them. Never waits; after a Close it does nothing.
    pub fn push(&self, frames: &Bytes) {
        self.change(|outbox| outbox.push(frames, |bytes| self.stream.try_write(bytes)));
    }

    /// Sends a Close frame as the last one. The session ends when it is written, or 10 s later.
    pub fn close(&self, code: u16, reason: &'static str) {
        let frame = frame::close(code, reason);
        self.change(|outbox| {
            outbox.push(&frame, |bytes| self.stream.try_write(bytes));
            outbox.end(Phase::Closing); // in one step: nothing may come between
        });
    }

    /// Nothing more is to be sent.
    pub fn hang_up(&self) {
        self.change(|outbox| outbox.end(Phase::Closing));
    }

    /// Not closed from our side.
    pub fn is_open(&self) -> bool {
        lock(&self.outbox).is_open()
    }

    fn change(&self, change: impl FnOnce(&mut Outbox)) {
        let mut outbox = lock(&self.outbox);
        change(&mut outbox);
        if outbox.needs_pump() {
            self.wake.notify_one();
        }
    }

    /// Tells the page that Redis is away, or is back. Says nothing twice, and nothing good unasked.
    pub fn status(&self, up: bool) {
        self.change(|outbox| {
            if self.told_down.swap(!up, Relaxed) == up {
                let frame = if up { &frame::UP } else { &frame::DOWN };
                outbox.push(frame, |bytes| self.stream.try_write(bytes));
            }
        });
    }

    /// The welcome has been sent: no deadline for that any more.
    pub fn joined(&self) {
        self.joined.store(true, Relaxed);
    }

    /// Writes what is queued whenever the kernel takes it. Returns when the last frame is written or
    /// the socket has failed.
    pub async fn pump(&self) {
        loop {
            let (blocked, open) = {
                let mut outbox = lock(&self.outbox);
                let blocked = outbox.flush(|bytes| self.stream.try_write(bytes));
                (blocked, outbox.is_open())
            };
            if !blocked && !open {
                return;
            }
            tokio::select! {
                _ = self.stream.writable(), if blocked => {}
                _ = self.wake.notified() => {}
            }
        }
    }

    /// One beat: keeps the deadlines. While Redis is away (`up` is false) nobody is blamed for not
    /// joining.
    pub fn sweep(&self, up: bool) {
        self.change(Outbox::sweep);
        let waited = self.unjoined.fetch_add(1, Relaxed);
        if !up {
            self.unjoined.store(0, Relaxed);
        } else if waited >= JOIN_DEADLINE && !self.joined.load(Relaxed) {
            self.close(code::NOT_OURS, "join_expected");
        }
        if self.silent.fetch_add(1, Relaxed) >= SILENCE {
            self.close(code::TOO_SLOW, "silent");
        }
    }

    /// Has the peer been heard from within so many beats?
    pub fn is_heard(&self, beats: usize) -> bool {
        self.silent.load(Relaxed) as usize <= beats
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Ends the connection for good: our side first, then what the peer still sends is read and
    /// dropped until it ends its side too.
    pub async fn linger(&self) {
        // Fails when the peer has gone already, which is all we want.
        let _ = socket2::SockRef::from(&self.stream).shutdown(Shutdown::Write);
        let drain = async {
            while self.readable().await.is_ok() {
                match self.stream.try_read(&mut [0; 2048]) {
                    Ok(0) => break,
                    Err(e) if e.kind() != WouldBlock => break,
                    _ => {}
                }
            }
        };
        let _ = timeout(LINGER, drain).await; // late or not, the socket is closed now
    }
}

/// What the frame reader reads from. Never waits.
impl Read for &Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.try_read(buf)?;
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
