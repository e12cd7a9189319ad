//! Scanning gives way to everybody else on the login node.

/// Asks for the lowest CPU priority for the calling thread, and with it for the lowest level of its I/O
/// class. Best effort: a scan that may not be polite in this way still is in its width and rate.
pub fn lower_this_thread() {
    // Not by so much lower than now: the service may have been given a higher one.
    let _ = rustix::process::setpriority_process(None, 19);
    // The class itself stays what it is: ioprio_set has no safe wrapper that is kept up. The service's unit
    // sets IOSchedulingClass=idle, which all of its threads have.
}
