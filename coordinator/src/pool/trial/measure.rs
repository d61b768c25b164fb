//! What a warm server's boot took, from what was noted of it on the way.

use std::time::Duration;

use crate::{
    ambient::Moment,
    model::{Figures, SagaKind, Server, StepMs, StepState},
    pool::Pool,
    store::StoreError,
};

/// How long a warm server's agent is waited for to say what it takes: it does so every minute.
const PATIENCE: Duration = Duration::from_mins(3);

/// What is known of a boot.
pub(super) enum Measured {
    NotYet,
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
    // What was said before is of a server that did not do yet what it does.
    let said = pool.store.stats(server.id).await?;
    let said = said.filter(|(at, _)| *at > warmed).map(|(_, stats)| stats);
    if said.is_none() && pool.clock.now().since(warmed) < PATIENCE {
        return Ok(Measured::NotYet);
    }
    let mib = |bytes: u64| bytes >> 20;
    Ok(Measured::Figures(Figures {
        boot_to_enrolled_ms: ms(asked, enrolled),
        boot_to_warm_ms: ms(asked, warmed),
        gateway_start_ms,
        first_turn_ms,
        gateway_mib: said
            .and_then(|said| said.gateway)
            .map(|gateway| mib(gateway.memory_bytes)),
        rest_mib: said.and_then(|said| said.host.rest_memory_bytes).map(mib),
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
