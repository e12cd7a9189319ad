//! Files with public keys, and those that are something else.

use std::io::Read;

use pgp::armor::Dearmor;
use sifter_image::signature::{Keyring, KeyringError};

use crate::signed::{PUBLIC, REVOCATION, SECRET, plain_key};

pub(super) fn binary(armoured: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    Dearmor::new(armoured.as_bytes())
        .read_to_end(&mut bytes)
        .expect("armour");
    bytes
}

#[test]
fn what_is_no_keyring_is_said_to_be_what_it_is() {
    let (_, pem) = plain_key();
    let public = binary(PUBLIC);
    let block = |label: &str, body: &str| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let damaged = PUBLIC.replace("mDM", "m!M");
    let key = |number| Err(Refused::Key(number));
    let no_keys = |found| Err(Refused::NoKeys(found));
    for (name, bytes, expected) in [
        ("armoured", PUBLIC.into(), Ok(1)),
        ("twice", [PUBLIC, PUBLIC].concat().into(), Ok(2)),
        ("of both kinds", [&pem, PUBLIC, &pem].concat().into(), Ok(3)),
        (
            "lines of Windows",
            PUBLIC.replace('\n', "\r\n").into(),
            Ok(1),
        ),
        (
            "text of any encoding around",
            [b"J\xfcrgen:\n", PUBLIC.as_bytes(), b"\xff"].concat(),
            Ok(1),
        ),
        (
            "a private key beside",
            [SECRET, PUBLIC].concat().into(),
            Ok(1),
        ),
        (
            "a revocation beside",
            [REVOCATION, PUBLIC].concat().into(),
            Ok(1),
        ),
        (
            "a revocation alone",
            REVOCATION.into(),
            no_keys("a revocation without its key"),
        ),
        (
            "a revocation cut off",
            [PUBLIC, &REVOCATION[..200]].concat().into(),
            key(2),
        ),
        (
            "a revocation without a line",
            [
                PUBLIC,
                &REVOCATION.replace(
                    "lVsiIROBAQD7em2ceCiAl/tyM07jBV8TewQi2BAKtSeWRI2+O4iuZgD9FjyeFe6Y\n",
                    "",
                ),
            ]
            .concat()
            .into(),
            key(2),
        ),
        ("binary", public.clone(), Ok(1)),
        ("binary, two", public.repeat(2), Ok(2)),
        (
            "binary, a packet that is none of a key between",
            [&public[..], b"\xcc\x01x", &public].concat(),
            Ok(2),
        ),
        (
            "the second damaged",
            [&pem, PUBLIC, &damaged].concat().into(),
            key(3),
        ),
        (
            "the first damaged",
            [&damaged, PUBLIC].concat().into(),
            key(1),
        ),
        ("binary, cut off", public[..200].into(), key(1)),
        (
            "binary, the second cut off",
            [&public[..], &public[..100]].concat(),
            key(2),
        ),
        (
            "binary, text between",
            [&public[..], b"text", &public].concat(),
            key(1),
        ),
        (
            "PEM that is not base64",
            block("PUBLIC KEY", "!!!!").into(),
            key(1),
        ),
        (
            "PEM that is no key",
            (pem + &block("PUBLIC KEY", "aGVsbG8=")).into(),
            key(2),
        ),
        ("nothing", Vec::new(), no_keys("an empty file")),
        ("blank", b" \n".to_vec(), no_keys("an empty file")),
        ("OpenPGP, private", SECRET.into(), no_keys("a private key")),
        (
            "OpenPGP, private, binary",
            binary(SECRET),
            no_keys("a private key"),
        ),
        (
            "PEM, private",
            block("PRIVATE KEY", "MC4=").into(),
            no_keys("a private key"),
        ),
        (
            "of SSH, private",
            block("OPENSSH PRIVATE KEY", "b3Bl").into(),
            no_keys("a private key"),
        ),
        (
            "of SSH",
            b"ssh-ed25519 AAAA a@b\n".to_vec(),
            no_keys("a key for SSH"),
        ),
        (
            "of TLS",
            block("CERTIFICATE", "MIIB").into(),
            no_keys("a certificate"),
        ),
        (
            "a signature",
            block("PGP SIGNATURE", "iHUE").into(),
            no_keys("a message or signature"),
        ),
        (
            "signed",
            block("PGP SIGNED MESSAGE", "a").into(),
            no_keys("a message or signature"),
        ),
        (
            "encrypted",
            block("PGP MESSAGE", "a").into(),
            no_keys("a message or signature"),
        ),
        (
            "pubring.kbx",
            b"\0\0\0\x20\x01\x01\0\x02KBXf\0\0\0\0".to_vec(),
            no_keys("the keybox of gpg"),
        ),
        (
            "/etc/passwd",
            b"root:x:0:0:root:/root:/bin/bash\n".to_vec(),
            no_keys("other content"),
        ),
        (
            "a program",
            b"\x7fELF\x02\x01\x01".to_vec(),
            no_keys("other content"),
        ),
        ("zeros", vec![0; 100], no_keys("other content")),
    ] {
        let parsed = Keyring::parse(&bytes).map(|keyring| keyring.len());
        if let Err(error) = &parsed {
            // What the library says of it holds the file's bytes, or the program's stack.
            assert!(error.to_string().len() < 160, "{name}: {error}");
        }
        let parsed = parsed.map_err(|error| match error {
            KeyringError::Key { number, .. } => Refused::Key(number),
            KeyringError::NoKeys { found } => Refused::NoKeys(found),
            error => panic!("{name}: {error}"),
        });
        assert_eq!(parsed, expected, "{name}");
    }
}

#[derive(Debug, PartialEq)]
enum Refused {
    Key(usize),
    NoKeys(&'static str),
}
