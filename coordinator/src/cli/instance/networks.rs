//! `tidepool instance networks`.

use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::path;
use crate::{
    api::instances::view::InstanceView,
    cli::{CommandFailed, client::Client, output::Output},
};

/// Which private networks a gateway may reach.
#[derive(Debug, Args)]
pub struct Options {
    name: String,
    /// All of them, such as 10.20.0.0/16: what is not said is taken away
    #[arg(value_name = "CIDR", conflicts_with = "none")]
    networks: Vec<String>,
    /// Take all of them away
    #[arg(long)]
    none: bool,
}

pub(super) async fn run(
    options: Options,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let Options {
        name,
        networks,
        none,
    } = options;
    let view: InstanceView = if networks.is_empty() && !none {
        client.get(&path(&name, "")).await?
    } else {
        let request = client.request(Method::PUT, &path(&name, "/networks"));
        let request = request.json(&json!({ "networks": networks }));
        client.send(request).await?
    };
    output.show(&view, |view| {
        vec![match view.networks.as_slice() {
            [] => format!("{} may reach no private network", view.name),
            networks => format!("{} may reach {}", view.name, networks.join(", ")),
        }]
    })
}
