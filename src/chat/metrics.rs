//! Counters for the metrics line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub struct Metrics {
    messages: AtomicU64,
    deliveries: AtomicU64,
}

impl Metrics {
    /// `deliveries`: the messages multiplied by the connections that they were sent to.
    pub fn count(&self, messages: u64, deliveries: u64) {
        self.messages.fetch_add(messages, Relaxed);
        self.deliveries.fetch_add(deliveries, Relaxed);
    }

    /// Messages and deliveries since the last call.
    pub fn take(&self) -> (u64, u64) {
        (
            self.messages.swap(0, Relaxed),
            self.deliveries.swap(0, Relaxed),
        )
    }
}
