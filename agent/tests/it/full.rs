//! Output that cannot be written is no success.

use std::fs::OpenOptions;
use std::process::Command;

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
