//! What a socket has not taken yet: whole frames, in order, bounded in bytes and in time.
//!
//! It belongs to a [`Conn`](crate::conn::Conn), which locks it and gives it the kernel's `write` to
//! call. Frames are slices of bytes that all connections share.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind::WouldBlock},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use crate::frame::{self, code};

/// Bytes a reader may be behind, beside what the kernel holds. Larger than a whole log and its
/// members in one `welcome`, or a full room would lock everyone out.
pub const LIMIT: usize = 256 * 1024;
/// Without progress for this long a reader is too slow; once it has been told, it is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

pub struct Outbox {
    /// Of the first, a part may be written.
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// The last progress of a queued write; once closing, when that began.
    moved: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Phase {
    Open,
    /// Nothing may follow what is queued.
    Closing,
    /// The socket is not to be written to any more.
    Dead,
}

impl Outbox {
    pub fn new() -> Outbox {
        let (queue, bytes, moved) = (VecDeque::new(), 0, Instant::now());
        Outbox {
            queue,
            bytes,
            moved,
            phase: Phase::Open,
        }
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Is there something to flush, or nothing more to come?
    pub fn needs_pump(&self) -> bool {
        !self.is_open() || !self.queue.is_empty()
    }

    /// Has `write` take whole frames, and queues what it does not take. After a Close, does nothing.
    pub fn push(&mut self, frames: &Bytes, write: impl Fn(&[u8]) -> io::Result<usize>) {
        if !self.is_open() {
            return;
        }
        let mut rest = frames.clone();
        if self.queue.is_empty() {
            match write(&rest) {
                Ok(n) if n == rest.len() => return,
                Ok(n) => rest.advance(n),
                Err(e) if e.kind() == WouldBlock => {}
                Err(_) => return self.end(Phase::Dead), // the reader will see the same error
            }
            self.moved = Instant::now();
        }
        self.bytes += rest.len();
        self.queue.push_back(rest);
        if self.bytes > LIMIT {
            self.too_slow();
        }
    }

    /// Has `write` take what is queued. True if there is more than it takes now.
    pub fn flush(&mut self, write: impl Fn(&[u8]) -> io::Result<usize>) -> bool {
        while let Some(first) = self.queue.front_mut().filter(|_| self.phase != Phase::Dead) {
            match write(first) {
                Ok(n) => {
                    first.advance(n);
                    self.bytes -= n;
                    if first.is_empty() {
                        self.queue.pop_front();
                    }
                    if self.is_open() {
                        self.moved = Instant::now();
                    }
                }
                Err(e) if e.kind() == WouldBlock => return true,
                Err(_) => self.end(Phase::Dead),
            }
        }
        self.queue = VecDeque::new(); // a burst's memory is given back
        false
    }

    /// Nothing may follow.
    pub fn end(&mut self, phase: Phase) {
        if self.phase != Phase::Dead {
            self.phase = phase;
            self.moved = Instant::now();
        }
    }

    /// Keeps the deadline.
    pub fn sweep(&mut self) {
        let late = !self.queue.is_empty() && self.moved.elapsed() >= WRITE_DEADLINE;
        match self.phase {
            Phase::Open if late => self.too_slow(),
            Phase::Closing if late => self.end(Phase::Dead),
            _ => {}
        }
    }

    /// Drops all but what is under way, for that must be finished or the Close would land inside it.
    /// What is dropped is in the room's log: the page resumes.
    fn too_slow(&mut self) {
        self.queue.truncate(1);
        self.queue
            .push_back(frame::close(code::TOO_SLOW, "too_slow"));
        self.bytes = self.queue.iter().map(Bytes::len).sum();
        self.end(Phase::Closing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{history, message::MAX_USERS, name::MAX_NAME};
    use std::cell::RefCell;

    #[test]
    fn a_whole_log_and_all_its_members_fit_into_an_outbox() {
        // A code point is four bytes of UTF-8 at most; a name has quotes and a comma beside it.
        let members = MAX_USERS * (4 * MAX_NAME + 3);
        let head = 1024;
        assert!(history::MAX_BYTES + members + head < LIMIT);
    }

    #[test]
    fn a_reader_that_is_too_slow_gets_whole_frames_and_then_the_close() {
        let taken = RefCell::new(Vec::new());
        let room = RefCell::new(10);
        let write = |bytes: &[u8]| {
            let n = bytes.len().min(*room.borrow());
            *room.borrow_mut() -= n;
            taken.borrow_mut().extend_from_slice(&bytes[..n]);
            if n == 0 {
                Err(WouldBlock.into())
            } else {
                Ok(n)
            }
        };
        let mut outbox = Outbox::new();
        let frame = frame::text(&"x".repeat(LIMIT / 4));
        for _ in 0..6 {
            outbox.push(&frame, write);
        }
        assert!(!outbox.is_open());
        *room.borrow_mut() = usize::MAX;
        assert!(!outbox.flush(write));
        let close = frame::close(code::TOO_SLOW, "too_slow");
        assert_eq!(taken.into_inner(), [&frame[..], &close[..]].concat());
    }
}
