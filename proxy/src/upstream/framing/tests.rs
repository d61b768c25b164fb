use http::{HeaderName, HeaderValue};
use proptest::{collection::vec, prelude::*};

use super::*;

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let lines = lines.iter().map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(name, value);
    }
    map
}

fn of(lines: &[(&'static str, &'static str)]) -> Result<Framing, Malformed> {
    Framing::of(StatusCode::OK, &headers(lines))
}

/// The payload of pieces that come one after the other, and what is left to come.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, Framing), Malformed> {
    let mut framing = Framing::Chunked(Chunk::START);
    let mut payload = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let decoded = framing.decode(&mut bytes)?;
        payload.extend_from_slice(&bytes[..decoded.payload]);
    }
    Ok((payload, framing))
}

#[test]
fn the_head_says_where_the_body_ends() {
    assert_eq!(of(&[]), Ok(Framing::UntilClose));
    assert_eq!(of(&[("content-length", "12")]), Ok(Framing::Length(12)));
    let chunked = Ok(Framing::Chunked(Chunk::START));
    assert_eq!(of(&[("transfer-encoding", "Chunked")]), chunked);
    // The coding goes before a length (RFC 9112 §6.3).
    let both = [("content-length", "3"), ("transfer-encoding", "chunked")];
    assert_eq!(of(&both), chunked);
    for coding in ["gzip", "gzip, chunked", "chunked, gzip", "identity", ""] {
        let refused = of(&[("transfer-encoding", coding)]);
        assert_eq!(refused, Err(Malformed::Coding), "{coding}");
    }
    let twice = [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "chunked"),
    ];
    assert_eq!(of(&twice), Err(Malformed::Coding));
    let none = Framing::of(StatusCode::NO_CONTENT, &headers(&[("content-length", "3")]));
    assert_eq!(none, Ok(Framing::Length(0)));
}

#[test]
fn lengths_that_parsers_might_read_differently_are_refused() {
    for value in ["+5", "-1", "0x10", "1,2", "", "99999999999999999999"] {
        assert_eq!(
            of(&[("content-length", value)]),
            Err(Malformed::Lengths),
            "{value}"
        );
    }
    let two = [("content-length", "3"), ("content-length", "4")];
    assert_eq!(of(&two), Err(Malformed::Lengths));
}

#[test]
fn extensions_and_trailers_are_passed_over() {
    let bytes = b"3;a=\"b\"\r\nabc\r\n000\r\nx: y\r\nz: 1\r\n\r\nHTTP/1.1";
    let mut body = bytes.to_vec();
    let mut framing = Framing::Chunked(Chunk::START);
    let decoded = framing.decode(&mut body).unwrap();
    assert_eq!(&body[..decoded.payload], b"abc");
    assert!(framing.is_ended());
    assert_eq!(&bytes[decoded.consumed..], b"HTTP/1.1");
}

#[test]
fn what_is_not_quite_chunked_is_refused() {
    let size = Err(Malformed::ChunkSize);
    let end = Err(Malformed::ChunkEnd);
    for (bytes, refused) in [
        (&b"\r\n"[..], &size),
        (b"g\r\n", &size),
        (b"-1\r\n", &size),
        (b"1\nx", &size),
        (b"1;a\nx", &size),
        (b"1\rx", &size),
        (b"11111111111111111\r\n", &size),
        (b"1\r\nxy", &end),
        (b"1\r\nx\n", &end),
        (b"0\r\nx: y\n", &end),
        (b"0\r\n\n", &end),
        (b"0\r\n\rx", &end),
    ] {
        assert_eq!(&read([bytes]), refused, "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_nobody_reads_has_a_bound() {
    let ignored = usize::from(IGNORED_MAX_BYTES);
    for start in ["1;", "0\r\n"] {
        let bytes = [start.as_bytes(), &vec![b'x'; ignored]].concat();
        assert!(read([&bytes[..]]).is_ok());
        let bytes = [start.as_bytes(), &vec![b'x'; ignored + 1]].concat();
        assert_eq!(read([&bytes[..]]), Err(Malformed::Ignored));
    }
    // Together, however many lines they are.
    let lines = [&b"0\r\n"[..], &b"a: b\r\n".repeat(ignored)].concat();
    assert_eq!(read([&lines[..]]), Err(Malformed::Ignored));
}

proptest! {
    #[test]
    fn a_body_is_the_same_however_it_is_cut(
        chunks in vec(vec(any::<u8>(), 1..40), 0..8),
        cut_at in vec(1usize..9, 0..200),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for at in cut_at {
            let (piece, behind) = rest.split_at(at.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        let (payload, framing) = read(pieces).unwrap();
        prop_assert_eq!(payload, chunks.concat());
        prop_assert!(framing.is_ended());
    }

    #[test]
    fn no_bytes_make_it_fail_otherwise_than_with_an_error(bytes in vec(any::<u8>(), 0..300)) {
        let mut framing = Framing::Chunked(Chunk::START);
        let mut copy = bytes.clone();
        if let Ok(decoded) = framing.decode(&mut copy) {
            prop_assert!(decoded.payload <= decoded.consumed);
            prop_assert!(decoded.consumed <= bytes.len());
        }
    }
}
