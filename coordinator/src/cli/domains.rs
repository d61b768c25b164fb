//! `tidepool instance domain`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;

use super::{
    CommandFailed,
    client::{Client, segment},
    models::with_header,
    output::Output,
};
use crate::api::instances::domains::{AddDomain, DomainList, DomainView};

/// What to do with a customer's own host names.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add one; prints the records that its owner puts into DNS
    Add { name: String, domain: String },
    /// List them
    List { name: String },
    /// Have one looked at now; one that was given up begins anew
    Check { name: String, domain: String },
    /// Remove one: it leads nowhere from now on
    Remove { name: String, domain: String },
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        Command::Add { name, domain } => {
            let body = AddDomain { domain };
            let request = client.request(Method::POST, &path(&name)).json(&body);
            let view: DomainView = client.send(request).await?;
            output.show(&view, added)
        }
        Command::List { name } => {
            let list: DomainList = client.get(&path(&name)).await?;
            output.show(&list, |list| {
                let rows = list.data.iter().map(row);
                with_header(&["DOMAIN", "STATE", "CERTIFICATE UNTIL", "PROBLEM"], rows)
            })
        }
        Command::Check { name, domain } => {
            let path = format!("{}/check", of(&name, &domain));
            let view: DomainView = client.post(&path, &json!({})).await?;
            output.show(&view, |view| {
                vec![format!("{} is looked at now", view.domain)]
            })
        }
        Command::Remove { name, domain } => {
            let request = client.request(Method::DELETE, &of(&name, &domain));
            client.send_only(request).await?;
            output.show(&json!({ "removed": domain }), |_| {
                vec![format!("{domain} leads nowhere now")]
            })
        }
    }
}

fn added(view: &DomainView) -> Vec<String> {
    let mut lines = vec![format!(
        "put these into DNS; then {} is reached at {}",
        view.domain, view.url
    )];
    let records = view.records.iter().map(|record| {
        vec![
            record.kind.clone(),
            record.name.clone(),
            record.value.clone(),
        ]
    });
    lines.extend(with_header(&["TYPE", "NAME", "VALUE"], records));
    lines
}

fn row(view: &DomainView) -> Vec<String> {
    let dash = || "-".to_owned();
    let until = view.certificate_expires_at.clone();
    vec![
        view.domain.clone(),
        view.state.word().to_owned(),
        until.unwrap_or_else(dash),
        view.problem.clone().unwrap_or_else(dash),
    ]
}

fn path(name: &str) -> String {
    format!("/v1/instances/{}/domains", segment(name))
}

fn of(name: &str, domain: &str) -> String {
    format!("{}/{}", path(name), segment(domain))
}
