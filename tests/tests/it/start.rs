//! What comes to an agent that has only begun.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use sifter_tests::process::Process;
use sifter_tests::process::binary;
use sifter_tests::wait;
use tempfile::TempDir;

/// Whoever changes the configuration of an agent cannot know that it is being started.
#[test]
fn a_reload_that_is_asked_for_while_the_agent_starts_follows_the_start() {
    let dir = TempDir::new().unwrap();
    // What is read from it is not there yet.
    let config = dir.path().join("agent.toml");
    mkfifo(&config, Mode::S_IRWXU).unwrap();
    let mut command = Command::new(binary("sifter"));
    command.arg("agent").arg("--config").arg(&config);
    let mut process = Process::start(&mut command, &dir.path().join("agent.log"));
    let mut open = fs::OpenOptions::new();
    let open = open.write(true).custom_flags(nix::libc::O_NONBLOCK);
    let mut first = wait::until("somebody who reads it", || open.open(&config));
    process.signal(Signal::SIGHUP);
    let text = |root: &str| {
        let (state, root) = (dir.path().join("state"), dir.path().join(root));
        fs::create_dir(&root).unwrap();
        format!(
            "landlock = false\nlisten = ['127.0.0.1:0']\nstate_directory = '{}'\n[[root]]\npath = '{}'\n",
            state.display(),
            root.display()
        )
    };
    let changed = dir.path().join("changed");
    fs::write(&changed, text("b")).unwrap();
    fs::rename(changed, &config).unwrap();
    first.write_all(text("a").as_bytes()).unwrap();
    drop(first);
    wait::until_true("the reload", || {
        process.expect_running();
        process.output().contains("configuration in use")
    });
    let said = process.output();
    assert!(said.contains("roots in use"), "{said}");
}
