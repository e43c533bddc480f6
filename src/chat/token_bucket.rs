//! A token bucket: the rate limit of one connection.

use std::time::Instant;

/// Tokens in a full bucket.
const BURST: f64 = 10.0;

pub struct TokenBucket {
    tokens: f64,
    per_second: f64,
    filled_at: Instant,
    /// Refusals in a row.
    pub refused: u32,
}

impl TokenBucket {
    /// A full bucket. `per_second`: tokens added per second; 0 means no limit.
    pub fn new(per_second: f64) -> TokenBucket {
        TokenBucket {
            tokens: BURST,
            per_second,
            filled_at: Instant::now(),
            refused: 0,
        }
    }

    /// Takes a token. The error: in how many milliseconds there will be one.
    pub fn take(&mut self) -> Result<(), u64> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let now = Instant::now();
        let refill = (now - self.filled_at).as_secs_f64() * self.per_second;
        self.filled_at = now;
        self.tokens = (self.tokens + refill).min(BURST);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            self.refused = 0;
            return Ok(());
        }
        self.refused += 1;
        Err(((1.0 - self.tokens) / self.per_second * 1000.0).ceil() as u64)
    }
}
