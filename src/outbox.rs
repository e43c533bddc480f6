//! What a socket has not taken yet: whole frames, in order, bounded in bytes and in time.
//!
//! It belongs to a [`Conn`](crate::conn::Conn), which locks it, gives it the kernel's `write` to call,
//! and counts seconds for it. Frames are slices of bytes that all connections share.

use std::collections::VecDeque;
use std::io::{self, ErrorKind::WouldBlock};

use bytes::{Buf, Bytes};

use crate::frame::{self, code};

/// Bytes a reader may be behind, beside what the kernel holds. Larger than a whole log and its
/// members in one `welcome`, or a full room would lock everyone out.
pub const LIMIT: usize = 256 * 1024;
/// Without progress for this many seconds a reader is too slow; once it has been told, it is gone.
const WRITE_DEADLINE: u32 = 10;

#[derive(Default)]
pub struct Outbox {
    /// What is left of the frames under way: empty as long as the kernel takes everything.
    head: Bytes,
    queue: VecDeque<Bytes>,
    /// The length of all of these.
    bytes: usize,
    /// Seconds without progress, or since the end was decided.
    stuck: u32,
    /// Nothing may follow what is queued.
    ended: bool,
}

impl Outbox {
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    /// Is there more than the kernel takes?
    pub fn is_blocked(&self) -> bool {
        !self.head.is_empty()
    }

    /// Queues whole frames. After a Close, does nothing.
    pub fn push(&mut self, frames: &Bytes) {
        if self.ended {
            return;
        }
        self.put(frames.clone());
        if self.bytes > LIMIT {
            self.too_slow();
        }
    }

    /// Queues a Close frame as the last one.
    pub fn close(&mut self, code: u16, reason: &'static str) {
        if !self.ended {
            self.put(frame::close(code, reason));
            self.end();
        }
    }

    /// Nothing may follow. There is a deadline for what is queued.
    pub fn end(&mut self) {
        if !self.ended {
            (self.ended, self.stuck) = (true, 0);
        }
    }

    /// Has `write` take what it takes now.
    pub fn flush(&mut self, write: impl Fn(&[u8]) -> io::Result<usize>) {
        while self.is_blocked() {
            match write(&self.head) {
                Ok(n) => {
                    self.head.advance(n);
                    self.bytes -= n;
                    if !self.ended {
                        self.stuck = 0;
                    }
                    if self.head.is_empty() {
                        self.head = self.queue.pop_front().unwrap_or_default();
                    }
                }
                Err(e) if e.kind() == WouldBlock => return,
                Err(_) => self.give_up(), // the reader will see the same error
            }
        }
        self.queue = VecDeque::new(); // a burst's memory is given back
    }

    /// A second has passed.
    pub fn beat(&mut self) {
        self.stuck += u32::from(self.is_blocked());
        match self.stuck > WRITE_DEADLINE {
            true if self.ended => self.give_up(),
            true => self.too_slow(),
            false => {}
        }
    }

    fn put(&mut self, frames: Bytes) {
        self.bytes += frames.len();
        if self.is_blocked() {
            self.queue.push_back(frames);
        } else {
            (self.head, self.stuck) = (frames, 0);
        }
    }

    /// Drops all but what is under way, for that must be finished or the Close would land inside it.
    /// What is dropped is in the room's log: the page resumes.
    fn too_slow(&mut self) {
        self.queue.clear();
        self.bytes = self.head.len();
        self.close(code::TOO_SLOW, "too_slow");
    }

    fn give_up(&mut self) {
        *self = Outbox::default();
        self.ended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{history, message::MAX_USERS, name::MAX_NAME};
    use std::cell::{Cell, RefCell};

    #[test]
    fn a_whole_log_and_all_its_members_fit_into_an_outbox() {
        // A code point is four bytes of UTF-8 at most; a name has quotes and a comma beside it.
        let members = MAX_USERS * (4 * MAX_NAME + 3);
        // A message has a comma behind it.
        let log = history::MAX_BYTES + history::MAX_MESSAGES;
        let head = 1024;
        assert!(log + members + head < LIMIT);
    }

    #[test]
    fn a_reader_that_is_too_slow_gets_whole_frames_and_then_the_close() {
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
        let close = frame::close(code::TOO_SLOW, "too_slow");
        assert_eq!(taken.into_inner(), [&frame[..], &close[..]].concat());
    }

    #[test]
    fn a_reader_that_takes_nothing_is_told_after_the_deadline_and_given_up_after_another() {
        let mut outbox = Outbox::default();
        outbox.push(&frame::TICK);
        (0..WRITE_DEADLINE).for_each(|_| outbox.beat());
        assert!(outbox.is_open());
        outbox.beat();
        assert!(!outbox.is_open() && outbox.is_blocked());
        (0..=WRITE_DEADLINE).for_each(|_| outbox.beat());
        assert!(!outbox.is_blocked());
    }
}
