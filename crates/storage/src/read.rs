//! What reading has in common in every backend: limits, ranges, and streams that cannot end early unnoticed.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

use super::{Error, Result};

/// Checks that an object may be read at once.
pub(super) fn check_limit(key: &str, size_bytes: u64, limit: u64) -> Result<()> {
    if size_bytes <= limit {
        return Ok(());
    }
    Err(Error::TooLarge {
        key: key.to_owned(),
        limit,
    })
}

/// Returns the range to read; one that is not wholly inside the object is an error, never cut to fit.
pub(super) fn check_range(
    key: &str,
    size_bytes: u64,
    range: Option<Range<u64>>,
) -> Result<Range<u64>> {
    let range = range.unwrap_or(0..size_bytes);
    if range.start <= range.end && range.end <= size_bytes {
        return Ok(range);
    }
    Err(Error::failed(format!(
        "reading `{key}` failed: it has {size_bytes} bytes, not {}..{}",
        range.start, range.end
    )))
}

/// Passes a stream on, with an error where it ends before or after `expected` bytes.
pub(super) fn exactly(
    key: &str,
    expected: u64,
    inner: BoxStream<'static, Result<Bytes>>,
) -> BoxStream<'static, Result<Bytes>> {
    let state = (inner, expected, key.to_owned());
    stream::try_unfold(state, |(mut inner, left, key)| async move {
        match inner.try_next().await? {
            Some(bytes) if bytes.len() as u64 <= left => {
                let left = left - bytes.len() as u64;
                Ok(Some((bytes, (inner, left, key))))
            }
            None if left == 0 => Ok(None),
            None => Err(Error::failed(format!(
                "reading `{key}` failed: the last {left} bytes are missing"
            ))),
            Some(_) => Err(Error::failed(format!(
                "reading `{key}` failed: it is longer than it was a moment ago"
            ))),
        }
    })
    .boxed()
}

/// Gathers a stream of known, checked size.
pub(super) async fn gather(
    size_bytes: u64,
    mut stream: BoxStream<'static, Result<Bytes>>,
) -> Result<Bytes> {
    let mut whole = BytesMut::with_capacity(usize::try_from(size_bytes).unwrap_or(0));
    while let Some(bytes) = stream.try_next().await? {
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: &[&'static str], expected: u64) -> Result<Bytes> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|text| Ok(Bytes::from_static(text.as_bytes())))
            .collect();
        gather(
            expected,
            exactly("k", expected, stream::iter(pieces).boxed()),
        )
        .await
    }

    #[tokio::test]
    async fn a_stream_is_whole_or_an_error() {
        assert_eq!(read(&["ab", "c"], 3).await.unwrap(), "abc");
        assert_eq!(read(&[], 0).await.unwrap(), "");
        for (pieces, expected) in [(&["ab"][..], 3), (&[], 1), (&["ab", "cd"], 3)] {
            assert!(read(pieces, expected).await.is_err(), "{pieces:?}");
        }
    }

    #[test]
    fn ranges_lie_inside() {
        assert_eq!(check_range("k", 5, None).unwrap(), 0..5);
        assert_eq!(check_range("k", 5, Some(2..5)).unwrap(), 2..5);
        assert_eq!(check_range("k", 0, Some(0..0)).unwrap(), 0..0);
        assert!(check_range("k", 5, Some(2..6)).is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "the point of the case")]
        let reversed = 3..2;
        assert!(check_range("k", 5, Some(reversed)).is_err());
    }
}
