//! Output that cannot be written is no success, nor is a start without descriptors.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Agent, images};
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
