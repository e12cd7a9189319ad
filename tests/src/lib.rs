//! What the end-to-end tests stand on: the real binaries as processes, waiting for conditions,
//! small clients, the real images with what apptainer says of them, and a writer of tiny SIFs.
//!
//! Nothing here knows the crates under test: they are reached as a user reaches them, through
//! processes, sockets and the published contract. No helper sleeps in place of a condition; see
//! [`wait`].

pub mod agent;
pub mod control;
pub mod grpcurl;
pub mod http;
pub mod images;
pub mod other;
pub mod process;
pub mod relay;
pub mod sif;
pub mod wait;

use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// Whether a test that cannot run here must fail rather than be left out.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Whether this process may become other users and give files away: root may, unless its capabilities were taken.
pub fn is_superuser() -> bool {
    // CAP_CHOWN, CAP_SETGID and CAP_SETUID.
    const NEEDED: u64 = 1 | 1 << 6 | 1 << 7;
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.map(|hex| u64::from_str_radix(hex.trim(), 16));
    matches!(effective, Some(Ok(effective)) if effective & NEEDED == NEEDED)
}

/// Leaves a test out for want of a tool: loudly, and where `CI` is set it fails instead.
pub fn skip(what: &str, why: &str) {
    assert!(!is_ci(), "{what} cannot run, and CI is set: {why}");
    leave_out(what, why);
}

/// Leaves a test out for want of something that a checkout need not have.
///
/// Not by a macro: what those print is shown of tests that fail only.
pub fn leave_out(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\nNOT RUN: {what}: {why}\n");
}
