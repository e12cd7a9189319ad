//! What is known of an image from its own bytes. The facts of the file that carries it (owner,
//! size, links, …) are not here: whoever opened the file has them.

use std::fmt;

use compact_str::CompactString;
use jiff::Timestamp;
use uuid::Uuid;

use crate::labels::Labels;

/// An image, as its content describes it. The field names are those of `sifter.v1.Image`, where
/// each is documented.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Image format.
    pub format: Format,
    /// Version of the format as the file states it.
    pub format_version: CompactString,
    /// Whether the image can be used.
    pub status: Status,
    /// What is wrong and where, for every status but READY; for READY what was not read, and why.
    pub status_message: String,
    /// Stable identity; `None` where the file is too damaged to say.
    pub image_id: Option<ImageId>,
    /// Repository and tag, and the rule that gave them.
    pub reference: Reference,
    /// What the image was built on, if it was built and not pulled.
    pub base: String,
    /// What it was rebuilt from, oldest first.
    pub bootstrap_history: Vec<String>,
    /// When the image was last changed.
    pub update_time: Option<Timestamp>,
    /// Where `update_time` comes from.
    pub update_time_source: TimeSource,
    /// When the image was created, by its own word.
    pub create_time: Option<Timestamp>,
    /// Architecture in Go's names; `unknown` where the header says so.
    pub arch: CompactString,
    /// UUID of the SIF global header, unless nil.
    pub uuid: Option<Uuid>,
    /// Labels.
    pub labels: Labels,
    /// Definition file as stored. A longer one than [`crate::limits::DEFINITION_MAX`] is cut there and
    /// ends with a line of `…`.
    pub definition: Option<String>,
    /// File system of the primary partition or of the image itself (`squashfs`, `ext3`, …).
    pub file_system: Option<&'static str>,
    /// Compressor of a squashfs (`gzip`, `zstd`, …).
    pub compressor: Option<&'static str>,
    /// SIF data objects in table order.
    pub objects: Vec<Object>,
    /// Signatures found; nothing is verified here.
    pub signatures: Vec<Signature>,
    /// Encryption of the primary partition.
    pub encryption: Encryption,
    /// Format of a stored SBOM.
    pub sbom: Option<&'static str>,
}

impl Image {
    /// An image of which only the format is known: READY until something says otherwise.
    pub(crate) fn blank(format: Format) -> Self {
        Self {
            format,
            format_version: CompactString::default(),
            status: Status::Ready,
            status_message: String::new(),
            image_id: None,
            reference: Reference {
                repository: String::new(),
                tag: String::new(),
                source: ReferenceSource::FileStem,
            },
            base: String::new(),
            bootstrap_history: Vec::new(),
            update_time: None,
            update_time_source: TimeSource::Mtime,
            create_time: None,
            arch: CompactString::default(),
            uuid: None,
            labels: Labels::default(),
            definition: None,
            file_system: None,
            compressor: None,
            objects: Vec::new(),
            signatures: Vec::new(),
            encryption: Encryption::None,
            sbom: None,
        }
    }

    /// Says what was left out of an image that is READY all the same.
    pub(crate) fn note(&mut self, what: &str) {
        if self.status == Status::Ready {
            if !self.status_message.is_empty() {
                self.status_message.push_str("; ");
            }
            self.status_message.push_str(what);
        }
    }

    /// Says why the runtimes do not take an image that is READY, and what to do.
    pub(crate) fn note_refusal(&mut self, why: &str) {
        self.note(&format!(
            "apptainer and singularity refuse the image: {why}"
        ));
    }
}

/// Image format, decided by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Singularity Image Format.
    Sif,
    /// SIF that holds an OCI image.
    OciSif,
    /// squashfs with a container inside.
    Squashfs,
    /// ext2, ext3 or ext4 with a container inside.
    Ext3,
    /// Directory that holds an unpacked container.
    Sandbox,
}

/// Whether an image can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Complete by its own header.
    Ready,
    /// Still being written.
    Transfer,
    /// Truncated or corrupt.
    Failure,
    /// Last known, but its root cannot be read now. Never given by this crate.
    Unavailable,
}

/// Where an update time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeSource {
    /// The image's own header.
    Header,
    /// The OCI image configuration.
    OciConfig,
    /// The file's modification time.
    Mtime,
}

/// Encryption of the primary partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// Not encrypted.
    None,
    /// squashfs in LUKS2.
    Luks2,
    /// squashfs in gocryptfs.
    Gocryptfs,
}

/// Repository and tag of an image, and the rule that gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Repository in the familiar form.
    pub repository: String,
    /// Tag, or `sha256:…`.
    pub tag: String,
    /// The rule.
    pub source: ReferenceSource,
}

/// The rules for repository and tag, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReferenceSource {
    /// A naming rule configured for the root.
    NamingRule,
    /// An OCI reference stored as such.
    OciReference,
    /// The definition of a pulled image.
    Definition,
    /// A naming convention of path and file name.
    NamingConvention,
    /// Labels in which the image names itself.
    Labels,
    /// The file stem.
    FileStem,
}

/// A SHA-256 as it is written everywhere: `sha256:` and hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub struct Sha256Text([u8; 71]);

impl Sha256Text {
    /// Of a digest.
    #[must_use]
    pub fn of(digest: &[u8; 32]) -> Self {
        let mut text = [0; 71];
        let (prefix, digits) = text.split_at_mut(7);
        prefix.copy_from_slice(b"sha256:");
        // There is room for two digits a byte.
        let _ = hex::encode_to_slice(digest, digits);
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Stable identity of an image: a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub [u8; 32]);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Sha256Text::of(&self.0).as_str())
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A data object of a SIF, as its descriptor states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Descriptor slot, from 0.
    pub slot: u32,
    /// Object ID, from 1.
    pub id: u32,
    /// Data type, with what the descriptor says beyond the common fields.
    pub data: ObjectData,
    /// Object group, if any.
    pub group_id: Option<u32>,
    /// What the object is linked to, if anything.
    pub link: Option<Link>,
    /// Offset of the data in bytes.
    pub offset: u64,
    /// Size of the data in bytes.
    pub size: u64,
    /// Size with padding, in bytes.
    pub padded_size: u64,
    /// When the object was created.
    pub create_time: Option<Timestamp>,
    /// When the object was modified.
    pub update_time: Option<Timestamp>,
    /// Numeric owner recorded in the descriptor.
    pub uid: u64,
    /// Numeric group recorded in the descriptor.
    pub gid: u64,
    /// Name.
    pub name: CompactString,
}

/// What an object is linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// One object, by ID.
    Object(u32),
    /// An object group.
    Group(u32),
}

/// Data type of an object and its extra part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectData {
    /// Definition file.
    Deffile,
    /// Environment variables.
    EnvVar,
    /// JSON labels.
    Labels,
    /// File system partition.
    Partition {
        /// `squashfs`, `ext3`, `archive`, `raw`, `encrypted-squashfs`, `gocryptfs-squashfs`, or `unknown`.
        file_system: &'static str,
        /// `system`, `primary-system`, `data`, `overlay`, or `unknown`.
        partition_type: &'static str,
        /// Architecture.
        arch: &'static str,
        /// Compressor of a squashfs, where it was read.
        compressor: Option<&'static str>,
    },
    /// Signature.
    Signature {
        /// Hash algorithm.
        hash_type: &'static str,
        /// PGP fingerprint in upper-case hexadecimal; empty for DSSE.
        fingerprint: String,
    },
    /// Generic JSON.
    GenericJson,
    /// Generic data.
    Generic,
    /// Cryptographic message.
    CryptoMessage {
        /// `openpgp`, `pem`, or `unknown`.
        format: &'static str,
        /// `clear-signature`, `rsa-oaep`, or `unknown`.
        message_type: &'static str,
    },
    /// Software bill of materials.
    Sbom {
        /// `cyclonedx-json`, `spdx-json`, …, or `unknown`.
        format: &'static str,
    },
    /// OCI root index.
    OciRootIndex {
        /// Digest, `sha256:…`.
        digest: String,
    },
    /// OCI blob.
    OciBlob {
        /// Digest, `sha256:…`.
        digest: String,
    },
    /// A number that no known type has.
    Unknown(i32),
}

/// A signature object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// ID of the signature object.
    pub object_id: u32,
    /// Encoding.
    pub form: SignatureForm,
    /// PGP fingerprint in upper-case hexadecimal; empty for DSSE.
    pub fingerprint: String,
    /// What is signed.
    pub signed: Option<Link>,
    /// Hash algorithm.
    pub hash_type: &'static str,
}

/// How a signature is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureForm {
    /// Not recognised, or not read.
    Unknown,
    /// PGP clear-signed JSON.
    Pgp,
    /// DSSE envelope.
    Dsse,
    /// PGP clear-signed hash line.
    PgpLegacy,
}
