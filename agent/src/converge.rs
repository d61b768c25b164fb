//! Making the document true, in two loops that never wait for each other's work.
//!
//! [`front`] keeps nginx to the document's names; [`body`] keeps the gateway running, warm while it
//! belongs to nobody, and configured when it does. They are apart because a claim must switch nginx
//! in milliseconds while the gateway may be minutes into a turn. The one order that matters, names
//! first and configuration afterwards, is held by [`body`] waiting for `served`.
//!
//! Both are level-triggered: a turn looks at what is, decides, does one thing, and looks again. They
//! are woken by a new document, by the observer and by a timer; after a failure they wait longer each time.

use std::time::Duration;

pub mod board;
pub mod body;
pub mod front;
pub mod openclaw;
pub mod plan;

/// How long to wait after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(30);
    FIRST
        .saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16)))
        .min(LONGEST)
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_and_ends_at_half_a_minute() {
        assert_eq!(backoff(1), Duration::from_millis(250));
        assert_eq!(backoff(2), Duration::from_millis(500));
        assert_eq!(backoff(u32::MAX), Duration::from_secs(30));
    }
}
