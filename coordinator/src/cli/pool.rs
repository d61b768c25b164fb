//! `tidepool pool`.

use super::{
    CommandFailed,
    client::Client,
    output::{Output, table},
};
use crate::api::pool::PoolView;

pub(super) async fn show(client: &Client, output: &mut Output) -> Result<(), CommandFailed> {
    let pool: PoolView = client.get("/v1/pool").await?;
    output.show(&pool, lines)
}

fn lines(pool: &PoolView) -> Vec<String> {
    let mut lines: Vec<String> = pool
        .tiers
        .iter()
        .map(|tier| {
            let states = tier
                .by_state
                .iter()
                .map(|(state, count)| format!("{count} {state}"));
            let states = states.collect::<Vec<_>>().join(", ");
            format!(
                "{}: {} of {} warm, {} waiting ({states})",
                tier.name, tier.warm, tier.target, tier.pending
            )
        })
        .collect();
    let mut rows = vec![
        ["SERVER", "STATE", "HEALTH", "ADDRESS", "INSTANCE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(pool.servers.iter().map(|server| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            server.name.clone(),
            server.state.word().to_owned(),
            server.health.word().to_owned(),
            or_dash(&server.address),
            or_dash(&server.instance_id),
        ]
    }));
    lines.extend(table(&rows));
    lines
}
