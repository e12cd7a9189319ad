//! The image service for whoever answers with thousands of images: they go out as they were encoded,
//! without a message of some twenty texts for each. On the wire nothing is different.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::v1;

#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/encoded/sifter.v1.rs"));
}

pub use generated::image_service_server;

/// [`v1::ListImagesResponse`] with encoded images.
pub type ListImagesResponse = WithImages<v1::ListImagesResponse>;

/// [`v1::StreamImagesResponse`] with encoded images.
pub type StreamImagesResponse = WithImages<v1::StreamImagesResponse>;

/// A message with encoded images besides those it has itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WithImages<M> {
    /// Each as an element of the message's field `images`: key, length, and the image.
    pub images: Vec<u8>,
    /// All other fields.
    pub rest: M,
}

impl<M> From<M> for WithImages<M> {
    fn from(rest: M) -> Self {
        Self {
            images: Vec::new(),
            rest,
        }
    }
}

impl<M: Message> Message for WithImages<M> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        // `images` is the first field of either response.
        buf.put_slice(&self.images);
        self.rest.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.rest.merge_field(tag, wire_type, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.images.len() + self.rest.encoded_len()
    }

    fn clear(&mut self) {
        self.images.clear();
        self.rest.clear();
    }
}
