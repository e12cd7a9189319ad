//! Socket activation: the agent takes over sockets that the service manager has bound, and who
//! connects while there is no agent waits for the next one.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use nix::sys::signal::Signal;
use sifter_tests::agent::addresses;
use sifter_tests::images;
use sifter_tests::process::Process;
use sifter_tests::process::binary;
use sifter_tests::wait;
use tempfile::TempDir;

/// The command of an agent that is told of no address but `listen`.
fn agent(dir: &Path, more: &str) -> Vec<OsString> {
    let config = dir.join("agent.toml");
    let text = format!(
        "listen = ['unix:{0}/agent.sock']\nstate_directory = '{0}/state'\n{more}\n[[root]]\npath = '{1}'\n",
        dir.display(),
        images::dir().display()
    );
    std::fs::write(&config, text).expect("configuration file");
    [
        binary("sifter").into(),
        "agent".into(),
        "--config".into(),
        config.into(),
    ]
    .into()
}

/// `sifter ls` on its way.
fn list(address: &str) -> std::process::Child {
    Command::new(binary("sifter"))
        .args(["ls", "--json", "--address", address])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sifter can be run")
}

/// How many images it has listed in the end.
fn listed(list: std::process::Child) -> usize {
    let output = list.wait_with_output().expect("its output");
    assert!(output.status.success(), "{output:?}");
    output.stdout.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn sockets_that_are_passed_are_served_and_lose_nobody_at_a_restart() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    let log = dir.path().join("agent.log");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix_address = format!("unix:{}", path.display());
    let tcp_address = tcp.local_addr().unwrap().to_string();
    let sockets = || {
        vec![
            ("grpc", unix.try_clone().unwrap().into()),
            ("grpc", tcp.try_clone().unwrap().into()),
        ]
    };
    let start = || Process::start_with_sockets(&agent(dir.path(), ""), sockets(), &log);
    let mut agent = start();
    wait::until("the first scan", || {
        agent.expect_running();
        let status = Command::new(binary("sifter"))
            .args(["status", "--address", &unix_address])
            .output()
            .expect("sifter can be run");
        status.status.success().then_some(()).ok_or(status)
    });
    let all = listed(list(&unix_address));
    assert_eq!(all, images::truth().len());
    assert_eq!(listed(list(&tcp_address)), all);
    // The address of the configuration is the one that was passed: it is bound once.
    assert_eq!(
        addresses(&agent),
        [unix_address.clone(), tcp_address.clone()]
    );

    // One that the configuration does not name is the service manager's to close.
    agent.signal(Signal::SIGHUP);
    wait::until_true("the configuration is read again", || {
        agent.output().contains("configuration in use")
    });
    assert_eq!(listed(list(&tcp_address)), all);

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        agent.signal(signal);
        agent.wait();
        assert!(path.exists(), "the socket is the service manager's");
        // Nobody is there, and nobody is refused.
        let waiting = [list(&unix_address), list(&tcp_address)];
        agent = start();
        for list in waiting {
            assert_eq!(listed(list), all, "after {signal}");
        }
    }
}

#[test]
fn a_socket_for_metrics_is_known_by_its_name() {
    let dir = TempDir::new().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let log = dir.path().join("agent.log");
    let mut agent =
        Process::start_with_sockets(&agent(dir.path(), ""), vec![("metrics", tcp.into())], &log);
    let page = sifter_tests::http::get(address, "/metrics").expect("the metrics");
    agent.expect_running();
    let text = String::from_utf8_lossy(&page.body);
    assert!(text.contains("sifter_agent_ready"), "{text}");
}

#[test]
fn a_socket_that_would_show_everybody_everything_is_refused() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("agent.log");
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut agent =
        Process::start_with_sockets(&agent(dir.path(), ""), vec![("grpc", open.into())], &log);
    assert!(!agent.wait().success());
    let said = agent.output();
    assert!(
        said.contains("of the service manager") && said.contains("add [tls]"),
        "{said}"
    );
    // A connection instead of a listener (Accept=yes).
    let listener = UnixListener::bind(dir.path().join("x")).unwrap();
    let connection = std::os::unix::net::UnixStream::connect(dir.path().join("x")).unwrap();
    let mut agent = Process::start_with_sockets(
        &self::agent(dir.path(), ""),
        vec![("grpc", connection.into())],
        &log,
    );
    assert!(!agent.wait().success());
    assert!(agent.output().contains("Accept=no"), "{}", agent.output());
    drop(listener);
}
