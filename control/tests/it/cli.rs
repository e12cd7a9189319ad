//! The binary as a process: exit codes, what it prints, signals, the service manager.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::client;
use crate::support::server::CLUSTER;
use crate::support::server::config;
use crate::support::until;

fn program(command: &str, file: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sifter-control"));
    program
        .args([command, "--config"])
        .arg(file)
        .env_remove("RUST_LOG")
        .env_remove("CREDENTIALS_DIRECTORY")
        .env_remove("NOTIFY_SOCKET");
    program
}

fn run(command: &str, file: &Path) -> Output {
    program(command, file).output().unwrap()
}

/// Ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
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
            "server.cert and server.key: cannot read",
        ),
        (
            "auth = \"none\"\n[agent_tls]\nca = \"a\"\ncert = \"c\"\nkey = \"k\"",
            "[agent_tls]: cannot read",
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

#[test]
fn a_wrong_filter_of_the_environment_is_named_and_an_empty_one_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    // Where somebody listens already, so that it ends whatever it makes of the filter.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("auth = \"none\"\n[server]\nlisten = [\"{address}\"]\n");
    fs::write(&file, text).unwrap();
    let output = program("serve", &file)
        .env("RUST_LOG", "=x")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "cannot log: RUST_LOG: `=x` is no filter, as in ";
    assert!(
        !output.status.success() && said.contains(expected),
        "{said}"
    );

    fs::write(&file, config("", &[])).unwrap();
    for (given, logs) in [("", true), (" ", true), ("off", false)] {
        let log = dir.path().join("log");
        let mut server = Process(
            program("serve", &file)
                .env("RUST_LOG", given)
                .stdout(Stdio::piped())
                .stderr(fs::File::create(&log).unwrap())
                .spawn()
                .unwrap(),
        );
        let out = BufReader::new(server.0.stdout.take().unwrap());
        assert!(
            out.lines()
                .next()
                .unwrap()
                .unwrap()
                .starts_with("listening")
        );
        server.signal(Signal::SIGTERM);
        server.0.wait().unwrap();
        let said = fs::read_to_string(&log).unwrap();
        assert_eq!(said.contains("stopped"), logs, "{given:?}: {said}");
    }
}

#[tokio::test]
async fn serve_from_start_to_stop() {
    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, config("", &[(CLUSTER, &[agent.address()])])).unwrap();
    let log = dir.path().join("log");
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let next = || {
        let mut buf = [0; 4096];
        let length = manager.recv(&mut buf).unwrap();
        String::from_utf8(buf[..length].to_vec()).unwrap()
    };
    // Without what may be said at any time.
    let told = || {
        loop {
            let states = next();
            if states != "WATCHDOG=1\n" && !states.starts_with("STATUS=answering") {
                return states;
            }
        }
    };

    let child = program("serve", &file)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.strip_prefix("listening on http://").expect(&line);
    let address = address.parse().unwrap();
    assert!(told().contains("READY=1"));
    let answer = client::list(address, "ClusterId=ehpc-test").await;
    assert_eq!(answer.code(), "OK");

    // Taken over on a signal …
    fs::write(&file, config("", &[("signalled", &[agent.address()])])).unwrap();
    process.signal(Signal::SIGHUP);
    let states = told();
    assert!(
        states.contains("RELOADING=1") && states.contains("MONOTONIC_USEC="),
        "{states}"
    );
    assert!(told().contains("READY=1"));
    let answer = client::list(address, "ClusterId=signalled").await;
    assert_eq!(answer.code(), "OK");
    // … and without one.
    fs::write(&file, config("", &[("noticed", &[agent.address()])])).unwrap();
    let mut asked = 2;
    until("the change is noticed", async || {
        asked += 1;
        client::list(address, "ClusterId=noticed").await.code() == "OK"
    })
    .await;

    process.signal(Signal::SIGTERM);
    assert!(told().contains("STOPPING=1"));
    assert!(process.0.wait().unwrap().success());
    // An orderly stop loses no line, whatever was still gathered.
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(log.matches("answered").count(), asked, "{log}");
    assert!(log.lines().last().unwrap().contains("stopped"), "{log}");
}

#[tokio::test]
async fn signs_of_life_for_the_service_manager() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let nowhere = dir.path().join("nowhere.sock");
    let node = format!("unix:{}", nowhere.display());
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\n[agents]\nbreaker_failures = 1\nbreaker_open_ms = 60000\nbreaker_open_max_ms = 60000\n";
    fs::write(&file, config(tables, &[(CLUSTER, &[node])])).unwrap();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let told = || {
        let mut buf = [0; 4096];
        let length = manager.recv(&mut buf).unwrap();
        String::from_utf8(buf[..length].to_vec()).unwrap()
    };
    let child = program("serve", &file)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env("WATCHDOG_USEC", "300000")
        .env_remove("WATCHDOG_PID")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.strip_prefix("listening on http://").expect(&line);
    let address = address.parse().unwrap();
    assert_eq!(told(), "READY=1\n");
    assert_eq!(told(), "WATCHDOG=1\n");
    assert_eq!(told(), "STATUS=answering for 1 cluster\n");
    // Again and again, and a silent login node is told, but changes nothing.
    client::list(address, "ClusterId=ehpc-test")
        .await
        .assert_error(406, "AgentError");
    let mut alive = 0;
    while alive < 100 {
        match told().as_str() {
            "WATCHDOG=1\n" => alive += 1,
            "STATUS=answering for 1 cluster, 1 login node without answer\n" => break,
            other => panic!("{other}"),
        }
    }
    assert!(alive < 100, "the silent login node was never told of");
    assert_eq!(told(), "WATCHDOG=1\n");
    process.signal(Signal::SIGTERM);
    while told() == "WATCHDOG=1\n" {}
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn an_address_that_is_refused_is_told_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\n[limits]\nmax_connections = 32\n";
    fs::write(&file, config(tables, &[])).unwrap();
    let child = program("serve", &file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.strip_prefix("listening on http://").expect(&line);
    let mut connections: Vec<_> = (0..12)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    // The last one has been closed.
    let closed = connections.last_mut().unwrap().read(&mut [0]);
    assert!(!closed.is_ok_and(|count| count > 0));
    process.signal(Signal::SIGTERM);
    drop(connections);
    let mut log = String::new();
    let mut stderr = process.0.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert_eq!(log.matches("server.trusted_proxies").count(), 1, "{log}");
    assert!(log.contains("client=127.0.0.1 limit=8"), "{log}");
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

    let dir = tempfile::tempdir().unwrap();
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

/// The addresses are told to whoever looks on: a server that nobody looks at answers all the same.
#[test]
fn serve_does_not_need_its_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, config("", &[])).unwrap();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let child = program("serve", &file)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env_remove("WATCHDOG_USEC")
        .stdout(full)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut buf = [0; 4096];
    let length = manager.recv(&mut buf).unwrap();
    assert_eq!(&buf[..length], b"READY=1\n");
    process.signal(Signal::SIGTERM);
    assert!(process.0.wait().unwrap().success());
}
