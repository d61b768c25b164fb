//! What goes to the disk: values never half written, and much of it without filling memory.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{sys::statvfs::statvfs, unistd::geteuid};
use serde::Serialize;
use tidepool_certs::secret_file;

/// Bytes that may be in memory and not on disk: the agent's memory is counted with what it writes.
pub(crate) const UNSYNCED: u64 = 8 * 1024 * 1024;

/// Replaces a file by a value as JSON, readable by its owner only. After the return it is on disk.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    secret_file::write(path, &serde_json::to_vec_pretty(value)?)
}

/// Copies to the end, on disk as it goes; the number of bytes. The kernel shares the blocks of two files where the
/// disk can.
pub(crate) fn copy(from: &mut impl Read, to: &mut File, stop: &AtomicBool) -> io::Result<u64> {
    let mut copied = 0u64;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "told to stop"));
        }
        let piece = io::copy(&mut from.by_ref().take(UNSYNCED), to)?;
        copied = copied.saturating_add(piece);
        if piece < UNSYNCED {
            return Ok(copied);
        }
        to.sync_data()?;
    }
}

/// Tells work on another thread to stop when whoever waits for it waits no more.
pub(crate) struct StopOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Removes a directory, if it is there, with all that is in it.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// What is free for us on the disk that this path is on: for root with what the file system reserves, which a
/// customer who fills the disk cannot take.
pub(crate) fn reserved_bytes(path: &Path) -> io::Result<u64> {
    let disk = statvfs(path)?;
    let blocks = if geteuid().is_root() {
        disk.blocks_free()
    } else {
        disk.blocks_available()
    };
    Ok(blocks.saturating_mul(disk.fragment_size()))
}

/// What is free for everybody on the disk that this path is on.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = statvfs(path)?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}
