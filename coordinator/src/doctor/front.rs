//! The way of a visitor: name, port, certificate, Traefik, edge.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use http::header::LOCATION;
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

/// What a visitor meets, at every address that the name leads to.
pub(super) async fn visitor(
    config: &Config,
    name: &str,
    examination: &Examination,
) -> Vec<Finding> {
    let port = config.edge.public_port();
    let (addresses, mut findings) = match examination.at {
        Some(address) => (vec![address], Vec::new()),
        None => match resolved(name, port).await {
            Ok(addresses) => {
                let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                let (domain, all) = (&config.edge.domain, all.join(", "));
                let detail = format!("names below {domain} lead to {all}");
                (addresses, vec![Finding::fine("dns", detail)])
            }
            Err(finding) => return vec![finding],
        },
    };
    for address in addresses {
        findings.extend(visit(config, name, examination, address).await);
        if config.edge.is_https() {
            findings.push(plain(name, SocketAddr::new(address, examination.http_port)).await);
        }
    }
    findings
}

/// What a visitor meets at one of them.
async fn visit(
    config: &Config,
    name: &str,
    examination: &Examination,
    address: IpAddr,
) -> Vec<Finding> {
    let port = config.edge.public_port();
    let builder = client()
        .tls_info(true)
        .resolve(name, SocketAddr::new(address, port));
    let builder = knowing(builder, examination);
    let url = format!("{}://{name}:{port}/", config.edge.scheme);
    let asked = async { builder.build()?.get(&url).send().await };
    match asked.await {
        Ok(answer) => {
            let certificate = certificate(&answer, address);
            let fine = format!("{url} is answered by the edge, at {address}");
            let said = said("visitor", answer, fine).await;
            certificate.into_iter().chain([said]).collect()
        }
        Err(error) => vec![unreached("visitor", address, &error)],
    }
}

/// Whether who comes by plain http is sent to https.
async fn plain(name: &str, address: SocketAddr) -> Finding {
    const CHECK: &str = "http";
    let asked = async {
        let client = client().tls_certs_only([]).resolve(name, address).build()?;
        client
            .get(format!("http://{name}:{}/", address.port()))
            .send()
            .await
    };
    let answer = match asked.await {
        Ok(answer) => answer,
        Err(error) => return unreached(CHECK, address.ip(), &error),
    };
    let to = answer.headers().get(LOCATION);
    let to = to.and_then(|to| to.to_str().ok()).unwrap_or_default();
    if answer.status().is_redirection() && to.starts_with("https://") {
        Finding::fine(CHECK, format!("{address} sends visitors to https"))
    } else {
        let status = answer.status();
        Finding::wrong(
            CHECK,
            format!("{address} answered {status}, and should send visitors to https"),
        )
    }
}

/// A machine without IPv6 cannot say anything about an address of it.
fn unreached(check: &str, address: IpAddr, error: &reqwest::Error) -> Finding {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    let is_no_way = causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::NetworkUnreachable);
    let found = Finding::wrong(check, format!("at {address}: {}", chain(error)));
    if is_no_way && address.is_ipv6() {
        Finding {
            verdict: Verdict::Doubtful,
            ..found
        }
    } else {
        found
    }
}

/// All addresses of a name, each once.
async fn resolved(name: &str, port: u16) -> Result<Vec<IpAddr>, Finding> {
    match tokio::net::lookup_host((name, port)).await {
        Ok(found) => {
            let addresses: BTreeSet<IpAddr> = found.map(|found| found.ip()).collect();
            if addresses.is_empty() {
                return Err(Finding::wrong("dns", format!("`{name}` leads nowhere")));
            }
            Ok(addresses.into_iter().collect())
        }
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
fn certificate(answer: &Response, address: IpAddr) -> Option<Finding> {
    let shown = answer.extensions().get::<TlsInfo>()?.peer_certificate()?;
    let Ok((_, certificate)) = parse_x509_certificate(shown) else {
        return Some(Finding::wrong("certificate", "cannot be read".to_owned()));
    };
    let until = certificate.validity().not_after;
    let left = until.timestamp() - SystemClock.now().0 / 1_000_000;
    let found = Finding::fine(
        "certificate",
        format!("at {address}, is good until {until}"),
    );
    Some(Finding {
        verdict: if left < RENEWED_BEFORE_S {
            Verdict::Doubtful
        } else {
            Verdict::Fine
        },
        ..found
    })
}
