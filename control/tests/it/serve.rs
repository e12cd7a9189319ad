//! `serve` as a process: its start and end, signals, the service manager, its log.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::agent::{Act, Agent};
use crate::support::client;
use crate::support::program::{Process, program, started};
use crate::support::server::{CLUSTER, config};
use crate::support::until;

/// The service manager, as far as it is told how the server does.
struct Manager(UnixDatagram);

impl Manager {
    /// Listens at `notify` in a directory.
    fn listen(directory: &Path) -> Self {
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        let patience = Some(Duration::from_secs(30));
        socket.set_read_timeout(patience).unwrap();
        Self(socket)
    }

    /// What it is told next.
    fn told(&self) -> String {
        let mut buf = [0; 4096];
        let length = self.0.recv(&mut buf).unwrap();
        String::from_utf8(buf[..length].to_vec()).unwrap()
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
        let (mut server, _) = started(
            program("serve", &file)
                .env("RUST_LOG", given)
                .stderr(fs::File::create(&log).unwrap()),
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
    let manager = Manager::listen(dir.path());
    // Without what may be said at any time.
    let told = || {
        loop {
            let states = manager.told();
            if states != "WATCHDOG=1\n" && !states.starts_with("STATUS=answering") {
                return states;
            }
        }
    };

    let (mut process, address) = started(
        program("serve", &file)
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .stderr(fs::File::create(&log).unwrap()),
    );
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
    let manager = Manager::listen(dir.path());
    let told = || manager.told();
    let (mut process, address) = started(
        program("serve", &file)
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .env("WATCHDOG_USEC", "300000")
            .env_remove("WATCHDOG_PID")
            .stderr(Stdio::null()),
    );
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
    let (mut process, address) = started(program("serve", &file).stderr(Stdio::piped()));
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

/// The addresses are told to whoever looks on: a server that nobody looks at answers all the same.
#[test]
fn serve_does_not_need_its_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, config("", &[])).unwrap();
    let manager = Manager::listen(dir.path());
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
    assert_eq!(manager.told(), "READY=1\n");
    process.signal(Signal::SIGTERM);
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn addresses_are_said_once_where_the_journal_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (file, path) = (dir.path().join("config.toml"), dir.path().join("out"));
    fs::write(&file, config("", &[])).unwrap();
    for is_journal in [false, true] {
        let out = fs::File::create(&path).unwrap();
        let facts = out.metadata().unwrap();
        let inode = if is_journal { facts.ino() } else { 0 };
        let child = program("serve", &file)
            // What the service manager says of the stream that it made.
            .env("JOURNAL_STREAM", format!("{}:{inode}", facts.dev()))
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let mut log = BufReader::new(process.0.stderr.take().unwrap()).lines();
        assert!(log.any(|line| line.unwrap().contains("listening address=")));
        process.signal(Signal::SIGTERM);
        assert!(process.0.wait().unwrap().success());
        let said = fs::read_to_string(&path).unwrap();
        assert_eq!(said.is_empty(), is_journal, "{said}");
    }
}
