//! Scanning gives way to everybody else on the login node.

/// Asks for the lowest CPU priority for the calling thread, and with it for the lowest level of its I/O
/// class. Best effort: a scan that may not be polite in this way still is in its width and rate.
pub fn lower_this_thread() {
    let _ = rustix::process::nice(19);
    // The class itself stays what it is: ioprio_set has no safe wrapper that is kept up. The service's unit
    // sets IOSchedulingClass=idle, which all of its threads have.
}
