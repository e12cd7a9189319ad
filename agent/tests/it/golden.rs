//! What the commands print, word for word. `INSTA_UPDATE=always cargo test -p sifter-agent --test it`
//! writes the files anew; read the difference before it is committed.

use serde_json::Value;

use crate::tool::{images, run, set_times, show};

/// Public key of nobody who signed the images.
const STRANGER: &str = include_str!("../../image/tests/it/keys/expires-2030.public.asc");

#[test]
fn help() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["ls", "scan", "inspect"] {
        let shown = show(directory.path(), &[command, "--help"]);
        insta::assert_snapshot!(format!("help_{command}"), shown);
    }
}

#[test]
fn scan() {
    let (_guard, path) = images();
    let evil = path.join("pulled/evil\u{1b}[2J\nname.sif");
    std::fs::copy(path.join("built/tools.sif"), evil).unwrap();
    for (name, arguments) in [
        (
            "table",
            &["--format", "repository,tag,id,format,size,status,path"][..],
        ),
        (
            "exact",
            &[
                "--no-trunc",
                "--format",
                "repository,tag,image_id,update_time,size,path",
            ],
        ),
        (
            "template",
            &[
                "--format",
                "{{.Repository}}:{{.Tag}}\\t{{.Arch}}",
                "--sort",
                "-size,path",
            ],
        ),
        (
            "columns_of_docker",
            &[
                "--format",
                "table {{.Repository}}\\t{{.Tag}}\\t{{.Size}}",
                "-f",
                "signed=true",
            ],
        ),
        (
            "filter",
            &[
                "-f",
                "repository=*tools*",
                "-f",
                "size<50k",
                "--format",
                "repository,tag,path",
                "--no-header",
            ],
        ),
        (
            "label",
            &["-f", "label=bio=bw*", "--format", "path", "--sort", "path"],
        ),
        // What a pulled image is called does not depend on its labels: they are read all the same.
        (
            "label_of_a_pull",
            &[
                "-f",
                "label=org.opencontainers.image.ref.name=ubuntu",
                "--format",
                "path",
                "--sort",
                "path",
            ],
        ),
        (
            "labels_of_a_pull",
            &[
                "-f",
                "tag=22.04",
                "--format",
                "{{.Path}} {{.Labels}}",
                "--sort",
                "path",
            ],
        ),
        ("quiet", &["--quiet", "--sort", "path"]),
        (
            "totals",
            &["-f", "format=sandbox", "--format", "size,path", "--totals"],
        ),
        ("wrong_filter", &["-f", "size>huge"]),
        ("wrong_width", &["--width", "0"]),
        ("wrong_rate", &["--operations-per-second", "-5"]),
        ("no_rate", &["--operations-per-second", "nan"]),
        ("wrong_value", &["-f", "format=squash"]),
        ("wrong_field", &["-f", "repo=tools"]),
        ("empty_filter", &["-f", ""]),
        ("unquoted_filter", &["-f", "size"]),
        ("spaced_filter", &["-f", "size > 1M"]),
        ("empty_order", &["-s", ""]),
        ("wrong_order", &["--sort", "size sideways"]),
        ("wrong_column", &["--format", "nonsense"]),
        (
            "wrong_group_order",
            &["--group-by", "owner", "--sort", "tag"],
        ),
    ] {
        let mut all = vec!["scan", "."];
        all.extend(arguments);
        insta::assert_snapshot!(format!("scan_{name}"), show(&path, &all));
    }
}

/// A field that depends on who runs the tests, and where.
fn fix(value: &mut Value, key: &str) {
    if value.get(key).is_some() {
        value[key] = Value::from("*");
    }
}

#[test]
fn scan_in_json() {
    let (_guard, path) = images();
    let ran = run(&path, &["scan", "pulled/ubuntu_22.04.sif", "--json"]);
    let mut image: Value = serde_json::from_str(&ran.out).unwrap();
    for key in ["allocatedBytes", "owner", "group", "accessTime"] {
        fix(&mut image, key);
    }
    // Not there where they are 0, as root's are.
    for key in ["uid", "gid"] {
        image.as_object_mut().unwrap().remove(key);
    }
    insta::assert_json_snapshot!("scan_json", image);

    for by in ["repository", "status", "format", "root"] {
        let ran = run(
            &path,
            &["scan", "--json", "--totals", "--group-by", by, "."],
        );
        let groups: Vec<Value> = ran
            .out
            .lines()
            .map(|line| {
                let mut group: Value = serde_json::from_str(line).unwrap();
                fix(&mut group, "allocatedBytes");
                if let Some(totals) = group.get_mut("totals") {
                    fix(totals, "allocatedBytes");
                }
                group
            })
            .collect();
        insta::assert_json_snapshot!(format!("group_by_{by}"), groups);
    }
}

#[test]
fn groups_and_lists_agree() {
    let (_guard, path) = images();
    std::fs::hard_link(path.join("built/tools.sif"), path.join("built/link.sif")).unwrap();
    let json = |arguments: &[&str]| -> Vec<Value> {
        let mut all = vec!["scan", ".", "--json"];
        all.extend(arguments);
        let ran = run(&path, &all);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let number = |value: &Value| value.as_str().unwrap_or("0").parse::<u64>().unwrap();
    let images = json(&["--sort", "path"]);
    let link = number(
        &images
            .iter()
            .find(|image| image["path"].as_str().unwrap().ends_with("link.sif"))
            .unwrap()["sizeBytes"],
    );
    let bytes: u64 = images.iter().map(|image| number(&image["sizeBytes"])).sum();
    for by in ["owner", "group", "repository", "root", "status", "format"] {
        let groups = json(&["--group-by", by]);
        let images_of_groups: u64 = groups
            .iter()
            .map(|group| number(&group["imageCount"]))
            .sum();
        let bytes_of_groups: u64 = groups.iter().map(|group| number(&group["sizeBytes"])).sum();
        assert_eq!(images_of_groups, images.len() as u64, "{by}");
        // Named by their paths, the links are in two groups.
        let twice = if by == "repository" { link } else { 0 };
        assert_eq!(
            bytes_of_groups,
            bytes - link + twice,
            "{by}: a hard link counts once"
        );
    }
}

#[test]
fn inspect() {
    let (_guard, path) = images();
    std::fs::write(path.join("keys.asc"), STRANGER).unwrap();
    let mut altered = std::fs::read(path.join("signed/pgp.sif")).unwrap();
    // Within the primary partition, which ends before the signature.
    altered[40_000] ^= 1;
    std::fs::write(path.join("signed/altered.sif"), altered).unwrap();
    set_times(
        &path.join("signed/altered.sif"),
        1_767_225_600,
        1_767_225_600,
    );
    for (name, arguments) in [
        (
            "explain_pulled",
            &["--explain", "pulled/cached-second-name.sif"][..],
        ),
        ("explain_built", &["--explain", "built/multistage.sif"]),
        (
            "explain_depot",
            &["--explain", "depot/multiqc:1.25--pyhdfd78af_0"],
        ),
        ("explain_sandbox", &["--explain", "formats/sandbox"]),
        (
            "explain_naming",
            &[
                "--explain",
                "--naming",
                "/built/(?<repository>[a-z]+)(?<tag>).sif$",
                "built/tools.sif",
            ],
        ),
        (
            "verify_unknown",
            &["--verify", "--keyring", "keys.asc", "signed/twice.sif"],
        ),
        (
            "verify_dsse",
            &["--verify", "--keyring", "keys.asc", "signed/key.sif"],
        ),
        (
            "verify_altered",
            &["--verify", "--keyring", "keys.asc", "signed/altered.sif"],
        ),
        (
            "verify_valid",
            &[
                "--verify",
                "--keyring",
                "signed/keys/first.asc",
                "signed/pgp.sif",
            ],
        ),
        (
            "verify_one_of_two",
            &[
                "--verify",
                "--keyring",
                "signed/keys/second.asc",
                "signed/twice.sif",
            ],
        ),
        (
            "verify_valid_dsse",
            &[
                "--verify",
                "--keyring",
                "signed/keys/ec.pem",
                "signed/key.sif",
            ],
        ),
        (
            "verify_valid_altered",
            &[
                "--verify",
                "--keyring",
                "signed/keys/first.asc",
                "signed/altered.sif",
            ],
        ),
        (
            "verify_unsigned",
            &[
                "--verify",
                "--keyring",
                "keys.asc",
                "built/tools.sif",
                "formats/sandbox",
            ],
        ),
        (
            "verify_no_keys",
            &[
                "--verify",
                "--keyring",
                "recipes/tools.def",
                "signed/pgp.sif",
            ],
        ),
        ("verify_without_keyring", &["--verify", "signed/pgp.sif"]),
        ("digest", &["--digest", "formats/new.sif", "signed/pgp.sif"]),
        ("other", &["recipes/tools.def", "no-such-file.sif"]),
    ] {
        let mut all = vec!["inspect"];
        all.extend(arguments);
        let shown = show(&path, &all);
        insta::assert_snapshot!(format!("inspect_{name}"), normal(&shown));
    }
}

/// Lines that depend on who runs the tests, and where.
fn normal(shown: &str) -> String {
    let varies = ["owner:", "group:", "access time:"];
    // Numbers that are not there where they are 0, as root's are, and what a directory in memory takes.
    let may_be_missing = ["allocated bytes:", "uid:", "gid:"];
    let mut lines: Vec<String> = Vec::new();
    for line in shown.lines() {
        if may_be_missing.iter().any(|start| line.starts_with(start)) {
            continue;
        }
        match varies.iter().find(|start| line.starts_with(**start)) {
            Some(start) => lines.push(format!("{start} *")),
            // `links` of a directory differ between file systems.
            None if line.starts_with("links:") => lines.push("links: *".to_owned()),
            None => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

#[test]
fn inspect_in_json() {
    let (_guard, path) = images();
    std::fs::write(path.join("keys.asc"), STRANGER).unwrap();
    let ran = run(
        &path,
        &[
            "inspect",
            "--json",
            "--explain",
            "--verify",
            "--keyring",
            "keys.asc",
            "signed/pgp.sif",
            "--digest",
        ],
    );
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    // The message as it is without options, and more behind it.
    let plain = run(&path, &["inspect", "--json", "--digest", "signed/pgp.sif"]);
    let message = plain.out.trim_end().strip_suffix('}').unwrap();
    assert!(ran.out.starts_with(message), "{}", ran.out);
    let image: Value = serde_json::from_str(&ran.out).unwrap();
    insta::assert_json_snapshot!("inspect_json_explain", image["explain"]);
    insta::assert_json_snapshot!("inspect_json_verification", image["verification"]);
    let truth = std::fs::read_to_string(path.join("truth.json")).unwrap();
    let truth: Value = serde_json::from_str(&truth).unwrap();
    let expected = truth["images"]["signed/pgp.sif"]["sha256"]
        .as_str()
        .unwrap();
    let digest = image["contentDigest"].as_str().unwrap();
    assert_eq!(
        digest.trim_start_matches("sha256:"),
        expected.trim_start_matches("sha256:")
    );
    // Without options it is the message of the contract and nothing else.
    let plain = run(&path, &["inspect", "--json", "signed/pgp.sif"]);
    let plain: sifter_proto::v1::Image = serde_json::from_str(&plain.out).unwrap();
    assert_eq!(plain.signatures.len(), 1);
}

#[test]
fn what_can_be_no_image_is_called_by_its_name() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().canonicalize().unwrap();
    let mode = nix::sys::stat::Mode::S_IRUSR;
    nix::unistd::mkfifo(&directory.join("fifo"), mode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
    for (path, expected, code) in [
        (
            "fifo",
            "fifo: a FIFO (named pipe): only files and directories can be images",
            1,
        ),
        ("socket", "socket: a socket: only files", 1),
        ("/dev/null", "/dev/null: a character device: only files", 1),
        ("nothing", "nothing: No such file or directory", 1),
        (
            ".",
            ".: not an image (a directory that is no sandbox: `sifter scan` lists the images in it)",
            4,
        ),
    ] {
        let ran = run(&directory, &["inspect", path]);
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert!(ran.err.contains(expected), "{}", ran.err);
    }
}

#[test]
fn what_could_not_be_scanned_at_all_decides_the_exit_code() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    std::fs::write(directory.join("text"), "no image").unwrap();
    for (paths, code) in [
        (&["missing", "text"][..], 1),
        (&["text", "zmissing"], 1),
        (&["text"], 4),
    ] {
        let ran = run(directory, &[&["scan"], paths].concat());
        assert_eq!(ran.code, Some(code), "{paths:?}: {}", ran.err);
    }
}

#[test]
fn a_digest_that_there_is_not_is_no_success() {
    let (_guard, path) = images();
    std::fs::create_dir_all(path.join("box/.singularity.d")).unwrap();
    let ran = run(&path, &["inspect", "box", "--digest"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("box: a directory has no digest"));
    assert!(ran.out.contains("SANDBOX") || ran.out.contains("sandbox"));
}
