//! The keys that signatures are checked with.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgp::composed::{Deserializable, SignedPublicKey};
use pgp::types::KeyDetails;
use thiserror::Error;

const PGP_BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const PGP_END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// Public keys: OpenPGP, and plain ones for DSSE.
#[derive(Debug, Default)]
pub struct Keyring {
    pub(super) pgp: Vec<SignedPublicKey>,
    /// X.509 `SubjectPublicKeyInfo`, DER.
    pub(super) plain: Vec<Vec<u8>>,
}

/// Why a keyring cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// A key that is not valid.
    #[error("key {number} of the keyring is not valid: {reason}")]
    Key {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No key at all.
    #[error("the keyring has no public keys: expected OpenPGP, armoured or not, or PEM")]
    Empty,
}

impl Keyring {
    /// Reads public keys: any number of armoured OpenPGP blocks and PEM `PUBLIC KEY` blocks in one
    /// text, or binary OpenPGP (`gpg --export`, apptainer's `pgp-public`).
    ///
    /// # Errors
    ///
    /// [`KeyringError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        let mut keyring = Self::default();
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if text.contains(PGP_BEGIN) || text.contains(PEM_BEGIN) {
            for block in blocks(text, PGP_BEGIN, PGP_END) {
                let fault = |error: pgp::errors::Error| keyring.fault(error.to_string());
                let keys: Result<Vec<_>, _> = SignedPublicKey::from_string_many(block)
                    .map_err(fault)?
                    .0
                    .collect();
                let keys = keys.map_err(fault)?;
                keyring.pgp.extend(keys);
            }
            for block in blocks(text, PEM_BEGIN, PEM_END) {
                let body: String = block
                    .trim_start_matches(PEM_BEGIN)
                    .trim_end_matches(PEM_END)
                    .split_ascii_whitespace()
                    .collect();
                let der = STANDARD
                    .decode(body)
                    .map_err(|error| keyring.fault(error.to_string()))?;
                keyring.plain.push(der);
            }
        } else {
            let keys: Result<Vec<_>, _> = SignedPublicKey::from_bytes_many(bytes)
                .map_err(|error| keyring.fault(error.to_string()))?
                .collect();
            keyring.pgp = keys.map_err(|error| keyring.fault(error.to_string()))?;
        }
        if keyring.pgp.is_empty() && keyring.plain.is_empty() {
            return Err(KeyringError::Empty);
        }
        Ok(keyring)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pgp.len() + self.plain.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The PGP key with this fingerprint, upper-case hexadecimal.
    pub(super) fn by_fingerprint(&self, fingerprint: &str) -> Option<&SignedPublicKey> {
        self.pgp
            .iter()
            .find(|key| hex::encode_upper(key.primary_key.fingerprint().as_bytes()) == fingerprint)
    }

    fn fault(&self, reason: String) -> KeyringError {
        KeyringError::Key {
            number: self.len() + 1,
            reason,
        }
    }
}

/// The blocks of a text between these lines, lines included.
fn blocks<'t>(text: &'t str, begin: &'t str, end: &'t str) -> impl Iterator<Item = &'t str> {
    text.match_indices(begin).map(move |(start, _)| {
        let rest = &text[start..];
        rest.find(end).map_or(rest, |at| &rest[..at + end.len()])
    })
}
