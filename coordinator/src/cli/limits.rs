//! `tidepool limit`: what customers may use of models.

use clap::{Args, Subcommand};
use reqwest::Method;

use super::{
    CommandFailed,
    client::{Client, segment},
    models::{dollars, with_header},
    output::Output,
};
use crate::api::{
    instances::limits::InstanceLimits,
    limits::{LimitsList, LimitsView},
};

/// A hundred-millionth of a dollar.
const MICROCENTS_PLACES: usize = 8;

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the limits of tiers, and of instances that have their own
    List,
    /// Show what counts for an instance, and what it has spent
    Show { instance: String },
    /// Set limits, all of them: what is not said is not limited (an instance: as its tier)
    Set {
        #[command(flatten)]
        subject: Subject,
        #[arg(long, value_name = "N")]
        requests_per_minute: Option<u64>,
        /// Read and written, caches included
        #[arg(long, value_name = "N")]
        tokens_per_minute: Option<u64>,
        /// On the operator's keys, UTC
        #[arg(long, value_name = "USD", value_parser = microcents)]
        usd_per_day: Option<u64>,
        /// The same in a calendar month
        #[arg(long, value_name = "USD", value_parser = microcents)]
        usd_per_month: Option<u64>,
    },
    /// Remove limits
    Clear {
        #[command(flatten)]
        subject: Subject,
    },
}

/// Whose limits.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Subject {
    #[arg(long)]
    tier: Option<String>,
    /// Id or name
    #[arg(long)]
    instance: Option<String>,
}

impl Subject {
    fn path(&self) -> String {
        match (&self.tier, &self.instance) {
            (Some(tier), _) => format!("/v1/limits/tiers/{}", segment(tier)),
            (None, instance) => of_instance(instance.as_deref().unwrap_or_default()),
        }
    }
}

fn of_instance(instance: &str) -> String {
    format!("/v1/instances/{}/limits", segment(instance))
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        Command::List => {
            let all: LimitsList = client.get("/v1/limits").await?;
            output.show(&all, |all| {
                let rows = all.data.iter().map(|one| row(&one.subject, &one.limits));
                with_header(&HEADER, rows)
            })
        }
        Command::Show { instance } => {
            let limits: InstanceLimits = client.get(&of_instance(&instance)).await?;
            output.show(&limits, instance_lines)
        }
        Command::Set {
            subject,
            requests_per_minute,
            tokens_per_minute,
            usd_per_day,
            usd_per_month,
        } => {
            let limits = LimitsView {
                requests_per_minute,
                tokens_per_minute,
                day_microcents: usd_per_day,
                month_microcents: usd_per_month,
            };
            if limits == LimitsView::default() {
                let detail = "no limit is given; `limit clear` removes them";
                return Err(CommandFailed::Usage(detail.to_owned()));
            }
            let request = client.request(Method::PUT, &subject.path()).json(&limits);
            let answer: serde_json::Value = client.send(request).await?;
            output.show(&answer, |_| {
                let name = subject.tier.as_ref().or(subject.instance.as_ref());
                let name = name.map_or("", String::as_str);
                with_header(&HEADER, std::iter::once(row(name, &limits)))
            })
        }
        Command::Clear { subject } => {
            let request = client.request(Method::DELETE, &subject.path());
            client.send_only(request).await?;
            Ok(())
        }
    }
}

const HEADER: [&str; 5] = [
    "WHOSE",
    "REQUESTS/MIN",
    "TOKENS/MIN",
    "USD/DAY",
    "USD/MONTH",
];

fn row(whose: &str, limits: &LimitsView) -> Vec<String> {
    let number =
        |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    let money = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), dollars);
    vec![
        whose.to_owned(),
        number(limits.requests_per_minute),
        number(limits.tokens_per_minute),
        money(limits.day_microcents),
        money(limits.month_microcents),
    ]
}

fn instance_lines(limits: &InstanceLimits) -> Vec<String> {
    let spent = vec![
        "spent".to_owned(),
        String::new(),
        String::new(),
        dollars(limits.spent_day_microcents),
        dollars(limits.spent_month_microcents),
    ];
    let rows = [
        row("its own", &limits.own),
        row("counts", &limits.effective),
        spent,
    ];
    with_header(&HEADER, rows.into_iter())
}

/// Dollars as people write them; no floating point, which cannot hold a cent.
fn microcents(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > MICROCENTS_PLACES {
        return Err("dollars, such as 2.50, with at most eight places".to_owned());
    }
    format!("{whole}{part:0<MICROCENTS_PLACES$}")
        .parse()
        .map_err(|_| "too many dollars".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        assert_eq!(microcents("2.50"), Ok(250_000_000));
        assert_eq!(microcents("0.00000001"), Ok(1));
        assert_eq!(microcents("7"), Ok(700_000_000));
        for wrong in [
            "",
            ".5",
            "-1",
            "1e3",
            "1.000000001",
            "1,5",
            "999999999999999",
        ] {
            assert!(microcents(wrong).is_err(), "{wrong}");
        }
    }
}
