//! Signed requests over HTTP: what a key may see, and what it is told of the rest.
//!
//! Signatures and policies themselves are tested beside their code; here, that the server asks
//! them, in the right order and about the right cluster.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use http::Method;
use jiff::Timestamp;
use sifter_control::auth::Generation;
use sifter_control::auth::keys::Secret;
use sifter_control::auth::sign::Call;
use sifter_control::auth::sign::Credentials;
use sifter_control::auth::sign::sign;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::client;
use crate::support::client::Answer;
use crate::support::directory;
use crate::support::program::Log;
use crate::support::program::Process;
use crate::support::program::program;
use crate::support::program::run;
use crate::support::program::started;
use crate::support::server::Control;

const KEYS: &str = r#"
[[key]]
access_key_id = "reader"
secret = "reader-secret"
account_id = "1001"
policies = ["AliyunEHPCReadOnlyAccess"]

[[key]]
access_key_id = "nobody"
secret = "nobody-secret"
account_id = "1001"

[[key]]
access_key_id = "stranger"
secret = "stranger-secret"
account_id = "2002"
root = true
"#;

fn write_keys(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

async fn control(agent: &Agent, tables: &str) -> Control {
    let dir = directory();
    write_keys(&dir.path().join("keys.toml"), KEYS);
    let text = format!(
        "[auth]\nkeys = \"keys.toml\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n{tables}\n\
         [[clusters]]\nid = \"ehpc-test\"\naccount = \"1001\"\nregion = \"cn-test\"\n\
         login_nodes = [{:?}]\n",
        agent.address()
    );
    Control::start(dir, &text).await
}

struct Signer {
    address: SocketAddr,
    generation: Generation,
    method: Method,
}

impl Signer {
    fn bytes(&self, key: &str, secret: &str, cluster: &str) -> Vec<u8> {
        let credentials = Credentials {
            access_key_id: key.to_owned(),
            secret: Secret::new(secret.to_owned()),
            security_token: None,
        };
        let parameters = [("ClusterId", cluster), ("PageSize", "2")];
        let call = Call {
            method: self.method.clone(),
            host: &self.address.to_string(),
            parameters: parameters
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            now: Timestamp::now(),
            nonce: uuid::Uuid::new_v4().simple().to_string(),
        };
        let signed = sign(self.generation, &credentials, call).expect("signable");
        let mut text = format!("{} {} HTTP/1.1\r\n", signed.method, signed.target());
        for (name, value) in &signed.headers {
            text += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        text += &format!(
            "connection: close\r\ncontent-length: {}\r\n\r\n",
            signed.body.len()
        );
        let mut bytes = text.into_bytes();
        bytes.extend(signed.body);
        bytes
    }

    async fn ask(&self, key: &str, secret: &str, cluster: &str) -> Answer {
        client::raw(self.address, &self.bytes(key, secret, cluster)).await
    }
}

fn signers(address: SocketAddr) -> Vec<Signer> {
    let mut signers = Vec::new();
    for generation in [Generation::V1, Generation::Acs3] {
        for method in [Method::GET, Method::POST] {
            signers.push(Signer {
                address,
                generation,
                method,
            });
        }
    }
    signers
}

#[tokio::test]
async fn who_sees_what() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let control = control(&agent, "").await;
    for signer in signers(control.address) {
        let answer = signer.ask("reader", "reader-secret", "ehpc-test").await;
        assert_eq!(answer.code(), "OK", "{answer:?}");
        assert_eq!(answer.json()["PageSize"], 2);

        let rows = [
            ("reader", "wrong", "ehpc-test", 400, "SignatureDoesNotMatch"),
            (
                "unknown",
                "x",
                "ehpc-test",
                404,
                "InvalidAccessKeyId.NotFound",
            ),
            ("reader", "reader-secret", "no-such", 404, "LoginNotFound"),
            ("reader", "reader-secret", "", 400, "InvalidParams"),
            // Who may see nothing is told the same of what is there and of what is not.
            ("nobody", "nobody-secret", "ehpc-test", 407, "NotAuthorized"),
            ("nobody", "nobody-secret", "no-such", 407, "NotAuthorized"),
            // Another account's cluster does not exist.
            (
                "stranger",
                "stranger-secret",
                "ehpc-test",
                404,
                "LoginNotFound",
            ),
            (
                "stranger",
                "stranger-secret",
                "no-such",
                404,
                "LoginNotFound",
            ),
        ];
        for (key, secret, cluster, status, code) in rows {
            let answer = signer.ask(key, secret, cluster).await;
            assert_eq!(answer.code(), code, "{key} {cluster}: {answer:?}");
            answer.assert_error(status, code);
        }
    }
    let unsigned = client::list(control.address, "ClusterId=ehpc-test").await;
    assert_ne!(unsigned.status, 200);
    // Nobody without a right has made an agent work.
    assert_eq!(agent.asked().len(), 4);
}

#[tokio::test]
async fn a_request_is_good_once() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let control = control(&agent, "").await;
    for signer in signers(control.address) {
        let bytes = signer.bytes("reader", "reader-secret", "ehpc-test");
        assert_eq!(client::raw(control.address, &bytes).await.code(), "OK");
        let again = client::raw(control.address, &bytes).await;
        again.assert_error(400, "SignatureNonceUsed");
    }
}

#[tokio::test]
async fn a_request_is_good_once_across_a_restart() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let state = tempfile::tempdir().unwrap();
    let config = |dir: &Path| {
        write_keys(&dir.join("keys.toml"), KEYS);
        format!(
            "[auth]\nkeys = \"keys.toml\"\nstate_directory = {:?}\n[server]\n\
             listen = [\"127.0.0.1:0\"]\n[[clusters]]\nid = \"ehpc-test\"\naccount = \"1001\"\n\
             login_nodes = [{:?}]\n",
            state.path(),
            agent.address()
        )
    };
    let mut captured: Vec<Vec<u8>> = Vec::new();
    for run in 0..2 {
        let dir = directory();
        let text = config(dir.path());
        let control = Control::start(dir, &text).await;
        for bytes in &captured {
            let again = client::raw(control.address, bytes).await;
            again.assert_error(400, "SignatureNonceUsed");
        }
        for signer in signers(control.address) {
            let bytes = signer.bytes("reader", "reader-secret", "ehpc-test");
            assert_eq!(client::raw(control.address, &bytes).await.code(), "OK");
            captured.push(bytes);
        }
        control.running.stop().await;
        let files = fs::read_dir(state.path()).unwrap();
        let sizes = files.map(|file| file.unwrap().metadata().unwrap().len());
        assert_eq!(sizes.sum::<u64>(), (run + 1) * 32);
    }
}

/// Which would each accept what the other has accepted.
#[tokio::test]
async fn two_control_planes_do_not_share_a_state_directory() {
    let dir = directory();
    write_keys(&dir.path().join("keys.toml"), KEYS);
    let file = dir.path().join("config.toml");
    let text = "[auth]\nkeys = \"keys.toml\"\nstate_directory = \".\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n";
    fs::write(&file, text).unwrap();
    let (first, _) = started(program("serve", &file).stderr(Stdio::null()));
    let mut serve = program("serve", &file);
    serve.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut second = Process(serve.spawn().unwrap());
    // One that listens says so, and does not end.
    let mut line = String::new();
    let mut stdout = BufReader::new(second.0.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "");
    let mut said = String::new();
    let mut stderr = second.0.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(
        said.contains("another control plane uses the state directory"),
        "{said}"
    );
    // As an address that is in use: the other one may end.
    let ended = second.0.wait().unwrap();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert_eq!(run("check-config", &file).status.code(), Some(0));
    drop(first);
    started(program("serve", &file).stderr(Stdio::null()));
}

/// A limit on the size of files stands for a disk that is full.
#[tokio::test]
async fn a_request_is_good_once_after_the_disk_was_full() {
    let dir = directory();
    write_keys(&dir.path().join("keys.toml"), KEYS);
    let file = dir.path().join("config.toml");
    let text = "[auth]\nkeys = \"keys.toml\"\nstate_directory = \".\"\n[server]\n\
                listen = [\"127.0.0.1:0\"]\n[[clusters]]\nid = \"ehpc-test\"\naccount = \"1001\"\n";
    fs::write(&file, text).unwrap();
    let serve = program("serve", &file);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -S -f 0; exec \"$@\"", "sh"])
        .arg(serve.get_program())
        .args(serve.get_args())
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped());
    let (mut process, address) = started(&mut limited);
    let log = Log::of(&mut process);

    let accepted = |address| signers(address)[0].bytes("reader", "reader-secret", "ehpc-test");
    let early = accepted(address);
    let answer = client::raw(address, &early).await;
    answer.assert_error(404, "LoginNotFound");
    assert!(log.says("nonces cannot be written down"));
    let again = client::raw(address, &early).await;
    again.assert_error(400, "SignatureNonceUsed");

    let room = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &process.0.id().to_string()])
        .status();
    assert!(room.expect("prlimit of util-linux").success());
    let late = accepted(address);
    let answer = client::raw(address, &late).await;
    answer.assert_error(404, "LoginNotFound");
    assert!(log.says("nonces are written down again"));
    drop(process);

    let (_process, address) = started(program("serve", &file).stderr(Stdio::null()));
    for bytes in [early, late] {
        let again = client::raw(address, &bytes).await;
        again.assert_error(400, "SignatureNonceUsed");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_read_any_more() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let control = control(&agent, "[admin]\nlisten = \"127.0.0.1:0\"").await;
    let admin = control.running.admin_address.unwrap();
    let is_counted = async |result: &str, count: u32| {
        let line =
            format!("sifter_control_reloads_total{{what=\"keys\",result=\"{result}\"}} {count}\n");
        client::get(admin, "/metrics").await.body.contains(&line)
    };
    let signer = &signers(control.address)[0];
    write_keys(&control.dir().join("keys.toml"), "nonsense");
    assert!(is_counted("failed", 0).await);
    control.running.reload();
    assert!(is_counted("failed", 1).await);
    let answer = signer.ask("reader", "reader-secret", "ehpc-test").await;
    answer.assert_error(406, "AliyunError");
    assert_eq!(
        answer.json()["Message"],
        "An Alibaba Cloud product error occurred."
    );
    // Mended, and with another secret.
    let text = KEYS.replace("reader-secret", "new-secret");
    write_keys(&control.dir().join("keys.toml"), &text);
    control.running.reload_changed();
    control.running.reload_changed();
    assert!(is_counted("ok", 1).await);
    let answer = signer.ask("reader", "new-secret", "ehpc-test").await;
    assert_eq!(answer.code(), "OK", "{answer:?}");
    let answer = signer.ask("reader", "reader-secret", "ehpc-test").await;
    assert_eq!(answer.code(), "SignatureDoesNotMatch");
    // Noticed without being told to look, that is a failure as well.
    let incomplete = format!(
        "{text}[[key]]\naccess_key_id = \"other\"\nsecret_file = \"absent\"\naccount_id = \"1\"\n"
    );
    for (text, failed) in [("nonsense", 2), (&incomplete, 3)] {
        write_keys(&control.dir().join("keys.toml"), text);
        control.running.reload_changed();
        control.running.reload_changed();
        assert!(is_counted("failed", failed).await, "{text}");
        assert!(is_counted("ok", 1).await, "{text}");
    }
}

#[tokio::test]
async fn strangers_use_up_nobodys_share() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    // Eight at once of all together, one of a key.
    let tables = "[limits]\nrequests_per_second = 4\nkey_requests_per_second = 1\nkey_burst = 1";
    let limited = control(&agent, tables).await;
    let signer = &signers(limited.address)[0];
    for _ in 0..20 {
        let unsigned = client::list(limited.address, "ClusterId=ehpc-test").await;
        assert_eq!(unsigned.code(), "MissingParameter", "{unsigned:?}");
        let forged = signer.ask("reader", "wrong", "ehpc-test").await;
        assert_eq!(forged.code(), "SignatureDoesNotMatch");
        let unknown = signer.ask("unknown", "x", "ehpc-test").await;
        assert_eq!(unknown.code(), "InvalidAccessKeyId.NotFound");
    }
    let answer = signer.ask("reader", "reader-secret", "ehpc-test").await;
    assert_eq!(answer.code(), "OK", "{answer:?}");
    // Nor does a key beyond its own share.
    for _ in 0..40 {
        let answer = signer.ask("reader", "reader-secret", "ehpc-test").await;
        assert!(
            ["Throttling.User", "OK"].contains(&&*answer.code()),
            "{answer:?}"
        );
    }
    let other = signer.ask("stranger", "stranger-secret", "ehpc-test").await;
    assert_eq!(other.code(), "LoginNotFound", "{other:?}");

    // There is an end to what all have together.
    let tables = "[limits]\nrequests_per_second = 1\nkey_requests_per_second = 0";
    let limited = control(&agent, tables).await;
    let signer = &signers(limited.address)[0];
    let mut codes = Vec::new();
    for _ in 0..10 {
        codes.push(
            signer
                .ask("reader", "reader-secret", "ehpc-test")
                .await
                .code(),
        );
    }
    assert_eq!(codes[0], "OK");
    assert!(
        codes.iter().any(|code| code == "ServiceUnavailable"),
        "{codes:?}"
    );
}

#[tokio::test]
async fn each_key_has_its_own_share() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let tables = "[limits]\nkey_requests_per_second = 1\nkey_burst = 2";
    let control = control(&agent, tables).await;
    let signer = &signers(control.address)[2];
    // A wrong signature is not charged to the key it names.
    for _ in 0..5 {
        let answer = signer.ask("reader", "wrong", "ehpc-test").await;
        assert_eq!(answer.code(), "SignatureDoesNotMatch");
    }
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(signer.ask("reader", "reader-secret", "ehpc-test").await);
    }
    assert_eq!(answers[0].code(), "OK");
    let throttled = answers
        .iter()
        .find(|answer| answer.code() == "Throttling.User")
        .expect("one of four is too much");
    throttled.assert_error(400, "Throttling.User");
    let wait: u64 = throttled
        .header("x-acs-retry-after")
        .expect("when to try again")
        .parse()
        .unwrap();
    assert!((1..=1000).contains(&wait), "{wait}");
    let other = signer.ask("stranger", "stranger-secret", "ehpc-test").await;
    assert_eq!(other.code(), "LoginNotFound");
}

#[tokio::test]
async fn metrics_are_for_administrators() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let control = control(&agent, "[admin]\nlisten = \"127.0.0.1:0\"").await;
    let public = client::get(control.address, "/metrics").await;
    public.assert_error(404, "InvalidAction.NotFound");
    let admin = control.running.admin_address.unwrap();
    assert_eq!(client::get(admin, "/metrics").await.status, 200);
}

#[tokio::test]
async fn an_account_with_no_clusters_is_told_nothing() {
    // The stranger's account has no cluster, hence no region; its own key may ask all the same.
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let control = control(&agent, "").await;
    let keys = format!(
        "{KEYS}\n[[key]]\naccess_key_id = \"guest\"\nsecret = \"guest-secret\"\n\
         account_id = \"2002\"\n"
    );
    write_keys(&control.dir().join("keys.toml"), &keys);
    control.running.reload();
    let signer = &signers(control.address)[0];
    for cluster in ["ehpc-test", "no-such"] {
        let answer = signer.ask("guest", "guest-secret", cluster).await;
        assert_eq!(answer.code(), "NotAuthorized", "{answer:?}");
    }
}
