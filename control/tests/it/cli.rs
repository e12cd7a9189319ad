//! The other commands of the binary: exit codes and what they print.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::directory;
use crate::support::program::run;

/// `*` makes words of names that others gave.
#[test]
fn a_word_that_is_refused_hides_nothing() {
    for words in [
        &["\u{202e}x"][..],
        &["check-config", "--\u{1b}[2J\u{202e}x"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_sifter-control"))
            .args(words)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.starts_with("error: ") && error.contains("'--help'"),
            "{error}"
        );
        assert!(!error.contains(['\u{1b}', '\u{202e}']), "{error:?}");
    }
}

#[test]
fn a_wrong_configuration_is_named_and_not_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let rows = [
        ("", "auth is not set"),
        (
            "auth = \"none\"\n[server]\nlisten = [\"0.0.0.0:0\"]",
            "loopback only",
        ),
        ("[auth]\nkeys = \"no-such-file\"", "auth.keys: "),
        ("[auth]\nkeys = \"no-such-file\"", "no-such-file"),
        ("[auth]\nkeys = \"a\\u001b[31m\u{202e}b\"", "cannot read"),
        (
            "[auth]\nkeys = \"credential:our-keys\"",
            "systemd-run --pipe --wait -p User=sifter-control -p LoadCredential=our-keys:FILE",
        ),
        (
            "auth = \"none\"\n[server]\ncert = \"c\"\nkey = \"k\"",
            "/c: No such file",
        ),
        (
            "auth = \"none\"\n[agent_tls]\nca = \"a\"\ncert = \"c\"\nkey = \"k\"",
            "agent_tls.ca /",
        ),
        ("auth = \"none\"\nport = 1", "unknown field `port`"),
        (
            "auth = \"none\"\nsecret = \"hunter2\"",
            "line 2, column 1: unknown field `secret`",
        ),
        ("auth = ", "config.toml"),
    ];
    for (text, expected) in rows {
        fs::write(&file, text).unwrap();
        for command in ["check-config", "serve"] {
            let output = run(command, &file);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{command}: {error}");
            assert!(error.contains(expected), "{command} {text:?}: {error}");
            assert!(!error.contains("hunter2"), "{command} {text:?}: {error}");
            assert!(!error.contains(['\u{1b}', '\u{202e}']), "{error:?}");
            // Each reason once.
            for reason in error.trim_end().split(": ").skip(1) {
                assert_eq!(error.matches(reason).count(), 1, "{command}: {error}");
            }
        }
    }
    let output = run("check-config", &dir.path().join("missing.toml"));
    assert_eq!(output.status.code(), Some(78));
}

/// The shipped configuration with every line that is commented out and has a setting; each line with the table
/// that it is in.
fn shipped_settings(shipped: &str) -> Vec<(&str, &str)> {
    let mut table = "";
    let mut settings = Vec::new();
    for line in shipped.lines() {
        let text = line.strip_prefix("# ").unwrap_or(line);
        let is_key =
            |(key, _): (&str, &str)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if text.starts_with('[') && text.ends_with(']') {
            table = text;
        } else if !text.split_once(" = ").is_some_and(is_key) {
            continue;
        }
        settings.push((table, text));
    }
    settings
}

#[test]
fn the_shipped_configuration_is_good_and_has_every_key_with_its_default() {
    use sifter_control::config::Settings;

    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/etc/sifter-control/config.toml");
    let output = run("check-config", &file);
    assert!(output.status.success(), "{output:?}");
    let shipped = fs::read_to_string(file).unwrap();
    let lines = shipped_settings(&shipped);
    let parse = |wanted: &dyn Fn(&str, &str) -> bool| {
        let text: String = lines
            .iter()
            .filter(|(table, line)| wanted(table, line))
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        let path = Path::new("/etc/sifter-control/config.toml");
        Settings::parse(&text, path).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
    };

    // With every line that is commented out, where one can be.
    let settings = parse(&|table, _| !table.is_empty());
    assert_eq!(settings.clusters.len(), 1);
    assert!(settings.agents.tls.is_some());

    // What the comments say has no default is an example.
    let examples = ["public_url", "cert", "key", "trusted_proxies"];
    let defaults = parse(&|table, line| match table {
        "" | "[limits]" | "[agents]" | "[log]" => true,
        "[server]" => !examples.contains(&line.split(" = ").next().unwrap_or_default()),
        _ => false,
    });
    let none = Settings::parse(
        "auth = \"none\"",
        Path::new("/etc/sifter-control/config.toml"),
    );
    assert_eq!(format!("{defaults:?}"), format!("{:?}", none.unwrap()));

    // Every key that there is: the parser names them all where it does not know one.
    for table in [
        "[auth]",
        "[server]",
        "[admin]",
        "[limits]",
        "[agents]",
        "[agent_tls]",
        "[log]",
        "[[clusters]]",
    ] {
        let error = Settings::parse(&format!("{table}\nno_such_key = 1"), Path::new("x"));
        let error = error.unwrap_err().to_string();
        let known = error.split("expected ").nth(1).unwrap();
        let keys: Vec<_> = known.split('`').skip(1).step_by(2).collect();
        assert!(!keys.is_empty(), "{error}");
        for key in keys {
            let is_it = |(within, line): &(&str, &str)| {
                *within == table && line.split(" = ").next() == Some(key)
            };
            assert!(lines.iter().any(is_it), "{table} {key}");
        }
    }
}

/// Tries the policies of a file: `of` ends with the option that takes it.
fn policy_check(of: &[&str], file: &std::path::Path, more: &[&str], code: i32, says: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_sifter-control"))
        .args(["policy", "check"])
        .args(of)
        .arg(file)
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{of:?} {more:?}: {text}");
    assert!(text.contains(says), "{of:?} {more:?}: {text}");
}

#[test]
fn policy_check_says_what_the_server_would() {
    use std::os::unix::fs::PermissionsExt;

    let dir = directory();
    let keys = dir.path().join("keys.toml");
    let text = ["active", "inactive"].map(|status| {
        format!(
            "[[key]]\naccess_key_id = \"{status}\"\nsecret = \"s-{status}\"\naccount_id = \"1\"\n\
             status = \"{status}\"\npolicies = [\"local\"]\n"
        )
    });
    let over = "[[key]]\naccess_key_id = \"over\"\nsecret = \"s-over\"\naccount_id = \"1\"\n\
                security_token = \"t\"\nexpires = \"2026-01-02T03:04:05Z\"\npolicies = [\"local\"]\n";
    let policy = r#"[policies.local]
document = '{"Version":"1","Statement":[{"Effect":"Allow","Action":"ehpc:*","Resource":"acs:ehpc:local:1:*"}]}'
"#;
    fs::write(&keys, text.concat() + over + policy).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    for (key, more, code, says) in [
        ("active", &[][..], 0, "llow"),
        ("active", &["--region", "cn-hangzhou"], 1, "enied"),
        ("inactive", &[], 1, "InvalidAccessKeyId.Inactive"),
        ("nobody", &[], 78, "no access key"),
        ("over", &[], 1, "InvalidSecurityToken.Expired"),
        ("over", &["--time", "2026-01-02T03:04:04Z"], 0, "llow"),
        (
            "over",
            &["--time", "2026-01-02T03:04:05Z"],
            1,
            "InvalidSecurityToken.Expired",
        ),
    ] {
        let of = ["--access-key-id", key, "--keys"];
        policy_check(&of, &keys, more, code, says);
    }
}

#[test]
fn a_document_is_tried_for_an_account() {
    let dir = tempfile::tempdir().unwrap();
    let document = dir.path().join("policy.json");
    let text = r#"{"Version":"1","Statement":[
        {"Effect":"Allow","Action":"ehpc:*","Resource":"*"},
        {"Effect":"Deny","Action":"ehpc:*","Resource":"acs:ehpc:*:1:*"}]}"#;
    fs::write(&document, text).unwrap();
    for (more, code, says) in [
        // For no account at all the Deny would not count.
        (&[][..], 2, "--account"),
        (&["--region", "local"], 2, "--account"),
        (
            &["--account", "1", "--access-key-id", "k"],
            2,
            "cannot be used with",
        ),
        (
            &["--account", "1"],
            1,
            "denied by policy \"document\", statement 2",
        ),
        (&["--account", "2"], 0, "allowed"),
        (&["--resource", "acs:ehpc:local:1:x"], 1, "denied"),
    ] {
        policy_check(&["--document"], &document, more, code, says);
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let configuration = at("config.toml", "auth = \"none\"\n");
    let policy = at(
        "policy.json",
        r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    );
    for arguments in [
        &["--help"][..],
        &["call", "--help"],
        &["--version"],
        &["check-config", "--config", &configuration],
        &["policy", "check", "--account", "1", "--document", &policy],
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (read, closed) = std::io::pipe().unwrap();
        drop(read);
        for (output, code) in [(Stdio::from(full), 1), (Stdio::from(closed), 0)] {
            let output = Command::new(env!("CARGO_BIN_EXE_sifter-control"))
                .args(arguments)
                .stdout(output)
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
            let expected = match code {
                0 => "",
                _ => "sifter-control: standard output: No space left on device (os error 28)\n",
            };
            assert_eq!(said, expected, "{arguments:?}");
        }
    }
}
