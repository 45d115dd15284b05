//! The body of an upload: `multipart/mixed` with exactly two parts, a JSON description and the bytes.
//!
//! Bytes are passed on as they come; no more than a header block or the description is ever held. The delimiter is what
//! the first line of the body says, as apps don't all name it in `Content-Type`. The bytes are cut by their stated
//! length and not searched for the delimiter; the description is searched, as apps miscount it.

use std::pin::Pin;

use aldis_api::read_json;
use aldis_types::{ConversationId, MediaType, Qualified, Retention};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;

use crate::error::AssetError;

/// Longest line with a delimiter.
const MAX_DELIMITER: usize = 256;
/// Longest header block of a part.
const MAX_HEADERS: usize = 4 * 1024;
/// Longest description.
const MAX_DESCRIPTION: usize = 16 * 1024;

type Source = Pin<Box<dyn Stream<Item = Result<Bytes, AssetError>> + Send>>;

/// The JSON part. Whatever else apps put into it, as the name of the file, is for audits of others.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Description {
    #[serde(default)]
    pub(crate) public: bool,
    #[serde(default)]
    pub(crate) retention: Option<Retention>,
    #[serde(default, rename = "filetype")]
    pub(crate) file_type: Option<String>,
    /// The conversation that the file is for, as `{"domain","id"}`.
    #[serde(default, rename = "convId")]
    conversation: Option<serde_json::Value>,
}

impl Description {
    /// The conversation that the file is for, if the app names one; what is no qualified id names none.
    pub(crate) fn conversation(&self) -> Option<Qualified<ConversationId>> {
        serde_json::from_value(self.conversation.clone()?).ok()
    }
}

/// What the headers of the data part say.
#[derive(Debug)]
pub(crate) struct DataHeaders {
    pub(crate) media_type: MediaType,
    pub(crate) length: u64,
    pub(crate) md5: Option<[u8; 16]>,
}

#[derive(Debug, Default)]
struct PartHeaders {
    media_type: Option<MediaType>,
    length: Option<u64>,
    md5: Option<[u8; 16]>,
}

/// Reads a body part by part.
pub(crate) struct Multipart {
    source: Source,
    buffer: BytesMut,
    /// Line break, two dashes and the delimiter.
    delimiter: Vec<u8>,
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

const MALFORMED: AssetError = AssetError::Malformed("the body is not multipart/mixed with two parts");

impl Multipart {
    /// Reads up to the first part.
    pub(crate) async fn open(
        source: impl Stream<Item = Result<Bytes, AssetError>> + Send + 'static,
    ) -> Result<Self, AssetError> {
        let mut body = Self { source: source.boxed(), buffer: BytesMut::new(), delimiter: Vec::new() };
        let mut line = body.until(b"\r\n", MAX_DELIMITER).await?;
        if line.is_empty() {
            line = body.until(b"\r\n", MAX_DELIMITER).await?;
        }
        if line.len() <= 2 || !line.starts_with(b"--") {
            return Err(MALFORMED);
        }
        body.delimiter = [b"\r\n", line.trim_ascii_end()].concat();
        Ok(body)
    }

    /// Reads the first part.
    pub(crate) async fn description(&mut self) -> Result<Description, AssetError> {
        let headers = self.headers().await?;
        if headers.media_type.is_none_or(|media_type| media_type.as_str() != "application/json") {
            return Err(AssetError::Malformed("the first part must have the content type application/json"));
        }
        if headers.length.is_none() {
            return Err(AssetError::Malformed("the first part must state its length"));
        }
        let delimiter = self.delimiter.clone();
        let json = self.until(&delimiter, MAX_DESCRIPTION).await?;
        if !self.until(b"\r\n", MAX_DELIMITER).await?.trim_ascii().is_empty() {
            return Err(MALFORMED);
        }
        read_json(&json).map_err(|_| AssetError::Malformed("the description is not the JSON expected"))
    }

    /// Reads the headers of the second part.
    pub(crate) async fn data_headers(&mut self) -> Result<DataHeaders, AssetError> {
        let headers = self.headers().await?;
        Ok(DataHeaders {
            media_type: headers.media_type.unwrap_or_else(MediaType::octet_stream),
            length: headers.length.ok_or(AssetError::Empty)?,
            md5: headers.md5,
        })
    }

    /// The `length` bytes of the second part; an error at the end unless the body ends there as it must.
    pub(crate) fn data(self, length: u64) -> impl Stream<Item = Result<Bytes, AssetError>> + Send {
        stream::try_unfold((self, length), |(mut body, left)| async move {
            if left == 0 {
                body.end().await?;
                return Ok(None);
            }
            if body.buffer.is_empty() && !body.fill().await? {
                return Err(AssetError::Incomplete);
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(body.buffer.len());
            let bytes = body.buffer.split_to(most).freeze();
            let left = left - bytes.len() as u64;
            Ok(Some((bytes, (body, left))))
        })
    }

    /// After the bytes: the last delimiter, and nothing that matters.
    async fn end(&mut self) -> Result<(), AssetError> {
        let closing = [self.delimiter.as_slice(), b"--"].concat();
        while self.buffer.len() < closing.len() {
            if !self.fill().await? {
                return Err(AssetError::Incomplete);
            }
        }
        if !self.buffer.starts_with(&closing) {
            return Err(AssetError::Malformed("the asset does not end where its length says"));
        }
        // What may follow does not matter, and waiting for it may take for ever: apps miscount the whole body.
        Ok(())
    }

    /// Waits for more of the body; `false` at its end.
    async fn fill(&mut self) -> Result<bool, AssetError> {
        match self.source.next().await {
            Some(Ok(bytes)) if self.buffer.is_empty() => {
                self.buffer = BytesMut::from(bytes);
                Ok(true)
            }
            Some(Ok(bytes)) => {
                self.buffer.extend_from_slice(&bytes);
                Ok(true)
            }
            Some(Err(error)) => Err(error),
            None => Ok(false),
        }
    }

    /// Takes what comes before `end`, and `end` itself.
    async fn until(&mut self, end: &[u8], most: usize) -> Result<BytesMut, AssetError> {
        let mut looked_at = 0_usize;
        loop {
            let from = looked_at.saturating_sub(end.len());
            if let Some(at) = find(&self.buffer[from..], end).map(|at| from + at) {
                if at > most {
                    return Err(MALFORMED);
                }
                let found = self.buffer.split_to(at);
                let _ = self.buffer.split_to(end.len());
                return Ok(found);
            }
            looked_at = self.buffer.len();
            if looked_at > most + end.len() {
                return Err(MALFORMED);
            }
            if !self.fill().await? {
                return Err(AssetError::Incomplete);
            }
        }
    }

    async fn headers(&mut self) -> Result<PartHeaders, AssetError> {
        const LINE: AssetError = AssetError::Malformed("a header of a part cannot be read");
        let mut headers = PartHeaders::default();
        let mut left = MAX_HEADERS;
        loop {
            let line = self.until(b"\r\n", left).await?;
            if line.is_empty() {
                return Ok(headers);
            }
            left = left.saturating_sub(line.len() + 2);
            let line = std::str::from_utf8(&line).map_err(|_| LINE)?;
            let (name, value) = line.split_once(':').ok_or(LINE)?;
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "content-type" => headers.media_type = Some(value.parse().map_err(|_| LINE)?),
                "content-length" => {
                    let digits = value.bytes().all(|b| b.is_ascii_digit());
                    headers.length = Some(value.parse().ok().filter(|_| digits).ok_or(LINE)?);
                }
                "content-md5" => {
                    let bytes = STANDARD.decode(value).map_err(|_| LINE)?;
                    headers.md5 = Some(bytes.try_into().map_err(|_| LINE)?);
                }
                _ => return Err(AssetError::Malformed("a part has a header that is not expected")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    pub(super) const BODY: &[u8] =
        b"--X\r\nContent-Type: application/json;charset=utf-8\r\nContent-length: 999\r\n\r\n\
        {\"public\":true,\"retention\":\"volatile\",\"domain\":\"a.test\"}\r\n--X\r\ncontent-type: image/png\r\n\
        Content-Length: 11\r\nContent-MD5: XrY7u+Ae7tCTyyK7j1rNww==\r\n\r\nhello world\r\n--X--\r\n";

    pub(super) async fn read(body: &[u8], step: usize) -> Result<(Description, DataHeaders, Vec<u8>), AssetError> {
        let parts: Vec<_> = body.chunks(step).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let mut body = Multipart::open(stream::iter(parts)).await?;
        let description = body.description().await?;
        let headers = body.data_headers().await?;
        let data = body.data(headers.length).try_fold(Vec::new(), |mut all, part| async move {
            all.extend_from_slice(&part);
            Ok(all)
        });
        Ok((description, headers, data.await?))
    }

    #[tokio::test]
    async fn a_body_is_read_however_it_is_cut() {
        for step in 1..BODY.len() {
            let (description, headers, data) = read(BODY, step).await.unwrap();
            assert!(description.public && description.retention == Some(Retention::Volatile));
            assert_eq!((headers.media_type.as_str(), headers.length), ("image/png", 11));
            assert!(headers.md5.is_some());
            assert_eq!(data, b"hello world", "{step}");
        }
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_incomplete() {
        let whole = BODY.len() - "\r\n".len();
        for end in 0..whole {
            assert!(matches!(read(&BODY[..end], 7).await, Err(AssetError::Incomplete)), "{end}");
        }
    }

    #[tokio::test]
    async fn what_breaks_the_form_is_refused() {
        let text = String::from_utf8(BODY.to_vec()).unwrap();
        for (from, to) in [
            ("--X\r\nContent-Type: app", "X\r\nContent-Type: app"),
            ("application/json", "text/plain"),
            ("Content-length: 999\r\n", ""),
            ("Content-length: 999", "X-Length: 999"),
            ("{\"public\"", "{public"),
            ("volatile", "for a while"),
            ("Content-Length: 11", "Content-Length: 10"),
            ("Content-Length: 11", "Content-Length: +11"),
            ("Content-MD5: XrY7u", "Content-MD5: x"),
            ("hello world\r\n--X--", "hello world\r\n--X\r\n"),
        ] {
            let body = text.replacen(from, to, 1);
            assert_ne!(body, text);
            let outcome = read(body.as_bytes(), 16).await;
            assert!(matches!(outcome, Err(AssetError::Malformed(_))), "{from} → {to}: {outcome:?}");
        }
        let long = text.replacen("hello world", &"x".repeat(20), 1);
        assert!(matches!(read(long.as_bytes(), 16).await, Err(AssetError::Malformed(_))));
        let unstated = text.replacen("Content-Length: 11\r\n", "", 1);
        assert!(matches!(read(unstated.as_bytes(), 16).await, Err(AssetError::Empty)));
        let huge = text.replacen("{\"public\"", &format!("{{\"x\":\"{}\",\"public\"", "x".repeat(MAX_DESCRIPTION)), 1);
        assert!(matches!(read(huge.as_bytes(), 1000).await, Err(AssetError::Malformed(_))));
    }
}

/// Fuzz targets; see `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::tests::{BODY, read};

    #[test]
    fn bodies_of_uploads() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        bolero::check!().for_each(|bytes| {
            let _ = runtime.block_on(read(bytes, 5));
            // Most random bodies fail at the first line; this one gets further.
            let mut body = BODY.to_vec();
            let at = bytes.first().map_or(0, |b| usize::from(*b)) % body.len();
            body.splice(at..(at + bytes.len() / 2).min(body.len()), bytes.iter().copied());
            let _ = runtime.block_on(read(&body, 9));
        });
    }
}
