//! `Range` of a request: one range of bytes. Whatever else a client asks for is answered with the whole file, as
//! RFC 9110 allows.

use std::ops::Range;

use crate::error::AssetError;

/// The range that a `Range` header asks for of `size` bytes. `None`: the whole.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Result<Option<Range<u64>>, AssetError> {
    let Some(spec) = header.and_then(|text| text.strip_prefix("bytes=")) else { return Ok(None) };
    let Some((first, last)) = spec.split_once('-') else { return Ok(None) };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(0)) if first.is_empty() => return Err(AssetError::Range),
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Ok(None),
    };
    if range.start < range.end { Ok(Some(range)) } else { Err(AssetError::Range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood() {
        for (header, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=0-9", Some(0..10)),
            ("bytes=5-99999999999999999999999", Some(5..10)),
            ("bytes=9-", Some(9..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-99", Some(0..10)),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-b", None),
            ("bytes=-", None),
            ("items=0-1", None),
            ("", None),
        ] {
            assert_eq!(wanted(Some(header), 10).unwrap(), expected, "{header}");
        }
        for header in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
            assert!(matches!(wanted(Some(header), 10), Err(AssetError::Range)), "{header}");
        }
        assert_eq!(wanted(None, 10).unwrap(), None);
    }
}
