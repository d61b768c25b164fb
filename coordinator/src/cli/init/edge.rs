//! What Traefik shows to servers, whose nginx lets nobody else in but the edges of coordinators.
//!
//! Files, because Traefik takes them from there or from Redis, and a key does not belong into Redis. So
//! nobody renews it but whoever runs this again; a copy without the key stays for `doctor`, which warns.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tidepool_certs::{authority::Authority, secret_file};

use crate::{
    ambient::{Clock as _, SystemClock},
    serve::config::Config,
};

/// How long it is good.
const LIFE: Duration = Duration::from_hours(365 * 24);

/// The root of servers' certificates, the edge's chain and its key, in Traefik's directory.
pub(super) fn paths(out: &Path) -> [PathBuf; 3] {
    ["servers-ca.pem", "edge.pem", "edge.key"].map(|name| out.join(name))
}

/// Makes a new certificate and writes all three.
pub(super) fn write(config: &Config, out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let dir = config.state_dir.join("certs");
    // Not made here: it would belong to whoever runs this, and on another machine be another one.
    let authority = Authority::find(&dir)?.with_context(|| {
        format!(
            "no authority in `{}`: start `tidepool serve` first, or copy that directory from a coordinator",
            dir.display()
        )
    })?;
    let now = SystemClock.now().calendar().context("read the calendar")?;
    let edge = authority.edge(LIFE, now)?;
    let chain = edge.chain_pem();
    let paths = paths(out);
    let texts = [authority.root_pem(), chain.as_str(), &edge.key_pem()];
    for (path, text) in paths.iter().zip(texts) {
        super::write(path, text)?;
    }
    let kept = config.traefik_certificate();
    secret_file::write(&kept, chain.as_bytes())
        .with_context(|| format!("write `{}`", kept.display()))?;
    Ok(paths.into())
}
