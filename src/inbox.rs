//! Lines of a room's log on their way from the bus to the room: gathered while others are being
//! delivered, or while the log is being read, and taken out in batches that become one write.

use std::{collections::VecDeque, mem::replace};

/// Bytes that are joined into one write. Ten messages joined cost a reader one system call, not ten;
/// much more would fill the outbox of someone who is only briefly away.
const BATCH: usize = 16 * 1024;
/// Bytes that may wait. Beyond it the lines are dropped, for the log has them.
const LIMIT: usize = 1024 * 1024;

#[derive(Default)]
pub struct Inbox {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Someone has been asked to deliver and has not yet found the inbox empty.
    delivering: bool,
    /// Lines have been dropped. Until this is taken back, none are kept: they would follow a hole.
    pub lost: bool,
}

impl Inbox {
    /// Adds a line. True if someone has to be asked to deliver it.
    pub fn gather(&mut self, line: Vec<u8>) -> bool {
        self.bytes += line.len();
        self.lines.push_back(line);
        if self.lost || self.bytes > LIMIT {
            (self.lines, self.bytes) = Default::default();
            self.lost = true;
        }
        !replace(&mut self.delivering, true)
    }

    /// Has whoever delivers to go on? Not while `behind`.
    pub fn go_on(&mut self, behind: bool) -> bool {
        self.delivering = !behind && !self.lines.is_empty();
        self.delivering
    }

    /// The next lines, oldest first; none when all have been taken.
    pub fn batch(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = 0;
        let fits = |line: &&Vec<u8>| {
            bytes += line.len();
            bytes <= BATCH
        };
        let n = self.lines.iter().take_while(fits).count().max(1); // one, however long it is
        let batch: Vec<_> = self.lines.drain(..n.min(self.lines.len())).collect();
        self.bytes -= batch.iter().map(Vec::len).sum::<usize>();
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_order_and_complete() {
        let mut inbox = Inbox::default();
        assert!(inbox.gather(vec![0; 40]));
        for n in 1..200u8 {
            assert!(!inbox.gather(vec![n; 40 * n as usize]));
        }
        let mut seen = 0;
        loop {
            let batch = inbox.batch();
            let Some(first) = batch.first() else { break };
            assert_eq!(first[0], seen);
            assert!(batch.len() == 1 || batch.iter().map(Vec::len).sum::<usize>() <= BATCH);
            seen += batch.len() as u8;
        }
        assert_eq!((seen, inbox.bytes), (200, 0));
    }

    #[test]
    fn an_overflow_drops_everything_and_says_so() {
        let mut inbox = Inbox::default();
        for _ in 0..LIMIT / 1000 + 1 {
            inbox.gather(vec![0; 1000]);
        }
        inbox.gather(vec![0; 1000]);
        assert!(inbox.lost && inbox.batch().is_empty() && !inbox.go_on(false));
    }
}
