//! Images as they go out in a listing: written from the rows, field by field as [`convert::basic`] makes
//! them, without a message of some twenty texts for each.

use prost::Message as _;
use sifter_image::record::{Sha256Text, Status};

use crate::catalog::Row;
use crate::escape;
use crate::fields::Fields;

use super::convert;
use super::owners::Owners;

/// The field `images` of a response.
const IMAGES: u32 = 1;

/// What a plain image takes, about.
const IMAGE_SIZE: usize = 384;

/// Writes images one after another.
pub(super) struct Encoder<'o> {
    owners: &'o Owners,
    /// Names of the last owner and the last group: most images of a listing have the same.
    user: (u32, String),
    group: (u32, String),
    image: Vec<u8>,
    images: Vec<u8>,
}

impl<'o> Encoder<'o> {
    /// For about `count` images.
    pub fn new(owners: &'o Owners, count: usize) -> Self {
        Self {
            owners,
            user: (0, owners.user(0)),
            group: (0, owners.group(0)),
            image: Vec::new(),
            images: Vec::with_capacity(count * IMAGE_SIZE),
        }
    }

    /// How many bytes there are so far.
    pub fn size(&self) -> usize {
        self.images.len()
    }

    /// The images as field `images` of a response.
    pub fn finish(self) -> Vec<u8> {
        self.images
    }

    /// Adds an image with its status and what that says, and with encoded fields of view FULL.
    pub fn image(&mut self, row: &Row<'_>, (status, message): (Status, &str), details: &[u8]) {
        let facts = &row.facts;
        if self.user.0 != facts.uid {
            self.user = (facts.uid, self.owners.user(facts.uid));
        }
        if self.group.0 != facts.gid {
            self.group = (facts.gid, self.owners.group(facts.gid));
        }
        self.image.clear();
        let mut image = Fields(&mut self.image);
        let is_text = std::str::from_utf8(row.path).is_ok();
        if is_text {
            image.bytes(1, row.path);
        } else {
            image.bytes(1, escape::utf8(row.path).as_bytes());
        }
        image.text(2, row.root);
        if let Some(id) = row.image_id {
            image.text(3, Sha256Text::of(&id.0).as_str());
        }
        image.enumeration(4, convert::format(row.format));
        image.text(5, row.format_version);
        image.enumeration(6, convert::status(status));
        image.text(7, message);
        image.text(8, row.repository);
        image.text(9, row.tag);
        image.enumeration(10, convert::reference_source(row.reference_source));
        image.text(11, row.base);
        image.time(12, &convert::timestamp(row.update_time));
        image.enumeration(13, convert::time_source(row.update_time_source));
        if let Some(time) = row.create_time {
            image.time(14, &convert::timestamp(time));
        }
        image.text(15, row.arch);
        if let Some(uuid) = row.uuid {
            let mut text = uuid::Uuid::encode_buffer();
            image.text(16, uuid.as_hyphenated().encode_lower(&mut text));
        }
        image.number(17, facts.size);
        image.number(18, facts.allocated);
        image.number(19, facts.uid.into());
        image.number(20, facts.gid.into());
        image.text(21, &self.user.1);
        image.text(22, &self.group.1);
        image.number(23, facts.mode.into());
        image.number(24, facts.links.into());
        image.time(25, &convert::timestamp(facts.accessed));
        image.text(28, row.file_system);
        image.text(29, row.compressor);
        for signature in row.signatures.as_ref() {
            image.element(31, &signature.encode_to_vec());
        }
        image.enumeration(32, convert::encryption(row.encryption));
        image.text(33, row.sbom);
        if let Some(digest) = &row.content_digest {
            image.text(34, Sha256Text::of(digest).as_str());
        }
        if !is_text {
            image.bytes(35, row.path);
        }
        self.image.extend_from_slice(details);
        Fields(&mut self.images).element(IMAGES, &self.image);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use sifter_image::record::Status;
    use sifter_proto::v1;

    use super::Encoder;
    use crate::catalog::Row;
    use crate::catalog::testing::{full_row, row};
    use crate::service::{Owners, convert};

    #[test]
    fn what_is_encoded_is_the_message() {
        let owners = Owners::default();
        let details = v1::Image {
            labels: [("a".to_owned(), "b".to_owned())].into(),
            definition: "Bootstrap: docker".to_owned(),
            bootstrap_history: vec!["x".to_owned()],
            ..v1::Image::default()
        };
        let mut sandbox = row(3, "", "", "");
        sandbox.facts = crate::catalog::FileFacts::default();
        sandbox.image_id = None;
        let rows = [
            full_row(),
            row(2, "/r/\u{e4} \n.sif", "r", "1"),
            sandbox,
            Row {
                path: b"/data/\xff image.sif",
                ..full_row()
            },
            full_row(),
        ];
        let mut encoder = Encoder::new(&owners, rows.len());
        let mut expected = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let details = if index % 2 == 0 {
                details.clone()
            } else {
                v1::Image::default()
            };
            let mut message = convert::basic(row, &owners);
            message.status = v1::Status::Unavailable.into();
            message.status_message = "gone".to_owned();
            convert::add_details(&mut message, details.clone());
            expected.push(message);
            let status = (Status::Unavailable, "gone");
            encoder.image(row, status, &details.encode_to_vec());
        }
        let decoded = v1::ListImagesResponse::decode(&*encoder.finish()).unwrap();
        assert_eq!(decoded.images, expected);
    }

    /// A field that is new must be written here, too.
    #[test]
    fn a_full_row_has_every_field() {
        let row = Row {
            path: b"/data/\xff image.sif",
            ..full_row()
        };
        let mut message = convert::basic(&row, &Owners::default());
        // The host knows neither of the full row's owners.
        message.owner = "owner".to_owned();
        message.group = "group".to_owned();
        convert::add_details(
            &mut message,
            v1::Image {
                labels: [("a".to_owned(), "b".to_owned())].into(),
                definition: "x".to_owned(),
                objects: vec![v1::Object::default()],
                bootstrap_history: vec!["x".to_owned()],
                ..v1::Image::default()
            },
        );
        let json = serde_json::to_value(&message).unwrap();
        let fields = json.as_object().unwrap().len();
        let declared = include_str!("../../../proto/sifter/v1/image.proto")
            .split("message Image {")
            .nth(1)
            .and_then(|rest| rest.split('}').next())
            .unwrap()
            .lines()
            .filter(|line| line.contains(" = ") && !line.trim_start().starts_with("//"))
            .count();
        assert_eq!(fields, declared);
    }
}
