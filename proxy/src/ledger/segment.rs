//! The journal's files: `000123.jsonl`, numbered in the order in which they were begun.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// What could not be used is kept here, for a person to look at. To have it read again, stop the proxy and
/// give the file the name of a segment.
const DAMAGED: &str = "lines.damaged";

/// A piece of a segment that begins with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: usize,
    /// Whether the segment ends with it, so far.
    pub(super) is_last: bool,
}

/// Begins a segment that must not be there yet.
pub(super) fn create(directory: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o600)
        .open(path(directory, number))
}

/// The numbers of all segments, in order.
pub(super) fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".jsonl"))
            .and_then(|stem| stem.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn read(directory: &Path, number: u64) -> io::Result<Vec<u8>> {
    fs::read(path(directory, number))
}

pub(super) fn read_span(directory: &Path, span: Span) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; span.bytes];
    File::open(path(directory, span.segment))?.read_exact_at(&mut bytes, span.offset)?;
    Ok(bytes)
}

/// Removes a segment; one that is gone is as good.
pub(super) fn remove(directory: &Path, number: u64) -> io::Result<()> {
    match fs::remove_file(path(directory, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Keeps lines that could not be used. They may be kept twice if the proxy dies meanwhile.
pub(super) fn set_aside(directory: &Path, lines: &[Vec<u8>]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(directory.join(DAMAGED))?;
    file.write_all(&lines.concat())?;
    file.sync_data()
}

/// Makes the names of new segments as durable as what is in them.
pub(super) fn sync_names(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}.jsonl"))
}
