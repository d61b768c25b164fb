//! What a request may come to, where no provider counted.

use memchr::memchr_iter;
use std::time::Duration;

/// A usual estimate, of text.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;
/// What models say in a second, more or less; for what they said, or thought, and nobody saw.
const TOKENS_PER_S: u64 = 50;
/// Beyond ASCII: a Chinese or Japanese character is three bytes and about one token, with new models less; of
/// two bytes are letters, of which several make a token. It is an upper estimate.
const OTHER_BYTES_PER_TOKEN: u64 = 3;
/// Shorter bodies are taken for text, whatever they are.
const LARGE_BYTES: usize = 64 * 1024;
/// A longer string may be an image or a file.
const BLOB_BYTES: usize = 16 * 1024;
/// Looked at as one.
const WINDOW_BYTES: usize = 1024;
/// For each started [`BLOB_PART_BYTES`] of an image or a file, more or less. So what passes for one, and is text,
/// does not cost nothing.
const BLOB_TOKENS: u64 = 2000;
const BLOB_PART_BYTES: usize = 1024 * 1024;

/// Tokens of a prompt.
pub(crate) fn prompt_tokens(body: &[u8]) -> u64 {
    if body.len() < LARGE_BYTES {
        return text_tokens(body);
    }
    let (mut tokens, mut from) = (0_u64, 0);
    for to in memchr_iter(b'"', body).chain([body.len()]) {
        let string = body.get(from..to).unwrap_or_default();
        from = to;
        tokens = tokens.saturating_add(if string.len() > BLOB_BYTES {
            long_tokens(string)
        } else {
            text_tokens(string)
        });
    }
    tokens
}

/// Every part of a long string is looked at: who writes it knows where samples are taken.
fn long_tokens(string: &[u8]) -> u64 {
    let (mut text, mut blob) = (0_u64, 0);
    for window in string.chunks(WINDOW_BYTES) {
        if is_packed(window) {
            blob += window.len();
        } else {
            text = text.saturating_add(text_tokens(window));
        }
    }
    let parts = u64::try_from(blob.div_ceil(BLOB_PART_BYTES)).unwrap_or(u64::MAX);
    text.saturating_add(parts.saturating_mul(BLOB_TOKENS))
}

/// Whether this is packed data in base64: there, all 64 characters are about as frequent. In text they are not, nor
/// in text without spaces, nor in text that is written in base64.
fn is_packed(window: &[u8]) -> bool {
    let mut counts = [0_u64; 128];
    for byte in window {
        let is_base64 = byte.is_ascii_alphanumeric() || b"+/-_=\\".contains(byte);
        match counts.get_mut(usize::from(*byte)) {
            Some(count) if is_base64 => *count += 1,
            _ => return false,
        }
    }
    let length = u64::try_from(window.len()).unwrap_or(u64::MAX);
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    // 1 for characters that are all as frequent, 2 for English in base64, 5 for English without spaces.
    squares.saturating_mul(64 * 2) < length.saturating_mul(length).saturating_mul(3)
}

fn text_tokens(text: &[u8]) -> u64 {
    let other = text.iter().filter(|byte| !byte.is_ascii()).count();
    let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    count(text.len() - other) / BYTES_PER_TOKEN + count(other) / OTHER_BYTES_PER_TOKEN
}

/// Tokens of so long a silence of a model that is at work.
pub(crate) fn tokens_in(silence: Duration) -> u64 {
    let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
    millis.saturating_mul(TOKENS_PER_S) / 1000
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    /// As compressed data is in base64.
    fn packed(bytes: usize) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut rng = StdRng::seed_from_u64(7);
        let char = |_| char::from(ALPHABET[rng.random_range(0..64)]);
        (0..bytes).map(char).collect()
    }

    fn tokens(said: &str) -> u64 {
        prompt_tokens(format!(r#"{{"a":"{said}"}}"#).as_bytes())
    }

    #[test]
    fn text_is_a_quarter_of_its_bytes_and_an_image_is_not_text() {
        assert_eq!(prompt_tokens(&[b'a'; 4000]), 1000);
        let words = "word ".repeat(40_000);
        assert!((50_000..50_010).contains(&tokens(&words)));
        let image = packed(1_000_000);
        let both = tokens(&format!(r#"{words}","b":"data:image/png;base64,{image}"#));
        // Two windows are in part something else.
        assert!((52_000..52_600).contains(&both), "{both}");
    }

    #[test]
    fn a_larger_file_is_more() {
        let size = 5 * 1024 * 1024;
        let count = tokens(&packed(size));
        assert!((10_000..12_600).contains(&count), "{count}");
    }

    #[test]
    fn text_that_has_no_spaces_is_text() {
        let phrase =
            "The tide comes in, the tide goes out; whoever reads long prompts pays for them. ";
        let text = phrase.repeat(2000);
        let quarter = u64::try_from(text.len() / 4).unwrap();
        let in_base64 = base64::engine::general_purpose::STANDARD.encode(&text);
        let letters: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
        for (what, said) in [
            ("slashes", text.replace([' ', ',', ';', '.'], "/")),
            ("nothing between", letters.repeat(2)),
            ("spaces later", format!("{}{text}", "x".repeat(600))),
            ("base64 of text", in_base64),
            ("packed before it", format!("{}{text}", packed(20_000))),
        ] {
            assert!(tokens(&said) >= quarter, "{what}: {}", tokens(&said));
        }
        // What is between windows of packed data counts as well.
        let mixed: String = (0..200)
            .map(|_| packed(1024) + &"theTide/".repeat(128))
            .collect();
        assert!(tokens(&mixed) > 200 * 1024 / 4, "{}", tokens(&mixed));
    }

    #[test]
    fn a_chinese_character_is_a_token_however_many_there_are() {
        assert_eq!(
            prompt_tokens("\u{6f6e}\u{6c50}".repeat(500).as_bytes()),
            1000
        );
        let long = tokens(&"\u{6f6e}\u{6c50}".repeat(50_000));
        assert!((99_000..100_010).contains(&long), "{long}");
    }

    #[test]
    fn a_model_says_fifty_tokens_in_a_second() {
        assert_eq!(tokens_in(Duration::from_millis(1500)), 75);
    }
}
