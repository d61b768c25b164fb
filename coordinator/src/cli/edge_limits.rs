//! `tidepool instance edge-limits`.

use clap::Subcommand;
use reqwest::Method;

use super::{
    CommandFailed,
    client::{Client, segment},
    models::with_header,
    output::Output,
};
use crate::api::instances::edge_limits::{EdgeLimitsView, InstanceEdgeLimits};

/// What to do with what visitors may send.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it
    Show { name: String },
    /// Set it, all of it: what is not said is the default
    Set {
        name: String,
        /// The largest body of a request [default: 100 MiB]
        #[arg(long, value_name = "BYTES")]
        max_body_bytes: Option<u64>,
        /// At each edge; signed-in visitors and web hooks are counted apart [default: 100]
        #[arg(long, value_name = "N")]
        requests_per_second: Option<u32>,
        /// How many may come at once after a pause [default: 200]
        #[arg(long, value_name = "N")]
        burst: Option<u32>,
    },
    /// Back to the defaults
    Clear { name: String },
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        Command::Show { name } => {
            let limits: InstanceEdgeLimits = client.get(&path(&name)).await?;
            output.show(&limits, lines)
        }
        Command::Set {
            name,
            max_body_bytes,
            requests_per_second,
            burst,
        } => {
            let body = EdgeLimitsView {
                max_body_bytes,
                requests_per_second,
                request_burst: burst,
            };
            if body == EdgeLimitsView::default() {
                let detail = "no limit is given; `edge-limits clear` goes back to the defaults";
                return Err(CommandFailed::Usage(detail.to_owned()));
            }
            let request = client.request(Method::PUT, &path(&name)).json(&body);
            let limits: InstanceEdgeLimits = client.send(request).await?;
            output.show(&limits, lines)
        }
        Command::Clear { name } => {
            let request = client.request(Method::DELETE, &path(&name));
            client.send_only(request).await?;
            Ok(())
        }
    }
}

fn lines(limits: &InstanceEdgeLimits) -> Vec<String> {
    let number = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let row = |whose: &str, limits: &EdgeLimitsView| {
        vec![
            whose.to_owned(),
            number(limits.max_body_bytes),
            number(limits.requests_per_second.map(u64::from)),
            number(limits.request_burst.map(u64::from)),
        ]
    };
    let rows = [row("own", &limits.own), row("effective", &limits.effective)];
    let header = ["WHOSE", "BODY BYTES", "REQUESTS/S", "BURST"];
    with_header(&header, rows.into_iter())
}

fn path(name: &str) -> String {
    format!("/v1/instances/{}/edge_limits", segment(name))
}
