//! The agent as a process, authorities and certificates made for a test, and a gRPC client.

pub mod mounted;
pub mod site;
pub mod tree;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Leaves a test out for want of something that CI has: loudly, and where `CI` is set it fails instead.
pub fn skip(what: &str, why: &str) {
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "{what} cannot run, and CI is set: {why}");
    leave_out(what, why);
}

/// Leaves a test out for want of something that a machine need not have.
///
/// Not by a macro: what those print is shown of tests that fail only.
pub fn leave_out(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\nNOT RUN: {what}: {why}\n");
}

/// Whether this process may become other users and give files away: root may, unless its capabilities were taken.
pub fn is_superuser() -> bool {
    // CAP_CHOWN, CAP_SETGID and CAP_SETUID.
    const NEEDED: u64 = 1 | 1 << 6 | 1 << 7;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(effective.unwrap().trim(), 16).unwrap() & NEEDED == NEEDED
}

/// A directory that other users may enter, as they may what is made in it from here on.
pub fn open_directory() -> tempfile::TempDir {
    nix::sys::stat::umask(Mode::S_IWGRP | Mode::S_IWOTH);
    tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap()
}

/// A `PATH` by which `systemctl` tells of a unit that the user `nobody` runs with a configuration.
pub fn path_to_unit_of_nobody(directory: &Path, config: &Path) -> String {
    let bin = directory.join("bin");
    fs::create_dir(&bin).unwrap();
    let shown = format!(
        "#!/bin/sh\necho 'User=nobody'\necho 'ExecStart={{ argv[]=/usr/bin/sifter agent --config {} ; }}'\n",
        config.display()
    );
    fs::write(bin.join("systemctl"), shown).unwrap();
    fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", bin.display())
}

/// Copies a program to where other users can run it. By a process that ends: what another thread starts meanwhile
/// would keep a file open that is written here, and nobody can run one.
pub fn install(program: impl AsRef<Path>, to: &Path) {
    let mut install = Command::new("install");
    install.args(["-m", "755"]).arg(program.as_ref()).arg(to);
    assert!(install.status().unwrap().success(), "{install:?}");
}

/// Runs something as somebody whom modes concern; threads that it starts inherit that.
pub fn unprivileged<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        // Who is not root is concerned already.
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        run()
    });
    thread.join().unwrap()
}

/// A running agent over `directory/images`, ended when dropped.
pub struct Agent {
    process: Child,
    pub directory: PathBuf,
    pub addresses: Vec<String>,
}

impl Agent {
    /// Starts an agent with more configuration, which comes first in the file, and waits until it
    /// lists.
    pub fn start(directory: &Path, listen: &str, more: &str) -> Self {
        let config = directory.join("agent.toml");
        let text = format!(
            "listen = ['unix:{0}/agent.sock'{listen}]\nmetrics = 'unix:{0}/metrics.sock'\n{more}\n\
             [[root]]\npath = '{0}/images'\n",
            directory.display()
        );
        fs::write(&config, text).unwrap();
        let mut process = crate::tool::sifter()
            .args(["agent", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.join("agent.log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let count = 1 + listen.matches(',').count();
        let addresses = (0..count)
            .map(|_| {
                let line = lines.next().expect("the agent starts").unwrap();
                line.strip_prefix("listening on ").unwrap().to_owned()
            })
            .collect();
        let agent = Self {
            process,
            directory: directory.to_owned(),
            addresses,
        };
        until("the first scan", || {
            agent.metric("sifter_agent_ready") == 1.0
        });
        agent
    }

    /// The socket's address.
    pub fn unix(&self) -> String {
        format!("unix:{}/agent.sock", self.directory.display())
    }

    /// The address of the TLS port.
    pub fn tls(&self) -> SocketAddr {
        let address = self
            .addresses
            .iter()
            .find_map(|text| text.strip_prefix("tls:"));
        address.unwrap().parse().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("agent.log")).unwrap()
    }

    /// A metric's value; 0 if there is no such series.
    pub fn metric(&self, series: &str) -> f64 {
        let mut stream = UnixStream::connect(self.directory.join("metrics.sock")).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("# EOF"), "{text}");
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Connections refused for a reason.
    pub fn refused(&self, reason: &str) -> f64 {
        self.metric(&format!(
            "sifter_agent_connections_refused_total{{reason=\"{reason}\"}}"
        ))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An authority that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key.
pub struct Identity {
    pub cert: String,
    pub key: String,
    chain: CertificateDer<'static>,
    secret: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        Self::make(name, |_| {})
    }

    /// One that is valid from one time to another.
    pub fn between(name: &str, from: SystemTime, until: SystemTime) -> Self {
        Self::make(name, |params| {
            params.not_before = from.into();
            params.not_after = until.into();
        })
    }

    fn make(name: &str, set: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        set(&mut params);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for a name, valid in these years.
    pub fn sign(&self, name: &str, years: (i32, i32)) -> Identity {
        self.issue(name, |params| {
            params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
            params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        })
    }

    /// A certificate for a name, valid from one time to another.
    pub fn sign_between(&self, name: &str, from: SystemTime, until: SystemTime) -> Identity {
        self.issue(name, |params| {
            params.not_before = from.into();
            params.not_after = until.into();
        })
    }

    fn issue(&self, name: &str, set: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        set(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            cert: certificate.pem(),
            key: key.serialize_pem(),
            chain: certificate.der().clone(),
            secret: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }
}

impl Identity {
    /// One that was made elsewhere.
    pub fn read(cert: &str, key: &str) -> Self {
        Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            chain: CertificateDer::from_pem_slice(cert.as_bytes()).unwrap(),
            secret: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        }
    }
}

/// A channel over TLS, to a server whose certificate `authority` signed for `agent`.
pub async fn connect(
    address: SocketAddr,
    authority: &str,
    client: Option<&Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = CertificateDer::from_pem_slice(authority.as_bytes());
    roots.add(pem.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        Some(client) => builder
            .with_client_auth_cert(vec![client.chain.clone()], client.secret.clone_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    Endpoint::from_static("http://agent")
        .connect_timeout(Duration::from_secs(20))
        .connect_with_connector(tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("agent").unwrap();
                let stream = connector.connect(name, stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }))
        .await
}

/// A small tree of images that this process may read.
pub fn images(directory: &Path, names: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images/built/scratch.sif");
    for name in names {
        let path = directory.join("images").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(&source, path).unwrap();
    }
}
