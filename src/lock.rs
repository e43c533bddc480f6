//! Mutexes without poisoning: a panic in one session must not end the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, even after another thread panicked while it held the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
