//! Who may ask: nobody has to sign (on loopback only), or requests are signed with access keys.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Deserializer;
use serde::de;

use super::problem::Problems;

/// `auth` as it stands in the file: `auth = "none"`, or a table `[auth]`.
#[derive(Debug, Clone)]
pub enum RawAuth {
    /// `auth = "…"`; only `none` is valid.
    Mode(String),
    /// `[auth]`.
    Signatures(RawSignatures),
}

/// The table `[auth]` as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSignatures {
    /// File or directory with the access keys and their policies, or `credential:NAME`.
    pub keys: Option<String>,
    /// Nonces remembered at most; default 4194304.
    pub max_nonces: Option<usize>,
    /// Directory where nonces are kept for the next start; default: that of the unit.
    pub state_directory: Option<PathBuf>,
}

/// Who may ask.
#[derive(Debug, Clone)]
pub enum AuthSettings {
    /// Everyone who reaches the server, which therefore listens on loopback only.
    None,
    /// Whoever signs with a known key.
    Signatures(SignatureSettings),
}

/// How signed requests are checked.
#[derive(Debug, Clone)]
pub struct SignatureSettings {
    /// File or directory with the access keys and their policies, or `credential:NAME`.
    pub keys: String,
    /// Nonces remembered at most, if not as many as usual.
    pub max_nonces: Option<usize>,
    /// Directory where nonces are kept for the next start, if not that of the unit.
    pub state_directory: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for RawAuth {
    // By hand, since an untagged enum would hide which key of the table is wrong.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawAuth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\" or a table with `keys`")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<RawAuth, E> {
                Ok(RawAuth::Mode(value.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RawAuth, A::Error> {
                RawSignatures::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(RawAuth::Signatures)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Validates `auth`.
pub(super) fn validate(
    raw: Option<RawAuth>,
    base: &Path,
    problems: &mut Problems,
) -> Option<AuthSettings> {
    match raw {
        None => {
            problems.add_absent(
                "auth",
                "auth is not set, so nobody could be told apart: write a table `[auth]` with \
                 `keys = \"keys.toml\"`, or `auth = \"none\"` (above the first table) to answer \
                 anyone on loopback",
            );
            None
        }
        Some(RawAuth::Mode(mode)) if mode == "none" => Some(AuthSettings::None),
        // Not shown: it may be a key, which somebody wrote into the wrong place.
        Some(RawAuth::Mode(_)) => {
            problems.add(
                "auth",
                "auth is a text other than \"none\": write `auth = \"none\"` or a table `[auth]`",
            );
            None
        }
        Some(RawAuth::Signatures(raw)) => {
            if raw.max_nonces == Some(0) {
                problems.add(
                    "auth.max_nonces",
                    "auth.max_nonces = 0 would refuse every request: write at least 1",
                );
            }
            let keys = raw.keys.unwrap_or_default();
            if keys.is_empty() {
                problems.add_absent(
                    "auth.keys",
                    "auth.keys is missing or empty: write the file or directory of access keys",
                );
            }
            Some(AuthSettings::Signatures(SignatureSettings {
                keys: if keys.starts_with("credential:") {
                    keys
                } else {
                    base.join(keys).to_string_lossy().into_owned()
                },
                max_nonces: raw.max_nonces,
                state_directory: raw.state_directory.map(|path| base.join(path)),
            }))
        }
    }
}
