//! `tidepool provider`, `tidepool model`, `tidepool usage`.

use std::io::Read as _;

use clap::{Args, Subcommand};
use reqwest::Method;

use super::{
    CommandFailed,
    client::{Client, segment},
    output::{Output, table},
};
use crate::api::{
    models::{ModelView, Models, PutModel, TargetView},
    providers::{ProviderView, Providers, PutProvider},
    usage::{RecordPage, UsageView},
};

/// Records of one call.
const RECORDS_AT_ONCE: u32 = 1000;
/// A longer one is none.
const KEY_MAX_BYTES: u64 = 4096;

/// What to do with providers of models.
#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// List providers
    List,
    /// Make or change a provider
    Set {
        name: String,
        /// openai, anthropic, gemini, openrouter, mistral, deepseek, xai, groq or compatible
        #[arg(long)]
        kind: String,
        /// Without /v1 [default: the kind's own]
        #[arg(long)]
        base_url: Option<String>,
        /// Read the key from standard input; without, the one that is there stays
        #[arg(long)]
        key_stdin: bool,
    },
    /// Delete a provider
    Delete { name: String },
}

/// What to do with the names of models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List the names that customers may ask for, and who serves them
    List,
    /// Give a name a meaning; `default` is what a new instance asks for
    Set {
        tier: String,
        alias: String,
        /// In order of preference; which is the first is drawn by weight (1 if not said; 0: only when
        /// others fail)
        #[arg(
            long = "target",
            required = true,
            value_name = "PROVIDER/MODEL[=WEIGHT]"
        )]
        targets: Vec<String>,
    },
    /// Delete a name
    Delete { tier: String, alias: String },
}

/// Whose usage.
#[derive(Debug, Args)]
pub struct UsageOptions {
    /// Id or name of an instance
    instance: String,
    /// Today and the days before
    #[arg(long, default_value_t = 30)]
    days: u32,
}

/// Which records.
#[derive(Debug, Args)]
pub struct RecordOptions {
    /// Go on behind this cursor, which the last line of the run before told
    #[arg(long)]
    after: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1000)]
    limit: u32,
}

pub(super) async fn provider(
    command: ProviderCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        ProviderCommand::List => {
            let providers: Providers = client.get("/v1/providers").await?;
            output.show(&providers, |providers| provider_lines(&providers.data))
        }
        ProviderCommand::Set {
            name,
            kind,
            base_url,
            key_stdin,
        } => {
            let key = key_stdin.then(key_from_stdin).transpose()?;
            let body = PutProvider {
                kind,
                base_url,
                key,
            };
            let path = format!("/v1/providers/{}", segment(&name));
            let request = client.request(Method::PUT, &path).json(&body);
            let provider: ProviderView = client.send(request).await?;
            output.show(&provider, |provider| {
                provider_lines(std::slice::from_ref(provider))
            })
        }
        ProviderCommand::Delete { name } => {
            let path = format!("/v1/providers/{}", segment(&name));
            client
                .send_only(client.request(Method::DELETE, &path))
                .await?;
            Ok(())
        }
    }
}

pub(super) async fn model(
    command: ModelCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let path = |tier: &str, alias: &str| format!("/v1/models/{}/{}", segment(tier), segment(alias));
    match command {
        ModelCommand::List => {
            let models: Models = client.get("/v1/models").await?;
            output.show(&models, |models| model_lines(&models.data))
        }
        ModelCommand::Set {
            tier,
            alias,
            targets,
        } => {
            let targets = targets
                .iter()
                .map(|text| target(text))
                .collect::<Result<_, _>>()?;
            let request = client.request(Method::PUT, &path(&tier, &alias));
            let model: ModelView = client.send(request.json(&PutModel { targets })).await?;
            output.show(&model, |model| model_lines(std::slice::from_ref(model)))
        }
        ModelCommand::Delete { tier, alias } => {
            let request = client.request(Method::DELETE, &path(&tier, &alias));
            client.send_only(request).await?;
            Ok(())
        }
    }
}

pub(super) async fn usage(
    options: &UsageOptions,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let path = format!(
        "/v1/instances/{}/usage?days={}",
        segment(&options.instance),
        options.days
    );
    let usage: UsageView = client.get(&path).await?;
    output.show(&usage, usage_lines)
}

/// One record a line, whatever `--json` says, and at last the cursor to go on from.
pub(super) async fn records(
    options: &RecordOptions,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let mut left = options.limit;
    let mut after = options.after.clone();
    while left > 0 {
        let at_once = left.min(RECORDS_AT_ONCE);
        let mut path = format!("/v1/usage/records?limit={at_once}");
        if let Some(after) = &after {
            path.push_str("&after=");
            path.push_str(&segment(after));
        }
        let page: RecordPage = client.get(&path).await?;
        for record in &page.data {
            output.json_line(record)?;
        }
        after = page.next_cursor;
        let read = u32::try_from(page.data.len()).unwrap_or(u32::MAX);
        if read < at_once {
            break;
        }
        left = left.saturating_sub(read);
    }
    output.json_line(&serde_json::json!({ "next_cursor": after }))
}

/// Not an argument: those are shown to everybody on the machine.
pub(super) fn key_from_stdin() -> Result<String, CommandFailed> {
    let mut key = String::new();
    std::io::stdin()
        .take(KEY_MAX_BYTES)
        .read_to_string(&mut key)?;
    let key = key.trim();
    if key.is_empty() {
        return Err(CommandFailed::Usage("no key on standard input".to_owned()));
    }
    Ok(key.to_owned())
}

fn target(text: &str) -> Result<TargetView, CommandFailed> {
    let wrong = || {
        CommandFailed::Usage(format!(
            "`{text}` is not of the form PROVIDER/MODEL or PROVIDER/MODEL=WEIGHT"
        ))
    };
    let (provider, model) = text.split_once('/').ok_or_else(wrong)?;
    let (model, weight) = match model.rsplit_once('=') {
        Some((model, weight)) => (model, weight.parse().map_err(|_| wrong())?),
        None => (model, 1),
    };
    Ok(TargetView {
        provider: provider.to_owned(),
        model: model.to_owned(),
        weight,
    })
}

pub(super) fn with_header(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let header = header.iter().map(|&cell| cell.to_owned()).collect();
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    table(&rows)
}

fn provider_lines(providers: &[ProviderView]) -> Vec<String> {
    let rows = providers.iter().map(|provider| {
        vec![
            provider.name.clone(),
            provider.kind.clone(),
            if provider.has_key { "yes" } else { "no" }.to_owned(),
            provider.base_url.clone(),
        ]
    });
    with_header(&["NAME", "KIND", "KEY", "BASE URL"], rows)
}

fn model_lines(models: &[ModelView]) -> Vec<String> {
    let rows = models.iter().map(|model| {
        let targets = model.targets.iter();
        let targets: Vec<_> = targets
            .map(|target| {
                let name = format!("{}/{}", target.provider, target.model);
                match target.weight {
                    1 => name,
                    weight => format!("{name}={weight}"),
                }
            })
            .collect();
        vec![model.tier.clone(), model.alias.clone(), targets.join(", ")]
    });
    with_header(&["TIER", "NAME", "SERVED BY"], rows)
}

fn usage_lines(usage: &UsageView) -> Vec<String> {
    let header = [
        "DAY", "MODEL", "PAYER", "REQUESTS", "INPUT", "CACHED", "WRITTEN", "OUTPUT", "USD",
    ];
    let rows = usage.data.iter().map(|row| {
        vec![
            row.day.clone(),
            format!("{}/{}", row.provider, row.model),
            row.payer.clone(),
            row.requests.to_string(),
            row.input_tokens.to_string(),
            row.cache_read_tokens.to_string(),
            row.cache_write_tokens.to_string(),
            row.output_tokens.to_string(),
            dollars(row.cost_microcents),
        ]
    });
    with_header(&header, rows)
}

pub(super) fn dollars(microcents: u64) -> String {
    format!(
        "{}.{:08}",
        microcents / 100_000_000,
        microcents % 100_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_microcent_is_the_eighth_place_of_a_dollar() {
        assert_eq!(dollars(1), "0.00000001");
        assert_eq!(dollars(1_234_567_890), "12.34567890");
    }

    #[test]
    fn a_target_is_a_provider_and_whatever_it_calls_the_model() {
        let target = target("router/anthropic/claude-haiku-4.5").unwrap();
        assert_eq!(
            (target.provider.as_str(), target.model.as_str()),
            ("router", "anthropic/claude-haiku-4.5")
        );
        assert_eq!(target.weight, 1);
        let heavy = super::target("main/gpt-4o=9").unwrap();
        assert_eq!((heavy.model.as_str(), heavy.weight), ("gpt-4o", 9));
        for wrong in ["gpt-4o", "main/gpt-4o=often", "main/gpt-4o=-1"] {
            assert!(super::target(wrong).is_err(), "{wrong}");
        }
    }
}
