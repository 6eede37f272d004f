//! Ranges of bytes, with which a client goes on with a download that broke off.
//!
//! Source: <https://www.rfc-editor.org/rfc/rfc9110#name-range-requests>

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// What a request wants of something that has a size.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// These bytes; there is at least one.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Beyond,
}

/// Reads the wanted bytes of something with this size and tag (a strong `ETag`, with its quotes). Several ranges at once
/// and what is no range of bytes are not looked at, and so is a range of what had another tag.
pub(super) fn wanted(headers: &HeaderMap, size: u64, tag: &str) -> Extent {
    let Some(range) = headers.get(header::RANGE) else {
        return Extent::Whole;
    };
    let is_same = headers.get(header::IF_RANGE).is_none_or(|had| had == tag);
    match range.to_str() {
        Ok(text) if is_same => extent(text, size).unwrap_or(Extent::Whole),
        _ => Extent::Whole,
    }
}

fn extent(text: &str, size: u64) -> Option<Extent> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") || range.contains(',') {
        return None;
    }
    let bytes = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), Some(last)) => first..size.min(last.saturating_add(1)),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return None,
    };
    Some(if bytes.is_empty() {
        Extent::Beyond
    } else {
        Extent::Part(bytes)
    })
}

fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn of(range: &str, if_range: Option<&str>) -> Extent {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, HeaderValue::from_str(tag).unwrap());
        }
        wanted(&headers, 100, "\"abc\"")
    }

    #[test]
    fn a_range_is_taken_as_the_standard_says() {
        for (text, expected) in [
            ("bytes=0-0", Extent::Part(0..1)),
            ("bytes=10-19", Extent::Part(10..20)),
            ("Bytes=90-1000", Extent::Part(90..100)),
            ("bytes=99-", Extent::Part(99..100)),
            ("bytes=-1", Extent::Part(99..100)),
            ("bytes=-1000", Extent::Part(0..100)),
            ("bytes=0-18446744073709551615", Extent::Part(0..100)),
            ("bytes=100-", Extent::Beyond),
            ("bytes=200-300", Extent::Beyond),
            ("bytes=-0", Extent::Beyond),
            ("bytes=5-4", Extent::Whole),
            ("bytes=0-1,5-6", Extent::Whole),
            ("bytes=-", Extent::Whole),
            ("bytes=a-b", Extent::Whole),
            ("bytes=+1-2", Extent::Whole),
            ("rows=0-1", Extent::Whole),
            ("bytes", Extent::Whole),
        ] {
            assert_eq!(of(text, None), expected, "{text}");
        }
        assert_eq!(wanted(&HeaderMap::new(), 100, "\"abc\""), Extent::Whole);
    }

    #[test]
    fn a_range_of_something_else_is_the_whole() {
        assert_eq!(of("bytes=1-", Some("\"abc\"")), Extent::Part(1..100));
        for other in ["\"abd\"", "W/\"abc\"", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(of("bytes=1-", Some(other)), Extent::Whole, "{other}");
        }
    }
}
