//! A local server's files. A directory is a server exactly if it has a readable `server.json`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use tidepool_certs::secret_file;

use super::ServerRecord;
use crate::ambient::Moment;

/// An agent's log is begun anew, keeping one old one, when it is longer than this many bytes.
const MAX_LOG: u64 = 8 * 1024 * 1024;

/// What makes a directory a server.
const RECORD: &str = "server.json";

/// What the record is called once the server is being deleted.
const CONDEMNED: &str = "condemned.json";

/// The servers in this directory, by name.
pub(super) fn servers(directory: &Path) -> io::Result<Vec<ServerRecord>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        found.extend(server(&entry?.path())?);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The server that this directory is, if it is one.
pub(super) fn server(dir: &Path) -> io::Result<Option<ServerRecord>> {
    read_record(&dir.join(RECORD))
}

fn read_record(path: &Path) -> io::Result<Option<ServerRecord>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(io::Error::other),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the record of the server that this directory is, or from now on is.
pub(super) fn write_record(dir: &Path, record: &ServerRecord) -> io::Result<()> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
    secret_file::write(&dir.join(RECORD), &bytes)
}

/// When the server of this directory was made.
pub(super) fn made_at(dir: &Path) -> io::Result<Moment> {
    let made = fs::metadata(dir.join(RECORD))?.modified()?;
    let since_epoch = made
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Moment(
        i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX),
    ))
}

/// Makes a directory stop being a server and says which one it was, also the second time; `None` when
/// there is nothing left of it.
pub(super) fn condemn(dir: &Path) -> io::Result<Option<ServerRecord>> {
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
