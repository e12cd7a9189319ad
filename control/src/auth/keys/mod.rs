//! Access keys: who may ask at all, with which secret, for which account, under which policies.
//!
//! Keys live outside of the main configuration, in a file or a directory that only the service
//! can read (see [`mod@file`]), and are read again when they change.
//!
//! Invariants: a secret has no `Debug`, `Display` or `Serialize`; what could not be read never
//! widens a right: at start it is refused, later it makes the keys concerned answer `AliyunError`.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sifter_tls::Unsafe;

use super::policy::Policy;
use crate::lock::lock;

mod file;
mod guard;

pub use file::Fingerprint;

/// A secret; printed as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for computing with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// One access key.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// Its public name.
    pub id: String,
    /// What it signs with; `None` if that could not be read.
    pub secret: Option<Secret>,
    /// The account it belongs to.
    pub account_id: String,
    /// Whether it is the account's own key, which no policy binds.
    pub root: bool,
    /// Whether it may be used.
    pub active: bool,
    /// The token that must come with it, for a temporary key.
    pub security_token: Option<Secret>,
    /// When a temporary key ends.
    pub expires: Option<Timestamp>,
    /// What it may do; `None` stands for a policy that could not be read.
    pub policies: Vec<Option<Arc<Policy>>>,
}

/// All access keys, as read at one time.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: HashMap<String, Arc<AccessKey>>,
    problems: Vec<String>,
}

impl KeyRing {
    /// A ring of the given keys.
    #[cfg(test)]
    pub(super) fn new(keys: impl IntoIterator<Item = AccessKey>) -> Self {
        Self {
            keys: keys
                .into_iter()
                .map(|key| (key.id.clone(), Arc::new(key)))
                .collect(),
            problems: Vec::new(),
        }
    }

    /// The key of that name.
    pub fn get(&self, id: &str) -> Option<&Arc<AccessKey>> {
        self.keys.get(id)
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<AccessKey>> {
        self.keys.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What could not be read of single keys and policies.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Others could read or change it.
    #[error("{} is not safe: {problem}", path.display())]
    Unsafe {
        /// Which one.
        path: PathBuf,
        /// Who could do what.
        problem: Unsafe,
    },
    /// It is larger than any file of keys.
    #[error("{}: more than the {} bytes that are read", path.display(), guard::MAX_FILE)]
    TooLarge {
        /// Which one.
        path: PathBuf,
    },
    /// It is not TOML of the expected form. The text of the file is not shown.
    #[error("{}: {problem}", path.display())]
    Syntax {
        /// Which one.
        path: PathBuf,
        /// Where and what.
        problem: String,
    },
    /// An entry that makes no sense.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// `credential:NAME` outside of a service that was given credentials.
    #[error(
        "credential:{name} cannot be read, since CREDENTIALS_DIRECTORY is not set: the service manager sets it \
         for a unit that has LoadCredential={name}:FILE; in a shell, run the command by \
         systemd-run --pipe --wait -p User=sifter-control -p LoadCredential={name}:FILE"
    )]
    NoCredentials {
        /// What is asked for.
        name: String,
    },
}

/// The file or directory that the keys are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    path: PathBuf,
    credentials: Option<PathBuf>,
}

impl KeySource {
    /// A path, or `credential:NAME` for a credential of the service manager.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::with_credentials(text, credentials)
    }

    /// The same with the directory of credentials given.
    pub fn with_credentials(text: &str, credentials: Option<PathBuf>) -> Result<Self, KeyError> {
        let path = file::locate(text, None, credentials.as_deref())?;
        Ok(Self { path, credentials })
    }

    /// Reads everything; an error if anything at all is wrong.
    pub fn load(&self) -> Result<KeyRing, KeyError> {
        self.whole(file::load(self).0?)
    }

    /// The keys, if nothing at all is wrong with them.
    fn whole(&self, ring: KeyRing) -> Result<KeyRing, KeyError> {
        match ring.problems.first() {
            None => Ok(ring),
            Some(problem) => Err(KeyError::Invalid {
                path: self.path.clone(),
                problem: problem.clone(),
            }),
        }
    }
}

/// The keys in use, replaced when their files change.
#[derive(Debug)]
pub struct KeyStore {
    source: KeySource,
    current: ArcSwap<Keys>,
    /// What the files looked like when read, and when last looked at.
    seen: Mutex<Seen>,
}

/// What requests find.
#[derive(Debug)]
pub enum Keys {
    /// The keys.
    Ready(KeyRing),
    /// They changed and cannot be read as a whole.
    Unreadable,
}

#[derive(Debug, Default)]
struct Seen {
    loaded: Fingerprint,
    candidate: Option<Fingerprint>,
}

impl KeyStore {
    /// Reads the keys for the first time; an error if anything at all is wrong.
    pub fn open(source: KeySource) -> Result<Self, KeyError> {
        let (result, fingerprint) = file::load(&source);
        let ring = source.whole(result?)?;
        Ok(Self {
            current: ArcSwap::from_pointee(Keys::Ready(ring)),
            source,
            seen: Mutex::new(Seen {
                loaded: fingerprint,
                candidate: None,
            }),
        })
    }

    /// Keys of no file.
    #[cfg(test)]
    pub(super) fn fixed(ring: KeyRing) -> Self {
        Self {
            source: KeySource {
                path: PathBuf::new(),
                credentials: None,
            },
            current: ArcSwap::from_pointee(Keys::Ready(ring)),
            seen: Mutex::default(),
        }
    }

    /// The keys in use now.
    pub fn current(&self) -> Arc<Keys> {
        self.current.load_full()
    }

    /// Reads the keys again. What is wrong goes to the log and, for the keys it concerns, makes
    /// every answer `AliyunError` until it is mended: the rights of yesterday may have been taken
    /// away by the very change that cannot be read. Returns whether all is right.
    pub fn reload(&self) -> bool {
        let mut seen = lock(&self.seen);
        self.reload_locked(&mut seen)
    }

    fn reload_locked(&self, seen: &mut Seen) -> bool {
        let (result, fingerprint) = file::load(&self.source);
        *seen = Seen {
            loaded: fingerprint,
            candidate: None,
        };
        let is_right = result.as_ref().is_ok_and(|ring| ring.problems.is_empty());
        let keys = match result {
            Ok(ring) => {
                for problem in ring.problems() {
                    tracing::error!(problem, "access keys are incomplete");
                }
                tracing::info!(keys = ring.len(), "access keys read again");
                Keys::Ready(ring)
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "access keys cannot be read");
                Keys::Unreadable
            }
        };
        self.current.store(Arc::new(keys));
        is_right
    }

    /// Reads the keys again if their files changed and have come to rest: a change is acted upon
    /// when two looks in a row see the same, so that a file being written is left alone. Returns
    /// whether all is right, if the keys were read.
    pub fn poll(&self) -> Option<bool> {
        let mut seen = lock(&self.seen);
        let now = seen.loaded.again();
        if now == seen.loaded {
            seen.candidate = None;
            return None;
        }
        if seen.candidate.as_ref() != Some(&now) {
            seen.candidate = Some(now);
            return None;
        }
        Some(self.reload_locked(&mut seen))
    }
}

#[cfg(test)]
mod tests;
