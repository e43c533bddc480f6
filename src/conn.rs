//! One socket's outgoing side: the outbox, and the end of the connection.
//!
//! Anybody may [`push`](Conn::push) frames at any time; it never waits. What the kernel does not take
//! at once is queued as a slice of the shared bytes and written by [`pump`](Conn::pump), which the
//! session runs beside its reader. Deadlines are kept by `beat.rs`, which calls
//! [`sweep`](Conn::sweep) once a second; that is why a connection has no timer of its own.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind::WouldBlock, Read, Write},
    net::Shutdown,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};

use crate::frame::{self, code};

/// Bytes a reader may be behind, beside what the kernel holds. Larger than a whole log and its
/// members in one `welcome`, or a full room would lock everyone out (a test in `room.rs`).
pub const OUTBOX: usize = 256 * 1024;
/// The kernel's share per connection: enough for a joined batch, small enough to notice a reader
/// that is stuck. Linux doubles it for its own bookkeeping.
pub const SEND_BUFFER: u32 = 64 * 1024;
/// A write that makes no progress for this long has failed.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// After our Close: how long the peer's last bytes are awaited (RFC 6455 §7.1.1), so that the kernel
/// does not answer them with a reset that would overtake the Close.
const LINGER: Duration = Duration::from_secs(2);
/// Both directions silent for this long and the router cuts (55 s); two pings have gone unanswered.
pub const SILENCE: Duration = Duration::from_secs(50);
/// From the upgrade to a valid `join`.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(10);

/// A locked mutex, also after a panic elsewhere: one session's end must not be everyone's.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Conn {
    stream: TcpStream,
    out: Mutex<Outbox>,
    /// Wakes the pump: something was queued, or the connection is over.
    wake: Notify,
    /// When bytes last arrived, in milliseconds after `born`.
    heard: AtomicU64,
    born: Instant,
}

struct Outbox {
    /// Whole frames, but for the first, of which a part may be written.
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// The last progress of a queued write; once closing, when that began.
    moved: Instant,
    phase: Phase,
    /// Until when a `join` must have come; `None` once it has.
    join_by: Option<Instant>,
    /// Has this page been told that Redis is away?
    told_down: bool,
}

#[derive(PartialEq)]
enum Phase {
    Open,
    /// A Close is the last thing in the queue; nothing may follow it.
    Closing,
    /// The socket is not to be written to any more.
    Dead,
}

impl Conn {
    pub fn new(stream: TcpStream) -> Conn {
        let born = Instant::now();
        let out = Outbox {
            queue: VecDeque::new(),
            bytes: 0,
            moved: born,
            phase: Phase::Open,
            join_by: Some(born + JOIN_DEADLINE),
            told_down: false,
        };
        Conn {
            stream,
            out: Mutex::new(out),
            wake: Notify::new(),
            heard: AtomicU64::new(0),
            born,
        }
    }

    /// Sends whole frames, or queues them. Never waits; after a Close it does nothing.
    pub fn push(&self, frames: &Bytes) {
        let mut out = lock(&self.out);
        if out.phase == Phase::Open {
            self.send(&mut out, frames);
        }
    }

    /// Sends a Close frame as the last one. The session ends when it is written, or 10 s later.
    pub fn close(&self, code: u16, reason: &'static str) {
        let mut out = lock(&self.out);
        if out.phase == Phase::Open {
            self.send(&mut out, &frame::close(code, reason));
            self.end(&mut out, Phase::Closing);
        }
    }

    /// Nothing more is to be sent, after the peer's Close was answered.
    pub fn hang_up(&self) {
        self.end(&mut lock(&self.out), Phase::Closing);
    }

    /// Tells the page that Redis is away, or is back. Says nothing twice, and nothing good unasked.
    pub fn status(&self, up: bool) {
        let mut out = lock(&self.out);
        if out.phase == Phase::Open && out.told_down == up {
            out.told_down = !up;
            let word = if up { "up" } else { "down" };
            let json = format!(r#"{{"kind":"status","redis":"{word}"}}"#);
            self.send(&mut out, &frame::text(&json));
        }
    }

    /// The person has joined: no deadline for that any more.
    pub fn joined(&self) {
        lock(&self.out).join_by = None;
    }

    fn send(&self, out: &mut Outbox, frames: &Bytes) {
        let mut rest = frames.clone();
        if out.queue.is_empty() {
            match self.stream.try_write(&rest) {
                Ok(n) if n == rest.len() => return,
                Ok(n) => rest.advance(n),
                Err(e) if e.kind() == WouldBlock => {}
                Err(_) => return self.end(out, Phase::Dead),
            }
            out.moved = Instant::now();
        }
        out.bytes += rest.len();
        out.queue.push_back(rest);
        if out.bytes > OUTBOX && out.phase == Phase::Open {
            // Too slow. What is under way must be finished, or the Close would land inside it.
            out.queue.truncate(1);
            out.queue
                .push_back(frame::close(code::TOO_SLOW, "too_slow"));
            out.bytes = out.queue.iter().map(Bytes::len).sum();
            self.end(out, Phase::Closing);
        }
        self.wake.notify_one();
    }

    fn end(&self, out: &mut Outbox, phase: Phase) {
        if out.phase != Phase::Dead {
            out.phase = phase;
            out.moved = Instant::now();
        }
        self.wake.notify_one();
    }

    /// Writes what is queued whenever the kernel takes it. Returns when the last frame is written or
    /// the socket has failed.
    pub async fn pump(&self) {
        while let Some(blocked) = self.flush() {
            tokio::select! {
                _ = self.stream.writable(), if blocked => {}
                _ = self.wake.notified() => {}
            }
        }
    }

    /// Writes without waiting. `Some(true)`: the kernel is full; `None`: it is over.
    fn flush(&self) -> Option<bool> {
        let mut out = lock(&self.out);
        while out.phase != Phase::Dead {
            let Some(first) = out.queue.front_mut() else {
                out.queue = VecDeque::new(); // a burst's memory is given back
                return (out.phase == Phase::Open).then_some(false);
            };
            match self.stream.try_write(first) {
                Ok(n) => {
                    first.advance(n);
                    if first.is_empty() {
                        out.queue.pop_front();
                    }
                    out.bytes -= n;
                    if out.phase == Phase::Open {
                        out.moved = Instant::now();
                    }
                }
                Err(e) if e.kind() == WouldBlock => return Some(true),
                Err(_) => out.phase = Phase::Dead, // the reader will see the same error
            }
        }
        None
    }

    /// Keeps the deadlines. While Redis is away (`up` is false) nobody is blamed for not joining.
    pub fn sweep(&self, up: bool) {
        let now = Instant::now();
        let mut out = lock(&self.out);
        if !out.queue.is_empty() && now - out.moved >= WRITE_DEADLINE {
            return self.end(&mut out, Phase::Dead);
        }
        if out.join_by.is_some() && !up {
            out.join_by = Some(now + JOIN_DEADLINE);
        }
        let late = out.join_by.is_some_and(|by| now >= by);
        drop(out);
        if late {
            self.close(code::NOT_OURS, "join_expected");
        } else if self.silent() >= SILENCE {
            self.close(code::TOO_SLOW, "silent");
        }
    }

    /// Since when nothing has been heard from the peer.
    pub fn silent(&self) -> Duration {
        self.born
            .elapsed()
            .saturating_sub(Duration::from_millis(self.heard.load(Relaxed)))
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
        self.heard
            .store(self.born.elapsed().as_millis() as u64, Relaxed);
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
