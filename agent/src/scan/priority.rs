//! Scanning gives way to everybody else on the login node.

/// Asks for the lowest CPU priority and the idle I/O class for the calling thread. Best effort: a
/// scan that may not be polite in this way still is in its width and rate.
pub fn lower_this_thread() {
    let _ = rustix::process::nice(19);
    // ioprio_set has no safe wrapper; the class follows the nice value unless it was set, and the
    // service's unit sets IOSchedulingClass=idle.
}
