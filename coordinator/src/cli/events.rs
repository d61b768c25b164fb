//! `tidepool events`: the log, and on demand its live end.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use reqwest::Method;
use tokio::time::sleep;

use super::{
    CommandFailed,
    client::{CallFailed, Client, segment},
    output::Output,
};
use crate::api::events::{EventView, Events};

/// Before following again after the stream broke.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest line of the stream; an event is far smaller.
const MAX_LINE: usize = 1024 * 1024;

/// Which events to show.
#[derive(Debug, Args)]
pub struct Options {
    /// Go on showing new events until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Begin after this event
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
}

pub(super) async fn run(
    options: &Options,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let mut last = options.after.clone();
    loop {
        let after = last.as_deref().map(|id| format!("&after={}", segment(id)));
        let path = format!("/v1/events?limit=200{}", after.unwrap_or_default());
        let events: Events = client.get(&path).await?;
        for event in &events.data {
            show(event, output)?;
            last = Some(event.id.clone());
        }
        if !events.page.has_more {
            break;
        }
    }
    if options.follow {
        follow(last, client, output).await
    } else {
        Ok(())
    }
}

/// Follows for ever; a stream that breaks is taken up where it was, a refusal ends it.
async fn follow(
    mut last: Option<String>,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    loop {
        let mut request = client.request(Method::GET, "/v1/events/stream");
        if let Some(id) = &last {
            request = request.header("last-event-id", id);
        }
        match client.answered(request).await {
            Ok(response) => read(response, &mut last, output).await?,
            Err(error @ CallFailed::Refused(_)) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the event stream broke; trying again"),
        }
        sleep(PAUSE).await;
    }
}

async fn read(
    response: reqwest::Response,
    last: &mut Option<String>,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let mut pieces = response.bytes_stream();
    let mut line = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        for byte in piece {
            if byte != b'\n' {
                line.push(byte);
            } else if let Some(event) = data(&line) {
                show(&event, output)?;
                *last = Some(event.id);
                line.clear();
            } else {
                line.clear();
            }
        }
        if line.len() > MAX_LINE {
            return Err(CallFailed::Garbled("an endless line".to_owned()).into());
        }
    }
    Ok(())
}

/// The event in a line of the stream. Ours are one line each, and hold their own id.
fn data(line: &[u8]) -> Option<EventView> {
    serde_json::from_slice(line.strip_prefix(b"data:")?).ok()
}

fn show(event: &EventView, output: &mut Output) -> Result<(), CommandFailed> {
    if output.wants_json() {
        return output.json_line(event);
    }
    let about = event.instance_id.as_deref().or(event.server_id.as_deref());
    let (at, id, kind) = (&event.at, &event.id, &event.kind);
    output.line(&format!(
        "{at}  {id}  {kind}  {}  {}",
        about.unwrap_or("-"),
        event.data
    ))
}
