//! What of an image can be compared and ordered by.

use std::borrow::Cow;

use nix::unistd::{Group, User};
use sifter_image::record::{Encryption, Format, ReferenceSource, Sha256Text, Status};

use super::super::row::Row;
use super::super::snapshot::Snapshot;
use super::literal::{glob, size, time};

/// Fields that can be compared or ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Path,
    Root,
    ImageId,
    Format,
    FormatVersion,
    Status,
    StatusMessage,
    Repository,
    Tag,
    Reference,
    ReferenceSource,
    Base,
    Arch,
    Uuid,
    FileSystem,
    Compressor,
    Sbom,
    Encryption,
    ContentDigest,
    Fingerprint,
    Signed,
    Encrypted,
    SizeBytes,
    AllocatedBytes,
    Uid,
    Gid,
    Mode,
    Links,
    UpdateTime,
    CreateTime,
    AccessTime,
    Label(String),
}

/// What the fields are called, with the short form if there is one; `label.KEY` is beside them.
const NAMES: [(&str, &str, Field); 31] = [
    ("path", "", Field::Path),
    ("root", "", Field::Root),
    ("image_id", "id", Field::ImageId),
    ("content_digest", "digest", Field::ContentDigest),
    ("repository", "", Field::Repository),
    ("tag", "", Field::Tag),
    ("reference", "", Field::Reference),
    ("base", "", Field::Base),
    ("reference_source", "", Field::ReferenceSource),
    ("format", "", Field::Format),
    ("format_version", "", Field::FormatVersion),
    ("status", "", Field::Status),
    ("status_message", "", Field::StatusMessage),
    ("arch", "", Field::Arch),
    ("uuid", "", Field::Uuid),
    ("file_system", "", Field::FileSystem),
    ("compressor", "", Field::Compressor),
    ("sbom", "", Field::Sbom),
    ("fingerprint", "", Field::Fingerprint),
    ("signed", "", Field::Signed),
    ("encryption", "", Field::Encryption),
    ("encrypted", "", Field::Encrypted),
    ("size_bytes", "size", Field::SizeBytes),
    ("allocated_bytes", "allocated", Field::AllocatedBytes),
    ("uid", "owner", Field::Uid),
    ("gid", "group", Field::Gid),
    ("mode", "", Field::Mode),
    ("links", "", Field::Links),
    ("update_time", "updated", Field::UpdateTime),
    ("create_time", "created", Field::CreateTime),
    ("access_time", "accessed", Field::AccessTime),
];

/// What a field is compared with.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(globset::GlobSet),
    Number(i128),
    Boolean(bool),
}

/// By what images are ordered, made once for each, not for each comparison: a number, or a text where the field has
/// none. An image without the number of a field that has one comes before all others.
pub(super) type Key<'r> = (Option<i64>, Cow<'r, str>);

impl Field {
    pub(super) fn parse(name: &str) -> Option<Self> {
        if let Some(key) = name.strip_prefix("label.") {
            return Some(Self::Label(key.to_owned()));
        }
        NAMES
            .iter()
            .find(|(long, short, _)| name == *long || (name == *short && !name.is_empty()))
            .map(|(_, _, field)| field.clone())
    }

    /// What the fields are called, with the short forms, for whoever took another name.
    pub(super) fn names() -> String {
        let names = NAMES.map(|(name, short, _)| match short {
            "" => name.to_owned(),
            short => format!("{name} ({short})"),
        });
        names.join(", ")
    }

    /// The values of an enumeration, as `sifter.v1` spells them, and the prefix that they have
    /// there.
    fn values(&self) -> Option<(&'static str, &'static [&'static str])> {
        Some(match self {
            Self::Format => (
                "FORMAT_",
                &["SIF", "OCI_SIF", "SQUASHFS", "EXT3", "SANDBOX"],
            ),
            Self::Status => ("STATUS_", &["READY", "TRANSFER", "FAILURE", "UNAVAILABLE"]),
            Self::Encryption => ("ENCRYPTION_", &["NONE", "LUKS2", "GOCRYPTFS"]),
            Self::ReferenceSource => (
                "REFERENCE_SOURCE_",
                &[
                    "NAMING_RULE",
                    "OCI_REFERENCE",
                    "DEFINITION",
                    "NAMING_CONVENTION",
                    "LABELS",
                    "FILE_STEM",
                ],
            ),
            _ => return None,
        })
    }

    /// What is compared with: parsed as the field needs it.
    pub(super) fn value(&self, name: &str, text: &str) -> Result<Value, String> {
        let number =
            |number: Option<i128>, what: &str| number.map(Value::Number).ok_or(what.to_owned());
        match self {
            Self::SizeBytes | Self::AllocatedBytes => {
                number(size(text), "not a size, as in 500M, 2G, 1GiB")
            }
            Self::Uid if name == "owner" => Ok(Value::Number(match text.parse::<u32>() {
                Ok(uid) => uid.into(),
                Err(_) => User::from_name(text)
                    .ok()
                    .flatten()
                    .ok_or("no such user")?
                    .uid
                    .as_raw()
                    .into(),
            })),
            Self::Gid if name == "group" => Ok(Value::Number(match text.parse::<u32>() {
                Ok(gid) => gid.into(),
                Err(_) => Group::from_name(text)
                    .ok()
                    .flatten()
                    .ok_or("no such group")?
                    .gid
                    .as_raw()
                    .into(),
            })),
            Self::Uid | Self::Gid | Self::Links => number(text.parse().ok(), "not a number"),
            Self::Mode => number(i128::from_str_radix(text, 8).ok(), "not an octal mode"),
            Self::UpdateTime | Self::CreateTime | Self::AccessTime => number(
                time(text),
                "not a time, as in 2026-01-31 or 2026-01-31T12:00:00Z",
            ),
            Self::Signed | Self::Encrypted => match text {
                "true" | "yes" => Ok(Value::Boolean(true)),
                "false" | "no" => Ok(Value::Boolean(false)),
                _ => Err("neither true nor false".to_owned()),
            },
            Self::Format | Self::Status | Self::Encryption | Self::ReferenceSource => {
                let (prefix, values) = self.values().unwrap_or_default();
                let text = text.to_ascii_uppercase().replace('-', "_");
                let pattern = glob(text.strip_prefix(prefix).unwrap_or(&text), true)?;
                // A pattern is judged as a word is: one that no value matches is a slip of the pen,
                // which would pass for an answer if it selected nothing (or, with `!=`, everything).
                if values.iter().any(|value| pattern.is_match(value)) {
                    Ok(Value::Text(pattern))
                } else {
                    Err(format!("matches none of the values: {}", values.join(", ")))
                }
            }
            // As `uname -m` calls them.
            Self::Arch => {
                let names = [("x86_64", "amd64"), ("aarch64", "arm64"), ("i686", "386")];
                let known = names.iter().find(|(machine, _)| *machine == text);
                glob(known.map_or(text, |(_, name)| name), false).map(Value::Text)
            }
            _ => glob(text, false).map(Value::Text),
        }
    }

    /// Its value as a number, where it has one; of what is true or false, 1 or 0.
    pub(super) fn number(&self, row: &Row<'_>) -> Option<i128> {
        Some(match self {
            Self::SizeBytes => row.facts.size.into(),
            Self::AllocatedBytes => row.facts.allocated.into(),
            Self::Uid => row.facts.uid.into(),
            Self::Gid => row.facts.gid.into(),
            Self::Mode => row.facts.mode.into(),
            Self::Links => row.facts.links.into(),
            Self::UpdateTime => row.update_time.0.into(),
            Self::CreateTime => row.create_time?.0.into(),
            Self::AccessTime => row.facts.accessed.0.into(),
            Self::Signed => (!row.signatures.is_empty()).into(),
            Self::Encrypted => (row.encryption != Encryption::None).into(),
            _ => return None,
        })
    }

    pub(super) fn key<'r>(&self, snapshot: &'r Snapshot, row: &Row<'r>) -> Key<'r> {
        match self.number(row) {
            // Sizes and times are what the kernel has, of 64 bits with a sign.
            Some(number) => (Some(i64::try_from(number).unwrap_or(i64::MAX)), "".into()),
            None => (None, self.text(snapshot, row)),
        }
    }

    pub(super) fn text<'r>(&self, snapshot: &'r Snapshot, row: &Row<'r>) -> Cow<'r, str> {
        match self {
            Self::Path => match std::str::from_utf8(row.path) {
                Ok(path) => path.into(),
                Err(_) => crate::escape::utf8(row.path).into(),
            },
            Self::Root => row.root.into(),
            Self::ImageId => row
                .image_id
                .map(|id| id.to_string())
                .unwrap_or_default()
                .into(),
            Self::Format => format_name(row.format).into(),
            Self::FormatVersion => row.format_version.into(),
            Self::Status => status_name(snapshot.status(row).0).into(),
            Self::StatusMessage => snapshot.status(row).1.into(),
            Self::Repository => row.repository.into(),
            Self::Tag => row.tag.into(),
            Self::Reference => format!("{}:{}", row.repository, row.tag).into(),
            Self::ReferenceSource => match row.reference_source {
                ReferenceSource::NamingRule => "NAMING_RULE",
                ReferenceSource::OciReference => "OCI_REFERENCE",
                ReferenceSource::Definition => "DEFINITION",
                ReferenceSource::NamingConvention => "NAMING_CONVENTION",
                ReferenceSource::Labels => "LABELS",
                ReferenceSource::FileStem => "FILE_STEM",
            }
            .into(),
            Self::Base => row.base.into(),
            Self::Arch => row.arch.into(),
            Self::Uuid => row
                .uuid
                .map(|uuid| uuid.to_string())
                .unwrap_or_default()
                .into(),
            Self::FileSystem => row.file_system.into(),
            Self::Compressor => row.compressor.into(),
            Self::Sbom => row.sbom.into(),
            Self::Encryption => match row.encryption {
                Encryption::None => "NONE",
                Encryption::Luks2 => "LUKS2",
                Encryption::Gocryptfs => "GOCRYPTFS",
            }
            .into(),
            Self::ContentDigest => row
                .content_digest
                .map(|digest| Sha256Text::of(&digest).as_str().to_owned())
                .unwrap_or_default()
                .into(),
            Self::Fingerprint => row
                .signatures
                .iter()
                .map(|signature| signature.fingerprint.as_str())
                .collect::<Vec<_>>()
                .join(",")
                .into(),
            _ => "".into(),
        }
    }
}

/// Name of a status, without prefix.
#[must_use]
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Ready => "READY",
        Status::Transfer => "TRANSFER",
        Status::Failure => "FAILURE",
        Status::Unavailable => "UNAVAILABLE",
    }
}

/// Name of a format, without prefix.
#[must_use]
pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Sif => "SIF",
        Format::OciSif => "OCI_SIF",
        Format::Squashfs => "SQUASHFS",
        Format::Ext3 => "EXT3",
        Format::Sandbox => "SANDBOX",
    }
}
