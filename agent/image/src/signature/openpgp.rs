//! OpenPGP signatures in clear text.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use pgp::composed::{CleartextSignedMessage, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::errors::Error;
use pgp::packet::{PublicSubkey, Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

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
    let outcome = match matching(message, &key) {
        Ok((signature, by)) => trust(signature, &by, &key, now),
        Err(outcome) => outcome,
    };
    (outcome, signer)
}

/// The key that made a signature, the primary one or a subkey, as the primary one says of it.
struct SignedBy {
    /// Whether it says anything.
    is_stated: bool,
    expires: Option<Timestamp>,
    is_revoked: bool,
    may_sign: bool,
}

/// The signature that the primary key or one of its subkeys has made, and which.
fn matching<'m>(
    message: &'m CleartextSignedMessage,
    key: &SignedPublicKey,
) -> Result<(&'m Signature, SignedBy), Outcome> {
    let mut unsupported = None;
    if let Some(signature) = made_by(message, &key.primary_key, &mut unsupported) {
        return Ok((signature, primary(key)));
    }
    let by_subkey = key.public_subkeys.iter().find_map(|subkey| {
        let signature = made_by(message, &subkey.key, &mut unsupported)?;
        Some((signature, bound(&subkey.key, key)))
    });
    by_subkey.ok_or_else(|| match unsupported {
        Some(what) => Outcome::Rejected {
            why: format!("signed with what is not supported: {what}"),
        },
        None => Outcome::Altered {
            what: "the signature does not belong to the signed text".to_owned(),
        },
    })
}

/// The signature that this key has made, if any; notes in `unsupported` what keeps it from being checked.
fn made_by<'m>(
    message: &'m CleartextSignedMessage,
    key: &impl VerifyingKey,
    unsupported: &mut Option<String>,
) -> Option<&'m Signature> {
    let text = message.signed_text();
    message.signatures().iter().find(|signature| {
        match signature.verify(key, text.as_bytes()) {
            Ok(()) => return true,
            Err(Error::Unsupported { message, .. } | Error::Unimplemented { message, .. }) => {
                *unsupported = Some(message);
            }
            Err(_) => {}
        }
        false
    })
}

/// What a primary key says of itself.
fn primary(key: &SignedPublicKey) -> SignedBy {
    let statements = self_signatures(key);
    SignedBy {
        is_stated: !statements.is_empty(),
        expires: statements
            .iter()
            .find_map(|statement| end(&key.primary_key, statement)),
        is_revoked: key
            .details
            .revocation_signatures
            .iter()
            .any(|revocation| revocation.verify_key(&key.primary_key).is_ok()),
        // Keys of long ago do not say what they are for.
        may_sign: statements
            .iter()
            .find(|statement| has_key_flags(statement))
            .is_none_or(|statement| statement.key_flags().sign()),
    }
}

/// The newest signature of a primary key on itself, and then the newest on each of its user IDs, newest first. What
/// one does not say another may, as gpg has it: a key does not lose its end for a signature without one on a second
/// name of its owner.
fn self_signatures(key: &SignedPublicKey) -> Vec<&Signature> {
    let direct = key
        .details
        .direct_signatures
        .iter()
        .filter(|signature| signature.verify_key(&key.primary_key).is_ok());
    let mut on_users: Vec<_> = key
        .details
        .users
        .iter()
        .flat_map(|user| {
            user.signatures
                .iter()
                .map(move |signature| (&user.id, signature))
        })
        .filter(|(id, signature)| {
            signature.is_certification()
                && signature
                    .verify_certification(&key.primary_key, Tag::UserId, *id)
                    .is_ok()
        })
        .collect();
    // Copies of a key have the same user IDs.
    on_users.sort_by_key(|(id, signature)| (id.id(), Reverse(created(signature))));
    on_users.dedup_by_key(|(id, _)| id.id());
    on_users.sort_by_key(|(_, signature)| Reverse(created(signature)));
    let on_users = on_users.into_iter().map(|(_, signature)| signature);
    newest(direct).into_iter().chain(on_users).collect()
}

/// What a primary key says of a subkey, at whichever copy of it. One that is for signing has said, too, whose it is.
fn bound(subkey: &PublicSubkey, key: &SignedPublicKey) -> SignedBy {
    let of_type = |kind: SignatureType| {
        let signatures = key.public_subkeys.iter().flat_map(|copy| &copy.signatures);
        signatures.filter(move |signature| {
            signature.typ() == Some(kind)
                && signature
                    .verify_subkey_binding(&key.primary_key, subkey)
                    .is_ok()
        })
    };
    let statement = newest(of_type(SignatureType::SubkeyBinding));
    SignedBy {
        is_stated: statement.is_some(),
        expires: statement.and_then(|statement| end(subkey, statement)),
        is_revoked: of_type(SignatureType::SubkeyRevocation).next().is_some(),
        may_sign: statement.is_some_and(|statement| {
            statement.key_flags().sign()
                && statement.embedded_signature().is_some_and(|back| {
                    back.verify_primary_key_binding(subkey, &key.primary_key)
                        .is_ok()
                })
        }),
    }
}

fn newest<'k>(signatures: impl Iterator<Item = &'k Signature>) -> Option<&'k Signature> {
    signatures.max_by_key(|signature| created(signature))
}

fn created(signature: &Signature) -> u32 {
    signature.created().map_or(0, |time| time.as_secs())
}

fn has_key_flags(signature: &Signature) -> bool {
    signature.config().is_some_and(|config| {
        config
            .hashed_subpackets()
            .any(|packet| matches!(packet.data, SubpacketData::KeyFlags(_)))
    })
}

/// What the mathematics does not say.
fn trust(signature: &Signature, by: &SignedBy, key: &SignedPublicKey, now: Timestamp) -> Outcome {
    let primary = primary(key);
    let hash = signature.hash_alg();
    let is_strong = hash.is_some_and(|hash| {
        [
            HashAlgorithm::Sha224,
            HashAlgorithm::Sha256,
            HashAlgorithm::Sha384,
            HashAlgorithm::Sha512,
            HashAlgorithm::Sha3_256,
            HashAlgorithm::Sha3_512,
        ]
        .contains(&hash)
    });
    let hash = hash.map(|hash| hash.to_string()).unwrap_or_default();
    let broken = format!("signed over {hash}, a broken hash: have it signed again");
    for (is_wrong, why) in [
        (by.is_revoked || primary.is_revoked, "the key is revoked"),
        // Without, nothing says when it expires.
        (
            !primary.is_stated,
            "the key has no valid self-signature: export it again",
        ),
        (!by.may_sign, "the key is not for signing"),
        (!is_strong, &broken),
    ] {
        if is_wrong {
            let why = why.to_owned();
            return Outcome::Rejected { why };
        }
    }
    let made = signature.created().map(|time| i64::from(time.as_secs()));
    let signature_end = signature
        .signature_expiration_time()
        .and_then(|lifetime| after(made?, lifetime.into()));
    match [by.expires, primary.expires, signature_end]
        .into_iter()
        .flatten()
        .min()
    {
        Some(since) if since <= now => Outcome::Expired { since },
        _ => Outcome::Valid,
    }
}

/// When a key expires, if this is said of it.
fn end(key: &impl KeyDetails, statement: &Signature) -> Option<Timestamp> {
    let lifetime = Duration::from(statement.key_expiration_time()?);
    let made = i64::from(key.created_at().as_secs());
    after(made, lifetime).filter(|_| !lifetime.is_zero())
}

fn after(seconds: i64, lifetime: Duration) -> Option<Timestamp> {
    let end = seconds.checked_add(i64::try_from(lifetime.as_secs()).ok()?)?;
    Timestamp::from_second(end).ok()
}

#[cfg(test)]
mod tests {
    use pgp::composed::{CleartextSignedMessage, Deserializable, SignedSecretKey};
    use pgp::packet::{PacketHeader, SignatureConfig, Subpacket, UserId};
    use pgp::ser::Serialize;
    use pgp::types::{PacketHeaderVersion, Password, SignedUser, SigningKey};

    use super::*;

    fn outcome(message: &CleartextSignedMessage, public: &str, year: i64) -> Outcome {
        let keyring = Keyring::parse(public.as_bytes()).unwrap();
        let fingerprint = hex::encode_upper(keyring.pgp[0].primary_key.fingerprint().as_bytes());
        let now = Timestamp::from_second((year - 1970) * 31_556_952).unwrap();
        verify(message, &fingerprint, &keyring, now).0
    }

    fn signed(key: &impl SigningKey) -> CleartextSignedMessage {
        CleartextSignedMessage::sign(rand::thread_rng(), "text", key, &Password::empty()).unwrap()
    }

    fn rejected(why: &str) -> Outcome {
        let why = why.to_owned();
        Outcome::Rejected { why }
    }

    /// gpg made the key: the primary one certifies alone; of its subkeys for signing one is good, one revoked,
    /// and one expires at the beginning of 2030.
    #[test]
    fn a_key_signs_if_it_is_for_that_and_neither_revoked_nor_expired() {
        const PUBLIC: &str = include_str!("../../tests/it/keys/subkeys.public.asc");
        const SECRET: &str = include_str!("../../tests/it/keys/subkeys.secret.asc");
        let secret = SignedSecretKey::from_string(SECRET).unwrap().0;
        let [good, revoked, expiring] = &secret.secret_subkeys[..] else {
            panic!("three subkeys")
        };
        let since = Timestamp::from_second(1_893_499_200).unwrap();
        let primary = signed(&secret.primary_key);
        let [good, revoked, expiring] = [good, revoked, expiring].map(|subkey| signed(&subkey.key));
        for (message, year, expected) in [
            (&primary, 2027, rejected("the key is not for signing")),
            (&good, 2031, Outcome::Valid),
            (&revoked, 2027, rejected("the key is revoked")),
            (&expiring, 2027, Outcome::Valid),
            (&expiring, 2031, Outcome::Expired { since }),
        ] {
            assert_eq!(outcome(message, PUBLIC, year), expected, "{year}");
        }
    }

    /// gpg made the primary key expire at the beginning of 2030, and with it its subkeys.
    #[test]
    fn a_subkey_is_good_no_longer_than_its_primary_key() {
        const PUBLIC: &str = include_str!("../../tests/it/keys/subkeys-expiring.public.asc");
        const SECRET: &str = include_str!("../../tests/it/keys/subkeys.secret.asc");
        let secret = SignedSecretKey::from_string(SECRET).unwrap().0;
        let message = signed(&secret.secret_subkeys[0].key);
        let since = Timestamp::from_second(1_893_456_000).unwrap();
        assert_eq!(outcome(&message, PUBLIC, 2027), Outcome::Valid);
        assert_eq!(outcome(&message, PUBLIC, 2031), Outcome::Expired { since });
    }

    /// Anybody can certify a key, and put together what is not one; what the key says of itself counts.
    #[test]
    fn what_others_say_of_a_key_does_not_count() {
        const PUBLIC: &str = include_str!("../../tests/it/keys/expires-2030.public.asc");
        const SECRET: &str = include_str!("../../tests/it/keys/expires-2030.secret.asc");
        const OTHER: &str = include_str!("../../tests/it/keys/subkeys.public.asc");
        const OTHERS: &str = include_str!("../../tests/it/keys/subkeys.secret.asc");
        let now = Timestamp::from_second(1_925_000_000).unwrap();
        let of = |keyring: &Keyring, message: &CleartextSignedMessage| {
            let key = &keyring.pgp[0].primary_key;
            let fingerprint = hex::encode_upper(key.fingerprint().as_bytes());
            verify(message, &fingerprint, keyring, now).0
        };
        let other = Keyring::parse(OTHER.as_bytes()).unwrap().pgp.remove(0);
        let certification = other.details.users[0].signatures[0].clone();
        let secret = SignedSecretKey::from_string(SECRET).unwrap().0;
        let message = signed(&secret.primary_key);
        for at_user in [true, false] {
            let mut keyring = Keyring::parse(PUBLIC.as_bytes()).unwrap();
            let details = &mut keyring.pgp[0].details;
            let said = match at_user {
                true => &mut details.users[0].signatures,
                false => &mut details.direct_signatures,
            };
            said.push(certification.clone());
            let outcome = of(&keyring, &message);
            assert!(matches!(outcome, Outcome::Expired { .. }), "{outcome:?}");
        }
        // What was said of another subkey.
        let secret = SignedSecretKey::from_string(OTHERS).unwrap().0;
        let expiring = signed(&secret.secret_subkeys[2].key);
        let mut keyring = Keyring::parse(OTHER.as_bytes()).unwrap();
        let binding = other.public_subkeys[0].signatures.clone();
        keyring.pgp[0].public_subkeys[2].signatures.extend(binding);
        let outcome = of(&keyring, &expiring);
        assert!(matches!(outcome, Outcome::Expired { .. }), "{outcome:?}");
    }

    /// As gpg: of each user ID the newest signature counts, and what one does not say another may.
    #[test]
    fn an_end_is_lost_only_where_it_was_said() {
        const PUBLIC: &str = include_str!("../../tests/it/keys/expires-2030.public.asc");
        const SECRET: &str = include_str!("../../tests/it/keys/expires-2030.secret.asc");
        let secret = SignedSecretKey::from_string(SECRET).unwrap().0.primary_key;
        let message = signed(&secret);
        let password = Password::empty();
        let later = |kind| {
            let mut config = SignatureConfig::from_key(rand::thread_rng(), &secret, kind).unwrap();
            let made = SubpacketData::SignatureCreationTime(pgp::types::Timestamp::from_secs(
                1_900_000_000,
            ));
            let by = SubpacketData::IssuerFingerprint(secret.fingerprint());
            config.hashed_subpackets = [made, by]
                .map(|data| Subpacket::regular(data).unwrap())
                .to_vec();
            config
        };
        for (name, is_ended) in [
            ("", true),
            ("second name", true),
            ("Test Signer <signer@example.org>", false),
        ] {
            let mut keyring = Keyring::parse(PUBLIC.as_bytes()).unwrap();
            let key = &mut keyring.pgp[0];
            let fingerprint = hex::encode_upper(key.primary_key.fingerprint().as_bytes());
            if name.is_empty() {
                let direct = later(SignatureType::Key);
                let direct = direct.sign_key(&secret, &password, &key.primary_key);
                key.details.direct_signatures.push(direct.unwrap());
            } else {
                let id = UserId::from_str(PacketHeaderVersion::New, name).unwrap();
                let said = later(SignatureType::CertPositive)
                    .sign_certification(&secret, &key.primary_key, &password, Tag::UserId, &id)
                    .unwrap();
                key.details.users.insert(0, SignedUser::new(id, vec![said]));
            }
            let now = Timestamp::from_second(1_925_000_000).unwrap();
            let outcome = verify(&message, &fingerprint, &keyring, now).0;
            assert_eq!(
                matches!(outcome, Outcome::Expired { .. }),
                is_ended,
                "{name}: {outcome:?}"
            );
            assert_eq!(outcome == Outcome::Valid, !is_ended, "{name}");
        }
    }

    /// As gpg, which does not take it: it may have expired.
    #[test]
    fn a_key_that_says_nothing_of_itself_signs_nothing() {
        const SUBKEYS: &str = include_str!("../../tests/it/keys/subkeys.public.asc");
        const OF_SUBKEYS: &str = include_str!("../../tests/it/keys/subkeys.secret.asc");
        const EXPIRED: &str = include_str!("../../tests/it/keys/expires-2030.public.asc");
        const OF_EXPIRED: &str = include_str!("../../tests/it/keys/expires-2030.secret.asc");
        let now = Timestamp::from_second(1_925_000_000).unwrap();
        let secret = |text: &str| SignedSecretKey::from_string(text).unwrap().0;
        for (public, message) in [
            (SUBKEYS, signed(&secret(OF_SUBKEYS).secret_subkeys[0].key)),
            (EXPIRED, signed(&secret(OF_EXPIRED).primary_key)),
        ] {
            let mut keyring = Keyring::parse(public.as_bytes()).unwrap();
            let key = &mut keyring.pgp[0];
            let fingerprint = hex::encode_upper(key.primary_key.fingerprint().as_bytes());
            key.details.users[0].signatures.clear();
            assert_eq!(
                verify(&message, &fingerprint, &keyring, now).0,
                rejected("the key has no valid self-signature: export it again")
            );
        }
    }

    /// The revoked subkey is there twice: once as it was before, and once as it is.
    #[test]
    fn what_any_copy_says_of_a_subkey_counts() {
        const PUBLIC: &str = include_str!("../../tests/it/keys/subkeys.public.asc");
        const SECRET: &str = include_str!("../../tests/it/keys/subkeys.secret.asc");
        let secret = SignedSecretKey::from_string(SECRET).unwrap().0;
        let message = signed(&secret.secret_subkeys[1].key);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut keyring = Keyring::parse([PUBLIC, PUBLIC].concat().as_bytes()).unwrap();
        let fingerprint = hex::encode_upper(keyring.pgp[0].primary_key.fingerprint().as_bytes());
        keyring.pgp[0].public_subkeys[1]
            .signatures
            .retain(|signature| signature.typ() == Some(SignatureType::SubkeyBinding));
        // gpg writes headers of packets as of old, and other programs do not.
        let subkey = &mut keyring.pgp[0].public_subkeys[1].key;
        let old = subkey.clone();
        let packet = old.to_bytes().unwrap();
        let header = PacketHeader::new_fixed(Tag::PublicSubkey, packet.len().try_into().unwrap());
        *subkey = PublicSubkey::try_from_reader(header, &packet[..]).unwrap();
        assert_ne!(*subkey, old);
        let outcome = |keyring: &Keyring| verify(&message, &fingerprint, keyring, now).0;
        for _ in 0..2 {
            assert_eq!(outcome(&keyring), rejected("the key is revoked"));
            keyring.pgp.reverse();
        }
        // One that was added later is in one copy alone.
        keyring.pgp.truncate(1);
        assert_eq!(outcome(&keyring), Outcome::Valid);
        let mut older = keyring.pgp[0].clone();
        older.public_subkeys.clear();
        keyring.pgp.insert(0, older);
        assert_eq!(outcome(&keyring), Outcome::Valid);
    }

    /// gpg made the message with `--digest-algo SHA1`.
    #[test]
    fn a_signature_over_a_broken_hash_is_rejected() {
        const PUBLIC: &str = include_str!("../../tests/it/keys/rsa.public.asc");
        const MESSAGE: &str = include_str!("../../tests/it/keys/rsa-sha1.message.asc");
        let message = CleartextSignedMessage::from_string(MESSAGE).unwrap().0;
        assert_eq!(
            outcome(&message, PUBLIC, 2027),
            rejected("signed over SHA1, a broken hash: have it signed again")
        );
    }

    /// Anybody can put a revocation beside a key; it counts if the key made it.
    #[test]
    fn a_revocation_by_another_key_does_not_revoke() {
        const PUBLIC: &str = include_str!("../../tests/it/keys/subkeys.public.asc");
        const SECRET: &str = include_str!("../../tests/it/keys/subkeys.secret.asc");
        let secret = SignedSecretKey::from_string(SECRET).unwrap().0;
        let message = signed(&secret.secret_subkeys[0].key);
        let mut keyring = Keyring::parse(PUBLIC.as_bytes()).unwrap();
        let key = &mut keyring.pgp[0];
        let fingerprint = hex::encode_upper(key.primary_key.fingerprint().as_bytes());
        let of_subkey = key.public_subkeys[1].signatures.clone();
        key.details.revocation_signatures.extend(of_subkey);
        assert!(!key.details.revocation_signatures.is_empty());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(
            verify(&message, &fingerprint, &keyring, now).0,
            Outcome::Valid
        );
    }

    /// Brainpool curves, which gpg and apptainer know.
    #[test]
    fn what_cannot_be_checked_is_not_called_altered() {
        const PUBLIC: &str = include_str!("../../tests/it/keys/brainpool.public.asc");
        const MESSAGE: &str = include_str!("../../tests/it/keys/brainpool.message.asc");
        let message = CleartextSignedMessage::from_string(MESSAGE).unwrap().0;
        assert_eq!(
            outcome(&message, PUBLIC, 2027),
            rejected("signed with what is not supported: curve \"brainpoolP256r1\" for ECDSA")
        );
    }
}
