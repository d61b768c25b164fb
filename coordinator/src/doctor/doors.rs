//! The way to servers: Traefik's certificate for it, and servers that are still reached in clear.

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::parse_x509_certificate;

use super::{Finding, Verdict};
use crate::{
    ambient::{Clock as _, SystemClock},
    causes::chain,
    model::Door,
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
