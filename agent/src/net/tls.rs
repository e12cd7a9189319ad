//! TLS with client certificates, read again when told to or when the files change. Connections
//! that are open keep what they were made with; who may go on asking is decided at every request.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore};
use rustls::{ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::{Allow, DAY, Names};
use crate::catalog::FileTime;
use crate::config::TlsSettings;
use crate::escape;
use crate::peer::Certified;

/// Certificates in a file. Real chains have a few; bundles of all public authorities 150.
const CERTIFICATES_MAX: usize = 1000;

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("{key} {}: {error}", path.display())]
    Read {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: rustls_pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("{key} {}: holds no certificate that can be understood", path.display())]
    Empty {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not fit together.
    #[error("tls.cert {} and tls.key {}: {error}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        error: rustls::Error,
    },
    /// The authorities cannot be used.
    #[error("tls.client_ca {}: {message}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// What is in use now.
#[derive(Debug)]
pub struct Loaded {
    config: Arc<ServerConfig>,
    allow: Arc<Allow>,
    /// The file of the agent's own certificate.
    cert: PathBuf,
    /// What that one says.
    pub own: Names,
}

/// TLS of the listeners.
#[derive(Debug)]
pub struct Tls {
    settings: Mutex<(TlsSettings, Fingerprint)>,
    loaded: ArcSwap<Loaded>,
}

/// What tells whether files are the ones that were read: device, inode, size, modification.
type Fingerprint = [Option<(u64, u64, u64, i64, i64)>; 3];

impl Loaded {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates("tls.cert", &settings.cert)?;
        let own = chain
            .first()
            .and_then(Names::of)
            .ok_or_else(|| TlsError::Empty {
                key: "tls.cert",
                path: settings.cert.clone(),
            })?;
        let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| TlsError::Read {
            key: "tls.key",
            path: settings.key.clone(),
            error,
        })?;
        let authorities = |message: String| TlsError::Authorities {
            path: settings.client_ca.clone(),
            message,
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls.client_ca", &settings.client_ca)? {
            roots
                .add(certificate)
                .map_err(|error| authorities(error.to_string()))?;
        }
        let inner =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| authorities(error.to_string()))?;
        let allow = Arc::new(Allow::new(&settings.allow));
        let pair = |error| TlsError::Pair {
            cert: settings.cert.clone(),
            key: settings.key.clone(),
            error,
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_client_cert_verifier(Arc::new(Verifier {
                inner,
                allow: Arc::clone(&allow),
            }))
            .with_single_cert(chain, key)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would be taken without a look at the certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            allow,
            cert: settings.cert.clone(),
            own,
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
        let fingerprint = fingerprint(&settings);
        let loaded = Loaded::read(&settings)?;
        Ok(Self {
            loaded: ArcSwap::from_pointee(loaded),
            settings: Mutex::new((settings, fingerprint)),
        })
    }

    /// Reads the files again, for the connections that come from now on.
    ///
    /// # Errors
    ///
    /// What is wrong with them; what was in use stays.
    pub fn reload(&self, settings: TlsSettings) -> Result<(), TlsError> {
        let fingerprint = fingerprint(&settings);
        let mut held = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        // What was tried once is tried again only when it has changed.
        held.1 = fingerprint;
        let loaded = Loaded::read(&settings)?;
        held.0 = settings;
        self.loaded.store(Arc::new(loaded));
        Ok(())
    }

    /// Reads the files again if they are not those that were read.
    ///
    /// # Errors
    ///
    /// What is wrong with them; what was in use stays.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let settings = {
            let held = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            if fingerprint(&held.0) == held.1 {
                return Ok(false);
            }
            held.0.clone()
        };
        self.reload(settings).map(|()| true)
    }

    /// What is in use now.
    #[must_use]
    pub fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Whether a client that was let in may still ask.
    #[must_use]
    pub fn still_allows(&self, client: &Certified) -> bool {
        self.loaded.load().allow.allows(&client.names) && FileTime::now() <= client.not_after
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
            not_after: names.not_after,
        };
        Ok((stream, certified))
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |error| TlsError::Read {
        key,
        path: path.to_owned(),
        error,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .take(CERTIFICATES_MAX)
        .collect::<Result<_, _>>()
        .map_err(read)?;
    if chain.is_empty() {
        return Err(TlsError::Empty {
            key,
            path: path.to_owned(),
        });
    }
    Ok(chain)
}

fn fingerprint(settings: &TlsSettings) -> Fingerprint {
    [&settings.cert, &settings.key, &settings.client_ca].map(|path| {
        let facts = std::fs::metadata(path).ok()?;
        Some((
            facts.dev(),
            facts.ino(),
            facts.size(),
            facts.mtime(),
            facts.mtime_nsec(),
        ))
    })
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
            if self.0.is_empty() {
                "no name".to_owned()
            } else {
                self.0.join(", ")
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

/// Reads changed files again, forever, and says once a day if the agent's own certificate ends soon.
pub async fn follow(tls: Arc<Tls>, every: Duration, told: impl Fn(Result<(), TlsError>)) {
    let mut reminder = Reminder::default();
    loop {
        reminder.remind(&tls, FileTime::now());
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

/// Which certificate was looked at last, and when to speak of it next.
#[derive(Debug, Default)]
struct Reminder(Option<(Arc<Loaded>, FileTime)>);

impl Reminder {
    /// Logs what is to be said: when a certificate has been read, and then once a day.
    fn remind(&mut self, tls: &Tls, now: FileTime) {
        let loaded = tls.loaded();
        if let Some(warning) = self.due(&loaded, now) {
            tracing::warn!(
                certificate = "tls.cert",
                file = escape::path(&loaded.cert),
                until = %loaded.own.not_after.timestamp(),
                "{warning}: renew it"
            );
        }
    }

    fn due(&mut self, loaded: &Arc<Loaded>, now: FileTime) -> Option<String> {
        let is_told = |(of, next): &(Arc<Loaded>, FileTime)| Arc::ptr_eq(of, loaded) && now < *next;
        if self.0.as_ref().is_some_and(is_told) {
            return None;
        }
        self.0 = Some((Arc::clone(loaded), FileTime(now.0.saturating_add(DAY))));
        loaded.own.warning(now)
    }
}
