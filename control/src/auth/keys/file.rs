//! The files of access keys and policies.
//!
//! One TOML file, or a directory of which every `*.toml` is read in the order of names. For users this is
//! written down in docs/security.md, with an example in deploy/examples/sifter-control:
//!
//! ```toml
//! [[key]]
//! access_key_id = "LTAI5tExample"
//! secret_file = "alice.secret"      # beside this file, or credential:NAME; or: secret = "…"
//! account_id = "1234567890123456"
//! user = "alice"                    # for people who read this file
//! policies = ["AliyunEHPCReadOnlyAccess", "campus"]
//! # root = true                     # the account's own key: no policies
//! # status = "inactive"
//! # security_token = "…"            # or security_token_file: a temporary key
//! # expires = "2026-12-31T00:00:00Z"
//!
//! [policies.campus]
//! file = "campus.json"              # or: document = '''{"Version": "1", …}'''
//! ```
//!
//! Files with secrets must belong to the service's user or root and be closed to everybody else;
//! policies may be read by all but written by none.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use sifter_tls::Care;
use sifter_tls::Looks;

use super::guard;
use super::{AccessKey, KeyError, KeyRing, KeySource, Secret};
use crate::auth::policy::Policy;
use crate::config;

/// System policies of the vendor that concern this product, under their own names.
const BUILT_IN: &[(&str, &str)] = &[
    (
        "AdministratorAccess",
        r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    ),
    (
        "AliyunEHPCFullAccess",
        r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"ehpc:*","Resource":"*"}]}"#,
    ),
    (
        "AliyunEHPCReadOnlyAccess",
        r#"{"Version":"1","Statement":[{"Effect":"Allow",
            "Action":["ehpc:List*","ehpc:Get*","ehpc:Describe*"],"Resource":"*"}]}"#,
    ),
];

/// Prefix of a name that the service manager's credentials are asked for.
const CREDENTIAL: &str = "credential:";

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    key: Vec<RawKey>,
    #[serde(default)]
    policies: BTreeMap<String, RawPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    access_key_id: String,
    secret: Option<String>,
    secret_file: Option<String>,
    account_id: String,
    /// For people who read the file.
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(default)]
    root: bool,
    #[serde(default)]
    status: Status,
    security_token: Option<String>,
    security_token_file: Option<String>,
    expires: Option<String>,
    #[serde(default)]
    policies: Vec<String>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    #[default]
    Active,
    Inactive,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    document: Option<String>,
    file: Option<String>,
}

/// What the files looked like: enough to notice any change, appearance or loss.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<(PathBuf, Option<Looks>)>);

impl Fingerprint {
    fn add(&mut self, path: &Path) {
        self.0.push((path.to_owned(), Looks::of(path)));
    }

    /// The same files as they look now.
    pub(super) fn again(&self) -> Self {
        Self(
            self.0
                .iter()
                .map(|(path, _)| (path.clone(), Looks::of(path)))
                .collect(),
        )
    }
}

/// Where a name given in a configuration or a file of keys points.
pub(super) fn locate(
    name: &str,
    beside: Option<&Path>,
    credentials: Option<&Path>,
) -> Result<PathBuf, KeyError> {
    if let Some(name) = name.strip_prefix(CREDENTIAL) {
        let dir = credentials.ok_or_else(|| KeyError::NoCredentials {
            name: name.escape_debug().to_string(),
        })?;
        // A credential is one file of that directory; its laxer mode is for nothing else.
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(invalid(dir, format!("{name:?} is no name of a credential")));
        }
        return Ok(dir.join(name));
    }
    Ok(match beside.and_then(Path::parent) {
        Some(dir) => dir.join(name),
        None => PathBuf::from(name),
    })
}

/// Reads everything. The fingerprint is that of before the reading, so that a change during it
/// is seen as a change after it.
pub(super) fn load(source: &KeySource) -> (Result<KeyRing, KeyError>, Fingerprint) {
    let mut loader = Loader {
        credentials: source.credentials.as_deref(),
        fingerprint: Fingerprint::default(),
        ring: KeyRing::default(),
    };
    let result = loader.load(&source.path);
    (result.map(|()| loader.ring), loader.fingerprint)
}

struct Loader<'a> {
    credentials: Option<&'a Path>,
    fingerprint: Fingerprint,
    ring: KeyRing,
}

impl Loader<'_> {
    fn load(&mut self, path: &Path) -> Result<(), KeyError> {
        self.fingerprint.add(path);
        let mut files = Vec::new();
        if path.is_dir() {
            let failed = |source| KeyError::Read {
                path: path.to_owned(),
                source,
            };
            for entry in fs::read_dir(path).map_err(failed)? {
                let file = entry.map_err(failed)?.path();
                let hidden = file
                    .file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                if !hidden && file.extension().is_some_and(|ext| ext == "toml") {
                    files.push(file);
                }
            }
            files.sort();
            for file in &files {
                self.fingerprint.add(file);
            }
        } else {
            files.push(path.to_owned());
        }
        let mut raw = Vec::new();
        for file in files {
            let text = self.guarded(&file, Care::Secret)?;
            let parsed = parse(&text, &file)?;
            raw.push((file, parsed));
        }
        // Policies first: a key may name one of another file.
        let policies = self.policies(&raw)?;
        for (file, raw) in raw {
            for key in raw.key {
                let key = self.key(&file, key, &policies)?;
                if self.ring.keys.contains_key(&key.id) {
                    return Err(invalid(
                        &file,
                        format!("access key {} occurs twice", key.id),
                    ));
                }
                self.ring.keys.insert(key.id.clone(), Arc::new(key));
            }
        }
        Ok(())
    }

    /// All policies by name; `None` for one that cannot be read.
    fn policies(
        &mut self,
        raw: &[(PathBuf, RawFile)],
    ) -> Result<HashMap<String, Option<Arc<Policy>>>, KeyError> {
        let mut all = HashMap::new();
        for (name, document) in BUILT_IN {
            let policy = Policy::parse(name, document).ok().map(Arc::new);
            all.insert((*name).to_owned(), policy);
        }
        for (file, raw) in raw {
            for (name, policy) in &raw.policies {
                let read = self.policy(file, name, policy)?;
                if all.insert(name.clone(), read).is_some() {
                    return Err(invalid(file, format!("policy {name:?} exists already")));
                }
            }
        }
        Ok(all)
    }

    fn policy(
        &mut self,
        file: &Path,
        name: &str,
        raw: &RawPolicy,
    ) -> Result<Option<Arc<Policy>>, KeyError> {
        let parsed = match (&raw.document, &raw.file) {
            (Some(document), None) => Policy::parse(name, document).map_err(|e| e.to_string()),
            (None, Some(other)) => self
                .read(file, other, Care::Public)?
                .and_then(|text| Policy::parse(name, &text).map_err(|e| e.to_string())),
            _ => Err("exactly one of document and file is needed".to_owned()),
        };
        Ok(match parsed {
            Ok(policy) => Some(Arc::new(policy)),
            Err(problem) => {
                self.problem(format!("policy {name:?}: {problem}"));
                None
            }
        })
    }

    fn key(
        &mut self,
        file: &Path,
        raw: RawKey,
        policies: &HashMap<String, Option<Arc<Policy>>>,
    ) -> Result<AccessKey, KeyError> {
        let id = raw.access_key_id;
        let bad = |problem: &str| invalid(file, format!("access key {id:?}: {problem}"));
        if !is_name(&id) {
            return Err(bad("access_key_id must be 1 to 128 of A-Z a-z 0-9 . _ -"));
        }
        if !is_name(&raw.account_id) {
            return Err(bad("account_id must be 1 to 128 of A-Z a-z 0-9 . _ -"));
        }
        if raw.root && !raw.policies.is_empty() {
            return Err(bad(
                "policies do not bind a root key; leave one of the two out",
            ));
        }
        let expires = raw
            .expires
            .map(|text| text.parse::<Timestamp>())
            .transpose()
            .map_err(|_| bad("expires must be a time like 2026-12-31T00:00:00Z"))?;
        if raw.secret.is_some() == raw.secret_file.is_some() {
            return Err(bad("exactly one of secret and secret_file is needed"));
        }
        if raw.security_token.is_some() && raw.security_token_file.is_some() {
            return Err(bad(
                "security_token and security_token_file exclude each other",
            ));
        }
        let is_temporary = raw.security_token.is_some() || raw.security_token_file.is_some();
        if expires.is_some() && !is_temporary {
            return Err(bad("expires belongs to a key with a security_token"));
        }
        let mut attached = Vec::new();
        for name in &raw.policies {
            let found = policies.get(name);
            if found.is_none() {
                self.problem(format!("access key {id:?}: no policy {name:?}"));
            }
            attached.push(found.cloned().flatten());
        }
        let mut secret = self.secret(file, &id, raw.secret, raw.secret_file)?;
        let security_token = self.secret(file, &id, raw.security_token, raw.security_token_file)?;
        if is_temporary && security_token.is_none() {
            // Without its token a temporary key must not turn into a permanent one.
            secret = None;
        }
        Ok(AccessKey {
            secret,
            account_id: raw.account_id,
            root: raw.root,
            active: raw.status == Status::Active,
            security_token,
            expires,
            policies: attached,
            id,
        })
    }

    /// A secret from the file itself or from one of its own; `None` (and a problem) if the latter
    /// cannot be read.
    fn secret(
        &mut self,
        file: &Path,
        id: &str,
        inline: Option<String>,
        other: Option<String>,
    ) -> Result<Option<Secret>, KeyError> {
        let read = match (inline, other) {
            (Some(text), _) => Ok(text),
            (None, Some(name)) => self
                .read(file, &name, Care::Secret)?
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
            (None, None) => return Ok(None),
        };
        let problem = match read {
            Ok(text) if text.is_empty() => "the secret is empty".to_owned(),
            Ok(text) => return Ok(Some(Secret::new(text))),
            Err(problem) => problem,
        };
        self.problem(format!("access key {id:?}: {problem}"));
        Ok(None)
    }

    fn read(
        &mut self,
        beside: &Path,
        name: &str,
        care: Care,
    ) -> Result<Result<String, String>, KeyError> {
        let path = locate(name, Some(beside), self.credentials)?;
        self.fingerprint.add(&path);
        Ok(self
            .guarded(&path, care)
            .map_err(|error| match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }))
    }

    fn guarded(&mut self, path: &Path, care: Care) -> Result<String, KeyError> {
        guard::read(path, care, self.credentials).inspect_err(|error| {
            if let KeyError::Unsafe { problem, .. } = error
                && let Some(place) = problem.place()
            {
                // That it is mended is not to be seen in the file.
                self.fingerprint.add(place);
            }
        })
    }

    fn problem(&mut self, text: String) {
        self.ring.problems.push(text);
    }
}

fn parse(text: &str, path: &Path) -> Result<RawFile, KeyError> {
    toml::from_str(text).map_err(|error| KeyError::Syntax {
        path: path.to_owned(),
        problem: config::located(&error, text),
    })
}

fn invalid(path: &Path, problem: String) -> KeyError {
    KeyError::Invalid {
        path: path.to_owned(),
        problem,
    }
}

fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}
