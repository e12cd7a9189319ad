//! Signatures: made ones for every outcome, and the real ones as far as that goes without keys.

use std::fs;

use jiff::Timestamp;
use pgp::composed::CleartextSignedMessage;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{KeyDetails, Password};
use sha2::{Digest, Sha256, Sha384, Sha512};
use sifter_image::record::SignatureForm;
use sifter_image::signature::{Keyring, Outcome, Verification, verify};

use crate::corpus::{shared, skipped};
use crate::keyring::binary;
use crate::made::{Object, native};
use crate::signed::{
    LATER, PUBLIC, REVOCATION, REVOKED, clear_signed, envelope, plain_key, secret, signature,
    signed, statement,
};

const YEAR_2026: i64 = 1_795_000_000;
const YEAR_2031: i64 = 1_925_000_000;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn only(bytes: &[u8], keyring: &(impl AsRef<[u8]> + ?Sized), now: i64) -> Verification {
    let keyring = Keyring::parse(keyring.as_ref()).expect("a keyring");
    let mut found = verify(&bytes, &keyring, time(now))
        .expect("memory")
        .expect("a SIF");
    assert_eq!(found.signatures.len(), 1);
    found.signatures.remove(0)
}

#[test]
fn a_pgp_signature_is_valid_until_the_key_expires() {
    let bytes = signed(|_| ()).bytes();
    let valid = only(&bytes, PUBLIC, YEAR_2026);
    assert_eq!(valid.outcome, Outcome::Valid);
    assert_eq!((valid.form, valid.object_id), (SignatureForm::Pgp, 4));
    assert_eq!(
        valid.signer.as_deref(),
        Some("Test Signer <signer@example.org>")
    );
    assert_eq!(valid.fingerprint.len(), 40);
    let Outcome::Expired { since } = only(&bytes, PUBLIC, YEAR_2031).outcome else {
        panic!("still valid in 2031")
    };
    assert!(since.to_string().starts_with("2030-01-01"), "{since}");
    let (_, other) = plain_key();
    assert_eq!(only(&bytes, &other, YEAR_2026).outcome, Outcome::UnknownKey);
}

/// As gpg, which merges them.
#[test]
fn all_copies_of_a_key_count_in_any_order() {
    let bytes = signed(|_| ()).bytes();
    let since = time(1_893_499_200);
    let revoked = Outcome::Rejected {
        why: "the key is revoked".to_owned(),
    };
    for (what, first, second, expected) in [
        ("the same", PUBLIC, PUBLIC, Outcome::Expired { since }),
        ("expires later", PUBLIC, LATER, Outcome::Valid),
        ("revoked", PUBLIC, REVOKED, revoked.clone()),
        ("revoked by itself", LATER, REVOCATION, revoked.clone()),
    ] {
        for keyring in [[first, second].concat(), [second, first].concat()] {
            assert_eq!(
                only(&bytes, &keyring, YEAR_2031).outcome,
                expected,
                "{what}"
            );
        }
    }
    // A revocation that was added to a file is behind all that the key has.
    let keyring = [binary(LATER), binary(REVOCATION)].concat();
    assert_eq!(only(&bytes, &keyring, YEAR_2031).outcome, revoked);
}

#[test]
fn a_signature_with_a_time_limit_expires() {
    let key = secret();
    let text = statement(&native().bytes(), &[0, 1, 2]);
    let mut config =
        SignatureConfig::from_key(rand::thread_rng(), &key.primary_key, SignatureType::Text)
            .expect("a key");
    config.hashed_subpackets = [
        SubpacketData::SignatureCreationTime(pgp::types::Timestamp::from_secs(1_700_000_000)),
        SubpacketData::SignatureExpirationTime(pgp::types::Duration::from_secs(1000)),
        SubpacketData::IssuerFingerprint(key.primary_key.fingerprint()),
    ]
    .map(|data| Subpacket::regular(data).expect("a subpacket"))
    .into();
    let data = CleartextSignedMessage::new(&text, config, &key.primary_key, &Password::empty())
        .and_then(|message| message.to_armored_bytes(Default::default()))
        .expect("signing");
    let bytes = native().with(signature(data, 1, true)).bytes();
    assert_eq!(only(&bytes, PUBLIC, 1_700_000_999).outcome, Outcome::Valid);
    let since = time(1_700_001_000);
    for now in [1_700_001_000, YEAR_2026] {
        assert_eq!(
            only(&bytes, PUBLIC, now).outcome,
            Outcome::Expired { since }
        );
    }
}

#[test]
fn an_altered_image_is_altered_whoever_signed_it() {
    let (_, other) = plain_key();
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let cases: [(&str, Change); 8] = [
        ("the global header", Box::new(|bytes| bytes[50] ^= 1)),
        (
            "the descriptor of object 1",
            Box::new(|bytes| bytes[4096 + 4] = 2),
        ),
        (
            "the descriptor of object 2",
            Box::new(|bytes| bytes[4096 + 585 + 65] ^= 1),
        ),
        (
            "the descriptor of object 2",
            Box::new(|bytes| bytes[4096 + 585 + 73] ^= 1),
        ),
        ("object 1", Box::new(|bytes| bytes[32_176] ^= 1)),
        ("object 3", Box::new(|bytes| bytes[32_768 + 200] ^= 1)),
        (
            "object 2 was signed and is no longer in group 1",
            Box::new(|bytes| bytes[4096 + 585 + 9] = 2),
        ),
        (
            "the signature is not valid",
            Box::new(|bytes| {
                let at = bytes
                    .windows(24)
                    .position(|window| window == b"-----END PGP SIGNATURE--")
                    .expect("armour");
                bytes[at] = b'x';
            }),
        ),
    ];
    for (expected, change) in cases {
        let mut bytes = signed(|_| ()).bytes();
        change(&mut bytes);
        for keyring in [PUBLIC, &other] {
            let Outcome::Altered { what } = only(&bytes, keyring, YEAR_2026).outcome else {
                panic!("{expected}: not altered")
            };
            assert!(
                what.starts_with(expected),
                "expected {expected}, found {what}"
            );
        }
    }
}

#[test]
fn digests_are_numbers_in_either_case() {
    let bytes = signed(|text| {
        let mut parts = text.split("sha256:");
        let first = parts.next().unwrap_or_default().to_owned();
        *text = parts.fold(first, |all, part| {
            let (digest, rest) = part.split_at(64);
            format!("{all}sha256:{}{rest}", digest.to_uppercase())
        });
    })
    .bytes();
    assert_eq!(only(&bytes, PUBLIC, YEAR_2026).outcome, Outcome::Valid);
}

#[test]
fn a_statement_of_another_version_is_rejected() {
    for version in [0, 2] {
        let bytes = signed(|text| {
            *text = text.replace("\"version\":1", &format!("\"version\":{version}"));
        })
        .bytes();
        let why = format!("version {version} of the signed text is not known");
        assert_eq!(
            only(&bytes, PUBLIC, YEAR_2026).outcome,
            Outcome::Rejected { why }
        );
    }
}

/// Whatever it quotes, it is for a terminal.
#[test]
fn what_is_said_of_a_signature_is_bounded() {
    let long = "x".repeat(100_000);
    let statement = |text: &mut String| *text = text.replace("sha256", &long);
    let version = |text: &mut String| *text = text.replace(":1,", &format!(":\"{long}\","));
    for bytes in [signed(statement).bytes(), signed(version).bytes()] {
        let (Outcome::Altered { what } | Outcome::Rejected { why: what }) =
            only(&bytes, PUBLIC, YEAR_2026).outcome
        else {
            panic!("not refused")
        };
        assert!(
            what.contains("xxx") && what.ends_with('…'),
            "{}",
            what.len()
        );
        assert!(what.len() < 1100, "{}", what.len());
    }
}

#[test]
fn a_damaged_image_is_not_verified() {
    let whole = signed(|_| ()).bytes();
    let mut marked = whole.clone();
    marked[4096 + 585 + 4] = 0;
    let mut magic = whole.clone();
    magic[32] = b'x';
    let keyring = Keyring::parse(PUBLIC.as_bytes()).expect("a keyring");
    for (bytes, expected) in [
        (&whole[..100], "truncated: the SIF header ends at byte 128"),
        (&whole[..20_000], "truncated: the descriptor table ends"),
        (
            &whole[..whole.len() - 1],
            "truncated: object 4 (signature) ends at byte",
        ),
        (&marked, "corrupt: the header counts 4 objects"),
        (&magic, "not a SIF"),
        (
            include_bytes!("data/box-gzip.squashfs"),
            "not a SIF, which alone holds signatures: expected its magic at byte 32",
        ),
    ] {
        let error = verify(&bytes, &keyring, time(YEAR_2026))
            .expect("memory")
            .expect_err(expected)
            .to_string();
        assert!(error.starts_with(expected), "{expected}: {error}");
    }
}

/// Each part is hashed as it is said with it.
#[test]
fn digests_of_every_kind() {
    let bytes = native().bytes();
    let parts = [&bytes[..45], &bytes[48..64]].concat();
    let sha256 = format!("sha256:{}", hex::encode(Sha256::digest(&parts)));
    let sha384 = format!("sha384:{}", hex::encode(Sha384::digest(&parts)));
    let sha512 = format!("sha512:{}", hex::encode(Sha512::digest(&parts)));
    let unknown = |name: &str| Outcome::Rejected {
        why: format!("a hash that is not supported: {name}"),
    };
    for (digest, expected) in [
        (sha384, Outcome::Valid),
        (sha512, Outcome::Valid),
        ("blake2b:00".to_owned(), unknown("blake2b")),
    ] {
        let bytes = signed(|text| *text = text.replace(&sha256, &digest)).bytes();
        assert_eq!(
            only(&bytes, PUBLIC, YEAR_2026).outcome,
            expected,
            "{digest}"
        );
    }
    let data = &native().objects[2].clone().expect("a partition").data;
    let hexadecimal = hex::encode_upper(Sha512::digest(data));
    for (kind, expected) in [(3, Outcome::Valid), (4, unknown("blake2s"))] {
        let text = format!("SIFHASH:\n{hexadecimal}");
        let mut object = signature(clear_signed(&text), kind, true);
        object.link = 3;
        let bytes = native().with(object).bytes();
        assert_eq!(only(&bytes, PUBLIC, YEAR_2026).outcome, expected, "{kind}");
    }
}

#[test]
fn what_was_not_signed_is_found() {
    let text = statement(&native().bytes(), &[0, 1]);
    let bytes = native()
        .with(signature(clear_signed(&text), 1, true))
        .bytes();
    let what = "object 3 is in group 1 and was not signed".to_owned();
    assert_eq!(
        only(&bytes, PUBLIC, YEAR_2026).outcome,
        Outcome::Altered { what }
    );
}

/// Valid signatures of some objects say nothing of the others.
#[test]
fn what_no_signature_is_for_is_found() {
    let keyring = Keyring::parse(PUBLIC.as_bytes()).expect("a keyring");
    let other = |group: u32| {
        let mut other = Object::partition(1, 4, b"02", "x");
        other.group = group;
        other
    };
    let legacy = |link: u32, data: &[u8]| {
        let text = format!("SIFHASH:\n{}", hex::encode(Sha256::digest(data)));
        let mut object = signature(clear_signed(&text), 1, true);
        object.link = link;
        native().with(object)
    };
    let [definition, _, partition] = native().objects.try_into().ok().expect("three objects");
    let data = |object: Option<Object>| object.expect("an object").data;
    let both = {
        let text = format!("SIFHASH:\n{}", hex::encode(Sha256::digest("x")));
        let mut object = signature(clear_signed(&text), 1, true);
        object.link = 5;
        let signed = signed(|_| ()).with(other(0xF000_0002));
        signed.with(object).with(other(0xF000_0003))
    };
    let cases = [
        ("all", signed(|_| ()), &[][..]),
        (
            "another group",
            signed(|_| ()).with(other(0xF000_0002)),
            &[5],
        ),
        ("no group", signed(|_| ()).with(other(0xF000_0000)), &[5]),
        ("legacy, partition", legacy(3, &data(partition)), &[]),
        ("legacy, definition", legacy(1, &data(definition)), &[3]),
        // Only where all are legacy ones the partition alone is asked for.
        ("legacy beside another", both, &[7]),
    ];
    for (what, sif, unsigned) in cases {
        let verified = verify(&&sif.bytes()[..], &keyring, time(YEAR_2026))
            .expect("memory")
            .expect("a SIF");
        assert_eq!(verified.signatures[0].outcome, Outcome::Valid, "{what}");
        assert_eq!(verified.unsigned, unsigned, "{what}");
        assert_eq!(verified.is_valid(), unsigned.is_empty(), "{what}");
    }
}

#[test]
fn a_statement_that_was_changed_after_signing_does_not_pass() {
    // The digests are right again, but nobody has signed them.
    let mut sif = native();
    if let Some(object) = &mut sif.objects[0] {
        object.data[0] ^= 1;
    }
    let forged = statement(&sif.bytes(), &[0, 1, 2]);
    let genuine = statement(&native().bytes(), &[0, 1, 2]);
    let armour = String::from_utf8(clear_signed(&genuine))
        .expect("text")
        .replace(&genuine, &forged);
    let bytes = sif.with(signature(armour.into_bytes(), 1, true)).bytes();
    let what = "the signature does not belong to the signed text".to_owned();
    assert_eq!(
        only(&bytes, PUBLIC, YEAR_2026).outcome,
        Outcome::Altered { what }
    );
}

#[test]
fn a_legacy_signature_covers_the_data() {
    let sif = native();
    let mut hash = Sha384::new();
    sif.objects
        .iter()
        .flatten()
        .for_each(|object| hash.update(&object.data));
    let text = format!("SIFHASH:\n{}", hex::encode(hash.finalize()));
    let sif = sif.with(signature(clear_signed(&text), 2, true));
    let found = only(&sif.bytes(), PUBLIC, YEAR_2026);
    assert_eq!(
        (found.form, found.outcome),
        (SignatureForm::PgpLegacy, Outcome::Valid)
    );
    let mut bytes = sif.bytes();
    bytes[32_180] ^= 1;
    let what = "object 1 or 2 or 3".to_owned();
    assert_eq!(
        only(&bytes, PUBLIC, YEAR_2026).outcome,
        Outcome::Altered { what }
    );
}

#[test]
fn a_dsse_signature_is_checked_with_plain_keys() {
    let (pair, public) = plain_key();
    let (_, other) = plain_key();
    let text = statement(&native().bytes(), &[0, 1, 2]);
    let bytes = native()
        .with(signature(envelope(&pair, &text), 1, false))
        .bytes();
    let found = only(&bytes, &format!("{other}{PUBLIC}{public}"), YEAR_2026);
    assert_eq!(
        (found.form, found.outcome),
        (SignatureForm::Dsse, Outcome::Valid)
    );
    assert_eq!(only(&bytes, &other, YEAR_2026).outcome, Outcome::UnknownKey);
    let mut altered = bytes;
    altered[32_176] ^= 1;
    assert!(matches!(
        only(&altered, &public, YEAR_2026).outcome,
        Outcome::Altered { .. }
    ));
    // Both alphabets of base64 are allowed; this has what they differ in.
    let text = text.replacen('{', r#"{"x":"????>>>>","#, 1);
    let usual = String::from_utf8(envelope(&pair, &text)).expect("text");
    let (kind, rest) = usual.split_once(r#","payload":"#).expect("a payload");
    let url = format!(
        r#"{kind},"payload":{}"#,
        rest.replace('+', "-").replace('/', "_")
    );
    assert_ne!(usual, url);
    let other = usual.replace("sylabs.sif-metadata", "other");
    let wrong = "the signature is for application/vnd.other+json, not application/vnd.sylabs.sif-metadata+json";
    let altered = Outcome::Altered {
        what: wrong.to_owned(),
    };
    for (data, expected) in [
        (usual, Outcome::Valid),
        (url, Outcome::Valid),
        (other, altered),
    ] {
        let bytes = native().with(signature(data.into(), 1, false)).bytes();
        assert_eq!(only(&bytes, &public, YEAR_2026).outcome, expected);
    }
}

/// Without their keys, real signatures show at least that what they state is compared rightly:
/// intact images are signed by unknown keys, and the corrupted one is altered.
#[test]
fn what_real_signatures_state_is_so() {
    let Some(shared) = shared() else {
        return skipped("real signatures");
    };
    let (_, other) = plain_key();
    let keyring = Keyring::parse(other.as_bytes()).expect("a keyring");
    let outcomes = |name: &str| {
        let bytes = fs::read(shared.join("images").join(name)).expect("an image");
        let found = verify(&bytes, &keyring, time(YEAR_2026))
            .expect("memory")
            .expect("a SIF");
        assert!(!found.signatures.is_empty(), "{name}");
        found.signatures
    };
    for name in [
        "apptainer/signed_pgp.sif",
        "apptainer/signed_twice.sif",
        "apptainer/signed_key_dsse.sif",
        "upstream/sif-lib/one-group-signed-pgp.sif",
        "upstream/sif-lib/one-group-signed-dsse.sif",
        "upstream/sif-lib/one-group-signed-legacy.sif",
        "upstream/sif-lib/two-groups-signed-pgp.sif",
        "upstream/sif-lib/two-groups-signed-legacy-all.sif",
        "upstream/busybox_ppc64le.sif",
    ] {
        for found in outcomes(name) {
            assert_eq!(found.outcome, Outcome::UnknownKey, "{name}: {found:?}");
        }
    }
    // The second was made after the partition had been changed, the third has lost a byte of its
    // armour.
    let corrupted = outcomes("upstream/verify_container_corrupted.sif");
    let altered: Vec<bool> = corrupted
        .iter()
        .map(|found| matches!(found.outcome, Outcome::Altered { .. }))
        .collect();
    assert_eq!(altered, [true, false, true], "{corrupted:?}");
}
