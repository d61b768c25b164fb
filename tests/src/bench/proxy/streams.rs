//! Ten thousand streams on which nothing happens, and what each costs the proxy in memory.

use std::time::Duration;

use anyhow::ensure;
use tokio::{task::JoinSet, time::sleep};

use super::{
    SOME,
    client::{Connection, Question},
    deployment::Deployment,
};

/// After the last one was opened.
const SETTLING: Duration = Duration::from_secs(3);

/// Memory of the proxy for one open stream; the answer has begun, and the request was as large as OpenClaw's.
pub(super) async fn rss_kib(
    deployment: &Deployment,
    question: &Question,
    idle_kib: u32,
    streams: u16,
) -> anyhow::Result<f64> {
    eprintln!("proxy: opening {streams} streams");
    let mut opening = JoinSet::new();
    for opener in 0..SOME {
        let mut own = Vec::new();
        for number in (0..usize::from(streams)).skip(opener).step_by(SOME) {
            own.push(deployment.address_of(number)?);
        }
        let (proxy, question) = (deployment.proxy(), question.clone());
        opening.spawn(async move {
            let mut open = Vec::with_capacity(own.len());
            for address in own {
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
