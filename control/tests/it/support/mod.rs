//! Agents, the server under test, in this process and in one of its own, a plain HTTP client.

pub mod agent;
pub mod client;
pub mod program;
pub mod server;

use std::time::Duration;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use nix::sys::stat::Mode;
use nix::sys::stat::umask;
use tempfile::TempDir;

/// A directory that only its owner may write, and files in it likewise: whoever runs tests may let a group write.
pub fn directory() -> TempDir {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    tempfile::tempdir().unwrap()
}

/// Lets this process have the descriptors that a crowd needs.
pub fn allow_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= 4096,
        "4096 descriptors are needed, and {hard} may be had: raise the limit (ulimit -Hn)"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(8192), hard).unwrap();
}

/// Waits until a condition holds; fails after a time that no healthy machine needs.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap_or_else(|_| panic!("gave up waiting: {what}"));
}
