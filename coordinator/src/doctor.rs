//! `tidepool doctor`: looks at a deployment the way its parts and its visitors do, and changes nothing but
//! what opening the store brings up to date.

use std::net::IpAddr;

use reqwest::Certificate;
use serde::Serialize;

use crate::{ambient::Chance, causes::chain, files, routes, serve::config::Config, store::Store};

mod doors;
mod front;

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Fine,
    /// Works, and should be otherwise.
    Doubtful,
    Wrong,
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: String,
    pub verdict: Verdict,
    /// For people; holds nothing secret.
    pub detail: String,
}

impl Finding {
    pub(crate) fn fine(check: &str, detail: String) -> Self {
        Self {
            check: check.to_owned(),
            verdict: Verdict::Fine,
            detail,
        }
    }

    pub(crate) fn wrong(check: &str, detail: String) -> Self {
        Self {
            verdict: Verdict::Wrong,
            ..Self::fine(check, detail)
        }
    }
}

/// How to look.
#[derive(Debug)]
pub struct Examination {
    /// Where plain http is answered.
    pub http_port: u16,
    /// Where visitors come to, whatever DNS says.
    pub at: Option<IpAddr>,
    /// An authority that this machine does not know.
    pub authority: Option<Certificate>,
}

/// Examines a deployment.
pub async fn examine(
    config: &Config,
    store: &dyn Store,
    examination: &Examination,
    chance: &Chance,
) -> Vec<Finding> {
    // Nobody's name, so that the answer is the edge's own.
    let label: String = chance
        .secret()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let name = format!("doctor-{label}.{}", config.edge.domain);
    let mut findings = vec![front::edge(config, &name).await];
    findings.extend(front::visitor(config, &name, examination).await);
    if config.edge.redis.is_some() && findings.iter().all(|it| it.verdict != Verdict::Wrong) {
        findings.push(front::sign_in(config, &name, examination).await);
    }
    match config.routes() {
        Ok(Some(settings)) => {
            findings.push(doors::traefik(config));
            findings.extend(routes::inspect(&settings, store).await);
        }
        Ok(None) => {}
        Err(error) => findings.push(Finding::wrong("routes", chain(&*error))),
    }
    findings.push(doors::servers(store).await);
    findings.extend(doors::handshakes(config, store).await);
    findings.push(files(config));
    findings
}

/// Whether a coordinator started as this program was could have as many files open as it has visitors.
fn files(config: &Config) -> Finding {
    const CHECK: &str = "open files";
    let (most, needed) = (files::most(), files::needed(config.edge_connections()));
    let found = Finding::fine(
        CHECK,
        format!("{most} may be open here, {needed} are needed"),
    );
    Finding {
        verdict: if most < needed {
            Verdict::Doubtful
        } else {
            Verdict::Fine
        },
        ..found
    }
}
