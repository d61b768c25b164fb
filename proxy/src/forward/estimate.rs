//! What a request may come to, where no provider counted.

use memchr::memchr_iter;
use std::time::Duration;

/// A usual estimate, of text.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;
/// What models say in a second, more or less; for what they said, or thought, and nobody saw.
const TOKENS_PER_S: u64 = 50;
/// Shorter bodies are taken for text, whatever they are.
const LARGE_BYTES: usize = 64 * 1024;
/// A longer string without a space in its first bytes is an image or a file.
const BLOB_BYTES: usize = 16 * 1024;
const LOOK_BYTES: usize = 512;
/// Of an image or a file, more or less.
const BLOB_TOKENS: u64 = 2000;

/// Tokens of a prompt.
pub(crate) fn prompt_tokens(body: &[u8]) -> u64 {
    let of_text = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX) / BYTES_PER_TOKEN;
    if body.len() < LARGE_BYTES {
        return of_text(body.len());
    }
    let (mut text, mut blobs, mut from) = (0, 0, 0);
    for to in memchr_iter(b'"', body).chain([body.len()]) {
        let part = body.get(from..to).unwrap_or_default();
        from = to;
        if part.len() > BLOB_BYTES && !part.iter().take(LOOK_BYTES).any(|byte| *byte == b' ') {
            blobs += 1;
        } else {
            text += part.len();
        }
    }
    of_text(text).saturating_add(BLOB_TOKENS.saturating_mul(blobs))
}

/// Tokens of so long a silence of a model that is at work.
pub(crate) fn tokens_in(silence: Duration) -> u64 {
    let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
    millis.saturating_mul(TOKENS_PER_S) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_quarter_of_its_bytes_and_an_image_is_not_text() {
        assert_eq!(prompt_tokens(&[b'a'; 4000]), 1000);
        let words = "word ".repeat(40_000);
        let text = format!(r#"{{"a":"{words}"}}"#);
        assert_eq!(prompt_tokens(text.as_bytes()), 50_002);
        let image = format!(
            r#"{{"a":"{words}","b":"{}"}}"#,
            "iVBORw0KGgo".repeat(100_000)
        );
        let tokens = prompt_tokens(image.as_bytes());
        assert!((52_000..52_010).contains(&tokens), "{tokens}");
    }

    #[test]
    fn a_model_says_fifty_tokens_in_a_second() {
        assert_eq!(tokens_in(Duration::from_millis(1500)), 75);
    }
}
