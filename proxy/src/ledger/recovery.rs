//! What earlier runs left in the journal.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
};

use super::{
    row::{Ended, Line},
    segment,
    segments::Segment,
};

#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Ends that may not be in the database.
    pub(super) ended: usize,
    /// Attempts that have no end, with the one that stands for it. The price may have been paid.
    pub(super) open: Vec<Ended>,
}

/// Reads all segments, one at a time. Lines that are none are passed over here: the writer, who reads
/// them again, keeps them aside.
pub(super) fn scan(directory: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let mut open = HashMap::new();
    for number in segment::list(directory)? {
        let bytes = segment::read(directory, number)?;
        let mut segment = Segment {
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            open: 0,
        };
        for line in bytes.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Begin(row)) => {
                    let ended = Ended {
                        begun_in: number,
                        row: row.into_owned(),
                    };
                    segment.open += 1;
                    open.insert(ended.row.id.clone(), ended);
                }
                Ok(Line::End(ended)) => {
                    open.remove(&ended.row.id);
                    found.ended += 1;
                }
                Err(_) => {}
            }
        }
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            tracing::info!(segment = number, "half a line at the end of a segment");
        }
        found.segments.insert(number, segment);
    }
    found.open = open.into_values().collect();
    // In the order in which they began.
    found.open.sort_by(|a, b| a.row.id.cmp(&b.row.id));
    Ok(found)
}
