//! The way to servers: Traefik's certificate for it, servers that are still reached in clear, and whether the others let
//! an edge in.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tidepool_certs::{
    authority::Authority,
    door::{Credential, name_of},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use x509_parser::parse_x509_certificate;

use super::{Finding, Verdict};
use crate::{
    ambient::{Clock as _, SystemClock},
    causes::chain,
    model::{Door, Upstream},
    serve::config::Config,
    store::Store,
};

/// Whoever renews it by hand is told a month before its end.
const RENEWED_BEFORE_S: i64 = 30 * 24 * 3600;

/// The certificate that `init traefik` made last.
pub(super) fn traefik(config: &Config) -> Finding {
    const CHECK: &str = "traefik's certificate";
    let path = config.traefik_certificate();
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(error) => {
            let path = path.display();
            let detail = format!("`{path}`: {error}; run `tidepool init traefik`");
            return Finding::wrong(CHECK, detail);
        }
    };
    let certificate = CertificateDer::from_pem_slice(&pem);
    let ends = certificate.ok().and_then(|certificate| {
        let (_, parsed) = parse_x509_certificate(&certificate).ok()?;
        Some(parsed.validity().not_after)
    });
    let Some(ends) = ends else {
        return Finding::wrong(CHECK, format!("`{}` cannot be read", path.display()));
    };
    let verdict = match ends.timestamp() - SystemClock.now().0 / 1_000_000 {
        ..=0 => Verdict::Wrong,
        1..RENEWED_BEFORE_S => Verdict::Doubtful,
        RENEWED_BEFORE_S.. => Verdict::Fine,
    };
    Finding {
        verdict,
        ..Finding::fine(CHECK, format!("lets it to servers until {ends}"))
    }
}

/// How many servers have an agent of before there were doors.
pub(super) async fn servers(store: &dyn Store) -> Finding {
    const CHECK: &str = "servers";
    let found = match store.destinations().await {
        Ok(found) => found,
        Err(error) => return Finding::wrong(CHECK, chain(&error)),
    };
    let open = found
        .iter()
        .filter(|to| to.upstream.door == Door::Open)
        .count();
    match open {
        0 => Finding::fine(CHECK, format!("{} reached by TLS", found.len())),
        _ => Finding {
            verdict: Verdict::Doubtful,
            ..Finding::fine(CHECK, format!("{open} of {} reached in clear", found.len()))
        },
    }
}

/// Servers that are tried: what is wrong with the way to all of them shows at a few.
const TRIED: usize = 3;
const PATIENCE: Duration = Duration::from_secs(5);

/// Comes to the doors of a few servers that customers have, as an edge does.
pub(super) async fn handshakes(config: &Config, store: &dyn Store) -> Option<Finding> {
    const CHECK: &str = "doors";
    // The check before this one tells.
    let found = store.destinations().await.ok()?;
    let of_customers = found
        .iter()
        .filter(|to| to.upstream.door == Door::Mutual && !to.hosts.is_empty());
    let tried: Vec<_> = of_customers.take(TRIED).map(|to| to.upstream).collect();
    if tried.is_empty() {
        return None;
    }
    let doubtful = |detail| Finding {
        verdict: Verdict::Doubtful,
        ..Finding::fine(CHECK, detail)
    };
    let connector = match connector(config) {
        Ok(Some(connector)) => connector,
        Ok(None) => {
            let detail = "not tried: there is no authority here, as on a coordinator's machine";
            return Some(doubtful(detail.to_owned()));
        }
        Err(error) => return Some(Finding::wrong(CHECK, chain(&*error))),
    };
    let mut refusals = Vec::new();
    for server in &tried {
        let trying = timeout(
            PATIENCE,
            knock(&connector, *server, config.edge.server_port),
        );
        let refusal = match trying.await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => chain(&*error),
            Err(_) => "no answer in time".to_owned(),
        };
        refusals.push(format!(
            "{} at {}: {refusal}",
            server.server, server.address
        ));
    }
    Some(match refusals.len() {
        0 => Finding::fine(CHECK, format!("{} tried, let edges in", tried.len())),
        all if all == tried.len() => Finding::wrong(CHECK, refusals.join("; ")),
        _ => doubtful(refusals.join("; ")),
    })
}

/// With an edge's certificate; `None` if nobody here can make one.
fn connector(config: &Config) -> anyhow::Result<Option<TlsConnector>> {
    let Some(authority) = Authority::find(&config.state_dir.join("certs"))? else {
        return Ok(None);
    };
    let now = SystemClock.now().calendar().context("read the calendar")?;
    let credential = Credential::new(Arc::new(authority), now)?;
    Ok(Some(TlsConnector::from(Arc::new(credential.client()?))))
}

/// Asks for nobody's page. By TLS 1.3 only an answer shows that our certificate was taken; nginx has a status of its
/// own for one that was not.
async fn knock(connector: &TlsConnector, to: Upstream, port: u16) -> anyhow::Result<()> {
    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: doctor.invalid\r\nConnection: close\r\n\r\n";
    const REFUSED: &[u8] = b"HTTP/1.1 403 ";
    let stream = TcpStream::connect((to.address, port)).await;
    let stream = stream.context("connect")?;
    let name = ServerName::try_from(name_of(to.server)).context("read the server's name")?;
    let stream = connector.connect(name, stream).await;
    let mut stream = stream.context("shake hands")?;
    stream.write_all(ASK).await.context("ask")?;
    let mut answer = [0; REFUSED.len()];
    stream.read_exact(&mut answer).await.context("read")?;
    ensure!(
        answer == REFUSED,
        "it does not take an edge's certificate: {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}
