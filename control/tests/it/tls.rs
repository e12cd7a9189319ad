//! HTTPS and mutual TLS to the agents.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::IsCa;
use rcgen::KeyPair;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use sifter_control::config::AgentTls;
use sifter_control::fleet::AgentTlsError;
use sifter_control::fleet::load_agent_tls;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Certificate;
use tonic::transport::Identity;
use tonic::transport::ServerTlsConfig;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::allow_descriptors;
use crate::support::client;
use crate::support::client::Answer;
use crate::support::directory;
use crate::support::program;
use crate::support::server::CLUSTER;
use crate::support::server::Control;
use crate::support::server::config;
use crate::support::until;

/// An authority that signs for `localhost`.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        Self::until(None)
    }

    /// One that is valid for so many days, if it ends at all.
    fn until(days: Option<u64>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        if let Some(days) = days {
            params.not_after = (SystemTime::now() + Duration::from_secs(days * 86_400)).into();
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The same, valid for so many days.
    fn issue_for(&self, days: u64) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let end = SystemTime::now() + Duration::from_secs(days * 86_400);
        params.not_after = end.into();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes certificate and key under names beginning with `name`.
    pub fn write(&self, dir: &Path, name: &str) {
        self.write_pair(dir, name, self.issue());
    }

    fn write_pair(&self, dir: &Path, name: &str, (cert, key): (String, String)) {
        fs::write(dir.join(format!("{name}.pem")), cert).unwrap();
        let path = dir.join(format!("{name}.key"));
        fs::write(&path, key).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    async fn get(&self, address: SocketAddr, target: &str) -> Result<Answer, std::io::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect("localhost".try_into().unwrap(), stream)
            .await?;
        Ok(client::exchange(stream, &client::get_bytes(target, &[])).await)
    }
}

#[tokio::test]
async fn https_with_a_certificate_that_changes() {
    let (before, after) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    before.write(dir.path(), "server");
    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let tables =
        "[server]\nlisten = [\"127.0.0.1:0\"]\ncert = \"server.pem\"\nkey = \"server.key\"";
    let text = config(tables, &[(CLUSTER, &[agent.address()])]);
    let control = Control::start(dir, &text).await;
    let target = client::list_target("ClusterId=ehpc-test");
    let answer = before.get(control.address, &target).await.unwrap();
    assert_eq!(answer.code(), "OK");
    assert!(after.get(control.address, &target).await.is_err());

    // A broken certificate is not taken over, a good one is.
    fs::write(control.dir().join("server.pem"), "nonsense").unwrap();
    control.running.reload();
    assert!(before.get(control.address, &target).await.is_ok());
    after.write(control.dir(), "server");
    control.running.reload_changed();
    control.running.reload_changed();
    assert!(before.get(control.address, &target).await.is_err());
    let answer = after.get(control.address, &target).await.unwrap();
    assert_eq!(answer.code(), "OK");
}

#[tokio::test]
async fn the_end_of_certificates_is_known_beforehand() {
    let authority = Authority::until(Some(25));
    let dir = directory();
    fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    authority.write_pair(dir.path(), "server", authority.issue_for(20));
    authority.write_pair(dir.path(), "client", authority.issue_for(200));
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\ncert = \"server.pem\"\nkey = \"server.key\"\n\
                  [admin]\nlisten = \"127.0.0.1:0\"\n\
                  [agent_tls]\nca = \"ca.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"";
    let control = Control::start(dir, &config(tables, &[])).await;
    let admin = control.running.admin_address.unwrap();
    let days_until = async |what: &str, certificate: &str| {
        let metrics = client::get(admin, "/metrics").await.body;
        let start = format!(
            "sifter_control_tls_certificate_{what}_timestamp_seconds{{certificate=\"{certificate}\"}} "
        );
        let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
        let time: i64 = line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // To the nearest day.
        (time - now.unwrap().as_secs().cast_signed() + 43_200).div_euclid(86_400)
    };
    assert_eq!(days_until("expiry", "server.cert").await, 20);
    assert_eq!(days_until("renewal", "server.cert").await, -10);
    assert_eq!(days_until("expiry", "agent_tls.cert").await, 200);
    assert_eq!(days_until("expiry", "agent_tls.ca").await, 25);
    assert_eq!(days_until("renewal", "agent_tls.ca").await, -5);
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sifter-control"));
        command
            .args(["check-config", "--config"])
            .arg(&control.config);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let text = check();
    let note = format!(
        "note: server.cert {}: the certificate expires in less than 20 days: renew it (until ",
        control.dir().join("server.pem").display()
    );
    let of_authority = format!(
        "note: agent_tls.ca {}: the authority expires in less than 25 days: renew it (until ",
        control.dir().join("ca.pem").display()
    );
    assert!(
        text.contains(&note) && text.contains(&of_authority) && !text.contains("agent_tls.cert"),
        "{text}"
    );

    for (name, days) in [("server", 300), ("client", 100)] {
        authority.write_pair(control.dir(), name, authority.issue_for(days));
    }
    // The new authority beside the old one.
    let both = authority.pem() + &Authority::until(Some(500)).pem();
    fs::write(control.dir().join("ca.pem"), both).unwrap();
    control.running.reload();
    assert_eq!(days_until("expiry", "server.cert").await, 300);
    assert_eq!(days_until("renewal", "server.cert").await, 270);
    assert_eq!(days_until("expiry", "agent_tls.cert").await, 100);
    assert_eq!(days_until("expiry", "agent_tls.ca").await, 500);
    assert!(!check().contains("note: "));
}

#[test]
fn files_that_others_can_read_or_replace_are_told_of_and_used() {
    let authority = Authority::new();
    let dir = directory();
    fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    authority.write(dir.path(), "server");
    authority.write(dir.path(), "client");
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\ncert = \"server.pem\"\nkey = \"server.key\"\n\
                  [agent_tls]\nca = \"ca.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"";
    let file = dir.path().join("config.toml");
    fs::write(&file, config(tables, &[])).unwrap();
    let set = |name: &str, mode| {
        let path = dir.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let check = || {
        let output = program::run("check-config", &file);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.replace(dir.path().to_str().unwrap(), "DIR")
    };
    for (name, mode) in [("", 0o755), ("server.key", 0o640), ("client.key", 0o640)] {
        set(name, mode);
    }
    for (name, mode, good, expected) in [
        ("ca.pem", 0o644, 0o644, ""),
        (
            "server.key",
            0o644,
            0o640,
            "note: server.key DIR/server.key is not safe: mode 0644 lets every user read it; chmod o=\n",
        ),
        (
            "client.key",
            0o444,
            0o440,
            "note: agent_tls.key DIR/client.key is not safe: mode 0444 lets every user read it; chmod o=\n",
        ),
        (
            "ca.pem",
            0o664,
            0o644,
            "note: agent_tls.ca DIR/ca.pem is not safe: mode 0664 lets others write it; chmod go-w\n",
        ),
    ] {
        set(name, mode);
        let text = check();
        assert_eq!(text.lines().count(), 1 + expected.lines().count(), "{text}");
        assert!(text.ends_with(expected), "{text}");
        set(name, good);
    }
    set("server.key", 0o644);
    let mut serve = program::program("serve", &file);
    let serve = serve.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut serve = program::Process(serve.spawn().unwrap());
    assert!(program::Log::of(&mut serve).says("server.key is not safe: mode 0644"));
}

#[tokio::test]
async fn plain_http_on_an_https_port_hurts_nobody() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.write(dir.path(), "server");
    let tables =
        "[server]\nlisten = [\"127.0.0.1:0\"]\ncert = \"server.pem\"\nkey = \"server.key\"";
    let control = Control::start(dir, &config(tables, &[])).await;
    let mut stream = TcpStream::connect(control.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    let answer = authority.get(control.address, "/healthz").await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_thousand_handshakes_that_never_end_keep_nobody_out() {
    allow_descriptors();
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.write(dir.path(), "server");
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\ncert = \"server.pem\"\nkey = \"server.key\"\n\
                  [limits]\nheader_timeout_seconds = 5";
    let control = Control::start(dir, &config(tables, &[])).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(control.address).await.unwrap();
        // The begin of a hello.
        let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await;
        idle.push(stream);
    }
    let failures = async || {
        let answer = authority.get(control.address, "/metrics").await.unwrap();
        let value = |name: &str| {
            let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse::<u32>().unwrap()
        };
        (
            value("sifter_control_tls_handshake_failures_total "),
            value("sifter_control_http_connections "),
        )
    };
    // Held, and not in the way.
    let answer = authority.get(control.address, "/healthz").await.unwrap();
    assert_eq!(answer.status, 200);
    until("all are let go and counted", async || {
        failures().await == (1000, 1)
    })
    .await;
}

#[tokio::test]
async fn mutual_tls_to_the_agents() {
    let (sites, strangers) = (Authority::new(), Authority::new());
    let (cert, key) = sites.issue();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(sites.pem()));
    let agent = Agent::tls("mycluster", Act::List(1), tls).await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), sites.pem()).unwrap();
    strangers.write(dir.path(), "client");
    let tables = "[agent_tls]\nca = \"ca.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"";
    let text = config(tables, &[(CLUSTER, &[agent.address()])]);
    let control = Control::start(dir, &text).await;

    // The agent does not know the certificate …
    control.list("").await.assert_error(406, "AgentError");
    // … until it is replaced …
    sites.write(control.dir(), "client");
    control.running.reload();
    assert_eq!(control.list("").await.code(), "OK");
    // … and an agent that the site's authority does not vouch for is not believed.
    fs::write(control.dir().join("ca.pem"), strangers.pem()).unwrap();
    control.running.reload();
    control.list("").await.assert_error(406, "AgentError");
}

#[tokio::test]
async fn an_agent_may_have_a_certificate_for_another_name_than_its_address() {
    let sites = Authority::new();
    let (cert, key) = sites.issue();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(sites.pem()));
    let agent = Agent::tls("mycluster", Act::List(1), tls).await;
    let address = agent.address().replace("localhost", "127.0.0.1");
    for (server_name, code) in [("", "AgentError"), ("server_name = \"localhost\"", "OK")] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), sites.pem()).unwrap();
        sites.write(dir.path(), "client");
        let tables = format!(
            "[agent_tls]\nca = \"ca.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"\n{server_name}"
        );
        let text = config(&tables, &[(CLUSTER, std::slice::from_ref(&address))]);
        let control = Control::start(dir, &text).await;
        assert_eq!(control.list("").await.code(), code, "{server_name:?}");
    }
}

#[test]
fn a_name_that_no_agent_can_have_is_refused() {
    let (sites, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("ca.pem"), sites.pem()).unwrap();
    sites.write(dir.path(), "client");
    let files = |server_name: &str| AgentTls {
        ca: dir.path().join("ca.pem"),
        cert: dir.path().join("client.pem"),
        key: dir.path().join("client.key"),
        server_name: Some(server_name.to_owned()),
    };
    assert!(load_agent_tls(&files("node1.example")).is_ok());
    let refused = load_agent_tls(&files("node 1"));
    assert!(matches!(refused, Err(AgentTlsError::Unusable(_))));
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let sites = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), sites.pem()).unwrap();
    sites.write(dir.path(), "client");
    // Accepts, and says nothing for as long as the connection lives.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tables = "[agents]\nconnect_timeout_ms = 300\n[limits]\nanswer_within_ms = 600\n\
                  [agent_tls]\nca = \"ca.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"";
    let node = format!("https://localhost:{}", address.port());
    let control = Control::start(dir, &config(tables, &[(CLUSTER, &[node])])).await;
    let (answer, _silent) = tokio::join!(control.list(""), listener.accept());
    answer.assert_error(406, "AgentError");

    let (cert, key) = sites.issue();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(sites.pem()));
    // The same socket: the port of one that was closed may be another test's by now.
    let _agent = Agent::tls_on(listener, "mycluster", Act::List(1), tls);
    until("the agent answers", async || {
        control.list("").await.code() == "OK"
    })
    .await;
}
