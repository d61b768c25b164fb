//! Files of servers that are of this machine. A directory is a server exactly if it has a readable `server.json`,
//! of whatever record its cloud keeps.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};
use tidepool_certs::secret_file;

use crate::ambient::Moment;

/// An agent's log is begun anew, keeping one old one, when it is longer than this many bytes.
const MAX_LOG: u64 = 8 * 1024 * 1024;

/// What makes a directory a server.
const RECORD: &str = "server.json";

/// What the record is called once the server is being deleted.
const CONDEMNED: &str = "condemned.json";

/// The servers in this directory, in the order of their directories' names.
pub(super) fn servers<Record: DeserializeOwned>(directory: &Path) -> io::Result<Vec<Record>> {
    let paths: io::Result<BTreeSet<_>> = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut found = Vec::new();
    for path in paths? {
        found.extend(server(&path)?);
    }
    Ok(found)
}

/// The server that this directory is, if it is one.
pub(super) fn server<Record: DeserializeOwned>(dir: &Path) -> io::Result<Option<Record>> {
    read_record(&dir.join(RECORD))
}

fn read_record<Record: DeserializeOwned>(path: &Path) -> io::Result<Option<Record>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(io::Error::other),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the record of the server that this directory is, or from now on is.
pub(super) fn write_record(dir: &Path, record: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
    secret_file::write(&dir.join(RECORD), &bytes)
}

/// When the server of this directory was made.
pub(super) fn made_at(dir: &Path) -> io::Result<Moment> {
    modified(&fs::metadata(dir.join(RECORD))?)
}

/// When a file was written last.
pub(super) fn modified(file: &fs::Metadata) -> io::Result<Moment> {
    let since_epoch = file
        .modified()?
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Moment(
        i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX),
    ))
}

/// Makes a directory stop being a server and says which one it was, also the second time; `None` when
/// there is nothing left of it.
pub(super) fn condemn<Record: DeserializeOwned>(dir: &Path) -> io::Result<Option<Record>> {
    match fs::rename(dir.join(RECORD), dir.join(CONDEMNED)) {
        Err(error) if !is_absence(&error) => return Err(error),
        _ => {}
    }
    read_record(&dir.join(CONDEMNED))
}

/// Removes a directory and all in it, if it is there.
pub(super) async fn remove(dir: &Path) -> io::Result<()> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if !is_absence(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Opens a log for appending.
pub(super) fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > MAX_LOG) {
        fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
