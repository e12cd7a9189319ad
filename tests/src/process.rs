//! The binaries under test, built from this work tree, and processes that end with the test.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::OnceLock;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::wait;
use crate::workspace;

/// `LISTEN` in `/proc/net/tcp`.
const TCP_LISTEN: &str = "0A";

/// Path of a binary of the workspace, `sifter` or `sifter-control`.
///
/// `SIFTER_BIN_DIR` names a directory that has them (installed ones, say). Otherwise they are built:
/// cargo hands a crate the paths of its own binaries only, so this looks beside the test binary,
/// after building what is not up to date with the selection of `cargo test --workspace`. After such
/// a run nothing is left to compile, and no run ever tests a stale binary.
pub fn binary(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| match std::env::var_os("SIFTER_BIN_DIR") {
        Some(dir) => dir.into(),
        None => build(),
    });
    let path = dir.join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

/// Copies a binary to where other users can run it. By a process that ends: what another thread starts meanwhile
/// would keep a file open that is written here, and nobody can run one.
pub fn install(name: &str, to: &Path) {
    let mut install = Command::new("install");
    install.args(["-m", "755"]).arg(binary(name)).arg(to);
    let status = install.status().expect("install of coreutils");
    assert!(status.success(), "{install:?}");
}

/// `target/<profile>` of the running test.
pub(crate) fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test binary");
    // target/<profile>/deps/<test binary>
    let dir = test.ancestors().nth(2).expect("profile directory");
    dir.to_owned()
}

/// Builds the binaries; returns where they are.
fn build() -> PathBuf {
    let dir = profile_dir();
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--workspace", "--bins", "--tests"])
        .args(["--profile", profile, "--target-dir"])
        .arg(dir.parent().expect("target directory"))
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "the binaries under test do not build");
    dir
}

/// A running process with its output in a file; killed when dropped, and its output shown when the
/// test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; both outputs go to `log`, with whatever is logged unless told otherwise.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::create(log).expect("log file");
        let name = format!("{command:?}");
        let child = command
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("second handle of the log file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name,
            child,
            log: log.to_owned(),
        }
    }

    /// Starts a command as a service manager does that passes it sockets, each with a name: two at
    /// most. The shell puts them where they belong, since they must be the descriptors from 3 on and
    /// the process's own ID be known.
    pub fn start_with_sockets(
        command: &[OsString],
        sockets: Vec<(&str, OwnedFd)>,
        log: &Path,
    ) -> Self {
        assert!((1..=2).contains(&sockets.len()), "{sockets:?}");
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        let count = sockets.len();
        let mut sockets = sockets.into_iter().map(|(_, socket)| Stdio::from(socket));
        let script = "exec 3<&0; [ \"$LISTEN_FDS\" = 1 ] || exec 4<&1; exec < /dev/null >> \"$0\" 2>&1; \
                      LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";
        let name = format!("{command:?} with sockets {names:?}");
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(log)
            .args(command)
            .env("LISTEN_FDS", count.to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .stdin(sockets.next().expect("a socket"))
            .stdout(sockets.next().unwrap_or_else(Stdio::null))
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name,
            child,
            log: log.to_owned(),
        }
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. After `SIGSTOP` all of its threads have stopped: on a busy machine some go on
    /// for a while.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ID");
        kill(Pid::from_raw(pid), signal).expect("the process can be signalled");
        if signal == Signal::SIGSTOP {
            wait::until_true("all threads to stop", || self.has_stopped());
        }
    }

    fn has_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        tasks.flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The name before the state is in parentheses and may hold anything.
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with('T'))
        })
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("state of the child")
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::until(&what, || self.ended().ok_or("still running"))
    }

    /// Panics if it has ended.
    pub fn expect_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended: {status}\n{}", self.name, self.output());
        }
    }

    /// Waits until it listens on a TCP port of the loopback address, and says which. So a test lets
    /// the kernel choose the port (`127.0.0.1:0`) and two tests never want the same one.
    pub fn tcp_listener(&mut self) -> SocketAddr {
        let what = format!("a TCP listener of {}", self.name);
        wait::until(&what, || {
            self.expect_running();
            listeners(self.child.id())
                .into_iter()
                .next()
                .ok_or("no listener")
        })
    }
}

impl Drop for Process {
    #[allow(
        clippy::print_stderr,
        reason = "shown by the test harness where the test fails"
    )]
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}---", self.name, self.output());
        }
    }
}

/// IPv4 addresses on which a process listens, by its descriptors and `/proc/net/tcp`.
fn listeners(pid: u32) -> Vec<SocketAddr> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or_else(
        |_| HashSet::new(),
        |entries| {
            entries
                .flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .map(|target| target.to_string_lossy().into_owned())
                .collect::<HashSet<_>>()
        },
    );
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
            if *state != TCP_LISTEN || !descriptors.contains(&format!("socket:[{inode}]")) {
                return None;
            }
            let (address, port) = local.split_once(':')?;
            let address = u32::from_str_radix(address, 16).ok()?;
            let port = u16::from_str_radix(port, 16).ok()?;
            // The kernel prints the address as the machine's own integer of the network bytes.
            Some((Ipv4Addr::from(address.to_ne_bytes()), port).into())
        })
        .collect()
}
