//! Whether a request was answered before its body had been read.
//!
//! A client that is still sending then must be listened to for a while: a connection that is closed with
//! bytes unread is reset, and many clients give up on writing without looking for the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use hyper::body::Body;
use hyper::body::Frame;
use hyper::body::SizeHint;

/// Set where the last request of a connection has left something of its body.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Something is left.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether something is left.
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The body of the next request, watched.
    pub(super) fn watch<B: Body>(&self, body: B) -> Watched<B> {
        self.0.store(false, Ordering::Relaxed);
        Watched {
            is_read: body.is_end_stream(),
            body,
            unread: self.clone(),
        }
    }
}

/// A body that tells when it is dropped before its end.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    is_read: bool,
    unread: Unread,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.is_read |= frame.is_none() || self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        if !self.is_read {
            self.unread.set();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use http_body_util::Full;
    use hyper::body::Bytes;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_early_is_unread() {
        let unread = Unread::default();
        drop(unread.watch(Full::<Bytes>::default()));
        assert!(!unread.get(), "there was nothing");
        drop(unread.watch(Full::<Bytes>::from("body")));
        assert!(unread.get());
        let body = unread.watch(Full::<Bytes>::from("body"));
        assert!(!unread.get(), "the next request");
        assert_eq!(body.collect().await.unwrap().to_bytes(), "body");
        assert!(!unread.get());
    }
}
