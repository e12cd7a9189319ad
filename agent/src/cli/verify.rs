//! `sifter inspect --verify`: is each signature valid, and if not, why not.

use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use sifter_image::record::{Link, SignatureForm};
use sifter_image::signature::{self, Keyring, KeyringError, Outcome, verify};

use crate::catalog::FileTime;
use crate::{escape, scan};

use super::{Exit, WithExit};

/// Largest keyring that is read, in bytes: thousands of keys.
const KEYRING_MAX: u64 = 16 << 20;

/// Reads the keys.
///
/// # Errors
///
/// The file cannot be read, or holds no keys.
pub fn keyring(path: &Path) -> anyhow::Result<Keyring> {
    let wrong = |error: &dyn std::fmt::Display| {
        WithExit::error(
            Exit::Usage,
            format!("keyring {}: {error}", escape::path(path)),
        )
    };
    if path.is_dir() {
        let found = "a directory";
        return Err(wrong(&KeyringError::NoKeys { found }));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(KEYRING_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > KEYRING_MAX {
        return Err(wrong(
            &"larger than 16 MiB: give only the keys that may sign",
        ));
    }
    Keyring::parse(&bytes).map_err(|error| wrong(&error))
}

/// What became of the signatures of one image.
#[derive(Debug)]
pub enum Verified {
    /// Each was checked.
    Signatures(signature::Verified),
    /// There is nothing that could be checked, and why.
    Nothing(String),
}

/// Checks the signatures of a file.
///
/// # Errors
///
/// What reading the file says.
pub fn of(path: &Path, keyring: &Keyring) -> io::Result<Verified> {
    if path.is_dir() {
        return Ok(Verified::Nothing(
            "a sandbox directory holds no signatures".to_owned(),
        ));
    }
    let file = scan::open_file(path)?;
    Ok(match verify(&file, keyring, FileTime::now().timestamp())? {
        Ok(verified) if verified.signatures.is_empty() => {
            Verified::Nothing("not signed".to_owned())
        }
        Ok(verified) => Verified::Signatures(verified),
        Err(error) => Verified::Nothing(format!("no signatures can be read: {error}")),
    })
}

impl Verified {
    /// Whether there are signatures, all are valid, and nothing is without one.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Signatures(verified) if verified.is_valid())
    }

    /// For people: a line a signature, and one for each object without.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "verification:")?;
        let verified = match self {
            Self::Signatures(verified) => verified,
            Self::Nothing(why) => return writeln!(out, "    {}", escape::terminal(why)),
        };
        for signature in &verified.signatures {
            let (word, details) = words(&signature.outcome);
            let key = match (&signature.signer, &*signature.fingerprint) {
                (Some(signer), _) => format!("{signer} ({})", signature.fingerprint),
                (None, "") => "key not named".to_owned(),
                (None, fingerprint) => fingerprint.to_owned(),
            };
            let line = format!(
                "signature {} ({}) of {}: {word}{}{details}; {key}",
                signature.object_id,
                form(signature.form),
                signed(signature.signed),
                if details.is_empty() { "" } else { ": " },
            );
            writeln!(out, "    {}", escape::terminal(&line))?;
        }
        for id in &verified.unsigned {
            writeln!(out, "    object {id}: not signed")?;
        }
        Ok(())
    }

    /// As JSON: an object a signature, and the IDs of objects without.
    #[must_use]
    pub fn json(&self) -> Value {
        let (signatures, unsigned, message) = match self {
            Self::Signatures(verified) => (&verified.signatures[..], &verified.unsigned[..], ""),
            Self::Nothing(why) => (&[][..], &[][..], why.as_str()),
        };
        let signatures: Vec<Value> = signatures
            .iter()
            .map(|signature| {
                let (outcome, details) = words(&signature.outcome);
                let mut value = json!({
                    "objectId": signature.object_id,
                    "outcome": outcome.to_uppercase().replace(' ', "_"),
                });
                let mut set = |key: &str, text: &str| {
                    if !text.is_empty() {
                        value[key] = json!(text);
                    }
                };
                set("fingerprint", &signature.fingerprint);
                set("signer", signature.signer.as_deref().unwrap_or_default());
                set("message", &details);
                value
            })
            .collect();
        let mut value = json!({"valid": self.is_valid(), "signatures": signatures});
        if !unsigned.is_empty() {
            value["unsignedObjectIds"] = json!(unsigned);
        }
        if !message.is_empty() {
            value["message"] = json!(message);
        }
        value
    }
}

fn words(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Valid => ("valid", String::new()),
        Outcome::Altered { what } => ("altered", what.clone()),
        Outcome::UnknownKey => ("unknown key", String::new()),
        Outcome::Expired { since } => ("expired", format!("since {}", since.strftime("%Y-%m-%d"))),
        Outcome::Rejected { why } => ("rejected", why.clone()),
    }
}

fn form(form: SignatureForm) -> &'static str {
    match form {
        SignatureForm::Unknown => "unknown form",
        SignatureForm::Pgp => "PGP",
        SignatureForm::Dsse => "DSSE",
        SignatureForm::PgpLegacy => "PGP, legacy",
    }
}

fn signed(link: Option<Link>) -> String {
    match link {
        Some(Link::Object(id)) => format!("object {id}"),
        Some(Link::Group(id)) => format!("group {id}"),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sifter_image::record::{Link, SignatureForm};
    use sifter_image::signature::{self, Outcome, Verification};

    use super::{KEYRING_MAX, Verified};

    fn signature(outcome: Outcome) -> Verification {
        Verification {
            object_id: 4,
            form: SignatureForm::Pgp,
            fingerprint: "ABCD".to_owned(),
            signed: Some(Link::Group(1)),
            signer: Some("Eve\u{1b}[2J <eve@example.org>".to_owned()),
            outcome,
        }
    }

    fn verified<const N: usize, const M: usize>(
        signatures: [Verification; N],
        unsigned: [u32; M],
    ) -> Verified {
        Verified::Signatures(signature::Verified {
            signatures: signatures.into(),
            unsigned: unsigned.into(),
        })
    }

    /// Cut off, it would leave out keys without a word.
    #[test]
    fn a_keyring_that_is_too_large_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (length, too_large) in [(KEYRING_MAX, false), (KEYRING_MAX + 1, true)] {
            file.as_file().set_len(length).unwrap();
            let error = super::keyring(file.path()).unwrap_err().to_string();
            assert_eq!(error.contains("larger than 16 MiB"), too_large, "{error}");
        }
    }

    #[test]
    fn a_directory_is_no_keyring() {
        let directory = tempfile::tempdir().unwrap();
        let error = super::keyring(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains(": a directory, not public keys: give them"),
            "{error}"
        );
    }

    #[test]
    fn every_outcome_has_its_words() {
        let altered = Outcome::Altered {
            what: "object 3".to_owned(),
        };
        let expired = Outcome::Expired {
            since: jiff::Timestamp::UNIX_EPOCH,
        };
        let rejected = Outcome::Rejected {
            why: "the key is revoked".to_owned(),
        };
        for (outcome, valid, text, json) in [
            (Outcome::Valid, true, "group 1: valid; ", "VALID"),
            (altered, false, "group 1: altered: object 3; ", "ALTERED"),
            (
                Outcome::UnknownKey,
                false,
                "group 1: unknown key; ",
                "UNKNOWN_KEY",
            ),
            (
                expired,
                false,
                "group 1: expired: since 1970-01-01; ",
                "EXPIRED",
            ),
            (
                rejected,
                false,
                "group 1: rejected: the key is revoked; ",
                "REJECTED",
            ),
        ] {
            let one = verified([signature(outcome.clone())], []);
            assert_eq!(one.is_valid(), valid);
            let mut written = Vec::new();
            one.write(&mut written).unwrap();
            let written = String::from_utf8(written).unwrap();
            assert!(written.contains(text), "{written}");
            assert!(!written.contains('\u{1b}'), "{written}");
            assert_eq!(one.json()["signatures"][0]["outcome"], json);
            // One that is not valid spoils all.
            let two = verified([signature(Outcome::Valid), signature(outcome)], []);
            assert_eq!(two.is_valid(), valid);
        }
        assert!(!Verified::Nothing("not signed".to_owned()).is_valid());
    }

    #[test]
    fn objects_that_are_not_signed_are_named() {
        let two = verified([signature(Outcome::Valid)], [5, 7]);
        assert!(!two.is_valid());
        let mut written = Vec::new();
        two.write(&mut written).unwrap();
        let written = String::from_utf8(written).unwrap();
        let lines = "\n    object 5: not signed\n    object 7: not signed\n";
        assert!(written.ends_with(lines), "{written}");
        let json = two.json();
        assert_eq!(json["valid"], false);
        assert_eq!(json["unsignedObjectIds"], serde_json::json!([5, 7]));
    }
}
