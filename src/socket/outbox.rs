//! The outbox of one socket: whole frames in order, bounded in bytes and in time.
//!
//! `conn.rs` locks it, gives it the kernel's `write`, and counts seconds for it. Frames are slices of
//! bytes that all connections share; `buffer.rs` bounds what all outboxes hold together.

use std::collections::VecDeque;
use std::io::{self, ErrorKind::WouldBlock};
use std::mem::size_of;

use bytes::{Buf, Bytes};

use super::buffer::Counted;
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
    queue: VecDeque<Piece>,
    /// The memory of `queue` itself.
    counted: Counted,
    /// The length of `head` and of all pieces in `queue`.
    bytes: usize,
    /// Seconds without write progress; once ended, seconds since then.
    stuck_secs: u32,
    /// Nothing may follow what is queued.
    ended: bool,
}

/// Whole frames, or a piece of one.
struct Piece {
    bytes: Bytes,
    /// False: it continues the frame of the piece before.
    starts_frame: bool,
}

impl Outbox {
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    /// Whether something waits that the kernel has not taken.
    pub fn is_blocked(&self) -> bool {
        !self.head.is_empty()
    }

    /// How far the reader is behind, beside what the kernel holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues whole frames. Does nothing after a Close. Over [`LIMIT`] the reader is too slow: it is
    /// closed with 4008.
    pub fn push(&mut self, frames: &Bytes) {
        self.push_pieces([frames.clone()]);
    }

    /// Queues one frame that comes in pieces.
    pub fn push_pieces(&mut self, pieces: impl IntoIterator<Item = Bytes>) {
        if self.ended {
            return;
        }
        for (n, bytes) in pieces.into_iter().enumerate() {
            self.put(bytes, n == 0);
        }
        if self.bytes > LIMIT {
            self.close_too_slow();
        }
    }

    /// Queues a Close frame as the last frame.
    pub fn close(&mut self, code: u16, reason: &'static str) {
        if !self.ended {
            self.put(frame::close(code, reason), true);
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
                        let next = self.queue.pop_front();
                        self.head = next.map(|piece| piece.bytes).unwrap_or_default();
                    }
                }
                Err(e) if e.kind() == WouldBlock => return,
                Err(_) => self.discard(), // the reader sees the same error
            }
        }
        self.queue = VecDeque::new(); // gives the memory of a burst back
        self.counted.set(0);
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

    /// Frees memory that other connections need. Keeps the rest of a half-written frame and sends a Close, as
    /// for any slow reader; but drops everything if that rest is still in pieces, because it is long.
    pub fn shed(&mut self) {
        if self.ended {
            return self.discard();
        }
        if self.is_blocked() {
            self.close_too_slow();
            let close_is_next = self.queue.len() == 1;
            if !close_is_next {
                self.discard();
            }
        }
    }

    fn put(&mut self, bytes: Bytes, starts_frame: bool) {
        self.bytes += bytes.len();
        if self.is_blocked() {
            let piece = Piece {
                bytes,
                starts_frame,
            };
            self.queue.push_back(piece);
            self.counted.set(self.queue.capacity() * size_of::<Piece>());
        } else {
            (self.head, self.stuck_secs) = (bytes, 0);
        }
    }

    /// Drops queued frames except the one that is partially written, then queues the Close: inside a
    /// half-written frame it could not be read. The page resumes and receives what was dropped.
    fn close_too_slow(&mut self) {
        let rest_of_frame = self.queue.iter().take_while(|piece| !piece.starts_frame);
        let rest_of_frame = rest_of_frame.count();
        self.queue.truncate(rest_of_frame);
        self.queue.shrink_to_fit();
        let rest: usize = self.queue.iter().map(|piece| piece.bytes.len()).sum();
        self.bytes = self.head.len() + rest;
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

    /// A socket that takes so many bytes before it is full.
    #[derive(Default)]
    struct Socket {
        space: Cell<usize>,
        taken: RefCell<Vec<u8>>,
    }

    impl Socket {
        fn flush(&self, outbox: &mut Outbox, space: usize) {
            self.space.set(space);
            outbox.flush(|bytes| {
                let n = bytes.len().min(self.space.get());
                self.space.set(self.space.get() - n);
                self.taken.borrow_mut().extend_from_slice(&bytes[..n]);
                if n == 0 {
                    Err(WouldBlock.into())
                } else {
                    Ok(n)
                }
            });
        }
    }

    fn close_frame() -> Bytes {
        frame::close(close_code::TOO_SLOW, "too_slow")
    }

    #[test]
    fn a_slow_reader_gets_whole_frames_and_then_the_close() {
        let (socket, mut outbox) = (Socket::default(), Outbox::default());
        let frame = frame::text("x".repeat(LIMIT / 4));
        for space in [10, 0, 0, 0, 0, 0] {
            outbox.push(&frame);
            socket.flush(&mut outbox, space);
        }
        assert!(!outbox.is_open() && outbox.is_blocked());
        socket.flush(&mut outbox, usize::MAX);
        assert!(!outbox.is_blocked() && outbox.bytes == 0);
        let wanted = [&frame[..], &close_frame()].concat();
        assert_eq!(socket.taken.into_inner(), wanted);
    }

    #[test]
    fn a_close_comes_after_all_pieces_of_a_frame() {
        let pieces: [Bytes; 3] = ["first ", "second ", "third"].map(Bytes::from);
        for written in [0, 3, 6, 9, 13, 15] {
            let (socket, mut outbox) = (Socket::default(), Outbox::default());
            outbox.push_pieces(pieces.clone());
            outbox.push(&frame::text("next"));
            socket.flush(&mut outbox, written);
            outbox.close_too_slow();
            let rest = pieces.concat().len() - written;
            assert_eq!(outbox.bytes, rest + close_frame().len());
            socket.flush(&mut outbox, usize::MAX);
            let wanted = [&pieces.concat()[..], &close_frame()].concat();
            assert_eq!(
                socket.taken.into_inner(),
                wanted,
                "{written} written before"
            );
        }
    }

    #[test]
    fn shedding_keeps_a_short_rest_with_the_close_and_drops_a_long_one() {
        let (socket, mut outbox) = (Socket::default(), Outbox::default());
        outbox.shed();
        assert!(outbox.is_open(), "nothing is queued");
        outbox.push(&frame::text("half"));
        outbox.push(&frame::text("dropped"));
        socket.flush(&mut outbox, 3);
        outbox.shed();
        assert_eq!(
            outbox.bytes,
            frame::text("half").len() - 3 + close_frame().len()
        );
        outbox.shed();
        assert!(!outbox.is_blocked() && !outbox.is_open(), "closed before");

        let mut outbox = Outbox::default();
        outbox.push_pieces(["first", "second"].map(Bytes::from));
        outbox.shed();
        assert!(!outbox.is_blocked() && !outbox.is_open());
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
