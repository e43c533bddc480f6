//! Limits a repeated warning to one line per minute.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Default)]
pub struct LogThrottle {
    last_minute: AtomicU64,
}

impl LogThrottle {
    /// True for the first call in a minute.
    pub fn is_due(&self) -> bool {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let minute = since.unwrap_or_default().as_secs() / 60;
        self.last_minute.swap(minute, Relaxed) != minute
    }
}
