//! What goes to the database at once, and how far the journal was read for it.

use super::{
    row::{Ended, Line},
    segment::Span,
};

/// Rows of one statement. More would gain nothing and hold SQLite's only write lock for longer.
pub(super) const BATCH_ROWS: usize = 500;

/// How a line that notes a beginning begins.
const BEGIN: &[u8] = b"{\"begin\":";
/// How one that is whole ends.
const WHOLE: &[u8] = b"}}\n";

/// A place between two lines of the journal: all before it is in the database.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// Where the rows of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From the journal up to there.
    Journal(Cursor),
    /// From memory: the journal could not be written.
    Spare,
}

/// Rows that are written at once.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) source: Source,
    pub(super) ended: Vec<Ended>,
    /// Lines that are none, to be kept aside.
    pub(super) damaged: Vec<Vec<u8>>,
    /// Whether more may wait.
    pub(super) is_full: bool,
}

impl Batch {
    pub(super) fn of(source: Source, ended: Vec<Ended>) -> Self {
        Self {
            source,
            ended,
            damaged: Vec::new(),
            is_full: source == Source::Spare,
        }
    }

    /// The ends in a span, up to the size of a batch.
    pub(super) fn read(span: Span, bytes: &[u8]) -> Self {
        let mut batch = Self::of(Source::Journal(Cursor::default()), Vec::new());
        let mut consumed = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_cut = !line.ends_with(b"\n");
            if batch.ended.len() == BATCH_ROWS || (is_cut && !span.is_last && consumed > 0) {
                break;
            }
            consumed += line.len();
            // Half a line at the end: nobody was told that it was written. And beginnings are every second
            // line, and are looked at when a proxy starts.
            let is_beginning = line.starts_with(BEGIN) && line.ends_with(WHOLE);
            if is_beginning || (is_cut && span.is_last) {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(Line::End(ended)) => batch.ended.push(ended.into_owned()),
                Ok(Line::Begin(_)) => {}
                Err(_) => batch.damaged.push(line.to_vec()),
            }
        }
        batch.is_full = !span.is_last || consumed < bytes.len();
        let consumed = u64::try_from(consumed).unwrap_or(u64::MAX);
        batch.source = Source::Journal(Cursor {
            segment: span.segment,
            offset: span.offset.saturating_add(consumed),
        });
        batch
    }

    /// Whether nothing was left to read.
    pub(super) fn is_at_end(&self, cursor: Cursor) -> bool {
        self.source == Source::Journal(cursor)
    }
}
