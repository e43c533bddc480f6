//! Limits a repeated warning to one line per minute.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds between two lines.
const PAUSE_SECS: u64 = 60;

#[derive(Default)]
pub struct LogThrottle {
    /// When the last line was logged, in seconds of Unix time. 0: never.
    last_secs: AtomicU64,
}

impl LogThrottle {
    pub const fn new() -> LogThrottle {
        LogThrottle {
            last_secs: AtomicU64::new(0),
        }
    }

    /// True if no call was answered with true in the last minute.
    pub fn is_due(&self) -> bool {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.unwrap_or_default().as_secs();
        let last = self.last_secs.load(Relaxed);
        // The absolute difference, because the clock may be set back. Of two threads, one succeeds.
        let due = now.abs_diff(last) >= PAUSE_SECS;
        due && self
            .last_secs
            .compare_exchange(last, now, Relaxed, Relaxed)
            .is_ok()
    }
}
