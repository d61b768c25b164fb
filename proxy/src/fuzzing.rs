//! The fuzz target's way in: bytes that say how a stream is read and cut, and the stream.
//!
//! A test runs the corpus of `proxy/fuzz` through the same rules, so no cargo-fuzz is needed for that.

use crate::{
    dialect::Dialect,
    relay::{
        Form,
        rules::{self, Case},
    },
    sse::HELD_MAX_BYTES,
};

/// Cuts in one stream, at most.
const CUTS_MAX: u8 = 16;

/// Panics if a rule of the relay is broken. The first byte is the dialect, by its initial (others stand
/// for one of them); the second is `s` for a stream, `h` for one whose usage is hidden, `b` for a body;
/// the third has the number of cuts in its low half and in its high half how much is held back (3, as in
/// the digit `0`: as in production). Two bytes a cut follow, and then the stream.
pub fn stream(input: &[u8]) {
    if let Some((case, cuts)) = read(input) {
        rules::hold(case, &cuts);
    }
}

fn read(input: &[u8]) -> Option<(Case<'_>, Vec<usize>)> {
    let ([dialect, shape, measures], rest) = input.split_first_chunk()?;
    let dialect = match dialect {
        b'r' => Dialect::Responses,
        b'm' => Dialect::Messages,
        b'g' => Dialect::Gemini,
        b'e' => Dialect::Embeddings,
        b'c' => Dialect::Chat,
        other => [Dialect::Chat, Dialect::Responses, Dialect::Gemini][usize::from(other % 3)],
    };
    let form = Form {
        dialect,
        hides_usage: matches!(shape, b'h') || shape % 4 == 3,
        is_stream: !matches!(shape, b'b'),
    };
    let held_max = match measures / CUTS_MAX {
        3 => HELD_MAX_BYTES,
        few => 1 + 40 * usize::from(few),
    };
    let (cuts, stream) = rest.split_at_checked(usize::from(measures % CUTS_MAX).checked_mul(2)?)?;
    let mut cuts: Vec<_> = cuts
        .as_chunks()
        .0
        .iter()
        .map(|cut| usize::from(u16::from_le_bytes(*cut)) % (stream.len() + 1))
        .collect();
    cuts.sort_unstable();
    let case = Case {
        form,
        held_max,
        stream,
    };
    Some((case, cuts))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_corpus_keeps_the_rules_wherever_it_is_cut() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/stream");
        let mut seeds = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            let path = file.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let (case, cuts) = read(&input).unwrap_or_else(|| panic!("{}", path.display()));
            eprintln!("{}", path.display());
            rules::hold(case, &cuts);
            for cut in 0..=case.stream.len() {
                rules::hold(case, &[cut]);
            }
            let each: Vec<_> = (0..=case.stream.len()).collect();
            rules::hold(case, &each);
            seeds += 1;
        }
        assert!(seeds >= 24, "{seeds} files");
    }
}
