//! What is asked of a file system, counted.

/// Counts of what was asked of the file system. One a worker; summed up by whoever reports.
#[derive(Debug, Default, Clone, Copy)]
pub struct Operations {
    /// System calls that reach the file system.
    pub calls: u64,
    /// Bytes read from files.
    pub bytes: u64,
}
