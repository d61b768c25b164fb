//! What is shown to Prometheus.

use std::net::{Ipv4Addr, SocketAddr};

use tidepool_proxy::metrics;

use super::{Rig, chat, rig};

#[tokio::test]
async fn attempts_are_counted_by_provider_and_say_nothing_of_customers() {
    let exporter = metrics::install().unwrap();
    let rig = Rig::start().await;
    rig.post("/v1/chat/completions", &chat("default", true))
        .await;
    rig.post("/v1/chat/completions", &chat("nothing", true))
        .await;
    rig.only_row().await;
    let shown = exporter.render();
    for line in [
        r#"tidepool_proxy_attempts_total{provider="main",dialect="chat",payer="managed",outcome="completed"}"#,
        r#"tidepool_proxy_tokens_total{provider="main",kind="cache_read"} 40"#,
        r#"tidepool_proxy_cost_microcents_total{provider="main",payer="managed"} 1620"#,
        r#"tidepool_proxy_refused_total{code="model_not_found"}"#,
        r#"tidepool_proxy_first_token_seconds_count{provider="main"}"#,
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    for absent in [rig::INSTANCE, "gpt", "nothing", "127.", "sk-"] {
        assert!(!shown.contains(absent), "{absent} is in\n{shown}");
    }
}

#[tokio::test]
async fn metrics_are_for_this_machine_alone() {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    assert!(metrics::listen(everywhere).await.is_err());
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    assert!(metrics::listen(here).await.is_ok());
}
