//! How often: what one person may do, a token bucket; what the log repeats, once a minute.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What may be done at once; then the refill is awaited.
const BURST: f64 = 10.0;

pub struct Bucket {
    left: f64,
    per_second: f64,
    at: Instant,
    /// Refusals in a row: a few are haste, many are a flood.
    pub refused: u32,
}

impl Bucket {
    /// A full bucket; a refill of 0 per second means no limit.
    pub fn new(per_second: f64) -> Bucket {
        Bucket {
            left: BURST,
            per_second,
            at: Instant::now(),
            refused: 0,
        }
    }

    /// Takes one, or says in how many milliseconds there will be one.
    pub fn draw(&mut self) -> Result<(), u64> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let now = Instant::now();
        let refill = (now - self.at).as_secs_f64() * self.per_second;
        self.at = now;
        self.left = (self.left + refill).min(BURST);
        if self.left >= 1.0 {
            self.left -= 1.0;
            self.refused = 0;
            return Ok(());
        }
        self.refused += 1;
        Err(((1.0 - self.left) / self.per_second * 1000.0).ceil() as u64)
    }
}

/// What goes wrong again and again is said once a minute.
#[derive(Default)]
pub struct Minute(AtomicU64);

impl Minute {
    /// True the first time in a minute.
    pub fn is_new(&self) -> bool {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let minute = since.unwrap_or_default().as_secs() / 60;
        self.0.swap(minute, Relaxed) != minute
    }
}
