//! The way of a visitor: name, port, certificate, Traefik, edge.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use reqwest::{Client, ClientBuilder, Response, redirect::Policy, tls::TlsInfo};
use x509_parser::parse_x509_certificate;

use super::{Examination, Finding, Verdict};
use crate::{
    ambient::{Clock as _, SystemClock},
    causes::chain,
    edge::CHECK,
    serve::config::Config,
};

const PATIENCE: Duration = Duration::from_secs(5);
/// What the edge says of a name that is nobody's.
const EDGE_SAYS: &str = "urn:tidepool:edge:unknown-host";
/// A certificate that is not renewed by then will not be.
const RENEWED_BEFORE_S: i64 = 14 * 24 * 3600;

fn client() -> ClientBuilder {
    Client::builder()
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .redirect(Policy::none())
        .no_proxy()
}

/// The edge, asked as Traefik asks it.
pub(super) async fn edge(config: &Config, name: &str) -> Finding {
    let mut address = config.edge.listen;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    // Plain http, so this machine needs no root certificates for it.
    let asked = async {
        let client = client().tls_certs_only([]).build()?;
        let request = client
            .get(format!("http://{address}/"))
            .header("host", name);
        request.send().await
    };
    match asked.await {
        Ok(answer) => said("edge", answer, format!("answers on {address}")).await,
        Err(error) => Finding::wrong("edge", chain(&error)),
    }
}

/// Whether the edge answers Traefik's question who may pass.
pub(super) async fn sign_in(config: &Config, name: &str, examination: &Examination) -> Finding {
    let check = "sign-in";
    let port = config.edge.public_port();
    let url = format!("{}://{name}:{port}{CHECK}", config.edge.scheme);
    let asked = async {
        let builder = match examination.at {
            Some(address) => client().resolve(name, SocketAddr::new(address, port)),
            None => client(),
        };
        let client = knowing(builder, examination).build()?;
        client.get(&url).send().await?.text().await
    };
    match asked.await {
        Ok(body) if body.contains("urn:tidepool:edge:sign-in-works") => {
            Finding::fine(check, "the edge knows Traefik by its secret".to_owned())
        }
        Ok(body) if body.contains("urn:tidepool:edge:unknown-hop") => Finding::wrong(
            check,
            format!(
                "the edge does not know Traefik's secret: run `tidepool init traefik` again, and see that every coordinator has the same `{}`",
                config.traefik_secrets().display()
            ),
        ),
        Ok(_) => Finding::wrong(
            check,
            "Traefik does not ask the edge who may pass: run `tidepool init traefik` again"
                .to_owned(),
        ),
        Err(error) => Finding::wrong(check, chain(&error)),
    }
}

fn knowing(builder: ClientBuilder, examination: &Examination) -> ClientBuilder {
    match &examination.authority {
        Some(authority) => builder.add_root_certificate(authority.clone()),
        None => builder,
    }
}

/// What a visitor meets.
pub(super) async fn visitor(
    config: &Config,
    name: &str,
    examination: &Examination,
) -> Vec<Finding> {
    let port = config.edge.public_port();
    let (address, mut findings) = match examination.at {
        Some(address) => (address, Vec::new()),
        None => match resolved(name, port).await {
            Ok(address) => {
                let detail = format!("names below {} lead to {address}", config.edge.domain);
                (address, vec![Finding::fine("dns", detail)])
            }
            Err(finding) => return vec![finding],
        },
    };
    let builder = client()
        .tls_info(true)
        .resolve(name, SocketAddr::new(address, port));
    let builder = knowing(builder, examination);
    let url = format!("{}://{name}:{port}/", config.edge.scheme);
    let asked = async { builder.build()?.get(&url).send().await };
    match asked.await {
        Ok(answer) => {
            findings.extend(certificate(&answer));
            findings.push(said("visitor", answer, format!("{url} is answered by the edge")).await);
        }
        Err(error) => findings.push(Finding::wrong("visitor", chain(&error))),
    }
    findings
}

async fn resolved(name: &str, port: u16) -> Result<IpAddr, Finding> {
    match tokio::net::lookup_host((name, port)).await {
        Ok(mut found) => found
            .next()
            .map(|found| found.ip())
            .ok_or_else(|| Finding::wrong("dns", format!("`{name}` leads nowhere"))),
        Err(error) => Err(Finding::wrong("dns", format!("`{name}`: {error}"))),
    }
}

/// Whether an answer is the edge's.
async fn said(check: &str, answer: Response, fine: String) -> Finding {
    let status = answer.status();
    match answer.text().await {
        Ok(body) if body.contains(EDGE_SAYS) => Finding::fine(check, fine),
        Ok(_) => Finding::wrong(check, format!("answered {status}, and that was no edge")),
        Err(error) => Finding::wrong(check, chain(&error)),
    }
}

/// Until when the certificate is good; that it is of this name and of a known authority is known by now.
fn certificate(answer: &Response) -> Option<Finding> {
    let shown = answer.extensions().get::<TlsInfo>()?.peer_certificate()?;
    let Ok((_, certificate)) = parse_x509_certificate(shown) else {
        return Some(Finding::wrong("certificate", "cannot be read".to_owned()));
    };
    let until = certificate.validity().not_after;
    let left = until.timestamp() - SystemClock.now().0 / 1_000_000;
    let found = Finding::fine("certificate", format!("is good until {until}"));
    Some(Finding {
        verdict: if left < RENEWED_BEFORE_S {
            Verdict::Doubtful
        } else {
            Verdict::Fine
        },
        ..found
    })
}
