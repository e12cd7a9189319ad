//! The stream under a connection: gives up on clients that do not read, listens on to those that still
//! send, and puts the body of a documented error where hyper would answer with an empty one.
//!
//! hyper answers requests that it cannot parse by itself (400, 414, 431), before any handler is
//! asked, and cannot be told what to say. Such an answer is recognised here by what only it has (an
//! error status, no body, and not the request ID that every answer of ours bears), always at the
//! start of a write of its own. What it gives up without an answer, a request that does not arrive, one
//! that ends within its head and one of HTTP/2, is answered by [`Guarded::refuse`].
//!
//! What was answered before all of it had been read is read to its end and thrown away when the
//! connection closes, for as long as a body may take and while it keeps coming: see [`Unread`].

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio::time::Sleep;

use super::respond;
use super::unread::Unread;
use crate::api::ApiError;
use crate::api::reply;
use crate::config::Limits;
use crate::telemetry;
use crate::telemetry::Metrics;

/// The statuses hyper answers by itself, behind the version of the last request.
static SUBSTITUTES: [(&[u8], ApiError); 3] = [
    (b" 400 ", ApiError::BadRequest),
    (b" 414 ", ApiError::UriTooLong),
    (b" 431 ", ApiError::HeadersTooLarge),
];

/// How long a client that was answered early may pause before it is not listened to any more.
const PAUSE: Duration = Duration::from_secs(1);

/// A guarded stream.
pub(super) struct Guarded<S> {
    inner: S,
    client: IpAddr,
    metrics: Arc<Metrics>,
    write_timeout: Duration,
    stalled: Pin<Box<Sleep>>,
    is_stalled: bool,
    /// What is written instead, and how much of it has been.
    substitute: Option<(Vec<u8>, usize)>,
    /// Whether the last request was answered before it had been read.
    unread: Unread,
    /// How long the rest of it may take to arrive.
    rest_within: Duration,
    /// Until when it is read, once all has been written.
    rest_until: Option<Instant>,
}

impl<S> Guarded<S> {
    pub(super) fn new(
        inner: S,
        limits: &Limits,
        client: IpAddr,
        metrics: Arc<Metrics>,
        unread: Unread,
    ) -> Self {
        Self {
            inner,
            client,
            metrics,
            write_timeout: limits.write_timeout,
            rest_within: limits.body_timeout,
            unread,
            rest_until: None,
            stalled: Box::pin(tokio::time::sleep(Duration::ZERO)),
            is_stalled: false,
            substitute: None,
        }
    }

    /// Passes a result on, or an error if nothing has moved for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.is_stalled = false;
            return poll;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            let until = Instant::now() + self.write_timeout;
            self.stalled.as_mut().reset(until);
        }
        self.stalled.as_mut().poll(cx).map(|()| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not read what is sent to it",
            ))
        })
    }
}

impl<S> Guarded<S> {
    /// From now on this answer is written instead of anything else, and then no more.
    fn substitute(&mut self, error: &ApiError) {
        self.metrics
            .request(error.code(), error.status().as_u16(), Duration::ZERO);
        self.substitute = Some((substitute(error, self.client), 0));
        self.unread.set();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// Answers what hyper gives up without an answer of its own, and ends the connection.
    pub(super) async fn refuse(&mut self, error: &ApiError) -> io::Result<()> {
        // Behind half an answer it would be taken for the rest of it.
        if self.is_stalled {
            return Ok(());
        }
        self.substitute(error);
        std::future::poll_fn(|cx| self.poll_substitute(cx)).await?;
        self.shutdown().await
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Writes on what replaces hyper's own answer.
    fn poll_substitute(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, done)) = &mut self.substitute {
            if *done == bytes.len() {
                break;
            }
            let poll = Pin::new(&mut self.inner).poll_write(cx, &bytes[*done..]);
            match poll {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    *done += count;
                    self.is_stalled = false;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.watch(cx, Poll::Pending),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads what the client still sends, until it has said all, pauses or takes too long. Whatever goes
    /// wrong then is nobody's trouble: the answer is out.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = match self.rest_until {
            Some(until) => until,
            None => {
                let now = Instant::now();
                self.stalled.as_mut().reset(now + PAUSE);
                *self.rest_until.insert(now + self.rest_within)
            }
        };
        let mut space = [0; 16 * 1024];
        loop {
            let mut rest = ReadBuf::new(&mut space);
            match Pin::new(&mut self.inner).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= until {
                        return Poll::Ready(());
                    }
                    self.stalled.as_mut().reset(until.min(now + PAUSE));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.stalled.as_mut().poll(cx),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.substitute.is_none()
            && let Some(error) = own_answer(buf)
        {
            this.substitute(error);
        }
        if this.substitute.is_some() {
            // hyper closes after its own answer, so all that follows belongs to it.
            std::task::ready!(this.poll_substitute(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let poll = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.watch(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let poll = Pin::new(&mut this.inner).poll_flush(cx);
        this.watch(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.rest_until.is_none() {
            let poll = Pin::new(&mut this.inner).poll_shutdown(cx);
            std::task::ready!(this.watch(cx, poll))?;
        }
        if this.unread.get() {
            std::task::ready!(this.poll_rest(cx));
        }
        Poll::Ready(Ok(()))
    }

    // One buffer at a time: an answer of hyper's own must be seen whole.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

/// Which error an answer stands for, if hyper made it.
fn own_answer(head: &[u8]) -> Option<&'static ApiError> {
    let status = head
        .strip_prefix(b"HTTP/1.1")
        .or_else(|| head.strip_prefix(b"HTTP/1.0"))?;
    let mut all = SUBSTITUTES.iter();
    let (_, error) = all.find(|(start, _)| status.starts_with(start))?;
    let text = head.to_ascii_lowercase();
    let contains = |needle: &[u8]| text.windows(needle.len()).any(|window| window == needle);
    (contains(b"content-length: 0\r\n") && !contains(respond::REQUEST_ID.as_bytes()))
        .then_some(error)
}

/// The whole answer, head and body.
fn substitute(error: &ApiError, client: IpAddr) -> Vec<u8> {
    let request_id = respond::new_request_id();
    tracing::info!(
        target: telemetry::ACCESS,
        request_id,
        client = %client,
        status = error.status().as_u16(),
        code = error.code(),
        "answered what is not a request"
    );
    let body = reply::error_json(error, &request_id, "", "");
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {json}\r\ncontent-length: {length}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\n{id}: {request_id}\r\n\
         connection: close\r\n\r\n",
        status = error.status(),
        json = respond::JSON,
        length = body.len(),
        id = respond::REQUEST_ID,
    )
    .into_bytes();
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::DuplexStream;

    use super::*;
    use crate::config::Settings;

    fn guarded(stream: DuplexStream, unread: Unread) -> Guarded<DuplexStream> {
        let mut limits = Settings::parse("auth = \"none\"", Path::new("x"))
            .unwrap()
            .limits;
        limits.write_timeout = Duration::from_millis(20);
        limits.body_timeout = Duration::from_millis(1500);
        let client = [127, 0, 0, 1].into();
        Guarded::new(stream, &limits, client, Arc::default(), unread)
    }

    #[tokio::test(start_paused = true)]
    async fn who_still_sends_is_listened_to_for_a_while() {
        let body_timeout = Duration::from_millis(1500);
        for (what, is_unread, sends, leaves, expected) in [
            ("all was read", false, false, false, Duration::ZERO),
            ("leaves", true, false, true, Duration::ZERO),
            ("says nothing more", true, false, false, PAUSE),
            ("sends on", true, true, false, body_timeout),
        ] {
            let (near, mut far) = tokio::io::duplex(8);
            let unread = Unread::default();
            if is_unread {
                unread.set();
            }
            let begin = Instant::now();
            let client = tokio::spawn(async move {
                while sends && far.write_all(b"more").await.is_ok() {
                    tokio::time::sleep(PAUSE / 10).await;
                }
                if !leaves {
                    std::future::pending::<()>().await;
                }
            });
            let mut stream = guarded(near, unread);
            let ended = tokio::time::timeout(4 * PAUSE, stream.shutdown()).await;
            client.abort();
            ended.expect(what).unwrap();
            assert_eq!(begin.elapsed(), expected, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        // Room for eight bytes, and nobody at the other end reads them.
        let (near, _far) = tokio::io::duplex(8);
        let mut stream = guarded(near, Unread::default());
        let mut sent = 0;
        let error = loop {
            let write =
                std::future::poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, b"0123456789"));
            match write.await {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!((sent, error.kind()), (8, io::ErrorKind::TimedOut));
    }

    #[test]
    fn only_answers_of_hyper_itself_are_replaced() {
        let ours = format!(
            "HTTP/1.1 400 Bad Request\r\n{}: A\r\ncontent-length: 0\r\n\r\n",
            respond::REQUEST_ID
        );
        let rows: [(&[u8], Option<&str>); 7] = [
            (
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
                Some("BadRequest"),
            ),
            (
                b"HTTP/1.1 431 X\r\nContent-Length: 0\r\n\r\n",
                Some("HeadersTooLarge"),
            ),
            (
                b"HTTP/1.1 414 X\r\ncontent-length: 0\r\n\r\n",
                Some("UriTooLong"),
            ),
            (
                b"HTTP/1.0 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
                Some("BadRequest"),
            ),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None),
            (b"HTTP/1.1 400 X\r\ncontent-length: 9\r\n\r\n", None),
            (ours.as_bytes(), None),
        ];
        for (head, expected) in rows {
            let code = own_answer(head).map(ApiError::code);
            assert_eq!(code, expected, "{}", String::from_utf8_lossy(head));
        }
    }
}
