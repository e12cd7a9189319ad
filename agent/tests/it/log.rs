//! What decides what is logged.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use crate::tool::sifter;

/// What an agent writes that cannot listen, and how it ends.
fn log(rust_log: &str) -> (String, Option<i32>) {
    let output = sifter()
        .args(["agent", "--root", "/", "--listen", "unix:/proc/nowhere"])
        .env("RUST_LOG", rust_log)
        .output()
        .unwrap();
    (
        String::from_utf8(output.stderr).unwrap(),
        output.status.code(),
    )
}

#[test]
fn a_filter_of_the_environment_is_named_where_it_is_none_and_left_out_where_it_is_empty() {
    let (said, code) = log("=x");
    assert!(
        said.starts_with("sifter: RUST_LOG: `=x` is no filter, as in "),
        "{said}"
    );
    assert_eq!(code, Some(2));
    for empty in ["", " "] {
        let (said, _) = log(empty);
        assert!(said.contains("Landlock"), "{said}");
    }
    let (said, _) = log("off");
    assert!(!said.contains("Landlock"), "{said}");
}

#[test]
fn addresses_are_said_once_where_the_journal_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    for is_journal in [false, true] {
        let out = File::create(&path).unwrap();
        let facts = out.metadata().unwrap();
        let inode = if is_journal { facts.ino() } else { 0 };
        let mut agent = sifter()
            .args(["agent", "--listen", "127.0.0.1:0", "--root"])
            .arg(directory.path())
            // What the service manager says of the stream that it made.
            .env("JOURNAL_STREAM", format!("{}:{inode}", facts.dev()))
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(agent.stderr.take().unwrap()).lines();
        let logged = log.any(|line| line.unwrap().contains("listening address="));
        let _ = agent.kill();
        agent.wait().unwrap();
        assert!(logged);
        let said = fs::read_to_string(&path).unwrap();
        assert_eq!(said.is_empty(), is_journal, "{said}");
    }
}
