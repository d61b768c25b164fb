//! What a warm server's boot took, from what was noted of it on the way.

use crate::{
    ambient::Moment,
    model::{Figures, SagaKind, Server, StepMs, StepState},
    pool::Pool,
    store::StoreError,
};

/// What is known of a boot.
pub(super) enum Measured {
    Figures(Figures),
    /// It cannot be told, and never will be.
    Not(&'static str),
}

/// The figures of a server that is warm.
pub(super) async fn figures(pool: &Pool, server: &Server) -> Result<Measured, StoreError> {
    let steps = pool.store.steps(server.id).await?;
    let asked = steps.iter().find(|step| {
        (step.saga, step.step.as_str(), step.state)
            == (SagaKind::Provision, "create", StepState::Begun)
    });
    let Some(asked) = asked.map(|step| step.at) else {
        return Ok(Measured::Not(
            "it is not known when its server was asked for",
        ));
    };
    let (Some(enrolled), Some(warmed)) =
        (pool.store.enrolled_at(server.id).await?, server.warmed_at)
    else {
        return Ok(Measured::Not("it is not known when its server enrolled"));
    };
    let Some((gateway_start_ms, first_turn_ms)) = told(&server.boot_steps) else {
        return Ok(Measured::Not(
            "its agent did not tell how long start and first turn took",
        ));
    };
    Ok(Measured::Figures(Figures {
        boot_to_enrolled_ms: ms(asked, enrolled),
        boot_to_warm_ms: ms(asked, warmed),
        gateway_start_ms,
        first_turn_ms,
        gateway_mib: None,
        rest_mib: None,
    }))
}

/// Start and first turn, by the agent's own word.
fn told(steps: &[StepMs]) -> Option<(u64, u64)> {
    let took = |name: &str| {
        steps
            .iter()
            .find(|step| step.name == name)
            .map(|step| step.ms)
    };
    let start = took("gateway_start")?.saturating_add(took("gateway_started").unwrap_or(0));
    Some((start, took("warm_up")?))
}

fn ms(from: Moment, to: Moment) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
