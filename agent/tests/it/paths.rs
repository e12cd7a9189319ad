//! The PATHs of `sifter scan`: every one is reported or refused, and nothing is listed twice.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::skip;
use crate::support::tree::{sif, write};
use crate::tool::run;

#[test]
fn every_path_is_reported_once_or_refused() {
    let guard = tempfile::tempdir().unwrap();
    let tree = guard.path().canonicalize().unwrap();
    let at = |path: &str| tree.join(path);
    for (number, path) in ["d/a.sif", "d/e/b.sif", "d/e/[x].sif", "out/c.sif"]
        .iter()
        .enumerate()
    {
        write(
            &at(path),
            &sif("image:1", u8::try_from(number + 1).unwrap()),
        );
    }
    write(&at("d/run.py"), &sif("image:1", 9));
    write(&at("d/text"), b"no image");
    write(&at("d/node_modules/f.sif"), &sif("image:1", 10));
    write(&at("d/box/.singularity.d/labels.json"), b"{}");
    write(&at("d/box/inner.sif"), &sif("image:1", 11));
    symlink("../out", at("d/link")).unwrap();
    symlink("a.sif", at("d/link.sif")).unwrap();
    symlink("d", at("to-d")).unwrap();
    symlink("d/e", at("to-e")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Where no path leads.
    let deep =
        "mkdir long && cd long && for level in $(seq 20); do mkdir $0 && cd -P $0 || exit; done";
    let mut shell = Command::new("sh");
    shell.args(["-c", deep, &"x".repeat(250)]);
    assert!(shell.current_dir(&tree).status().unwrap().success());
    // What the walk of `d` finds by itself.
    const ALL: &[&str] = &["d/a.sif", "d/box", "d/e/[x].sif", "d/e/b.sif"];
    let with = |more: &[&'static str]| {
        let mut all = [ALL, more].concat();
        all.sort_unstable();
        all
    };
    let all = || with(&[]);

    type Case<'a> = (&'a [&'a str], Vec<&'a str>, &'a str, i32);
    let cases: &[Case<'_>] = &[
        (&["d"], all(), "", 0),
        (&["d", "d/e"], all(), "", 0),
        (&["d/e", "d", "d/e/[x].sif", "d/a.sif"], all(), "", 0),
        (
            &["d", "d/missing"],
            all(),
            "scan d/missing: No such file",
            1,
        ),
        (
            &["d", "d/a.sif/x"],
            all(),
            "scan d/a.sif/x: Not a directory",
            1,
        ),
        (
            &["d", "d/text"],
            all(),
            "DIR/d/text: not an image (content of no image format)",
            4,
        ),
        (&["d", "d/run.py"], with(&["d/run.py"]), "", 0),
        (&["d", "d/link"], with(&["d/link/c.sif"]), "", 0),
        (
            &["-L", "d", "d/link"],
            with(&["d/link/c.sif", "d/link.sif"]),
            "",
            0,
        ),
        (&["d", "d/link.sif"], with(&["d/link.sif"]), "", 0),
        (
            &["d", "d/node_modules"],
            with(&["d/node_modules/f.sif"]),
            "",
            0,
        ),
        (
            &["--max-depth", "0", "d", "d/e"],
            vec!["d/a.sif", "d/e/[x].sif", "d/e/b.sif"],
            // A wish is no problem.
            "",
            0,
        ),
        // Nor does it hide one.
        (
            &["--max-depth", "100", "long"],
            vec![],
            "a path of 4096 bytes or more: not entered",
            3,
        ),
        // An image is not searched for others, unless somebody points at one.
        (&["d", "d/box/inner.sif"], with(&["d/box/inner.sif"]), "", 0),
        (&["d", "d/box"], all(), "", 0),
        (&["d", "d/../d", "d/e/..", "d/.", "d/"], all(), "", 0),
        (&["d/link/../out"], vec!["out/c.sif"], "", 0),
        // By whatever name.
        (&["d/link", "out"], vec!["d/link/c.sif"], "", 0),
        (&["out", "d/link"], vec!["out/c.sif"], "", 0),
        (
            &["d", "to-e"],
            vec!["d/a.sif", "d/box", "to-e/[x].sif", "to-e/b.sif"],
            "",
            0,
        ),
        (
            &["to-d", "d/e/b.sif"],
            vec!["d/e/b.sif", "to-d/a.sif", "to-d/box", "to-d/e/[x].sif"],
            "",
            0,
        ),
        (&["d/box"], vec!["d/box"], "", 0),
        (&["d/box/"], vec!["d/box"], "", 0),
        (&["d/box", "d/box/"], vec!["d/box"], "", 0),
        (&["d/a.sif/"], vec![], "scan d/a.sif/: Not a directory", 1),
        (
            &["fifo"],
            vec![],
            "scan fifo: a FIFO (named pipe): only files and directories",
            1,
        ),
        (&["fifo", "out"], vec!["out/c.sif"], "scan fifo: a FIFO", 1),
    ];
    for (paths, expected, complaint, code) in cases {
        let options = ["--no-header", "--sort", "path", "--format", "{{.Path}}"];
        let ran = run(&tree, &[&["scan"], *paths, &options].concat());
        let listed: Vec<_> = ran
            .out
            .lines()
            .map(|line| line.strip_prefix("DIR/").unwrap_or(line))
            .collect();
        assert_eq!(&listed, expected, "{paths:?}: {}", ran.err);
        assert!(ran.err.contains(complaint), "{paths:?}: {}", ran.err);
        assert_eq!(
            ran.err.is_empty(),
            complaint.is_empty(),
            "{paths:?}: {}",
            ran.err
        );
        assert_eq!(ran.code, Some(*code), "{paths:?}: {}", ran.err);
    }
    fs::remove_file(at("fifo")).unwrap();
}

#[test]
fn a_header_is_printed_where_something_was_looked_into() {
    let guard = tempfile::tempdir().unwrap();
    let at = |path: &str| guard.path().join(path);
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("text"), "no image").unwrap();
    fs::write(at("image.sif"), sif("alpha:1", 1)).unwrap();
    for (paths, is_printed) in [
        (&["nowhere"][..], false),
        (&["text"], false),
        (&["nowhere", "text"], false),
        (&["empty"], true),
        (&["text", "image.sif"], true),
        (&["empty", "nowhere"], true),
    ] {
        let ran = run(guard.path(), &[&["scan"], paths].concat());
        assert_eq!(
            ran.out.contains("REPOSITORY"),
            is_printed,
            "{paths:?}: {}",
            ran.out
        );
        assert_eq!(ran.out.is_empty(), !is_printed, "{paths:?}: {}", ran.out);
    }
}

#[test]
fn a_file_that_cannot_be_read_fails_as_a_directory_does() {
    // Not even the superuser may read it.
    let closed = "/sys/bus/platform/uevent";
    if fs::File::open(closed).map_err(|error| error.kind()).err()
        != Some(std::io::ErrorKind::PermissionDenied)
    {
        return skip("the file", "no sysfs");
    }
    let guard = tempfile::tempdir().unwrap();
    for command in ["scan", "inspect"] {
        let ran = run(guard.path(), &[command, closed]);
        let complaint = format!("{closed}: Permission denied");
        assert!(ran.err.contains(&complaint), "{command}: {}", ran.err);
        assert_eq!(ran.code, Some(1), "{command}: {}", ran.err);
    }
}
