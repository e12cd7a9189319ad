//! Locks that outlive a panic: one is caught where it costs no more than what it is about, and what is locked is at no
//! time half-done where something may panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after somebody has panicked who had it locked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
