//! The binary as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

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

/// A server that was just started, and its address: the first that it says it listens on.
pub fn started(serve: &mut Command) -> (Process, SocketAddr) {
    let mut process = Process(serve.stdout(Stdio::piped()).spawn().unwrap());
    let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on http://");
    let address = address.and_then(|address| address.parse().ok());
    // Whoever reads it stays.
    process.0.stdout = Some(stdout.into_inner());
    (process, address.unwrap_or_else(|| panic!("{line}")))
}

/// How long a process may be silent that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process writes to standard error: whoever waits for a line that never comes fails, and does not hang.
pub struct Log(Receiver<String>);

impl Log {
    /// Of a process of which nobody else reads it.
    pub fn of(process: &mut Process) -> Self {
        let (lines, log) = channel();
        let written = BufReader::new(process.0.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut written = written.lines().map_while(Result::ok);
            written.try_for_each(|line| lines.send(line))
        });
        Self(log)
    }

    /// Whether it comes to a line that contains this.
    pub fn says(&self, what: &str) -> bool {
        std::iter::from_fn(|| self.0.recv_timeout(PATIENCE).ok()).any(|line| line.contains(what))
    }
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
