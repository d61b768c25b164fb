//! What a test leaves behind for the check that no secret ever reached a log.
//!
//! Every deployment's logs are kept under `target/test-logs`, and every secret that it had is written
//! to `secrets.txt` there. `tests/secrets-in-logs` looks for the one in the other after the whole run.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

/// Where evidence is kept.
pub fn directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    workspace.join("target/test-logs")
}

/// Where pictures of pages are kept.
pub fn screenshots() -> PathBuf {
    directory().with_file_name("test-screenshots")
}

/// Notes a secret that must not be in any log. Short ones would match by chance and are left out.
pub fn note_secret(secret: &str) {
    if secret.len() < 16 {
        return;
    }
    let dir = directory();
    let noted = fs::create_dir_all(&dir).and_then(|()| {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(dir.join("secrets.txt"))?;
        file.write_all(format!("{secret}\n").as_bytes())
    });
    noted.expect("evidence can be written");
}

/// Keeps the logs of a deployment and notes its secrets.
pub fn collect(data_dir: &Path, name: &str) {
    let kept = directory().join(name);
    for log in files(data_dir).iter().filter(|path| is_log(path)) {
        let relative = log.strip_prefix(data_dir).unwrap_or(log);
        let to = kept.join(relative);
        if let Some(parent) = to.parent()
            && fs::create_dir_all(parent).is_ok()
        {
            drop(fs::copy(log, to));
        }
    }
    for file in files(data_dir) {
        note_secrets_of(&file);
    }
}

/// A secret's shortest piece that is noted of a key: long enough to occur nowhere by chance.
const KEY_PIECE: usize = 40;

fn note_secrets_of(file: &Path) {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let Ok(text) = fs::read_to_string(file) else {
        return;
    };
    let json = || serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
    match name {
        "client.json" => note_field(&json(), "token"),
        "user-data.json" => note_field(&json(), "enrolment_token"),
        "relay-secret" => note_secret(text.trim()),
        _ => {}
    }
    // In a document, wherever it is kept: 64 hexadecimal digits.
    for after in text.split("\"edge_proof\":\"").skip(1) {
        note_secret(after.split('"').next().unwrap_or_default());
    }
    // Between the frames of a PEM, line breaks may be escaped.
    for after in text.split("PRIVATE KEY-----").skip(1).step_by(2) {
        let body: String = after.replace("\\n", "").split_whitespace().collect();
        note_secret(body.get(..KEY_PIECE).unwrap_or_default());
    }
}

fn note_field(value: &serde_json::Value, field: &str) {
    if let Some(secret) = value.get(field).and_then(serde_json::Value::as_str) {
        // The last part of a token is the secret one.
        note_secret(secret.rsplit('_').next().unwrap_or(secret));
    }
}

fn is_log(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    path.extension().is_some_and(|ending| ending == "log") || name.contains(".log.")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
