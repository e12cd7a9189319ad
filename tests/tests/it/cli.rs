//! The command line: `scan` without a daemon, `ls`, `inspect` and `status` with one.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::process::Output;

use serde_json::Value;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::SYSTEM;
use sifter_tests::images;
use sifter_tests::process::binary;
use sifter_tests::sif::Tiny;
use tempfile::TempDir;

fn sifter(args: &[&str]) -> Output {
    Command::new(binary("sifter")).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One JSON object a line.
fn lines(output: &Output) -> Vec<Value> {
    text(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn paths(images: &[Value]) -> BTreeSet<String> {
    let path = |image: &Value| image["path"].as_str().expect("path").to_owned();
    images.iter().map(path).collect()
}

#[test]
fn scan_and_ls_show_the_same_images() {
    let root = images::dir();
    let agent = Agent::ready(Options::roots([&root]));
    let scanned = lines(&sifter(&["scan", "--json", root.to_str().unwrap()]));
    let listed = lines(&sifter(&[
        "ls",
        "--json",
        "--address",
        &agent.unix_address(),
    ]));
    let expected: BTreeSet<_> = images::truth()
        .keys()
        .map(|path| root.join(path).to_str().unwrap().to_owned())
        .collect();
    assert_eq!(paths(&scanned), expected);
    assert_eq!(paths(&listed), expected);
    assert_eq!(scanned.len(), listed.len());
}

#[test]
fn scan_prints_a_table() {
    let table = text(&sifter(&["scan", images::dir().to_str().unwrap()]));
    for word in ["ubuntu", "22.04", "READY", "quay.io/biocontainers/fastqc"] {
        assert!(table.contains(word), "{word} not in\n{table}");
    }
}

#[test]
fn inspect_shows_all_that_is_known() {
    let path = images::dir().join("built/tools.sif");
    let output = sifter(&["inspect", "--json", path.to_str().unwrap()]);
    let image: Value = serde_json::from_str(&text(&output)).unwrap();
    let entry = &images::truth()["built/tools.sif"];
    assert_eq!(image["definition"], entry["definition"]);
    assert_eq!(image["labels"], entry["labels"]);
    assert_eq!(image["uuid"], entry["header"]["id"]);
    let output = sifter(&["inspect", path.to_str().unwrap()]);
    assert!(text(&output).contains("Sifter tests"), "the label Author");
}

#[test]
fn status_shows_the_system_and_the_roots() {
    let root = images::dir();
    let agent = Agent::ready(Options::roots([&root]));
    let shown = text(&sifter(&["status", "--address", &agent.unix_address()]));
    for word in [SYSTEM, root.to_str().unwrap()] {
        assert!(shown.contains(word), "{word} not in\n{shown}");
    }
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let root = TempDir::new().unwrap();
    let name = "evil\u{1b}[2J\u{7}\nline.sif";
    Tiny::numbered(1, "lab/tool:1").write(&root.path().join(name));
    let output = sifter(&["scan", root.path().to_str().unwrap()]);
    let table = text(&output);
    assert!(table.contains("evil"), "{table}");
    assert!(
        !table.contains('\u{1b}') && !table.contains('\u{7}'),
        "{table:?}"
    );
}

#[test]
fn failures_have_an_exit_code_and_say_what_and_where() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    let text_file = dir.path().join("notes.txt");
    fs::write(&text_file, "no image").unwrap();
    let socket = format!("unix:{}", missing.display());
    for (args, words) in [
        (
            vec!["scan", missing.to_str().unwrap()],
            missing.to_str().unwrap(),
        ),
        (
            vec!["inspect", missing.to_str().unwrap()],
            missing.to_str().unwrap(),
        ),
        (
            vec!["inspect", text_file.to_str().unwrap()],
            text_file.to_str().unwrap(),
        ),
        (vec!["ls", "--address", &socket], missing.to_str().unwrap()),
    ] {
        let output = sifter(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(
            output.status.code().is_some(),
            "{args:?}: {}",
            output.status
        );
        assert!(said.contains(words), "{args:?}: {said}");
    }
}
