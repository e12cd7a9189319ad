//! A root on a file system that stops to answer, where there is a latency file system beside the work
//! tree to be stopped (`SIFTER_SHARED`, or `../shared`: a small C program).

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::RootState;
use sifter_proto::v1::ScanRequest;
use sifter_proto::v1::Status;
use sifter_proto::v1::agent_service_client::AgentServiceClient;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::addresses;
use sifter_tests::agent::runtime;
use sifter_tests::images;
use sifter_tests::leave_out;
use sifter_tests::process::Process;
use sifter_tests::process::binary;
use sifter_tests::sif::Tiny;
use sifter_tests::skip;
use sifter_tests::wait;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long a listing may take that has no reason to wait.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Of timestamps, as the agent takes it to be at worst.
const GRANULARITY: Duration = Duration::from_secs(2);

/// A mounted file system whose server can be stopped; let go of and unmounted at the end.
struct Slow {
    server: Process,
    mount: PathBuf,
}

impl Slow {
    /// The kernel remembers attributes for so many seconds.
    fn mount(program: &Path, source: &Path, mount: &Path, log: &Path, remembered: u32) -> Self {
        let mut command = Command::new(program);
        command.args(["-d", "0", "-t", &remembered.to_string()]);
        command.arg(source).arg(mount);
        let server = Process::start(&mut command, log);
        let mut slow = Self {
            server,
            mount: mount.to_owned(),
        };
        wait::until_true("the file system", || {
            slow.server.expect_running();
            fs::read_dir(mount).is_ok_and(|mut entries| entries.next().is_some())
        });
        slow
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        if self.server.ended().is_none() {
            self.server.signal(Signal::SIGCONT);
        }
        let _ = Command::new("fusermount3")
            .arg("-uz")
            .arg(&self.mount)
            .status();
    }
}

/// A directory, the place where a latency file system shows it, and its program; `None`, said of the test `what`, where
/// there is no such file system.
fn files(what: &str, dir: &Path) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let Some(source) = source() else {
        let why = "no latency file system beside the work tree (SIFTER_SHARED)";
        leave_out(what, why);
        return None;
    };
    let program = match program(&source, dir) {
        Ok(program) => program,
        Err(why) => {
            skip(what, why);
            return None;
        }
    };
    let [source, mount] = ["source", "mount"].map(|name| {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    Some((source, mount, program))
}

/// An image in the directory that the file system shows, and one in a directory beside it, which is given.
fn far_and_near(dir: &Path, source: &Path) -> PathBuf {
    let local = dir.join("local");
    fs::create_dir(&local).unwrap();
    Tiny::numbered(1, "lab/far:1").write(&source.join("far.sif"));
    Tiny::numbered(2, "lab/near:1").write(&local.join("near.sif"));
    local
}

/// The repositories that are listed.
fn repositories(runtime: &Runtime, agent: &Agent) -> Vec<String> {
    let page = runtime.block_on(agent.list(ListImagesRequest::default()));
    let images = page.unwrap().images.into_iter();
    images.map(|image| image.repository).collect()
}

/// Asks for a scan of a root, and waits for its end if `wait` says so.
fn scan(runtime: &Runtime, agent: &Agent, root: &Path, wait: bool) {
    runtime.block_on(async {
        let request = ScanRequest {
            roots: vec![root.to_str().unwrap().to_owned()],
            wait,
            ..ScanRequest::default()
        };
        let mut client = AgentServiceClient::new(agent.channel().await);
        let mut progress = client.scan(request).await.unwrap().into_inner();
        while progress.message().await.unwrap().is_some() {}
    });
}

/// The latency file system's source, which a checkout need not have beside it.
fn source() -> Option<PathBuf> {
    let source = images::corpus()?.join("../bench/delayfs.c");
    source.is_file().then_some(source)
}

/// The latency file system, built; or why it cannot be.
fn program(source: &Path, dir: &Path) -> Result<PathBuf, &'static str> {
    let built = dir.join("delayfs");
    let flags = Command::new("pkg-config")
        .args(["--cflags", "--libs", "fuse3"])
        .output();
    let flags = flags.map_err(|_| "no pkg-config")?;
    let fuse = fs::File::options().read(true).write(true).open("/dev/fuse");
    if !flags.status.success() || fuse.is_err() {
        return Err("no FUSE to build or mount the latency file system with");
    }
    let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
    let compiled = Command::new("cc")
        .args(["-O1", "-pthread", "-o"])
        .arg(&built)
        .arg(source)
        .args(flags.split_whitespace())
        .status();
    match compiled {
        Ok(status) if status.success() => Ok(built),
        _ => Err("the latency file system does not build"),
    }
}

#[test]
fn a_root_that_hangs_holds_up_neither_another_nor_any_answer() {
    let what = "a_root_that_hangs_holds_up_neither_another_nor_any_answer";
    let dir = TempDir::new().unwrap();
    let Some((source, mount, program)) = files(what, dir.path()) else {
        return;
    };
    let local = far_and_near(dir.path(), &source);
    let slow = Slow::mount(&program, &source, &mount, &dir.path().join("log"), 0);
    let roots = [&mount, &local].map(|path| format!("[[root]]\npath = '{}'\n", path.display()));
    let agent = Agent::ready(Options::config(&roots.concat()));
    let runtime = runtime();
    // Repository and status of each image.
    let listed = || {
        let start = Instant::now();
        let page = runtime.block_on(agent.list(ListImagesRequest::default()));
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        let images = page.unwrap().images;
        let mut listed: Vec<_> = images
            .into_iter()
            .map(|image| (image.repository.clone(), image.status()))
            .collect();
        listed.sort_by(|one, other| one.0.cmp(&other.0));
        listed
    };
    let far = |status| ("lab/far".to_owned(), status);
    let near = ("lab/near".to_owned(), Status::Ready);
    wait::until_true("both images", || {
        listed() == [far(Status::Ready), near.clone()]
    });

    slow.server.signal(Signal::SIGSTOP);
    scan(&runtime, &agent, &mount, false);
    // The other root is scanned to the end meanwhile, and what is new in it is listed.
    Tiny::numbered(3, "lab/near:2").write(&local.join("near2.sif"));
    scan(&runtime, &agent, &local, true);
    assert_eq!(listed().len(), 3);

    // It is said of the root and its images, which stay in the listing.
    wait::until_true("the root to be called unavailable", || {
        listed()[0] == far(Status::Unavailable)
    });
    assert_eq!(listed().len(), 3);
    let status = runtime.block_on(agent.status()).unwrap();
    let states: Vec<_> = status.roots.iter().map(|root| root.state()).collect();
    assert_eq!(states, [RootState::Unavailable, RootState::Ok]);

    // A reload, which has a new scan hang, does not make it readable.
    let config = agent.socket.with_file_name("agent.toml");
    fs::write(&config, roots.concat() + "max_depth = 100\n").unwrap();
    agent.process.signal(Signal::SIGHUP);
    wait::until_true("the reload", || {
        agent.process.output().contains("roots in use")
    });
    assert_eq!(listed()[0], far(Status::Unavailable));
    let status = runtime.block_on(agent.status()).unwrap();
    assert_eq!(status.roots[0].state(), RootState::Unavailable);

    // On return it is scanned, by itself.
    slow.server.signal(Signal::SIGCONT);
    wait::until_true("the image to be back", || listed()[0] == far(Status::Ready));
}

#[test]
fn a_root_that_hangs_at_the_start_keeps_no_agent_from_starting() {
    let what = "a_root_that_hangs_at_the_start_keeps_no_agent_from_starting";
    let dir = TempDir::new().unwrap();
    let Some((source, mount, program)) = files(what, dir.path()) else {
        return;
    };
    let local = far_and_near(dir.path(), &source);
    let slow = Slow::mount(&program, &source, &mount, &dir.path().join("log"), 0);
    slow.server.signal(Signal::SIGSTOP);
    let agent = Agent::ready(Options::roots([&mount, &local]));
    let runtime = runtime();
    let listed = || repositories(&runtime, &agent);
    wait::until_true("the image that is at hand", || listed() == ["lab/near"]);
    slow.server.signal(Signal::SIGCONT);
    wait::until_true("the other one", || listed() == ["lab/far", "lab/near"]);
}

/// As on NFS, where the kernel does not learn at once what another client does.
#[test]
fn who_asks_for_a_scan_sees_what_another_client_has_changed() {
    let what = "who_asks_for_a_scan_sees_what_another_client_has_changed";
    let dir = TempDir::new().unwrap();
    let Some((source, mount, program)) = files(what, dir.path()) else {
        return;
    };
    for name in ["gone", "rewritten"] {
        Tiny::numbered(1, &format!("lab/{name}:1")).write(&source.join(name));
    }
    // What has changed within a timestamp's granularity is read again anyway.
    let written = Instant::now();
    wait::until_true("the files to be older than that", || {
        written.elapsed() > GRANULARITY
    });
    let log = dir.path().join("log");
    let _server = Slow::mount(&program, &source, &mount, &log, 3600);
    let agent = Agent::ready(Options::roots([&mount]));
    let runtime = runtime();
    let listed = || repositories(&runtime, &agent);
    wait::until_true("both images", || listed() == ["lab/gone", "lab/rewritten"]);

    fs::remove_file(source.join("gone")).unwrap();
    Tiny::numbered(2, "lab/changed:1").write(&source.join("rewritten"));
    Tiny::numbered(3, "lab/new:1").write(&source.join("new"));
    scan(&runtime, &agent, &mount, true);
    assert_eq!(listed(), ["lab/changed", "lab/new"]);
}

/// Where Landlock confines the agent to what was mounted when it started, another mount is out of its reach.
#[test]
fn a_root_that_is_mounted_anew_is_noticed() {
    let what = "a_root_that_is_mounted_anew_is_noticed";
    let mounts = Command::new("unshare").args(["--mount", "true"]).output();
    if !mounts.is_ok_and(|mounts| mounts.status.success()) {
        return leave_out(what, "no right to mount (unshare --mount)");
    }
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    for manager in [None, Some(("NOTIFY_SOCKET", "/nowhere"))] {
        let mut command = Command::new("unshare");
        command.arg("--mount").arg(binary("sifter"));
        command.args(["agent", "--listen", "127.0.0.1:0", "--root"]);
        command.arg(&root).envs(manager);
        let mut process = Process::start(&mut command, &dir.path().join("agent.log"));
        wait::until_true("an address", || !addresses(&process).is_empty());
        if !process.output().contains("confined by Landlock") {
            return leave_out(what, "no Landlock");
        }
        let mounted = Command::new("nsenter")
            .args(["--mount", "--target", &process.id().to_string()])
            .args(["mount", "-t", "tmpfs", "none"])
            .arg(&root)
            .status();
        assert!(mounted.unwrap().success());
        wait::until_true("a word on what is mounted", || {
            let said = process.output();
            said.contains("other file systems are mounted there than at start")
        });
        // Who will be started anew ends.
        if manager.is_some() {
            assert!(process.wait().success());
        }
    }
}
