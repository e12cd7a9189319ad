//! The two documented errors that need access keys, and a rotation, over real processes:
//! `sifter-control call` signs, the server checks.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::images;
use sifter_tests::process::Process;
use sifter_tests::process::binary;
use sifter_tests::wait;
use tempfile::TempDir;

const KEYS: &str = r#"
[[key]]
access_key_id = "reader"
secret = "reader-secret"
account_id = "1000000000000001"
policies = ["AliyunEHPCReadOnlyAccess"]

[[key]]
access_key_id = "nobody"
secret = "nobody-secret"
account_id = "1000000000000001"
"#;

fn write_keys(dir: &Path, text: &str) {
    let path = dir.join("keys.toml");
    fs::write(&path, text).unwrap();
    // Whoever runs tests may let a group write, and is refused keys that it could replace.
    for (path, mode) in [(dir, 0o700), (&path, 0o600)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Starts a control plane with keys; returns it and its address.
fn start(dir: &Path, agent: &Agent) -> (Process, String) {
    let config = dir.join("control.toml");
    let text = format!(
        "[auth]\nkeys = \"keys.toml\"\nstate_directory = \".\"\n\
         [server]\nlisten = [\"127.0.0.1:0\"]\n\
         [[clusters]]\nid = \"ehpc-test\"\naccount = \"1000000000000001\"\nlogin_nodes = [{:?}]\n",
        agent.unix_address()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(binary("sifter-control"));
    command.arg("serve").arg("--config").arg(&config);
    let mut process = Process::start(&mut command, &dir.join("control.log"));
    let address = format!("http://{}", process.tcp_listener());
    (process, address)
}

/// The exit code of a signed call, and what it printed.
fn call(endpoint: &str, key: &str, secret: &str) -> (Option<i32>, String) {
    let output = Command::new(binary("sifter-control"))
        .args(["call", "ListContainerImages", "--cluster", "ehpc-test"])
        .args(["--endpoint", endpoint, "--access-key-id", key])
        .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", secret)
        .env_remove("ALIBABA_CLOUD_SECURITY_TOKEN")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn assert_refused(answer: &(Option<i32>, String), expected: &str) {
    let (code, text) = answer;
    assert_eq!(*code, Some(3), "{text}");
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn keys_decide_who_is_answered_what() {
    let agent = Agent::ready(Options::roots([images::dir()]));
    let dir = TempDir::new().unwrap();
    write_keys(dir.path(), KEYS);
    let (_control, endpoint) = start(dir.path(), &agent);
    let reader = || call(&endpoint, "reader", "reader-secret");

    let (code, text) = reader();
    assert_eq!(code, Some(0), "{text}");
    let total = format!("of {}", images::truth().len());
    assert!(text.contains(&total), "{text}");
    assert_refused(
        &call(&endpoint, "nobody", "nobody-secret"),
        "NotAuthorized: You are not authorized by RAM for this request. (HTTP 407)",
    );

    // Keys that cannot be read any more refuse everybody, and come back when they are mended.
    fs::set_permissions(dir.path().join("keys.toml"), Permissions::from_mode(0o644)).unwrap();
    wait::until_true("keys that others can read are refused", || {
        reader().0 != Some(0)
    });
    assert_refused(
        &reader(),
        "AliyunError: An Alibaba Cloud product error occurred. (HTTP 406)",
    );
    // The new key of a rotation works as soon as it is seen, and the old one until it is taken away.
    let rotated = KEYS.replace("\"reader", "\"second") + KEYS;
    write_keys(dir.path(), &rotated.replacen(nobody(), "", 1));
    wait::until_true("the new key works", || {
        call(&endpoint, "second", "second-secret").0 == Some(0)
    });
    assert_eq!(reader().0, Some(0));
    let inactive = "account_id = \"1000000000000001\"\nstatus = \"inactive\"\npolicies";
    let retired = KEYS.replacen("account_id = \"1000000000000001\"\npolicies", inactive, 1);
    write_keys(dir.path(), &retired);
    wait::until_true("the old key is retired", || reader().0 != Some(0));
    assert_refused(
        &reader(),
        "InvalidAccessKeyId.Inactive: Specified access key is disabled. (HTTP 400)",
    );
}

/// The second key of [`KEYS`]: each may occur once.
fn nobody() -> &'static str {
    KEYS.split_at(KEYS.rfind("[[key]]").expect("two keys")).1
}
