//! The write queue of one socket: whole frames in order, bounded in bytes and in time.
//!
//! `conn.rs` locks it, gives it the kernel's `write`, and counts seconds for it. Frames are slices of
//! bytes that all connections share.

use std::collections::VecDeque;
use std::io::{self, ErrorKind::WouldBlock};

use bytes::{Buf, Bytes};

use super::frame;
use crate::protocol::close_code;

/// Bytes that may wait, beside what the kernel holds. More than the longest welcome (a whole history and
/// 200 names): otherwise nobody could join a full room.
pub const LIMIT: usize = 256 * 1024;
/// Seconds without write progress before Close 4008; the same again before the socket is dropped.
const WRITE_DEADLINE_SECS: u32 = 10;

#[derive(Default)]
pub struct Outbox {
    /// The unwritten rest of the frames that are being written. Empty while the kernel takes everything.
    head: Bytes,
    queue: VecDeque<Bytes>,
    /// The length of `head` and `queue` together.
    bytes: usize,
    /// Seconds without write progress; once ended, seconds since then.
    stuck_secs: u32,
    /// Nothing may follow what is queued.
    ended: bool,
}

impl Outbox {
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    /// Whether something waits that the kernel has not taken.
    pub fn is_blocked(&self) -> bool {
        !self.head.is_empty()
    }

    /// Queues whole frames. Does nothing after a Close. Over [`LIMIT`] the reader is too slow: it is
    /// closed with 4008.
    pub fn push(&mut self, frames: &Bytes) {
        if self.ended {
            return;
        }
        self.put(frames.clone());
        if self.bytes > LIMIT {
            self.close_too_slow();
        }
    }

    /// Queues a Close frame as the last frame.
    pub fn close(&mut self, code: u16, reason: &'static str) {
        if !self.ended {
            self.put(frame::close(code, reason));
            self.end();
        }
    }

    /// Queues nothing from now on. What is queued has a deadline.
    pub fn end(&mut self) {
        if !self.ended {
            (self.ended, self.stuck_secs) = (true, 0);
        }
    }

    /// Writes as much as `write` takes without blocking.
    pub fn flush(&mut self, write: impl Fn(&[u8]) -> io::Result<usize>) {
        while self.is_blocked() {
            match write(&self.head) {
                Ok(n) => {
                    self.head.advance(n);
                    self.bytes -= n;
                    if !self.ended {
                        self.stuck_secs = 0;
                    }
                    if self.head.is_empty() {
                        self.head = self.queue.pop_front().unwrap_or_default();
                    }
                }
                Err(e) if e.kind() == WouldBlock => return,
                Err(_) => self.discard(), // the reader sees the same error
            }
        }
        self.queue = VecDeque::new(); // gives the memory of a burst back
    }

    /// Counts a second, and checks the write deadline.
    pub fn on_second(&mut self) {
        self.stuck_secs += u32::from(self.is_blocked());
        if self.stuck_secs > WRITE_DEADLINE_SECS {
            match self.ended {
                true => self.discard(),
                false => self.close_too_slow(),
            }
        }
    }

    fn put(&mut self, frames: Bytes) {
        self.bytes += frames.len();
        if self.is_blocked() {
            self.queue.push_back(frames);
        } else {
            (self.head, self.stuck_secs) = (frames, 0);
        }
    }

    /// Drops queued frames except the one that is partially written, then queues the Close: inside a
    /// half-written frame it could not be read. The page resumes and receives what was dropped.
    fn close_too_slow(&mut self) {
        self.queue.clear();
        self.bytes = self.head.len();
        self.close(close_code::TOO_SLOW, "too_slow");
    }

    /// Drops everything.
    fn discard(&mut self) {
        *self = Outbox::default();
        self.ended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[test]
    fn a_slow_reader_gets_whole_frames_and_then_the_close() {
        let taken = RefCell::new(Vec::new());
        let room = Cell::new(10);
        let write = |bytes: &[u8]| {
            let n = bytes.len().min(room.get());
            room.set(room.get() - n);
            taken.borrow_mut().extend_from_slice(&bytes[..n]);
            if n == 0 {
                Err(WouldBlock.into())
            } else {
                Ok(n)
            }
        };
        let mut outbox = Outbox::default();
        let frame = frame::text(&"x".repeat(LIMIT / 4));
        for _ in 0..6 {
            outbox.push(&frame);
            outbox.flush(write);
        }
        assert!(!outbox.is_open() && outbox.is_blocked());
        room.set(usize::MAX);
        outbox.flush(write);
        assert!(!outbox.is_blocked() && outbox.bytes == 0);
        let close = frame::close(close_code::TOO_SLOW, "too_slow");
        assert_eq!(taken.into_inner(), [&frame[..], &close[..]].concat());
    }

    #[test]
    fn a_stuck_reader_is_closed_after_the_deadline_and_dropped_after_another() {
        let mut outbox = Outbox::default();
        outbox.push(&frame::text("tick"));
        (0..WRITE_DEADLINE_SECS).for_each(|_| outbox.on_second());
        assert!(outbox.is_open());
        outbox.on_second();
        assert!(!outbox.is_open() && outbox.is_blocked());
        (0..=WRITE_DEADLINE_SECS).for_each(|_| outbox.on_second());
        assert!(!outbox.is_blocked());
    }
}
