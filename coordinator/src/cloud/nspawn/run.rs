//! Programs of others, run to their end.

use std::{io, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// For one program; the longest unpacks an image.
const DEADLINE: Duration = Duration::from_mins(5);

/// Runs a program; what it said on standard error is in the error.
pub(super) async fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await.map_err(|_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("`{program}` takes too long"),
        )
    })??;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(400).collect();
    Err(io::Error::other(format!(
        "`{program} {}`: {}: {said}",
        arguments.join(" "),
        output.status
    )))
}

/// The same for a line without spaces in its words.
pub(super) async fn line(text: &str) -> io::Result<()> {
    let mut words = text.split(' ');
    let program = words.next().unwrap_or_default();
    run(program, &words.collect::<Vec<_>>()).await
}
