//! Ten thousand streams on which nothing happens, and what each costs in memory.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::{task::JoinSet, time::sleep};

use super::{
    SOME,
    client::{Connection, Question},
    deployment::Deployment,
};
use crate::bench::resources;

/// After the last one was opened.
const SETTLING: Duration = Duration::from_secs(3);

/// File descriptors of a proxy beside the two of each stream.
const SPARE_FILES: u64 = 500;

/// How many proxies it takes to have so many streams, by the limit of open files (`ulimit -Hn`).
pub(super) fn proxies_for(streams: u16) -> usize {
    let fit = resources::files_max().saturating_sub(SPARE_FILES) / 2;
    if fit >= u64::from(streams) { 1 } else { 2 }
}

/// Memory of the proxies for one open stream; the answer has begun, and the request was as large as OpenClaw's.
pub(super) async fn rss_kib(
    deployment: &Deployment,
    question: &Question,
    streams: u16,
) -> anyhow::Result<f64> {
    let proxies = deployment.proxies();
    let idle_kib = deployment.idle_rss_kib().await?;
    eprintln!(
        "proxy: opening {streams} streams through {} processes",
        proxies.len()
    );
    let mut opening = JoinSet::new();
    for opener in 0..SOME {
        let mut own = Vec::new();
        for number in (0..usize::from(streams)).skip(opener).step_by(SOME) {
            let proxy = proxies.get(number / SOME % proxies.len());
            own.push((deployment.address_of(number)?, *proxy.context("no proxy")?));
        }
        let question = question.clone();
        opening.spawn(async move {
            let mut open = Vec::with_capacity(own.len());
            for (address, proxy) in own {
                let mut connection = Connection::open(address, proxy).await?;
                connection.begin(&question).await?;
                connection.forget();
                open.push(connection);
            }
            anyhow::Ok(open)
        });
    }
    let mut open = Vec::new();
    while let Some(some) = opening.join_next().await {
        open.extend(some??);
    }
    sleep(SETTLING).await;
    let held_kib = deployment.rss_kib()?.saturating_sub(idle_kib);
    let still = open
        .iter()
        .filter(|connection| connection.is_open())
        .count();
    ensure!(
        still == usize::from(streams),
        "only {still} streams stayed open"
    );
    Ok(f64::from(held_kib) / f64::from(streams))
}
