//! The heads of requests and answers, as bytes.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::framing::Malformed;

/// Of an answer's head.
pub(super) const HEAD_MAX_BYTES: usize = 32 * 1024;
/// Of an answer.
const HEADERS_MAX: usize = 96;

/// The head of a request.
pub(super) fn request(method: &Method, url: &Url, headers: &HeaderMap, body_bytes: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(1024);
    head.put_slice(method.as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(url.path().as_bytes());
    if let Some(query) = url.query() {
        head.put_u8(b'?');
        head.put_slice(query.as_bytes());
    }
    head.put_slice(b" HTTP/1.1\r\nhost: ");
    head.put_slice(url.host_str().unwrap_or_default().as_bytes());
    if let Some(port) = url.port() {
        head.put_slice(format!(":{port}").as_bytes());
    }
    for (name, value) in headers {
        // What frames the message is said once, below.
        if name == header::HOST
            || name == header::CONTENT_LENGTH
            || name == header::TRANSFER_ENCODING
        {
            continue;
        }
        head.put_slice(b"\r\n");
        head.put_slice(name.as_str().as_bytes());
        head.put_slice(b": ");
        head.put_slice(value.as_bytes());
    }
    head.put_slice(format!("\r\ncontent-length: {body_bytes}\r\n\r\n").as_bytes());
    head.freeze()
}

/// What an answer begins with.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The provider lets the connection be used again.
    pub(super) keeps: bool,
    /// So many bytes of what was read.
    pub(super) bytes: usize,
}

/// Reads a head, or `None` if more must come first.
pub(super) fn read(received: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut places = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut places);
    let bytes = match parsed.parse(received) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if received.len() < HEAD_MAX_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Malformed::LongHead);
        }
        Err(_) => return Err(Malformed::Head),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let value = HeaderValue::from_bytes(line.value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        } else {
            return Err(Malformed::Head);
        }
    }
    Ok(Some(Head {
        status: status.ok_or(Malformed::Head)?,
        keeps: parsed.version == Some(1) && !closes(&headers),
        headers,
        bytes,
    }))
}

fn closes(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
}
