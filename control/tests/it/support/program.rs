//! The binary as a process.

use std::path::Path;
use std::process::{Child, Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A command of the binary with this configuration.
pub fn program(command: &str, file: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sifter-control"));
    program
        .args([command, "--config"])
        .arg(file)
        .env_remove("RUST_LOG")
        .env_remove("CREDENTIALS_DIRECTORY")
        .env_remove("NOTIFY_SOCKET");
    program
}

/// The same, run to its end.
pub fn run(command: &str, file: &Path) -> Output {
    program(command, file).output().unwrap()
}

/// Ends with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}
