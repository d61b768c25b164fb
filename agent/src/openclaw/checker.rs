//! Where a configuration is checked against the schema.
//!
//! The schema is 2.4 MB of JSON and some 30 MB when compiled, for a question that is asked a few times in a
//! server's life. An allocator that gave it all back would be hoped for; a process that ends does. So the agent
//! asks a child, which is this very program. The configuration goes through a pipe: it may hold secrets.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

use super::{Schema, UnusableSchema, Violation, Violations};

/// The subcommand of this program that is the child.
const SUBCOMMAND: &str = "check-config";

/// This program, also when its file was replaced meanwhile.
const PROGRAM: &str = "/proc/self/exe";
/// Measured: 0.3 s, of a core of its own.
const DEADLINE: Duration = Duration::from_mins(1);
/// The longest answer; violations are few and cut.
const MAX_ANSWER: u64 = 64 * 1024;
/// The longest configuration that the child reads: a document's, and what the gateway has added.
const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// Who checks.
#[derive(Debug, Clone)]
pub enum Checker {
    /// This process; for who has no program of its own, such as a test.
    Here(Arc<Schema>),
    /// A child, with the schema in this file.
    Child(PathBuf),
}

impl From<Arc<Schema>> for Checker {
    fn from(schema: Arc<Schema>) -> Self {
        Self::Here(schema)
    }
}

/// Why a configuration could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum Unchecked {
    #[error("run the program that checks configurations")]
    Run(#[source] io::Error),
    #[error("the program that checks configurations had no answer within {DEADLINE:?}")]
    Late,
    #[error("the program that checks configurations failed: {0}")]
    Failed(ExitStatus),
    #[error("read the answer of the program that checks configurations")]
    Answer(#[source] serde_json::Error),
}

/// Why the child gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error(transparent)]
    Schema(#[from] UnusableSchema),
    #[error("read the configuration")]
    Read(#[source] io::Error),
    // Without its cause, which may quote a secret.
    #[error("the configuration is not JSON")]
    NotJson,
}

impl Checker {
    /// Checks a configuration: its violations, if it has any.
    pub async fn check(&self, config: &Value) -> Result<Result<(), Violations>, Unchecked> {
        match self {
            Self::Here(schema) => Ok(schema.check(config)),
            Self::Child(schema) => timeout(DEADLINE, ask_child(schema, config))
                .await
                .map_err(|_| Unchecked::Late)?,
        }
    }
}

async fn ask_child(schema: &Path, config: &Value) -> Result<Result<(), Violations>, Unchecked> {
    let mut child = Command::new(PROGRAM)
        .arg(SUBCOMMAND)
        .arg("--schema")
        .arg(schema)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Unchecked::Run)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Unchecked::Run(io::ErrorKind::BrokenPipe.into()));
    };
    let told = async move {
        input.write_all(config.to_string().as_bytes()).await
        // The end of the configuration is that nobody holds the pipe.
    };
    let mut answer = Vec::new();
    let heard = async { output.take(MAX_ANSWER).read_to_end(&mut answer).await };
    let (told, heard) = tokio::join!(told, heard);
    let status = child.wait().await.map_err(Unchecked::Run)?;
    if !status.success() {
        return Err(Unchecked::Failed(status));
    }
    told.and(heard.map(drop)).map_err(Unchecked::Run)?;
    let found: Vec<Violation> = serde_json::from_slice(&answer).map_err(Unchecked::Answer)?;
    Ok(if found.is_empty() {
        Ok(())
    } else {
        Err(Violations(found))
    })
}

/// The child: reads a configuration and says its violations, as JSON.
pub fn answer(schema: &Path, input: impl io::Read) -> Result<String, NoAnswer> {
    let mut text = Vec::new();
    input
        .take(MAX_CONFIG)
        .read_to_end(&mut text)
        .map_err(NoAnswer::Read)?;
    let config: Value = serde_json::from_slice(&text).map_err(|_| NoAnswer::NotJson)?;
    let found = match Schema::load(schema)?.check(&config) {
        Ok(()) => Vec::new(),
        Err(Violations(found)) => found,
    };
    Ok(serde_json::json!(found).to_string())
}

/// The command line of the child.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArguments {
    /// JSON Schema of OpenClaw's configuration
    #[arg(long)]
    pub schema: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_says_what_is_wrong_and_never_the_value() {
        let dir = tempfile::tempdir().unwrap();
        let schema = dir.path().join("schema.json");
        std::fs::write(&schema, r#"{"properties":{"token":{"maxLength":3}}}"#).unwrap();
        assert_eq!(answer(&schema, &br#"{"token":"abc"}"#[..]).unwrap(), "[]");
        let said = answer(&schema, &br#"{"token":"s3cret"}"#[..]).unwrap();
        assert!(
            said.contains("/token") && !said.contains("s3cret"),
            "{said}"
        );
        let broken = answer(&schema, &b"s3cret"[..]).unwrap_err();
        assert!(!crate::converge::chain(&broken).contains("s3cret"));
    }
}
