//! Verification of the signatures in a SIF: OpenPGP, DSSE, and the legacy form before 3.6.
//!
//! Source: apptainer/sif `pkg/integrity/{verify,metadata,clearsign,dsse}.go`. A signature states
//! digests of header, descriptors and objects (the legacy form: of the objects' data alone). It is
//! *valid* if what it states is so, and a key of the keyring has signed it. What it states is
//! compared first: an altered image is altered whoever signed it.
//!
//! The mathematics is rPGP's and AWS-LC's. What rPGP leaves to its user is decided here: expired and
//! revoked keys, subkeys that are not for signing, and hashes that are broken.

mod content;
mod dsse;
mod keyring;
mod openpgp;

use std::io;

use jiff::Timestamp;

pub use keyring::{Keyring, KeyringError};

use crate::error::{self, SifError};
use crate::limits;
use crate::read_at::ReadAt;
use crate::record::{Link, SignatureForm};
use crate::sif::{self, RawDescriptor, Sif, data_type, signature_form};
use crate::window::Windows;

/// The signatures of a SIF and what became of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// In table order.
    pub signatures: Vec<Verification>,
    /// IDs of the objects that should be signed and that no signature is for, in table order.
    pub unsigned: Vec<u32>,
}

impl Verified {
    /// Whether there are signatures, all of them are valid, and nothing is without one.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let mut outcomes = self.signatures.iter().map(|signature| &signature.outcome);
        !self.signatures.is_empty()
            && self.unsigned.is_empty()
            && outcomes.all(|outcome| *outcome == Outcome::Valid)
    }
}

/// A signature and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// ID of the signature object.
    pub object_id: u32,
    /// Encoding.
    pub form: SignatureForm,
    /// PGP fingerprint in upper-case hexadecimal, as the descriptor states it; empty for DSSE.
    pub fingerprint: String,
    /// What is signed.
    pub signed: Option<Link>,
    /// User ID of the PGP key that signed, where it is known.
    pub signer: Option<String>,
    /// The verdict.
    pub outcome: Outcome,
}

/// What became of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What it states is so, and a key of the keyring signed it.
    Valid,
    /// The image, or the signature itself, is not as it was signed.
    Altered {
        /// What differs.
        what: String,
    },
    /// The keyring has no key that it could be checked with.
    UnknownKey,
    /// Signed by a key that has expired, or with a time limit that has passed.
    Expired {
        /// When.
        since: Timestamp,
    },
    /// Mathematically right and yet not to be trusted: a revoked key, a broken hash, a form that
    /// is not known.
    Rejected {
        /// Why.
        why: String,
    },
}

/// Checks every signature of a SIF. Reads the signed objects as a whole.
///
/// # Errors
///
/// What reading the file says; inside, why the file is no SIF whose signatures could be checked.
pub fn verify(
    file: &dyn ReadAt,
    keyring: &Keyring,
    now: Timestamp,
) -> io::Result<Result<Verified, SifError>> {
    let mut windows = Windows::open(file)?;
    let size = windows.size();
    let Some(sif) = sif::parse(&mut windows)? else {
        return Ok(Err(SifError::HeaderTruncated { size }));
    };
    if sif.header.magic != *sif::MAGIC {
        return Ok(Err(SifError::NotSif));
    }
    if let Some(error) = sif.error {
        return Ok(Err(error));
    }
    let mut signatures = Vec::new();
    for descriptor in sif
        .of_type(data_type::SIGNATURE)
        .take(limits::SIGNATURES_MAX)
    {
        let mut verification = one(&mut windows, &sif, descriptor, keyring, now)?;
        // It may quote what was signed.
        if let Outcome::Altered { what: why } | Outcome::Rejected { why } =
            &mut verification.outcome
        {
            *why = error::shown(std::mem::take(why));
        }
        signatures.push(verification);
    }
    let unsigned = unsigned(&sif, &signatures);
    Ok(Ok(Verified {
        signatures,
        unsigned,
    }))
}

/// The objects that none of the signatures is for. Legacy ones were made for the primary partition alone, and
/// no more is asked of them (apptainer `internal/pkg/signature/verify.go: getOpts`).
fn unsigned(sif: &Sif, signatures: &[Verification]) -> Vec<u32> {
    let is_legacy = signatures
        .iter()
        .all(|signature| signature.form == SignatureForm::PgpLegacy);
    sif.descriptors
        .iter()
        .map(|(_, object)| object)
        .filter(|object| object.data_type.get() != data_type::SIGNATURE)
        .filter(|object| !is_legacy || object.is_primary())
        .filter(|object| {
            !signatures.iter().any(|signature| match signature.signed {
                Some(Link::Group(group)) => object.group_id() == Some(group),
                Some(Link::Object(id)) => object.id.get() == id,
                None => false,
            })
        })
        .map(|object| object.id.get())
        .collect()
}

/// What a signature says, once its armour is off.
struct Statement {
    text: String,
    signature: Proof,
}

/// What proves a statement.
enum Proof {
    Pgp(Box<pgp::composed::CleartextSignedMessage>),
    Dsse(dsse::Envelope),
}

fn one(
    windows: &mut Windows<'_>,
    sif: &Sif,
    descriptor: &RawDescriptor,
    keyring: &Keyring,
    now: Timestamp,
) -> io::Result<Verification> {
    let bytes = match descriptor.range() {
        Some((offset, size)) if size <= limits::SIGNATURE_MAX => windows
            .need(offset, size)?
            .map(<[u8]>::to_vec)
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let mut verification = Verification {
        object_id: descriptor.id.get(),
        form: signature_form(bytes.get(..limits::SIGNATURE_HEAD).unwrap_or(&bytes)),
        fingerprint: descriptor.fingerprint(),
        signed: descriptor.link(),
        signer: None,
        outcome: Outcome::UnknownKey,
    };
    let statement = match verification.form {
        SignatureForm::Pgp | SignatureForm::PgpLegacy => openpgp::open(&bytes),
        SignatureForm::Dsse => dsse::open(&bytes),
        SignatureForm::Unknown => {
            let why = "neither a clear-signed PGP message nor a DSSE envelope".to_owned();
            verification.outcome = Outcome::Rejected { why };
            return Ok(verification);
        }
    };
    let statement = match statement {
        Ok(statement) => statement,
        Err(what) => {
            verification.outcome = Outcome::Altered { what };
            return Ok(verification);
        }
    };
    let file = windows.file();
    let compared = if verification.form == SignatureForm::PgpLegacy {
        content::compare_legacy(file, sif, descriptor, &statement.text)?
    } else {
        content::compare(file, sif, descriptor, &statement.text)?
    };
    verification.outcome = match compared {
        Err(outcome) => outcome,
        Ok(()) => match &statement.signature {
            Proof::Pgp(message) => {
                let (outcome, signer) =
                    openpgp::verify(message, &verification.fingerprint, keyring, now);
                verification.signer = signer;
                outcome
            }
            Proof::Dsse(envelope) => dsse::verify(envelope, keyring),
        },
    };
    Ok(verification)
}
