//! What `deploy/enroll.sh` puts into certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

use sifter_tests::workspace;
use tempfile::TempDir;

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

fn extensions(certificate: &Path) -> Vec<String> {
    let text = output(
        Command::new("openssl")
            .args(["x509", "-noout", "-text", "-in"])
            .arg(certificate),
    );
    let names = text.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix("X509v3 ")?;
        Some(name.split_once(':')?.0.to_owned())
    });
    names.filter(|name| name != "extensions").collect()
}

/// What a distribution configures for authorities of its own would be in ours twice, by OpenSSL 1.1.1.
#[test]
fn certificates_have_the_scripts_extensions_and_none_of_openssls_configuration() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("openssl.cnf");
    fs::write(
        &config,
        "[req]\nx509_extensions = usual\nreq_extensions = usual\ndistinguished_name = name\n[name]\n\
         [usual]\ncertificatePolicies = 1.2.3.4\nbasicConstraints = critical, CA:TRUE\n",
    )
    .unwrap();
    let authority = ["Basic Constraints", "Key Usage", "Subject Key Identifier"];
    let host = [
        "Basic Constraints",
        "Key Usage",
        "Extended Key Usage",
        "Subject Alternative Name",
        "Subject Key Identifier",
        "Authority Key Identifier",
    ];
    for (arguments, file, expected) in [
        (["ca"].as_slice(), "ca.pem", authority.as_slice()),
        (&["agent", "login1"], "login1/agent.pem", &host),
        (&["control", "control1"], "control1/control.pem", &host),
        (&["ca", "renew"], "ca.pem", &authority),
    ] {
        output(
            Command::new("bash")
                .arg(workspace().join("deploy/enroll.sh"))
                .arg("--dir")
                .arg(dir.path())
                .args(arguments)
                .env("OPENSSL_CONF", &config),
        );
        assert_eq!(
            extensions(&dir.path().join(file)),
            expected,
            "{arguments:?}"
        );
    }
}
