//! The bodies of requests and answers, each watched: what moves too slowly to arrive one day counts as standing still.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpRequestBody};
use tokio::time::Sleep;

use super::fault::{Outage, into_http_error};

/// Moving less than this within the stall timeout counts as standing still: a byte a second is not progress.
const LEAST_PROGRESS_BYTES: u64 = 1024;

/// An answer that a store gives while it still works comes a space at a time, each a sign of life; such a request may take so many
/// stall timeouts as a whole (20 minutes as it comes). Putting parts together "could take several minutes", says AWS.
const LONGEST_WORK: u32 = 10;

/// Bodies go out in pieces of this size, so that progress can be seen on a slow link.
const PIECE_BYTES: usize = 64 * 1024;

/// Returns once too little was sent within one stall timeout; dropped when the answer arrives.
pub(super) async fn standstill(progress: &AtomicU64, stall_timeout: Duration) {
    let mut before = 0;
    loop {
        tokio::time::sleep(stall_timeout).await;
        let now = progress.load(Ordering::Relaxed);
        if now - before < LEAST_PROGRESS_BYTES {
            return;
        }
        before = now;
    }
}

/// A request body in pieces that counts what was taken.
pub(super) struct CountedBody {
    inner: HttpRequestBody,
    rest: Bytes,
    progress: Arc<AtomicU64>,
}

impl CountedBody {
    pub(super) fn new(inner: HttpRequestBody, progress: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            progress,
        }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
        while self.rest.is_empty() {
            match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.rest = frame.into_data().unwrap_or_default();
                }
                other => return other,
            }
        }
        let size = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(size);
        self.progress.fetch_add(size as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.inner.size_hint().lower() + self.rest.len() as u64;
        SizeHint::with_exact(left)
    }
}

/// What counts as progress of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// So many bytes that the whole arrives one day.
    Steady,
    /// Any byte: the store says no more than that it is at work. The whole has a limit instead.
    WhileItWorks,
}

/// A response body that fails when it stands still while somebody waits for it.
pub(super) struct PacedBody {
    inner: reqwest::Body,
    stall_timeout: Duration,
    least_progress_bytes: u64,
    /// The end of the whole, where it has one.
    deadline: Option<Pin<Box<Sleep>>>,
    waiting: Option<Pin<Box<Sleep>>>,
    moved: u64,
    stall: Outage,
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.moved += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                if self.moved >= self.least_progress_bytes {
                    self.moved = 0;
                    self.waiting = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let outage = Outage::of(error, self.stall.is_metadata);
                Poll::Ready(Some(Err(into_http_error(outage))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_stall(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl PacedBody {
    /// `stall` is what it fails with when it stands still.
    pub(super) fn new(
        inner: reqwest::Body,
        stall_timeout: Duration,
        pace: Pace,
        stall: Outage,
    ) -> Self {
        let (least_progress_bytes, deadline) = match pace {
            Pace::Steady => (LEAST_PROGRESS_BYTES, None),
            Pace::WhileItWorks => {
                let whole = tokio::time::sleep(stall_timeout * LONGEST_WORK);
                (1, Some(Box::pin(whole)))
            }
        };
        Self {
            inner,
            stall_timeout,
            least_progress_bytes,
            deadline,
            waiting: None,
            moved: 0,
            stall,
        }
    }

    fn poll_stall(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            let why = format!(
                "no answer within {} s",
                (self.stall_timeout * LONGEST_WORK).as_secs_f64()
            );
            let late = Outage {
                why,
                ..self.stall.clone()
            };
            return Poll::Ready(Some(Err(into_http_error(late))));
        }
        let limit = self.stall_timeout;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(into_http_error(self.stall.clone())))),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use object_store::client::HttpResponseBody;

    use super::super::fault::OutageKind;
    use super::*;

    /// Sends a space at a time, and `<x/>` at the end.
    struct Spaces {
        left: u32,
        every: Duration,
        pause: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Spaces {
        type Data = Bytes;
        type Error = HttpError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            let every = self.every;
            let pause = self
                .pause
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
            self.left -= 1;
            let text = if self.left == 0 { "<x/>" } else { " " };
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
        }
    }

    /// Reads an answer of so many spaces, one every `every_s` seconds, by the clock of the tests.
    async fn read(
        pace: Pace,
        spaces: u32,
        every_s: u64,
    ) -> (std::result::Result<Bytes, HttpError>, u64) {
        let start = tokio::time::Instant::now();
        let inner = reqwest::Body::wrap(Spaces {
            left: spaces,
            every: Duration::from_secs(every_s),
            pause: None,
        });
        let stall = Outage {
            kind: OutageKind::Stalled,
            why: "nothing moved".to_owned(),
            is_metadata: false,
        };
        let body = PacedBody::new(inner, Duration::from_secs(120), pace, stall);
        let read = HttpResponseBody::new(body).bytes().await;
        (read, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_space_is_a_sign_of_life_of_a_store_at_work() {
        let (read_all, took_s) = read(Pace::WhileItWorks, 19, 60).await;
        assert_eq!(read_all.unwrap().trim_ascii(), b"<x/>");
        assert_eq!(took_s, 19 * 60);
        let (silent, took_s) = read(Pace::WhileItWorks, 2, 121).await;
        assert!(silent.is_err());
        assert_eq!(took_s, 120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_works_without_end_is_left() {
        let (read_all, took_s) = read(Pace::WhileItWorks, 1000, 60).await;
        let why = read_all.unwrap_err().source().unwrap().to_string();
        assert_eq!(why, "no answer within 1200 s");
        assert_eq!(took_s, 1200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_space_is_no_progress_of_an_object() {
        let (read_all, took_s) = read(Pace::Steady, 19, 60).await;
        assert!(read_all.is_err());
        assert_eq!(took_s, 120);
    }
}
