//! Images and what signs them, made as apptainer does.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgp::composed::{CleartextSignedMessage, Deserializable, SignedSecretKey};
use pgp::types::{KeyDetails, Password};
use sha2::{Digest, Sha256};

use crate::made::{Object, Sif, native};

pub(crate) const SECRET: &str = include_str!("keys/expires-2030.secret.asc");
pub(crate) const PUBLIC: &str = include_str!("keys/expires-2030.public.asc");
/// gpg made them of the same key, one after the other: it expires later, and then it is revoked, by a certificate
/// of its own and with that.
pub(crate) const LATER: &str = include_str!("keys/expires-2040.public.asc");
pub(crate) const REVOCATION: &str = include_str!("keys/revocation.asc");
pub(crate) const REVOKED: &str = include_str!("keys/revoked.public.asc");

pub(crate) fn secret() -> SignedSecretKey {
    SignedSecretKey::from_string(SECRET)
        .expect("a key made by gpg")
        .0
}

/// What apptainer signs of group 1: the digests of `metadata.go`.
pub(crate) fn statement(bytes: &[u8], objects: &[usize]) -> String {
    let hex = |parts: &[&[u8]]| {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        format!("sha256:{}", hex::encode(hash.finalize()))
    };
    let stated: Vec<String> = objects
        .iter()
        .map(|slot| {
            let d = &bytes[4096 + slot * 585..4096 + (slot + 1) * 585];
            let number = |at: usize| {
                usize::try_from(u64::from_le_bytes(d[at..at + 8].try_into().expect("8"))).expect("small")
            };
            let relative = u32::try_from(*slot).expect("few").to_le_bytes();
            let descriptor =
                hex(&[&d[..5], &relative, &d[13..17], &d[25..33], &d[41..49], &d[57..73], &d[73..585]]);
            let object = hex(&[&bytes[number(17)..number(17) + number(25)]]);
            format!(r#"{{"relativeId":{slot},"descriptorDigest":"{descriptor}","objectDigest":"{object}"}}"#)
        })
        .collect();
    format!(
        r#"{{"version":1,"header":{{"digest":"{}"}},"objects":[{}]}}"#,
        hex(&[&bytes[..45], &bytes[48..64]]),
        stated.join(",")
    )
}

pub(crate) fn clear_signed(text: &str) -> Vec<u8> {
    let key = secret();
    CleartextSignedMessage::sign(
        rand::thread_rng(),
        text,
        &key.primary_key,
        &Password::empty(),
    )
    .and_then(|message| message.to_armored_bytes(Default::default()))
    .expect("signing")
}

/// A signature object for group 1 by the test key.
pub(crate) fn signature(data: Vec<u8>, hash: i32, pgp: bool) -> Object {
    let mut object = Object::new(0x4005, "", data);
    (object.group, object.link) = (0xF000_0000, 0xF000_0001);
    object.extra.extend(hash.to_le_bytes());
    if pgp {
        object
            .extra
            .extend(secret().primary_key.fingerprint().as_bytes());
    }
    object
}

/// `native`, signed as apptainer does, with what is signed changed beforehand.
pub(crate) fn signed(change: impl FnOnce(&mut String)) -> Sif {
    let mut text = statement(&native().bytes(), &[0, 1, 2]);
    change(&mut text);
    native().with(signature(clear_signed(&text), 1, true))
}

pub(crate) fn plain_key() -> (Ed25519KeyPair, String) {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    let pair = Ed25519KeyPair::generate().expect("randomness");
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a key");
    let body = STANDARD.encode(der.as_ref());
    (
        pair,
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"),
    )
}

pub(crate) fn envelope(pair: &Ed25519KeyPair, text: &str) -> Vec<u8> {
    let kind = "application/vnd.sylabs.sif-metadata+json";
    let message = format!("DSSEv1 {} {kind} {} {text}", kind.len(), text.len());
    let signature = STANDARD.encode(pair.sign(message.as_bytes()));
    let payload = STANDARD.encode(text);
    format!(r#"{{"payloadType":"{kind}","payload":"{payload}","signatures":[{{"keyid":"","sig":"{signature}"}}]}}"#)
        .into_bytes()
}
