//! Output that cannot be written is no success, nor is a start without descriptors or threads.

use std::fs::{OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Agent, images, install, is_superuser, leave_out, open_directory, until};
use crate::tool::sifter;

#[test]
fn a_full_disk_is_said() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x.sif"), b"").unwrap();
    for arguments in [
        &["--help"][..],
        &["help", "scan"],
        &["scan", "--help"],
        &["-h"],
        &["--version"],
        &["scan", "."],
        &["scan", ".", "--json"],
        &["inspect", "x.sif"],
        &["check-config", "--root", "."],
        &["doctor", "--root", "."],
    ] {
        complains(sifter().args(arguments).current_dir(directory.path()));
    }
}

#[test]
fn what_an_agent_answered_is_not_lost_in_silence() {
    let directory = tempfile::tempdir().unwrap();
    // More than is gathered before it is written.
    let names: Vec<String> = (0..20).map(|number| format!("{number}.sif")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    images(directory.path(), &names);
    let agent = Agent::start(directory.path(), "", "");
    for command in ["ls", "status", "watch", "rescan"] {
        let options: &[&[&str]] = match command {
            "rescan" => &[&[]],
            _ => &[&[], &["--json"]],
        };
        for options in options {
            let ask = || {
                let mut ask = sifter();
                ask.args([command, "--address", &agent.unix()])
                    .args(*options);
                ask
            };
            complains(&mut ask());
            let (read, write) = std::io::pipe().unwrap();
            drop(read);
            let output = ask().stdout(write).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{command} {options:?}");
            assert!(output.stderr.is_empty(), "{command} {options:?}");
        }
    }
}

/// Whether an agent starts that has so many roots and, with a limit, descriptors, of which each root takes one; and
/// what it said.
fn starts_with_descriptors(directory: &Path, limit: &str) -> (bool, String) {
    let mut command = Command::new("sh");
    let script = format!("ulimit {limit} && exec \"$@\"");
    command.arg("-c").arg(script).arg("sh");
    command.arg(env!("CARGO_BIN_EXE_sifter")).arg("agent");
    command.arg("--listen");
    command.arg(format!("unix:{}/agent.sock", directory.display()));
    for number in 0..64 {
        let root = directory.join(number.to_string());
        std::fs::create_dir_all(&root).unwrap();
        command.arg("--root").arg(root);
    }
    let mut agent = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let first = lines.next().transpose().unwrap();
    if first.is_some() {
        agent.kill().unwrap();
    }
    let said = agent.wait_with_output().unwrap().stderr;
    let starts = first.is_some_and(|line| line.starts_with("listening on "));
    (starts, String::from_utf8(said).unwrap())
}

#[test]
fn an_agent_takes_as_many_descriptors_as_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let (starts, said) = starts_with_descriptors(directory.path(), "-Sn 64");
    assert!(starts, "{said}");
    let (starts, said) = starts_with_descriptors(directory.path(), "-n 64");
    assert!(!starts && said.contains("LimitNOFILE="), "{said}");
}

/// What an agent says of so many roots that may have so many threads, and no scan of which is still running.
fn said_with_threads(directory: &Path, roots: usize, threads: usize) -> String {
    let log = directory.join("agent.log");
    let mut command = Command::new("prlimit");
    command.arg(format!("--nproc={threads}"));
    command.arg(directory.join("sifter"));
    command.args(["agent", "--config"]);
    command.arg(directory.join("agent.toml"));
    // Whose threads are counted: nobody else's, and not those of another run of this test.
    let nobody = 100_000 + std::process::id();
    command.uid(nobody).gid(nobody);
    command.stdout(Stdio::null());
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut agent = command.spawn().unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    until("it ends, or has tried all roots", || {
        let tried = said().matches("scanned root=").count();
        tried >= roots || agent.try_wait().unwrap().is_some()
    });
    let _ = agent.kill();
    agent.wait().unwrap();
    said()
}

#[test]
fn where_threads_are_short_that_is_said() {
    if !is_superuser() {
        leave_out("the lack of threads", "only root can be another user");
        return;
    }
    const ROOTS: usize = 16;
    let directory = open_directory();
    let at = |name: &str| directory.path().join(name);
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    install(env!("CARGO_BIN_EXE_sifter"), &at("sifter"));
    let mut config = format!(
        "landlock = false\nlisten = ['unix:{}']\n[defaults]\nhints = false\ninterval = '1s'\n",
        at("agent.sock").display()
    );
    for number in 0..ROOTS {
        let root = at(&number.to_string());
        std::fs::create_dir(&root).unwrap();
        config += &format!("[[root]]\npath = '{}'\n", root.display());
    }
    std::fs::write(at("agent.toml"), config).unwrap();
    let mut complained = 0;
    // From fewer than the roots have to as many as some scans want besides.
    for threads in [ROOTS / 2, ROOTS + 4, ROOTS + 8, ROOTS + 12] {
        let said = said_with_threads(directory.path(), ROOTS, threads);
        assert!(!said.contains("panicked"), "{threads}: {said}");
        complained += usize::from(said.contains("TasksMax="));
    }
    assert!(complained > 0);
    // The threads of digests are the first to be started.
    let config = std::fs::read_to_string(at("agent.toml")).unwrap();
    let config = config.replace("[defaults]", "[defaults]\ncontent_digest = true");
    std::fs::write(at("agent.toml"), config).unwrap();
    let said = said_with_threads(directory.path(), ROOTS, ROOTS / 2);
    let line = said.lines().find(|line| line.contains("digesting"));
    assert!(
        line.is_some_and(|line| line.contains("TasksMax=")),
        "{said}"
    );
}

/// Runs a command whose output finds no room.
fn complains(command: &mut Command) {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    assert!(
        said.starts_with("sifter: standard output: No space left on device"),
        "{command:?}: {said}"
    );
}

/// Whoever reads the output and has seen enough is no failure.
#[test]
fn a_closed_pipe_is_none() {
    for arguments in [&["--help"][..], &["--version"]] {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let output = sifter().args(arguments).stdout(write).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
}

/// Whoever is answered, or is told that the agent listens, may stop it. Here nobody reads yet what it says of that.
#[test]
fn an_agent_that_answers_ends_as_it_should_when_told_to() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix:{}/agent.sock", directory.path().display());
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let room = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap();
        writer
            .write_all(&vec![b'\n'; room.try_into().unwrap()])
            .unwrap();
        let mut agent = sifter()
            .args(["agent", "--listen", &address, "--root"])
            .arg(directory.path())
            .stdout(writer)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the agent answers", || {
            let mut status = sifter();
            let status = status.args(["status", "--address", &address]).output();
            status.unwrap().status.code() != Some(5)
        });
        kill(Pid::from_raw(agent.id().try_into().unwrap()), signal).unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(agent.wait().unwrap().code(), Some(0), "{signal}");
        assert_eq!(said.trim(), format!("listening on {address}"));
    }
}
