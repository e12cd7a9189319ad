//! The script that makes an authority and signs certificates, and an agent with what it signed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Agent, Identity, connect, images, skip};
use crate::tls::{list, section};

/// The script that signs certificates.
fn enroll_script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/enroll.sh"))
}

/// Whether it can run here; if not, the test is left out.
fn can_enroll(test: &str) -> bool {
    let can = Command::new("openssl").arg("version").output().is_ok();
    if !can {
        skip(test, "openssl is not installed");
    }
    can
}

/// Names that are no directory or too long, and what a failure must not leave behind.
#[test]
fn the_enrolment_script_signs_whole_or_not_at_all() {
    if !can_enroll("the_enrolment_script_signs_whole_or_not_at_all") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let long = "a".repeat(60) + ".example.org";
    for (arguments, expected) in [
        // Not an authority without a certificate, which could be neither used nor made again.
        (&["--days", "x", "ca"][..], Err("as a number")),
        (&["ca", "renew"], Err("ca.key is not there")),
        (&["ca"], Ok("ca.pem")),
        (&["--days", "x", "ca", "renew"], Err("cannot renew")),
        (&["ca", "renew"], Ok("ca.pem, until ")),
        (&["ca", "anew"], Err("ca renew")),
        (&["ca"], Err("ca.key exists")),
        (&["--days", "x", "agent", "host"], Err("as a number")),
        (&["agent", &long, "::1"], Ok("IP:::1")),
        (
            &["control", "name", "spiffe://site/control"],
            Ok("URI:spiffe://site/control"),
        ),
        (
            &["control", "spiffe://site/control"],
            Err("no name of a host"),
        ),
        (&["agent", "../host"], Err("no name of a host")),
        (&["agent", "--", "host"], Err("no name of a host")),
    ] {
        let output = enroll_script()
            .args(["--dir", "tls"])
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        let (text, expected) = match expected {
            Ok(expected) => (&output.stdout, expected),
            Err(expected) => (&output.stderr, expected),
        };
        let text = String::from_utf8_lossy(text);
        assert!(text.contains(expected), "{arguments:?}: {output:?}");
    }
    let mut found = Vec::new();
    for below in [".", "tls", "tls/host", "tls/name", &format!("tls/{long}")] {
        let entries = fs::read_dir(directory.path().join(below)).unwrap();
        found.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    }
    found.sort();
    let whole = [
        &long,
        "agent.key",
        "agent.pem",
        "ca.key",
        "ca.pem",
        "control.key",
        "control.pem",
        "host",
        "name",
        "tls",
    ];
    assert_eq!(found, whole.map(str::to_owned));
}

/// The documented way to certificates, tried.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_the_enrolment_script_work() {
    if !can_enroll("certificates_of_the_enrolment_script_work") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let enroll = |arguments: &[&str]| {
        let output = enroll_script()
            .arg("--dir")
            .arg(directory.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    enroll(&["--days", "1", "ca"]);
    enroll(&["agent", "agent", "127.0.0.1"]);
    enroll(&["ca", "renew"]);
    let for_long = Command::new("openssl")
        .args(["x509", "-checkend", "86400000", "-noout", "-in", "ca.pem"])
        .current_dir(directory.path())
        .status();
    assert!(for_long.unwrap().success());
    let verified = Command::new("openssl")
        .args(["verify", "-CAfile", "ca.pem", "agent/agent.pem"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    enroll(&["control", "control"]);
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    for name in ["agent.pem", "agent.key"] {
        fs::copy(
            directory.path().join("agent").join(name),
            directory.path().join(name),
        )
        .unwrap();
    }
    images(directory.path(), &["a.sif"]);
    let agent = Agent::start(
        directory.path(),
        ", 'tls:127.0.0.1:0'",
        &section(directory.path(), "'dns:control'"),
    );
    let client = Identity::read(&read("control/control.pem"), &read("control/control.key"));
    let channel = connect(agent.tls(), &read("ca.pem"), Some(&client))
        .await
        .unwrap();
    assert_eq!(list(channel).await.unwrap(), 1);
}
