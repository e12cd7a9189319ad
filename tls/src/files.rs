//! Reading the PEM files of chains, keys and authorities.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::guard::{self, Care, Unsafe};
use crate::held::{Held, Kind};
use crate::validity::Validity;

/// Largest file that is read. Bundles of all public authorities have a quarter of a MiB.
const LARGEST: u64 = 4 << 20;

/// Why certificates or keys cannot be used. Each error says which key of the configuration and which file it is
/// about, and its cause, so that it has no source.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting} {}: {error}{}", path.display(), advice(error))]
    Read {
        /// The key of the configuration.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{setting} {}: {problem}", path.display())]
    Content {
        /// The key of the configuration.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Certificate and key cannot be used together.
    #[error("{} {} and {} {}: {problem}", cert.0, cert.1.display(), key.0, key.1.display())]
    Pair {
        /// The certificate.
        cert: (&'static str, PathBuf),
        /// The key.
        key: (&'static str, PathBuf),
        /// What is wrong, and what to do.
        problem: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": let the user of the service read it",
        _ => "",
    }
}

impl TlsError {
    fn unread(setting: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Read {
            setting,
            path: path.to_owned(),
            error,
        }
    }

    fn content(setting: &'static str, path: &Path, problem: impl Into<String>) -> Self {
        Self::Content {
            setting,
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

/// A certificate with its chain and key.
pub struct Identity {
    /// Ready for use.
    pub certified: Arc<CertifiedKey>,
    /// The file of the chain, as it is.
    pub cert_pem: Vec<u8>,
    /// The file of the key, as it is.
    pub key_pem: Vec<u8>,
    /// The files: of the chain, of which the first certificate is the one that is shown, and of the key.
    pub held: [Held; 2],
}

impl Identity {
    /// Reads chain and key, each by its key of the configuration and its file.
    ///
    /// # Errors
    ///
    /// What is wrong with them, also that they do not belong together.
    pub fn read(cert: (&'static str, &Path), key: (&'static str, &Path)) -> Result<Self, TlsError> {
        // Who can replace the chain alone has no key for it.
        let (cert_pem, _) = read(cert.0, cert.1, Care::Public)?;
        let chain = parse(cert.0, cert.1, &cert_pem)?;
        let validity = chain
            .first()
            .and_then(Validity::of)
            .ok_or_else(|| TlsError::content(cert.0, cert.1, "the certificate cannot be read"))?;
        let (key_pem, problem) = read(key.0, key.1, Care::Shared)?;
        let secret = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| {
            let problem = match error {
                pem::Error::NoItemsFound => "holds no private key in PEM that is open; \
                    one with a passphrase is opened by `openssl pkey`"
                    .to_owned(),
                error => not_pem(&error),
            };
            TlsError::content(key.0, key.1, problem)
        })?;
        let certified = CertifiedKey::from_der(chain, secret, &provider()).map_err(|error| {
            let problem = match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    "the key is another certificate's".to_owned()
                }
                error => error.to_string(),
            };
            TlsError::Pair {
                cert: (cert.0, cert.1.to_owned()),
                key: (key.0, key.1.to_owned()),
                problem,
            }
        })?;
        Ok(Self {
            certified: Arc::new(certified),
            cert_pem,
            key_pem,
            held: [
                Held {
                    setting: cert.0,
                    file: cert.1.to_owned(),
                    kind: Kind::Certificate,
                    validity: Some(validity),
                    problem: None,
                },
                Held {
                    setting: key.0,
                    file: key.1.to_owned(),
                    kind: Kind::Key,
                    validity: None,
                    problem,
                },
            ],
        })
    }

    /// What a server of one protocol shows its clients, and how it looks at theirs.
    ///
    /// # Errors
    ///
    /// The cryptography has no version of TLS.
    pub fn server(
        &self,
        clients: Arc<dyn ClientCertVerifier>,
        protocol: &[u8],
    ) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                let [cert, _] = &self.held;
                TlsError::content(cert.setting, &cert.file, error.to_string())
            })?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
                &self.certified,
            ))));
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

/// Authorities that vouch for others.
pub struct Authorities {
    roots: RootCertStore,
    /// The file.
    pub held: Held,
    /// Their file, as it is.
    pub pem: Vec<u8>,
}

impl Authorities {
    /// Reads authorities, by their key of the configuration and their file.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn read(setting: &'static str, path: &Path) -> Result<Self, TlsError> {
        let (pem, problem) = read(setting, path, Care::Public)?;
        let mut roots = RootCertStore::empty();
        let certificates = parse(setting, path, &pem)?;
        let lives = certificates.iter().filter_map(Validity::of);
        let validity = lives.max_by_key(|life| life.not_after);
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| TlsError::content(setting, path, error.to_string()))?;
        }
        Ok(Self {
            roots,
            held: Held {
                setting,
                file: path.to_owned(),
                kind: Kind::Authorities,
                validity,
                problem,
            },
            pem,
        })
    }

    /// Lets in the clients that they have signed for.
    ///
    /// # Errors
    ///
    /// They cannot be used for that.
    pub fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let roots = Arc::new(self.roots.clone());
        WebPkiClientVerifier::builder_with_provider(roots, Arc::new(provider()))
            .build()
            .map_err(|error| {
                TlsError::content(self.held.setting, &self.held.file, error.to_string())
            })
    }
}

/// All certificates of a file, at least one. `setting` says what names the file, which may be a pipe: a command
/// reads it once.
///
/// # Errors
///
/// What is wrong with it.
pub fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = File::open(path).map_err(|error| TlsError::unread(setting, path, error))?;
    parse(setting, path, &contents(setting, path, file)?)
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// What is in a regular file, and what others can do with it. A service reads its files again and again.
fn read(
    setting: &'static str,
    path: &Path,
    care: Care,
) -> Result<(Vec<u8>, Option<Unsafe>), TlsError> {
    let failed = |error| TlsError::unread(setting, path, error);
    // Without O_NONBLOCK a named pipe would keep the service from starting.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        let problem = "is no regular file, which can be read again: name one, or a link to one";
        return Err(TlsError::content(setting, path, problem));
    }
    let problem = guard::concern(&file, path, care);
    Ok((contents(setting, path, file)?, problem))
}

fn contents(setting: &'static str, path: &Path, file: File) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| TlsError::unread(setting, path, error))?;
    if bytes.len() as u64 > LARGEST {
        let problem = format!("holds more than the {LARGEST} bytes that are read");
        return Err(TlsError::content(setting, path, problem));
    }
    Ok(bytes)
}

fn parse(
    setting: &'static str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::content(setting, path, not_pem(&error)))?;
    if chain.is_empty() {
        let problem = "holds no certificate in PEM";
        return Err(TlsError::content(setting, path, problem));
    }
    Ok(chain)
}

fn not_pem(error: &pem::Error) -> String {
    format!("is no PEM that can be read: {error}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A certificate that signs itself, and its key.
    fn pair() -> (String, String) {
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn of_authorities_the_last_to_end_counts() {
        let dir = tempfile::tempdir().unwrap();
        let authority = |year| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().pem()
        };
        let path = dir.path().join("ca.pem");
        for (years, expected) in [
            (&[2030][..], "2030-01-01T00:00:00Z"),
            (&[2030, 2040], "2040-01-01T00:00:00Z"),
            (&[2041, 2031, 2021], "2041-01-01T00:00:00Z"),
        ] {
            let pem: String = years.iter().map(|&year| authority(year)).collect();
            fs::write(&path, pem).unwrap();
            let held = Authorities::read("ca", &path).unwrap().held;
            let until = held.validity.unwrap().not_after;
            assert_eq!(until.to_string(), expected, "{years:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_setting_and_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let (cert, key) = pair();
        let other = pair();
        let sealed = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let broken = "-----BEGIN CERTIFICATE-----\nMAMBAgM=\n-----END CERTIFICATE-----\n";
        for (name, text) in [
            ("cert", &*cert),
            ("chain", &format!("{cert}{}", other.0)),
            ("key", &key),
            ("other", &other.1),
            ("both", &format!("{key}{cert}")),
            ("empty", ""),
            ("sealed", &sealed),
            ("broken", broken),
            ("cut", &cert[..cert.len() / 2]),
            ("huge", &"x".repeat(LARGEST as usize + 1)),
        ] {
            write(name, text);
        }
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&dir.path().join("pipe"), mode).unwrap();
        let at = |name: &str| dir.path().join(name);
        let says = |what: &str, error: Option<TlsError>, expected: &str| {
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            let error = error.replace(dir.path().to_str().unwrap(), "DIR");
            assert!(
                error.starts_with(expected) && error.is_empty() == expected.is_empty(),
                "{what}: {error}"
            );
        };
        for (cert, key, expected) in [
            ("cert", "key", ""),
            ("chain", "key", ""),
            ("both", "both", ""),
            ("none", "key", "a.cert DIR/none: No such file"),
            ("empty", "key", "a.cert DIR/empty: holds no certificate"),
            ("key", "key", "a.cert DIR/key: holds no certificate"),
            ("broken", "key", "a.cert DIR/broken: the certificate cannot"),
            ("cut", "key", "a.cert DIR/cut: is no PEM"),
            ("huge", "key", "a.cert DIR/huge: holds more than"),
            ("pipe", "key", "a.cert DIR/pipe: is no regular file"),
            ("cert", "pipe", "a.key DIR/pipe: is no regular file"),
            ("cert", "none", "a.key DIR/none: No such file"),
            ("cert", "cert", "a.key DIR/cert: holds no private key"),
            ("cert", "sealed", "a.key DIR/sealed: holds no private key"),
            (
                "cert",
                "other",
                "a.cert DIR/cert and a.key DIR/other: the key is another certificate's",
            ),
        ] {
            let read = Identity::read(("a.cert", &at(cert)), ("a.key", &at(key)));
            says(&format!("{cert} {key}"), read.err(), expected);
        }
        for (ca, expected) in [
            ("cert", ""),
            ("none", "a.ca DIR/none: No such file"),
            ("key", "a.ca DIR/key: holds no certificate"),
            ("broken", "a.ca DIR/broken: "),
            ("pipe", "a.ca DIR/pipe: is no regular file"),
        ] {
            says(ca, Authorities::read("a.ca", &at(ca)).err(), expected);
        }
    }
}
