//! What a test leaves behind for the check that no secret ever reached a log.
//!
//! Every deployment's logs are kept under `target/test-logs`, and every secret that it had is written
//! to `secrets.txt` there. `tests/secrets-in-logs` looks for the one in the other after the whole run.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

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

/// Notes whatever in a request or an answer is called like a secret, however deep.
pub fn note_secrets_in(value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(secret) if SECRET_FIELDS.contains(&name.as_str()) => {
                        note_last_part(secret);
                    }
                    _ => note_secrets_in(field),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(note_secrets_in),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Passwords and tokens of the API, and what the tests' customers configure.
const SECRET_FIELDS: [&str; 4] = ["password", "token", "botToken", "apiKey"];

/// The logs of a deployment that hold this secret.
pub fn logs_holding(data_dir: &Path, secret: &str) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes())
    };
    let mut logs = files(data_dir);
    logs.retain(|path| is_log(path) && holds(path));
    logs
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
    if name == "link-keys" {
        return note_keys(&fs::read(file).unwrap_or_default());
    }
    let Ok(text) = fs::read_to_string(file) else {
        return;
    };
    let json = || serde_json::from_str::<Value>(&text).unwrap_or_default();
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

fn note_field(value: &Value, field: &str) {
    if let Some(secret) = value.get(field).and_then(Value::as_str) {
        note_last_part(secret);
    }
}

/// The last part of a token is the secret one; an underscore in another secret leaves enough of it.
fn note_last_part(secret: &str) {
    note_secret(secret.rsplit('_').next().unwrap_or(secret));
}

/// A piece of each of the link's keys, in the two ways in which bytes come into a log.
fn note_keys(keys: &[u8]) {
    for key in keys.chunks_exact(32) {
        let hex = key.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        });
        note_secret(&hex);
        let list = format!("{key:?}");
        note_secret(list.trim_matches(['[', ']']));
    }
}

/// Ours, and OpenClaw's own (`logs/gateway.jsonl`).
fn is_log(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let ends = |wanted| path.extension().is_some_and(|ending| ending == wanted);
    let in_logs = path.parent().is_some_and(|parent| parent.ends_with("logs"));
    ends("log") || name.contains(".log.") || (ends("jsonl") && in_logs)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openclaws_own_log_is_one_and_its_sessions_are_none() {
        let log = |path: &str| is_log(Path::new(path));
        assert!(log("state/openclaw/logs/gateway.jsonl"));
        assert!(log("log/coordinator.log") && log("log/coordinator.log.old"));
        assert!(!log("state/openclaw/agents/main/sessions/1.jsonl"));
    }

    #[test]
    fn a_log_that_holds_a_secret_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("a.log");
        fs::write(&log, "before 0123456789abcdef after").unwrap();
        fs::write(directory.path().join("config.json"), "0123456789abcdef").unwrap();
        assert_eq!(logs_holding(directory.path(), "0123456789abcdef"), [log]);
        assert!(logs_holding(directory.path(), "another").is_empty());
    }
}
