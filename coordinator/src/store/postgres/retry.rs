//! What is tried again: transactions that PostgreSQL ended only because others were in their way.

use std::time::Duration;

use sqlx::error::DatabaseError;
use tokio::time::sleep;

/// Serialization failure and deadlock: the transaction was rolled back, and may well succeed now.
const WORTH_ANOTHER_TRY: [&str; 2] = ["40001", "40P01"];

/// Each try that ends in a deadlock cost a second of PostgreSQL's patience.
const TRIES: u32 = 4;

/// Grows with each try, so that the same transactions do not meet again.
const PAUSE: Duration = Duration::from_millis(5);

/// How often something was tried.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// The outcome, or nothing if it is to be tried again, after a pause.
    pub(super) async fn settle<T>(&mut self, outcome: sqlx::Result<T>) -> Option<sqlx::Result<T>> {
        self.0 += 1;
        match outcome {
            Err(error) if self.0 < TRIES && is_worth_another_try(&error) => {
                tracing::debug!(%error, tries = self.0, "transaction is tried again");
                sleep(PAUSE * self.0).await;
                None
            }
            settled => Some(settled),
        }
    }
}

fn is_worth_another_try(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| WORTH_ANOTHER_TRY.contains(&code.as_ref()))
}

/// Awaits an expression, and again if it ended for a reason that may be gone.
macro_rules! retried {
    ($attempt:expr) => {{
        let mut tries = $crate::store::postgres::retry::Tries::default();
        loop {
            if let Some(settled) = tries.settle($attempt.await).await {
                break settled;
            }
        }
    }};
}
pub(super) use retried;
