//! What of an image can be compared and ordered by.

use std::borrow::Cow;

use nix::unistd::{Group, User};
use sifter_image::record::{Encryption, Format, ReferenceSource, Sha256Text, Status};

use super::super::row::Row;
use super::super::snapshot::Snapshot;
use super::Value;
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

impl Field {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "path" => Self::Path,
            "root" => Self::Root,
            "image_id" | "id" => Self::ImageId,
            "format" => Self::Format,
            "format_version" => Self::FormatVersion,
            "status" => Self::Status,
            "status_message" => Self::StatusMessage,
            "repository" => Self::Repository,
            "tag" => Self::Tag,
            "reference" => Self::Reference,
            "reference_source" => Self::ReferenceSource,
            "base" => Self::Base,
            "arch" => Self::Arch,
            "uuid" => Self::Uuid,
            "file_system" => Self::FileSystem,
            "compressor" => Self::Compressor,
            "sbom" => Self::Sbom,
            "encryption" => Self::Encryption,
            "content_digest" | "digest" => Self::ContentDigest,
            "fingerprint" => Self::Fingerprint,
            "signed" => Self::Signed,
            "encrypted" => Self::Encrypted,
            "size_bytes" | "size" => Self::SizeBytes,
            "allocated_bytes" | "allocated" => Self::AllocatedBytes,
            "uid" | "owner" => Self::Uid,
            "gid" | "group" => Self::Gid,
            "mode" => Self::Mode,
            "links" => Self::Links,
            "update_time" | "updated" => Self::UpdateTime,
            "create_time" | "created" => Self::CreateTime,
            "access_time" | "accessed" => Self::AccessTime,
            _ => Self::Label(name.strip_prefix("label.")?.to_owned()),
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
                let text = text.to_ascii_uppercase().replace('-', "_");
                let short = ["FORMAT_", "STATUS_", "ENCRYPTION_", "REFERENCE_SOURCE_"]
                    .iter()
                    .find_map(|prefix| text.strip_prefix(prefix))
                    .unwrap_or(&text);
                glob(short, true).map(Value::Text)
            }
            _ => glob(text, false).map(Value::Text),
        }
    }

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
            _ => return None,
        })
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
