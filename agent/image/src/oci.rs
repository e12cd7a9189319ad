//! The OCI image inside a SIF: root index, manifest, configuration.
//!
//! Sources: sylabs/oci-tools `pkg/sif/write.go: Write`, SingularityCE
//! `internal/pkg/ocisif/{imagewriter,util}.go`, OCI image-spec `image-index.md`, `manifest.md`,
//! `config.md`. Objects come in any order and are found by the digest in their descriptors. An
//! index may name manifests that are not in the file (platforms that were not kept); an index
//! without any is a container of data, or an empty one, and READY. What JSON is read is checked
//! against its digest.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::context::Found;
use crate::error::OciError;
use crate::held::Held;
use crate::json::{self, Numbers};
use crate::labels::LabelsObject;
use crate::limits;
use crate::record::{ImageId, TimeSource};
use crate::sif::{RawDescriptor, Sif, data_type, until_nul};
use crate::window::Windows;

/// The annotation that names a manifest (image-spec `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How names of signatures begin (CE `internal/pkg/ocisif/util.go: SkipCosignMatcher`).
const COSIGN_PREFIX: &str = "_cosign";

/// The architecture of what runs nowhere, such as the attestations that `buildx` lists beside an image.
const UNKNOWN: &str = "unknown";

/// Bytes read before the root index: manifest and configuration lie there, if the file is as it was
/// first written.
const READ_BEHIND: u64 = 8 << 10;

json::objects! {
    struct Index {
        "manifests" => manifests: Capped<BlobRef>,
    }

    #[derive(Clone)]
    struct BlobRef {
        "mediaType" => media_type: String,
        "digest" => digest: String,
        "platform" => platform: Platform,
        "annotations" => annotations: LabelsObject,
    }

    #[derive(Clone)]
    struct Platform {
        "architecture" => architecture: String,
    }

    struct Manifest {
        "config" => config: BlobRef,
        "layers" => layers: Capped<BlobRef>,
    }

    struct Config {
        "architecture" => architecture: String,
        "created" => created: String,
        "history" => history: Capped<History>,
        "config" => config: Inner,
    }

    struct Inner {
        "Labels" => labels: LabelsObject,
    }

    struct History {
        "created" => created: String,
    }
}

/// The first [`limits::OCI_LIST_MAX`] entries of a list; one that is null is an empty one.
#[derive(Clone)]
struct Capped<T>(Vec<T>);

impl<T> Default for Capped<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Capped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for List<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while entries.len() < limits::OCI_LIST_MAX {
                    match seq.next_element::<Option<T>>()? {
                        Some(entry) => entries.push(entry.unwrap_or_default()),
                        None => return Ok(entries),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(List(PhantomData)).map(Self)
    }
}

impl BlobRef {
    fn is_index(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    }

    fn name(&self) -> Option<&str> {
        self.annotations.0.get(REF_NAME)
    }

    fn is_signature(&self) -> bool {
        self.name()
            .is_some_and(|name| name.starts_with(COSIGN_PREFIX))
    }

    fn is_image_config(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.oci.image.config.v1+json"
                | "application/vnd.docker.container.image.v1+json"
        )
    }
}

/// Reads the chain into `found`, as far as it is sound; the error is the first thing wrong.
pub(crate) fn read(
    windows: &mut Windows<'_>,
    sif: &Sif,
    found: &mut Found,
) -> io::Result<Result<(), OciError>> {
    let mut blobs = HashMap::new();
    for blob in sif.of_type(data_type::OCI_BLOB) {
        blobs.entry(until_nul(&blob.extra)).or_insert(blob);
    }
    let mut reader = Reader {
        windows,
        sif,
        blobs,
        budget: limits::OCI_JSON_MAX,
        name: None,
        error: None,
    };
    reader.image(found)?;
    Ok(reader.error.map_or(Ok(()), Err))
}

struct Reader<'a, 'f> {
    windows: &'a mut Windows<'f>,
    sif: &'a Sif,
    /// By digest, as written. The first of several is meant.
    blobs: HashMap<&'a [u8], &'a RawDescriptor>,
    /// What may still be read.
    budget: u64,
    /// The first name of a manifest.
    name: Option<String>,
    error: Option<OciError>,
}

/// A manifest that an index lists.
struct Listed {
    blob: RawDescriptor,
    /// By the index.
    architecture: String,
}

impl Reader<'_, '_> {
    fn image(&mut self, found: &mut Found) -> io::Result<()> {
        let Some(root) = self.sif.of_type(data_type::OCI_ROOT_INDEX).next().copied() else {
            return Ok(());
        };
        if let Some((offset, size)) = root.range()
            && size <= limits::METADATA_OBJECT_MAX as u64
            && self.windows.get(offset, size).is_none()
        {
            let start = offset.saturating_sub(READ_BEHIND);
            self.windows
                .fetch(start, (offset - start).saturating_add(size))?;
        }
        found.image.image_id = image_id(&root.digest());
        let Some(index) = self.json::<Index>("root index", &root)? else {
            return Ok(());
        };

        let mut manifests = Vec::new();
        self.collect(index, limits::OCI_DEPTH_MAX, None, &mut manifests)?;
        if let [only] = manifests.as_slice() {
            found.image.image_id = image_id(&only.blob.digest());
        }
        found.oci_reference = self.name.take();

        let mut architectures = Vec::new();
        let mut created = None;
        // The first image is described, or where there is none the first of what there is.
        let mut described: Option<bool> = None;
        for listed in manifests {
            let Some(manifest) = self.json::<Manifest>("manifest", &listed.blob)? else {
                continue;
            };
            let is_image = manifest.config.is_image_config();
            let describes = described.is_none_or(|was_image| is_image && !was_image);
            if describes {
                described = Some(is_image);
            }
            let config = self.config(&manifest)?;
            let architecture = [
                config.as_ref().map(|config| config.architecture.clone()),
                Some(listed.architecture),
            ]
            .into_iter()
            .flatten()
            .find(|name| !matches!(&**name, "" | UNKNOWN) && name.len() <= limits::ARCH_MAX);
            if let Some(name) = architecture
                && architectures.len() < limits::ARCHITECTURES_MAX
                && !architectures.contains(&name)
            {
                architectures.push(name);
            }
            if let Some(config) = config {
                created = created.max(creation(&config));
                if describes {
                    found.image.labels = config.config.labels.0;
                }
            }
            self.layers(&manifest, describes, found)?;
        }
        if !architectures.is_empty() {
            found.image.arch = architectures.join(",").into();
        }
        let image = &mut found.image;
        image.create_time = image.create_time.or(created);
        if image.update_time.is_none() && created.is_some() {
            image.update_time = created;
            image.update_time_source = TimeSource::OciConfig;
        }
        Ok(())
    }

    /// Finds the manifests that are in the file, signatures left out, and the first of their names: its own, or
    /// that of an index around it.
    fn collect(
        &mut self,
        index: Index,
        depth: usize,
        around: Option<&str>,
        manifests: &mut Vec<Listed>,
    ) -> io::Result<()> {
        for entry in index.manifests.0 {
            if entry.is_signature() || manifests.len() >= limits::OCI_MANIFESTS_MAX {
                continue;
            }
            let Some(blob) = self.find(&entry.digest) else {
                continue;
            };
            let name = entry.name().or(around);
            if entry.is_index() {
                if depth > 1
                    && let Some(nested) = self.json::<Index>("index", &blob)?
                {
                    self.collect(nested, depth - 1, name, manifests)?;
                }
                continue;
            }
            if self.name.is_none() {
                self.name = name.map(str::to_owned);
            }
            manifests.push(Listed {
                blob,
                architecture: entry.platform.architecture,
            });
        }
        Ok(())
    }

    /// The configuration of an image; `None` for data containers and other artifacts.
    fn config(&mut self, manifest: &Manifest) -> io::Result<Option<Config>> {
        if !manifest.config.is_image_config() {
            return Ok(None);
        }
        match self.find(&manifest.config.digest) {
            Some(descriptor) => self.json("configuration", &descriptor),
            None => {
                self.fault(OciError::Missing {
                    what: "configuration",
                    digest: manifest.config.digest.clone(),
                });
                Ok(None)
            }
        }
    }

    /// Checks that the layers are in the file and, as far as that costs no further read, that they are
    /// the file systems that they should be. Notes the file system of the first, if they describe the image.
    fn layers(
        &mut self,
        manifest: &Manifest,
        describes: bool,
        found: &mut Found,
    ) -> io::Result<()> {
        if describes {
            (found.image.file_system, found.image.compressor) = (None, None);
        }
        for (position, layer) in manifest.layers.0.iter().enumerate() {
            let Some(descriptor) = self.find(&layer.digest) else {
                self.fault(OciError::Missing {
                    what: "layer",
                    digest: layer.digest.clone(),
                });
                continue;
            };
            let (file_system, held) = if layer.media_type.ends_with(".squashfs") {
                (Some("squashfs"), Some(Held::Squashfs))
            } else if layer.media_type.ends_with(".ext3") {
                (Some("ext3"), Some(Held::Ext))
            } else {
                (None, None)
            };
            let is_base = describes && position == 0;
            if is_base {
                found.image.file_system = file_system;
            }
            let (Some(held), Some((offset, size))) = (held, descriptor.range()) else {
                continue;
            };
            // Of the base the compressor is wanted.
            if is_base && held == Held::Squashfs {
                self.windows.need(offset, held.head())?;
            }
            let head = self.windows.get(offset, held.head());
            match held.check(offset, size, head) {
                Ok(compressor) if is_base => found.image.compressor = compressor,
                Ok(_) => {}
                Err(error) => self.fault(OciError::Layer {
                    digest: layer.digest.clone(),
                    error,
                }),
            }
        }
        Ok(())
    }

    /// The blob of this digest.
    fn find(&self, digest: &str) -> Option<RawDescriptor> {
        self.blobs.get(digest.as_bytes()).map(|blob| **blob)
    }

    /// Reads and parses a blob. What is beyond the end of the file has been reported already.
    fn json<T: DeserializeOwned>(
        &mut self,
        what: &'static str,
        blob: &RawDescriptor,
    ) -> io::Result<Option<T>> {
        let Some((offset, size)) = blob.range() else {
            return Ok(None);
        };
        if size > limits::METADATA_OBJECT_MAX as u64 {
            self.fault(OciError::TooLarge {
                what,
                offset,
                size,
                limit: limits::METADATA_OBJECT_MAX as u64,
            });
            return Ok(None);
        }
        let Some(rest) = self.budget.checked_sub(size.max(limits::OCI_JSON_MIN)) else {
            self.fault(OciError::TooMuch {
                what,
                offset,
                limit: limits::OCI_JSON_MAX,
            });
            return Ok(None);
        };
        self.budget = rest;
        let Some(bytes) = self.windows.need(offset, size)? else {
            return Ok(None);
        };
        let expected = blob.digest();
        let found = expected
            .starts_with("sha256:")
            .then(|| format!("sha256:{}", hex::encode(Sha256::digest(bytes))));
        let parsed = json::parse(bytes, Numbers::OfLabels);
        if let Some(found) = found
            && found != expected
        {
            self.fault(OciError::Digest {
                what,
                offset,
                expected,
                found,
            });
        }
        match parsed {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.fault(OciError::Json {
                    what,
                    offset,
                    reason: error.to_string(),
                });
                Ok(None)
            }
        }
    }

    fn fault(&mut self, error: OciError) {
        self.error.get_or_insert(error);
    }
}

/// Creation by the configuration, or else the last step of its history.
fn creation(config: &Config) -> Option<Timestamp> {
    let time = |text: &str| {
        text.parse::<Timestamp>()
            .ok()
            .filter(|time| time.as_second() > 0)
    };
    time(&config.created).or_else(|| {
        config
            .history
            .0
            .iter()
            .filter_map(|step| time(&step.created))
            .max()
    })
}

/// The identity that a digest gives; only SHA-256 is one.
fn image_id(digest: &str) -> Option<ImageId> {
    let mut id = [0; 32];
    let digits = digest.strip_prefix("sha256:")?;
    // Before digits that are enough, `0x` would be taken for none of them.
    let is_whole = digits.len() == 2 * id.len();
    hex::decode_to_slice(digits, &mut id)
        .ok()
        .filter(|()| is_whole)?;
    Some(ImageId(id))
}

#[cfg(test)]
mod tests {
    use super::image_id;
    use crate::record::ImageId;

    #[test]
    fn a_digest_is_64_digits_and_nothing_else() {
        let digits = "ab".repeat(32);
        assert_eq!(
            image_id(&format!("sha256:{digits}")),
            Some(ImageId([0xab; 32]))
        );
        for digest in [
            digits.clone(),
            "sha256:".to_owned(),
            format!("sha256:0x{digits}"),
            format!("sha256:0x{}", &digits[2..]),
            format!("sha256:{}", &digits[2..]),
            format!("sha512:{digits}"),
        ] {
            assert_eq!(image_id(&digest), None, "{digest}");
        }
    }
}
