//! DSSE envelopes, signed with plain keys.
//!
//! Source: secure-systems-lab/dsse `protocol.md` and `envelope.md`; apptainer/sif
//! `pkg/integrity/dsse.go` (media type, SHA-256).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;

use super::{Keyring, Outcome, Proof, Statement};

const PAYLOAD_TYPE: &str = "application/vnd.sylabs.sif-metadata+json";

/// What a plain key may be for.
pub(super) const ALGORITHMS: [&'static dyn VerificationAlgorithm; 6] = [
    &ED25519,
    &ECDSA_P256_SHA256_ASN1,
    &ECDSA_P384_SHA256_ASN1,
    &ECDSA_P521_SHA256_ASN1,
    &RSA_PSS_2048_8192_SHA256,
    &RSA_PKCS1_2048_8192_SHA256,
];

/// An envelope with its payload decoded.
pub(super) struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEnvelope {
    payload_type: String,
    payload: String,
    #[serde(default)]
    signatures: Vec<RawSignature>,
}

#[derive(Deserialize)]
struct RawSignature {
    sig: String,
}

/// Takes an envelope apart.
pub(super) fn open(bytes: &[u8]) -> Result<Statement, String> {
    let raw: RawEnvelope = serde_json::from_slice(bytes)
        .map_err(|error| format!("the signature is not valid: {error}"))?;
    if raw.payload_type != PAYLOAD_TYPE {
        return Err(format!(
            "the signature is for {}, not {PAYLOAD_TYPE}",
            raw.payload_type
        ));
    }
    let decode = |text: &str| {
        STANDARD
            .decode(text)
            .or_else(|_| URL_SAFE.decode(text))
            .map_err(|error| format!("the signature is not valid base64: {error}"))
    };
    let payload = decode(&raw.payload)?;
    let signatures = raw
        .signatures
        .iter()
        .map(|signature| decode(&signature.sig))
        .collect::<Result<Vec<_>, _>>()?;
    let text =
        String::from_utf8(payload.clone()).map_err(|_| "the signed text is not text".to_owned())?;
    Ok(Statement {
        text,
        signature: Proof::Dsse(Envelope {
            payload,
            signatures,
        }),
    })
}

/// Checks an envelope with every plain key. It does not say which key it needs in a way that can be
/// relied on, so that without one that fits the key is unknown.
pub(super) fn verify(envelope: &Envelope, keyring: &Keyring) -> Outcome {
    let message = pre_authentication(&envelope.payload);
    let fits = keyring.plain.iter().any(|key| {
        ALGORITHMS.into_iter().any(|algorithm| {
            let key = UnparsedPublicKey::new(algorithm, key);
            envelope
                .signatures
                .iter()
                .any(|signature| key.verify(&message, signature).is_ok())
        })
    });
    if fits {
        Outcome::Valid
    } else {
        Outcome::UnknownKey
    }
}

/// What is really signed (`protocol.md`: PAE).
pub(super) fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let mut message = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    )
    .into_bytes();
    message.extend_from_slice(payload);
    message
}
