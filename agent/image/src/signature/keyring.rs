//! The keys that signatures are checked with.

use std::io::{self, Read};

use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgp::armor::Dearmor;
use pgp::composed::{Deserializable, SignedPublicKey};
use pgp::packet::{Packet, PacketParser, Signature, SignatureType};
use pgp::types::KeyDetails;
use thiserror::Error;

use super::dsse;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
const PGP: &str = "PGP PUBLIC KEY BLOCK";
const PEM: &str = "PUBLIC KEY";

/// What is wrong with a key, or with the packets behind it that should be part of it.
const DAMAGED: &str = "it, or what follows it, is damaged";

/// Public keys: OpenPGP, and plain ones for DSSE.
#[derive(Debug, Default)]
pub struct Keyring {
    pub(super) pgp: Vec<SignedPublicKey>,
    /// Certificates that revoke keys, with the keys or without.
    revocations: Vec<Signature>,
    /// X.509 `SubjectPublicKeyInfo`, DER.
    pub(super) plain: Vec<Vec<u8>>,
}

/// Why a keyring cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// A key that is not valid. The others are not used without it: what it signed would be called
    /// the work of an unknown key.
    #[error("key {number} cannot be used: {reason}; export it again, or leave it out")]
    Key {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No key at all.
    #[error(
        "{found}, not public keys: give them as `gpg --export` or `apptainer key export` writes them, or \
         PEM (`BEGIN PUBLIC KEY`)"
    )]
    NoKeys {
        /// What there is instead.
        found: &'static str,
    },
}

impl Keyring {
    /// Reads public keys: any number of armoured OpenPGP blocks and PEM `PUBLIC KEY` blocks in one
    /// text, or binary OpenPGP (`gpg --export`, apptainer's `pgp-public`). A key may be there more than once, and
    /// be revoked by a block of its own (`gpg --gen-revoke`). A revocation by another key, which a key may have
    /// named for that (`addrevoker` of gpg), is not seen.
    ///
    /// # Errors
    ///
    /// [`KeyringError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        let mut keyring = Self::default();
        // The lines around a block may be in any encoding.
        let text = String::from_utf8_lossy(bytes);
        for (label, block) in blocks(&text) {
            match label {
                PGP => {
                    let packets = dearmored(block).map_err(|_| keyring.fault(DAMAGED))?;
                    keyring.add(&packets)?;
                }
                PEM => keyring.add_pem(block)?,
                _ => {}
            }
        }
        if keyring.is_empty() && is_public_key_packet(bytes) {
            keyring.add(bytes)?;
        }
        if keyring.is_empty() {
            let found = if keyring.revocations.is_empty() {
                kind(bytes, &text)
            } else {
                "a revocation without its key"
            };
            return Err(KeyringError::NoKeys { found });
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

    /// The PGP key with this fingerprint, upper-case hexadecimal, with all that any copy of it says: one that was
    /// exported before the key was revoked must not hide that. Whose the revocations and the statements on
    /// subkeys are, which may be of another key, is asked where they are used.
    pub(super) fn by_fingerprint(&self, fingerprint: &str) -> Option<SignedPublicKey> {
        let copies = self.pgp.iter().filter(|key| {
            hex::encode_upper(key.primary_key.fingerprint().as_bytes()) == fingerprint
        });
        let mut key = copies.cloned().reduce(merged)?;
        let revocations = &mut key.details.revocation_signatures;
        revocations.extend(self.revocations.iter().cloned());
        Some(key)
    }

    /// Adds OpenPGP keys and revocations, which may be anywhere. What the library says of a key that is wrong is
    /// for programmers: dumps, and the stack.
    fn add(&mut self, packets: &[u8]) -> Result<(), KeyringError> {
        let keys = SignedPublicKey::from_bytes_many(packets).map_err(|_| self.fault(DAMAGED))?;
        for key in keys {
            self.pgp.push(key.map_err(|_| self.fault(DAMAGED))?);
        }
        self.revocations.extend(revocations(packets));
        Ok(())
    }

    fn add_pem(&mut self, block: &str) -> Result<(), KeyringError> {
        let body: String = block
            .lines()
            .filter(|line| !line.starts_with(DASHES))
            .flat_map(str::split_ascii_whitespace)
            .collect();
        let der = STANDARD.decode(body).map_err(|_| self.fault(DAMAGED))?;
        let is_known = dsse::ALGORITHMS
            .into_iter()
            .any(|algorithm| ParsedPublicKey::new(algorithm, &der).is_ok());
        if !is_known {
            return Err(self
                .fault("it is damaged, or none for Ed25519, ECDSA over a curve of NIST, or RSA"));
        }
        self.plain.push(der);
        Ok(())
    }

    fn fault(&self, reason: &'static str) -> KeyringError {
        KeyringError::Key {
            number: self.len() + 1,
            reason,
        }
    }
}

/// Two copies of a key as one. What they both say is there twice, which does no harm.
fn merged(mut key: SignedPublicKey, copy: SignedPublicKey) -> SignedPublicKey {
    let (details, more) = (&mut key.details, copy.details);
    details.direct_signatures.extend(more.direct_signatures);
    details.users.extend(more.users);
    key.public_subkeys.extend(copy.public_subkeys);
    key
}

/// What is in an armoured block.
fn dearmored(block: &str) -> io::Result<Vec<u8>> {
    let mut packets = Vec::new();
    Dearmor::new(block.as_bytes()).read_to_end(&mut packets)?;
    Ok(packets)
}

/// The revocations of keys among packets. One may be behind other keys than its own, where it is added to a file.
fn revocations(packets: &[u8]) -> impl Iterator<Item = Signature> {
    PacketParser::new(packets).filter_map(|packet| match packet.ok()? {
        Packet::Signature(signature) => Some(signature)
            .filter(|signature| signature.typ() == Some(SignatureType::KeyRevocation)),
        _ => None,
    })
}

/// The blocks of a text with their labels, first and last line included.
fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices(BEGIN).filter_map(|(start, _)| {
        let rest = &text[start..];
        let (label, _) = rest[BEGIN.len()..].split_once(DASHES)?;
        let end = format!("-----END {label}-----");
        let length = rest.find(&end).map_or(rest.len(), |at| at + end.len());
        Some((label, &rest[..length]))
    })
}

/// The type of the OpenPGP packet that begins here (RFC 9580, section 4.2).
fn packet(bytes: &[u8]) -> Option<u8> {
    match bytes.first()? {
        new @ 0xc0.. => Some(new & 0x3f),
        old @ 0x80.. => Some(old >> 2 & 0xf),
        _ => None,
    }
}

fn is_public_key_packet(bytes: &[u8]) -> bool {
    packet(bytes) == Some(6)
}

/// What something is that has no public keys.
fn kind(bytes: &[u8], text: &str) -> &'static str {
    let labels: Vec<&str> = blocks(text).map(|(label, _)| label).collect();
    let has = |word: &str| labels.iter().any(|label| label.contains(word));
    match () {
        () if bytes.trim_ascii().is_empty() => "an empty file",
        () if has("PRIVATE KEY") || packet(bytes) == Some(5) => "a private key",
        () if has("CERTIFICATE") => "a certificate",
        () if has("PGP MESSAGE") || has("PGP SIGN") => "a message or signature",
        () if bytes.get(8..12) == Some(b"KBXf") => "the keybox of gpg",
        () if bytes.starts_with(b"ssh-") => "a key for SSH",
        () => "other content",
    }
}
