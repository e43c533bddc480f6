//! The bytes of frames, and how much memory all outboxes of this dyno hold together.
//!
//! Outboxes share the bytes of a frame, so these count once: from when the frame is encoded until no outbox
//! holds it. `heartbeat.rs` closes the connections furthest behind when it is too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes that all outboxes of a dyno may hold together.
pub const TOTAL_LIMIT: usize = 64 * 1024 * 1024;

static TOTAL: AtomicUsize = AtomicUsize::new(0);
static OVER_LIMIT: Notify = Notify::const_new();

/// The bytes that all outboxes hold now.
pub fn total() -> usize {
    TOTAL.load(Relaxed)
}

/// Waits until the total has become more than its limit.
pub async fn over_limit() {
    OVER_LIMIT.notified().await;
}

/// Bytes that are part of the total until this is dropped.
#[derive(Default)]
pub struct Counted(usize);

impl Counted {
    pub fn new(bytes: usize) -> Counted {
        let mut counted = Counted::default();
        counted.set(bytes);
        counted
    }

    pub fn set(&mut self, bytes: usize) {
        if bytes > self.0 {
            let more = bytes - self.0;
            if TOTAL.fetch_add(more, Relaxed) + more > TOTAL_LIMIT {
                OVER_LIMIT.notify_one();
            }
        } else if bytes < self.0 {
            TOTAL.fetch_sub(self.0 - bytes, Relaxed);
        }
        self.0 = bytes;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The bytes of frames, or of a part of a frame.
pub struct Buffer {
    bytes: Vec<u8>,
    _counted: Counted,
}

impl Buffer {
    pub fn new(bytes: Vec<u8>) -> Buffer {
        let _counted = Counted::new(bytes.capacity());
        Buffer { bytes, _counted }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes of which an outbox can hold slices.
pub fn counted(bytes: Vec<u8>) -> Bytes {
    slice_of(&Arc::new(Buffer::new(bytes)))
}

/// All bytes of a buffer, without a copy.
pub fn slice_of(buffer: &Arc<Buffer>) -> Bytes {
    struct Owner(Arc<Buffer>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }
    Bytes::from_owner(Owner(buffer.clone()))
}
