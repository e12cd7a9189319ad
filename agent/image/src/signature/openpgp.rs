//! OpenPGP signatures in clear text.

use std::time::Duration;

use jiff::Timestamp;
use pgp::composed::{CleartextSignedMessage, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::Signature;
use pgp::types::{KeyDetails, Tag};

use super::{Keyring, Outcome, Proof, Statement};

/// Takes a clear-signed message apart.
pub(super) fn open(bytes: &[u8]) -> Result<Statement, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the signature is not text".to_owned())?;
    let (message, _) = CleartextSignedMessage::from_string(text)
        .map_err(|_| "the signature is not valid: its armour or packets are damaged".to_owned())?;
    Ok(Statement {
        text: message.signed_text(),
        signature: Proof::Pgp(Box::new(message)),
    })
}

/// Checks a message with the key that the descriptor names.
pub(super) fn verify(
    message: &CleartextSignedMessage,
    fingerprint: &str,
    keyring: &Keyring,
    now: Timestamp,
) -> (Outcome, Option<String>) {
    let Some(key) = keyring.by_fingerprint(fingerprint) else {
        return (Outcome::UnknownKey, None);
    };
    let signer = key
        .details
        .users
        .first()
        .map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
    let Some(signature) = matching(message, key) else {
        let what = "the signature does not belong to the signed text".to_owned();
        return (Outcome::Altered { what }, signer);
    };
    (trust(signature, key, now), signer)
}

/// The signature that the primary key, or a subkey for signing that is bound to it, has made.
fn matching<'m>(
    message: &'m CleartextSignedMessage,
    key: &SignedPublicKey,
) -> Option<&'m Signature> {
    if let Ok(signature) = message.verify(&key.primary_key) {
        return Some(signature);
    }
    key.public_subkeys
        .iter()
        .filter(|subkey| {
            subkey.verify_bindings(&key.primary_key).is_ok()
                && subkey
                    .signatures
                    .iter()
                    .any(|binding| binding.key_flags().sign())
        })
        .find_map(|subkey| message.verify(&subkey.key).ok())
}

/// What the mathematics does not say.
fn trust(signature: &Signature, key: &SignedPublicKey, now: Timestamp) -> Outcome {
    let revoked = key
        .details
        .revocation_signatures
        .iter()
        .any(|revocation| revocation.verify_key(&key.primary_key).is_ok());
    if revoked {
        return Outcome::Rejected {
            why: "the key is revoked".to_owned(),
        };
    }
    let strong = [
        HashAlgorithm::Sha224,
        HashAlgorithm::Sha256,
        HashAlgorithm::Sha384,
        HashAlgorithm::Sha512,
        HashAlgorithm::Sha3_256,
        HashAlgorithm::Sha3_512,
    ];
    if !signature
        .hash_alg()
        .is_some_and(|hash| strong.contains(&hash))
    {
        return Outcome::Rejected {
            why: "signed over a hash that is broken".to_owned(),
        };
    }
    let created = i64::from(key.primary_key.created_at().as_secs());
    let key_end = key_lifetime(key).and_then(|lifetime| after(created, lifetime));
    let made = signature.created().map(|time| i64::from(time.as_secs()));
    let signature_end = signature
        .signature_expiration_time()
        .and_then(|lifetime| after(made?, lifetime.into()));
    match [key_end, signature_end].into_iter().flatten().min() {
        Some(since) if since <= now => Outcome::Expired { since },
        _ => Outcome::Valid,
    }
}

/// The lifetime by the newest certification that the key has made of itself.
fn key_lifetime(key: &SignedPublicKey) -> Option<Duration> {
    let users = key.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| {
            signature.is_certification()
                && signature
                    .verify_certification(&key.primary_key, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let direct = key
        .details
        .direct_signatures
        .iter()
        .filter(|signature| signature.verify_key(&key.primary_key).is_ok());
    users
        .chain(direct)
        .max_by_key(|signature| signature.created().map_or(0, |time| time.as_secs()))
        .and_then(Signature::key_expiration_time)
        .map(Duration::from)
        .filter(|lifetime| !lifetime.is_zero())
}

fn after(seconds: i64, lifetime: Duration) -> Option<Timestamp> {
    let end = seconds.checked_add(i64::try_from(lifetime.as_secs()).ok()?)?;
    Timestamp::from_second(end).ok()
}
