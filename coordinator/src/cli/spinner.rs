//! A sign of life while a person waits.

use std::{
    future::Future,
    io::{IsTerminal as _, stderr},
    pin::pin,
    time::Duration,
};

use indicatif::ProgressBar;
use tokio::time::timeout;

/// Shorter waits need no sign.
const UNNOTICED: Duration = Duration::from_secs(2);

/// Awaits the work; with a spinner on the terminal, if it takes long and there is a terminal.
pub async fn during<F: Future>(message: &str, work: F) -> F::Output {
    let mut work = pin!(work);
    if let Ok(output) = timeout(UNNOTICED, &mut work).await {
        return output;
    }
    if !stderr().is_terminal() {
        return work.await;
    }
    let spinner = ProgressBar::new_spinner().with_message(message.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    let output = work.await;
    spinner.finish_and_clear();
    output
}
