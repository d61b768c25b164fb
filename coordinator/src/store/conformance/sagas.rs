//! The sagas' log.

use std::sync::Arc;

use super::{
    Outcome,
    world::{at, booting, server_id},
};
use crate::{
    model::{SagaKind, SagaStep, StepState},
    store::Store,
};

pub async fn steps_read_back_in_the_order_in_which_they_were_taken<S: Store>(
    store: Arc<S>,
) -> Outcome {
    booting(&*store, 1).await?;
    booting(&*store, 2).await?;
    let step = |number, step: &str, state, error: Option<&str>| SagaStep {
        server: server_id(number),
        saga: SagaKind::Provision,
        step: step.to_owned(),
        state,
        error: error.map(str::to_owned),
        at: at(9),
    };
    let taken = [
        step(1, "create", StepState::Begun, None),
        step(1, "create", StepState::Failed, Some("no room")),
        step(2, "create", StepState::Begun, None),
        step(1, "create", StepState::Done, None),
    ];
    for row in &taken {
        store.note_step(row).await?;
    }
    let own: Vec<_> = taken
        .iter()
        .filter(|row| row.server == server_id(1))
        .cloned()
        .collect();
    assert_eq!(store.steps(server_id(1)).await?, own);
    assert_eq!(store.steps(server_id(9)).await?, []);
    Ok(())
}
