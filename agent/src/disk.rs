//! A value as JSON on disk, never half written.

use std::{io, path::Path};

use serde::Serialize;
use tidepool_certs::secret_file;

/// Replaces a file by a value as JSON, readable by its owner only. After the return it is on disk.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    secret_file::write(path, &serde_json::to_vec_pretty(value)?)
}
