//! The account of all segments: which takes the next line, and which can go.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    batch::Cursor,
    segment::{self, Span},
};

/// A segment of this size is followed by another.
const SEGMENT_BYTES: u64 = 4 << 20;
/// So is one of this age, so that it can go, if the writer has come that far: while the database is
/// away many small ones would be of no use.
const SEGMENT_AGE: Duration = Duration::from_secs(1);
/// Read at a time: holds a batch of rows of common size, with the beginnings between them.
const SPAN_BYTES: u64 = 1 << 20;

/// Those on disk.
#[derive(Debug, Default)]
pub(super) struct Segments {
    all: BTreeMap<u64, Segment>,
    /// Takes the next line; with `None` the next line begins a segment.
    active: Option<Active>,
    last: u64,
    bytes: u64,
    unsynced: Unsynced,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Segment {
    /// Of whole lines. After a write that failed there may be more in the file.
    pub(super) bytes: u64,
    /// Attempts begun in it whose rows are not in the database.
    pub(super) open: u64,
}

#[derive(Debug)]
struct Active {
    number: u64,
    file: Arc<File>,
    since: Instant,
}

/// What would not survive the machine.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    files: BTreeMap<u64, Arc<File>>,
    /// Whether a segment was begun.
    names: bool,
}

impl Segments {
    /// Those that earlier runs left.
    pub(super) fn left(all: BTreeMap<u64, Segment>) -> Self {
        Self {
            last: all.keys().next_back().copied().unwrap_or(0),
            bytes: all.values().map(|segment| segment.bytes).sum(),
            all,
            ..Self::default()
        }
    }

    /// Bytes in all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a line and says in which segment.
    pub(super) fn append(&mut self, directory: &Path, line: &[u8]) -> io::Result<u64> {
        let (number, file) = self.writable(directory)?;
        let segment = self.all.entry(number).or_default();
        if let Err(error) = (&*file).write_all(line) {
            // A half line must not stand before a whole one.
            if file.set_len(segment.bytes).is_err() {
                self.active = None;
            }
            return Err(error);
        }
        self.unsynced.files.entry(number).or_insert(file);
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        segment.bytes += bytes;
        self.bytes += bytes;
        Ok(number)
    }

    /// An attempt was begun in a segment.
    pub(super) fn hold(&mut self, number: u64) {
        self.all.entry(number).or_default().open += 1;
    }

    /// The row of an attempt that was begun in it is in the database.
    pub(super) fn release(&mut self, number: u64) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment.open = segment.open.saturating_sub(1);
        }
    }

    /// What to read after `cursor`.
    pub(super) fn span(&self, cursor: Cursor) -> Option<Span> {
        self.all
            .range(cursor.segment..)
            .map(|(number, segment)| {
                let offset = if *number == cursor.segment {
                    cursor.offset
                } else {
                    0
                };
                (*number, offset, segment.bytes.saturating_sub(offset))
            })
            .find(|(_, _, rest)| *rest > 0)
            .map(|(number, offset, rest)| Span {
                segment: number,
                offset,
                bytes: usize::try_from(rest.min(SPAN_BYTES)).unwrap_or(0),
                is_last: rest <= SPAN_BYTES,
            })
    }

    /// Forgets and names the segments that nothing needs, all before `cursor` being in the database.
    pub(super) fn done(&mut self, cursor: Cursor) -> Vec<u64> {
        let passed = |number: u64, segment: &Segment| {
            number < cursor.segment || (number == cursor.segment && cursor.offset >= segment.bytes)
        };
        self.active.take_if(|active| {
            active.number == cursor.segment && active.since.elapsed() >= SEGMENT_AGE
        });
        let active = self.active.as_ref().map(|active| active.number);
        let gone = self
            .all
            .range(..=cursor.segment)
            .filter(|(number, segment)| {
                segment.open == 0 && passed(**number, segment) && Some(**number) != active
            })
            .map(|(number, _)| *number)
            .collect::<Vec<_>>();
        for number in &gone {
            self.unsynced.files.remove(number);
            if let Some(segment) = self.all.remove(number) {
                self.bytes = self.bytes.saturating_sub(segment.bytes);
            }
        }
        gone
    }

    /// What was written since this was last asked.
    pub(super) fn take_unsynced(&mut self) -> Unsynced {
        std::mem::take(&mut self.unsynced)
    }

    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        self.active = Some(Active {
            number: self.last,
            file: Arc::new(full),
            since: Instant::now(),
        });
    }

    /// The file that takes the next line, begun if need be.
    fn writable(&mut self, directory: &Path) -> io::Result<(u64, Arc<File>)> {
        self.active.take_if(|active| {
            let segment = self.all.get(&active.number);
            segment.is_some_and(|segment| segment.bytes >= SEGMENT_BYTES)
        });
        let active = if let Some(active) = self.active.take() {
            active
        } else {
            self.last += 1;
            self.unsynced.names = true;
            Active {
                number: self.last,
                file: Arc::new(segment::create(directory, self.last)?),
                since: Instant::now(),
            }
        };
        let writable = (active.number, Arc::clone(&active.file));
        self.active = Some(active);
        Ok(writable)
    }
}

impl Unsynced {
    /// Makes it durable, as much as can be. Waits for the disk. What failed is not tried again: the
    /// kernel has given it up.
    pub(super) fn sync(self, directory: &Path) -> io::Result<()> {
        let names = if self.names {
            segment::sync_names(directory)
        } else {
            Ok(())
        };
        let files = self.files.into_values();
        files.map(|file| file.sync_data()).fold(names, Result::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"a line\n";

    fn at_end_of(segments: &Segments, segment: u64) -> Cursor {
        let offset = segments.all[&segment].bytes;
        Cursor { segment, offset }
    }

    /// As if its first line were a while old.
    fn age(segments: &mut Segments) {
        let active = segments.active.as_mut().unwrap();
        active.since = active.since.checked_sub(SEGMENT_AGE).unwrap();
    }

    #[test]
    fn a_segment_stays_until_what_was_begun_in_it_is_in_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let mut segments = Segments::default();
        // Begun in the first segment, ended in the second.
        assert_eq!(segments.append(directory.path(), LINE).unwrap(), 1);
        segments.hold(1);
        assert!(segments.done(at_end_of(&segments, 1)).is_empty(), "young");
        age(&mut segments);
        assert!(segments.done(at_end_of(&segments, 1)).is_empty(), "held");
        assert_eq!(segments.append(directory.path(), LINE).unwrap(), 2);
        age(&mut segments);
        // A third, while the second is not read to its end: nothing goes.
        assert!(
            segments
                .done(Cursor {
                    segment: 2,
                    offset: 3
                })
                .is_empty()
        );
        assert_eq!(segments.append(directory.path(), LINE).unwrap(), 3);
        segments.release(1);
        assert_eq!(segments.done(at_end_of(&segments, 2)), [1, 2]);
        assert_eq!(segments.bytes(), 7);
    }

    #[test]
    fn a_segment_that_is_held_does_not_hold_those_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut segments = Segments::default();
        for number in 1..=3 {
            assert_eq!(segments.append(directory.path(), LINE).unwrap(), number);
            if number == 1 {
                segments.hold(number);
            }
            age(&mut segments);
            let gone = segments.done(at_end_of(&segments, number));
            assert_eq!(gone.contains(&number), number > 1);
        }
    }

    #[test]
    fn a_large_segment_is_followed_by_another() {
        let directory = tempfile::tempdir().unwrap();
        let mut segments = Segments::default();
        let line = vec![b'x'; usize::try_from(SEGMENT_BYTES).unwrap()];
        assert_eq!(segments.append(directory.path(), &line).unwrap(), 1);
        assert_eq!(segments.append(directory.path(), LINE).unwrap(), 2);
        let first = segments.span(Cursor::default()).unwrap();
        assert_eq!((first.segment, first.offset, first.is_last), (1, 0, false));
        let second = segments.span(at_end_of(&segments, 1)).unwrap();
        assert_eq!((second.segment, second.bytes, second.is_last), (2, 7, true));
        assert_eq!(segments.span(at_end_of(&segments, 2)), None);
    }

    #[test]
    fn a_line_after_a_write_that_failed_begins_a_segment() {
        let directory = tempfile::tempdir().unwrap();
        let mut segments = Segments::default();
        segments.append(directory.path(), LINE).unwrap();
        segments.fill_disk();
        segments.append(directory.path(), LINE).unwrap_err();
        assert_eq!(segments.append(directory.path(), LINE).unwrap(), 2);
        assert_eq!(segments.bytes(), 14);
    }
}
