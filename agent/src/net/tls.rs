//! TLS with client certificates, read again when told to or when the files change. Connections
//! that are open keep what they were made with; who may go on asking is decided at every request.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName};
use rustls::{ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use sifter_tls::{Authorities, FileWatch, Held, Identity, Reminder, TlsError};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::{Allow, Names};
use crate::config::TlsSettings;
use crate::escape;
use crate::lock::lock;
use crate::peer::Certified;

/// The agent's own certificate, by its key in the configuration.
const CERT: &str = "tls.cert";

/// Its key.
const KEY: &str = "tls.key";

/// The authorities that sign clients' certificates.
const CLIENT_CA: &str = "tls.client_ca";

/// What is in use now.
#[derive(Debug)]
pub struct Loaded {
    config: Arc<ServerConfig>,
    allow: Arc<Allow>,
    /// Who the agent's own certificate says that it is.
    pub names: Vec<String>,
    /// The files: certificate, key, authorities.
    pub held: [Held; 3],
}

/// TLS of the listeners.
#[derive(Debug)]
pub struct Tls {
    settings: Mutex<(TlsSettings, FileWatch)>,
    loaded: ArcSwap<Loaded>,
}

impl Loaded {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let identity = Identity::read((CERT, &settings.cert), (KEY, &settings.key))?;
        let authorities = Authorities::read(CLIENT_CA, &settings.client_ca)?;
        let allow = Arc::new(Allow::new(&settings.allow));
        let verifier = Verifier {
            inner: authorities.verifier()?,
            allow: Arc::clone(&allow),
        };
        let mut config = identity.server(Arc::new(verifier), b"h2")?;
        // A resumed session would be taken without a look at the certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let own = identity.certified.end_entity_cert().ok();
        let [cert, key] = identity.held;
        Ok(Self {
            config: Arc::new(config),
            allow,
            names: own.and_then(Names::of).map_or(Vec::new(), |own| own.names),
            held: [cert, key, authorities.held],
        })
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn new(settings: TlsSettings) -> Result<Self, TlsError> {
        // What changes while the files are read is noticed later.
        let watch = watch(&settings);
        let loaded = Loaded::read(&settings)?;
        Ok(Self {
            loaded: ArcSwap::from_pointee(loaded),
            settings: Mutex::new((settings, watch)),
        })
    }

    /// Reads the files again, for the connections that come from now on.
    ///
    /// # Errors
    ///
    /// What is wrong with them; what was in use stays.
    pub fn reload(&self, settings: TlsSettings) -> Result<(), TlsError> {
        let mut held = lock(&self.settings);
        let watch = watch(&settings);
        let loaded = Loaded::read(&settings);
        // What was tried once is tried again only when it has changed. If it was other files than those in use,
        // these were not tried.
        if loaded.is_ok() || files(&settings) == files(&held.0) {
            held.1 = watch;
        }
        self.loaded.store(Arc::new(loaded?));
        held.0 = settings;
        Ok(())
    }

    /// Reads the files again if they have changed and come to rest: if they look as they did at the last look,
    /// and not as they did when they were read.
    ///
    /// # Errors
    ///
    /// What is wrong with them; what was in use stays.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let mut held = lock(&self.settings);
        if !held.1.changed() {
            return Ok(false);
        }
        self.loaded.store(Arc::new(Loaded::read(&held.0)?));
        Ok(true)
    }

    /// What is in use now.
    #[must_use]
    pub fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Whether a client that was let in may still ask.
    #[must_use]
    pub fn still_allows(&self, client: &Certified) -> bool {
        self.loaded.load().allow.allows(&client.names) && Timestamp::now() <= client.not_after
    }

    /// The handshake with a client.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<(TlsStream<TcpStream>, Certified), Failure> {
        let config = Arc::clone(&self.loaded.load().config);
        let stream = TlsAcceptor::from(config)
            .accept(stream)
            .await
            .map_err(|error| Failure::of(&error))?;
        let names = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(Names::of)
            .ok_or(Failure::new(
                "no_certificate",
                "the client shows no certificate",
            ))?;
        let certified = Certified {
            address,
            names: names.names,
            not_after: names.validity.not_after,
        };
        Ok((stream, certified))
    }
}

fn watch(settings: &TlsSettings) -> FileWatch {
    FileWatch::new(files(settings).map(Clone::clone))
}

fn files(settings: &TlsSettings) -> [&PathBuf; 3] {
    [&settings.cert, &settings.key, &settings.client_ca]
}

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// For the metrics: one of a few.
    pub kind: &'static str,
    /// For the log.
    pub message: String,
}

impl Failure {
    pub(super) fn new(kind: &'static str, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
        }
    }

    fn of(error: &std::io::Error) -> Self {
        let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref()) else {
            return Self::new("gone", "the client went away");
        };
        match cause {
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
                Self::new("plain_text", "the client does not speak TLS")
            }
            rustls::Error::NoCertificatesPresented => {
                Self::new("no_certificate", "the client shows no certificate")
            }
            rustls::Error::InvalidCertificate(wrong) => match wrong {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::new(
                    "expired",
                    format!("the client's certificate has expired: {wrong}"),
                ),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::new(
                        "not_yet_valid",
                        format!("the client's certificate is not valid yet: {wrong}"),
                    )
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::new(
                    "unknown_issuer",
                    "the client's certificate is not signed by an authority in tls.client_ca",
                ),
                CertificateError::Other(other) => match other.0.downcast_ref::<NotAllowed>() {
                    Some(names) => Self::new("not_allowed", names),
                    None => Self::new("bad_certificate", wrong),
                },
                _ => Self::new(
                    "bad_certificate",
                    format!("the client's certificate cannot be used: {wrong}"),
                ),
            },
            rustls::Error::AlertReceived(alert) => Self::new(
                "refused_by_client",
                format!("the client refuses this agent's certificate: {alert:?}"),
            ),
            other => Self::new("protocol", other),
        }
    }
}

/// A client with a good certificate that is not on the list.
#[derive(Debug)]
struct NotAllowed(Vec<String>);

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the client is none of tls.allow: its certificate says {}",
            match &self.0[..] {
                [] => "no name".into(),
                names => escape::terminal(&names.join(", ")).into_owned(),
            }
        )
    }
}

impl std::error::Error for NotAllowed {}

/// Verifies a client's certificate, and that its name is on the list.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    allow: Arc<Allow>,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        let names = Names::of(end_entity)
            .ok_or(rustls::Error::InvalidCertificate(
                CertificateError::BadEncoding,
            ))?
            .names;
        if self.allow.allows(&names) {
            return Ok(verified);
        }
        let refused = rustls::OtherError(Arc::new(NotAllowed(names)));
        Err(CertificateError::Other(refused).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Reads changed files again, forever, and says once a day what ends soon, and what others can read
/// or replace.
pub async fn follow(tls: Arc<Tls>, every: Duration, told: impl Fn(Result<(), TlsError>)) {
    let mut reminder = Reminder::default();
    let mut last = None;
    loop {
        let loaded = tls.loaded();
        if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &loaded)) {
            reminder.replace(loaded.held.iter().cloned());
            last = Some(loaded);
        }
        remind(&mut reminder, Timestamp::now());
        tokio::time::sleep(every).await;
        let tls = Arc::clone(&tls);
        // Files may lie on a file system that hangs.
        match tokio::task::spawn_blocking(move || tls.reload_if_changed()).await {
            Ok(Ok(false)) | Err(_) => {}
            Ok(Ok(true)) => told(Ok(())),
            Ok(Err(error)) => told(Err(error)),
        }
    }
}

/// Logs what is to be said now.
fn remind(reminder: &mut Reminder, now: Timestamp) {
    for held in reminder.due(now) {
        let (setting, file) = (held.setting, escape::path(&held.file));
        if let Some((warning, until)) = held.ending(now) {
            tracing::warn!(certificate = setting, file, %until, "{warning}");
        }
        if let Some(problem) = &held.problem {
            let problem = escape::terminal(&problem.to_string()).into_owned();
            tracing::warn!(file, "{setting} is not safe: {problem}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{NotAllowed, Tls, TlsSettings};

    #[test]
    fn a_name_that_is_not_allowed_forges_no_line() {
        let said = NotAllowed(vec!["cn:x\n\u{1b}[2J".to_owned(), "dns:y".to_owned()]).to_string();
        assert!(said.ends_with(r"says cn:x\n\u{1b}[2J, dns:y"), "{said}");
        let nameless = NotAllowed(Vec::new()).to_string();
        assert!(nameless.ends_with("says no name"), "{nameless}");
    }

    #[test]
    fn files_that_are_being_replaced_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let pair = || {
            let params = rcgen::CertificateParams::new(vec!["agent".to_owned()]).unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let (cert, key) = pair();
        fs::write(at("cert"), &cert).unwrap();
        fs::write(at("key"), key).unwrap();
        fs::write(at("ca"), cert).unwrap();
        let settings = TlsSettings {
            cert: at("cert"),
            key: at("key"),
            client_ca: at("ca"),
            allow: vec!["*".to_owned()],
        };
        let tls = Tls::new(settings.clone()).unwrap();
        let look = || tls.reload_if_changed().map_err(|error| error.to_string());
        assert_eq!(look(), Ok(false));
        let (cert, key) = pair();
        fs::write(at("cert"), cert).unwrap();
        assert_eq!(look(), Ok(false), "its key is still another one's");
        fs::write(at("key"), key).unwrap();
        assert_eq!(look(), Ok(false), "may still be written");
        assert_eq!(look(), Ok(true));
        assert_eq!(look(), Ok(false), "only once");
        // What cannot be used is tried once.
        fs::write(at("key"), pair().1).unwrap();
        assert_eq!(look(), Ok(false));
        assert!(look().is_err());
        assert_eq!(look(), Ok(false));
        fs::write(at("key"), pair().1).unwrap();
        assert!(tls.reload(settings.clone()).is_err());
        assert_eq!([look(), look()], [Ok(false), Ok(false)]);
        // A configuration that names other files, which are not there, has not tried these.
        let (cert, key) = pair();
        fs::write(at("cert"), cert).unwrap();
        fs::write(at("key"), key).unwrap();
        let client_ca = at("none");
        assert!(
            tls.reload(TlsSettings {
                client_ca,
                ..settings
            })
            .is_err()
        );
        assert_eq!([look(), look()], [Ok(false), Ok(true)]);
    }
}
