//! Names that providers give, as far as they can be shown and kept.

const MAX_CHARS: usize = 128;

/// The string in a JSON value if it is a name: short, not empty, and without what would break a line of
/// a log.
pub(in crate::usage) fn printable(json: &[u8]) -> Option<String> {
    let name: String = serde_json::from_slice(json).ok()?;
    let is_short = name.chars().nth(MAX_CHARS).is_none();
    let is_plain = !name.chars().any(char::is_control);
    (is_short && is_plain && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_has_no_control_characters() {
        assert_eq!(printable(br#""gpt-4o""#).as_deref(), Some("gpt-4o"));
        assert_eq!(printable(br#""gpt\u002d4o""#).as_deref(), Some("gpt-4o"));
        let longest = "x".repeat(MAX_CHARS);
        let quoted = format!("\"{longest}\"");
        assert_eq!(printable(quoted.as_bytes()), Some(longest));
        let longer = format!("\"x{}", &quoted[1..]);
        assert_eq!(printable(longer.as_bytes()), None);
        for json in [
            &br#""""#[..],
            br#""a\nb""#,
            br#""a\u001bb""#,
            b"null",
            b"1",
            b"\"\xff\"",
            b"\"a",
        ] {
            assert_eq!(printable(json), None, "{json:?}");
        }
    }
}
