//! Output that cannot be written is no success.

use std::fs::OpenOptions;

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
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = sifter()
            .args(arguments)
            .current_dir(directory.path())
            .stdout(full)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.starts_with("sifter: standard output: No space left on device"),
            "{arguments:?}: {said}"
        );
    }
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
