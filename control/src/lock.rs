//! Locks that outlive a panic: one that a request meets is caught, and what is locked is at no time half-done where
//! something may panic.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Locks, also after somebody has panicked who had it locked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
