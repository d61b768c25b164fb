//! Channels whose plugin was baked in.

use serde_json::json;
use tidepool_agent::reload::{How, Outcome};
use tokio::time::{Duration, Instant, sleep};

use crate::bench::Bench;

const PATIENCE: Duration = Duration::from_mins(1);

/// OpenClaw takes the configuration of a channel whose plugin it lacks, and does nothing; so what is looked at is that
/// the channel hears, and refuses what Slack has not signed.
pub(crate) async fn a_channel_hears_once_it_is_configured(bench: &Bench) {
    let client = reqwest::Client::builder().timeout(PATIENCE).build();
    let client = client.expect("a client");
    let url = format!("http://{}/slack/events", bench.place.gateway);
    let hears = async || {
        let asked = client.post(&url).body("{}").send().await;
        asked.expect("an answer").status().as_u16()
    };
    // Of what nobody hears it says 404, or 403 to who is not on its own machine, as nginx is not for a container.
    let before = hears().await;
    assert!([403, 404].contains(&before), "{before}");
    let slack = json!({ "enabled": true, "mode": "http", "botToken": "xoxb-1-2-3", "signingSecret": "abc" });
    let outcome = bench
        .apply(&json!({ "channels": { "slack": slack } }))
        .await;
    assert!(
        matches!(outcome, Outcome::Applied { how: How::Hot, .. }),
        "{outcome:?}"
    );
    let deadline = Instant::now() + PATIENCE;
    while hears().await != 401 {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            bench.runtime.log().tail(20)
        );
        sleep(Duration::from_millis(200)).await;
    }
    bench.apply(&json!({})).await;
}
