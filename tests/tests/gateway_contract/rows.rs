//! The reload table against the gateway: one small, legal change a row, and what it really costs.

use serde_json::{Value, json};
use tidepool_agent::{
    openclaw::apply_patch,
    reload::{How, Outcome, Way, restart_by_signal},
};

use crate::bench::{Bench, patient};

/// A key, a change of it that a customer may make, and what the table must say of it.
pub(crate) type Row = (&'static str, Value, Way);

/// One row of each kind of effect: none, hooks, plugins, and a restart for an unlisted key.
pub(crate) fn some() -> Vec<Row> {
    let few = ["/messages", "/hooks", "/plugins", "/diagnostics/otel"];
    every()
        .into_iter()
        .filter(|(key, _, _)| few.contains(key))
        .collect()
}

/// Every row that a customer can reach; restarts at the end.
pub(crate) fn every() -> Vec<Row> {
    let mine = json!({
        "baseUrl": "http://127.0.0.1:9/v1", "api": "openai-completions",
        "models": [{"id": "m", "name": "M", "input": ["text"], "contextWindow": 8000, "maxTokens": 512}],
    });
    let hot = [
        ("/acp", json!({"acp": {"enabled": false}})),
        (
            "/agents",
            json!({"agents": {"entries": {"main": {"identity": {"name": "Row"}}}}}),
        ),
        (
            "/approvals",
            json!({"approvals": {"exec": {"enabled": false}}}),
        ),
        ("/auth", json!({"auth": {"order": {"mine": []}}})),
        ("/bindings", json!({"bindings": []})),
        (
            "/channels",
            json!({"channels": {"telegram": {"enabled": false, "dmPolicy": "pairing", "groupPolicy": "allowlist"}}}),
        ),
        ("/commands", json!({"commands": {"text": true}})),
        ("/cron", json!({"cron": {"enabled": true}})),
        (
            "/diagnostics/flags",
            json!({"diagnostics": {"flags": ["telegram.http"]}}),
        ),
        (
            "/hooks",
            json!({"hooks": {"enabled": true, "token": "token-of-the-reload-table"}}),
        ),
        (
            "/logging",
            json!({"logging": {"redactPatterns": ["occurs-nowhere"]}}),
        ),
        ("/mcp", json!({"mcp": {"sessionIdleTtlMs": 60_000}})),
        ("/memory/citations", json!({"memory": {"citations": "off"}})),
        ("/messages", json!({"messages": {"responsePrefix": "row"}})),
        ("/models", json!({"models": {"providers": {"mine": mine}}})),
        (
            "/plugins",
            json!({"plugins": {"entries": {"memory-core": {"config": {"dreaming": {"enabled": true}}}}}}),
        ),
        (
            "/session",
            json!({"session": {"dmScope": "per-channel-peer"}}),
        ),
        (
            "/skills",
            json!({"skills": {"entries": {"github": {"enabled": false}}}}),
        ),
        ("/talk", json!({"talk": {"interruptOnSpeech": true}})),
        ("/tools", json!({"tools": {"deny": ["browser"]}})),
        ("/ui", json!({"ui": {"seamColor": "#336699"}})),
    ];
    let restart = [
        (
            "/diagnostics/otel",
            json!({"diagnostics": {"otel": {"enabled": false}}}),
        ),
        ("/mcp/apps", json!({"mcp": {"apps": {"enabled": true}}})),
    ];
    let of = |way| move |(key, patch)| (key, patch, way);
    hot.map(of(Way::Hot))
        .into_iter()
        .chain(restart.map(of(Way::Restart)))
        .collect()
}

/// Makes the changes one after the other; each must cost what the table says.
pub(crate) async fn the_gateway_does_what_the_table_says(bench: &Bench, rows: Vec<Row>) {
    let mut wanted = json!({});
    let mut wrong = Vec::new();
    for (key, patch, way) in rows {
        let before = bench.on_disk();
        let mut log = bench.log_end();
        apply_patch(&mut wanted, &patch);
        let outcome = bench.apply(&wanted).await;
        let tabled = bench.table.way(&before, &bench.on_disk());
        let how = match (&outcome, way) {
            (Outcome::Applied { how: How::Hot, .. }, Way::Hot)
            | (
                Outcome::Applied {
                    how: How::Restarted,
                    ..
                },
                Way::Restart,
            ) => tabled == way,
            _ => false,
        };
        if !how {
            let said = bench.said_since(&mut log);
            wrong.push(format!(
                "{key}: tabled {tabled:?}, wanted {way:?}, {outcome:?}, {said:?}"
            ));
        }
        if matches!(outcome, Outcome::RolledBack { .. }) {
            // Or every later row would be refused with it.
            wanted = json!({});
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A customer may turn the console's words off; a restart is seen to its end all the same.
pub(crate) async fn a_gateway_that_prints_nothing_is_restarted_by_signal_too(bench: &Bench) {
    let quiet = json!({"logging": {"consoleLevel": "silent"}});
    let outcome = bench.apply(&quiet).await;
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    let signal = bench.table.restart_signal();
    let restarted =
        restart_by_signal(bench.runtime.as_ref(), &bench.gateway, signal, patient()).await;
    assert!(restarted, "not seen to its end");
}
