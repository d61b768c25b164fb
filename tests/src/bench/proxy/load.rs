//! Many at once, and what they cost the proxy in CPU.

use std::{net::SocketAddr, sync::Arc};

use tokio::{task::JoinSet, time::Instant};

use super::{
    client::{Connection, Question},
    copier,
    deployment::Deployment,
};

/// Requests before anything is measured, for each client.
const WARM_UP: usize = 20;

/// What became of many requests.
pub(super) struct Load {
    /// CPU of the proxy for one of them.
    pub(super) cpu_us: f64,
    /// How many were answered in a second, with everything on this machine's cores.
    pub(super) per_s: f64,
}

/// Asks when so many clients each ask again as soon as they were answered.
pub(super) async fn load(
    deployment: &Deployment,
    question: &Question,
    clients: usize,
    requests: usize,
) -> anyhow::Result<Load> {
    eprintln!("proxy: {requests} requests by {clients} at once");
    let each = requests.div_ceil(clients);
    let rows = deployment.rows().await?;
    let connections = open(deployment, clients, deployment.proxy()).await?;
    let connections = ask(connections, question, WARM_UP).await?;
    let warm = rows + u64::try_from(clients * WARM_UP)?;
    let before = deployment.cpu_when_written(warm).await?;
    let begun = Instant::now();
    ask(connections, question, each).await?;
    let took = begun.elapsed();
    let asked = u32::try_from(clients * each)?;
    let after = deployment.cpu_when_written(warm + u64::from(asked)).await?;
    Ok(Load {
        cpu_us: after.saturating_sub(before).as_secs_f64() * 1_000_000.0 / f64::from(asked),
        per_s: f64::from(asked) / took.as_secs_f64(),
    })
}

/// The same clients at the provider itself, a second.
pub(super) async fn direct_per_s(
    deployment: &Deployment,
    question: &Question,
    clients: usize,
    requests: usize,
) -> anyhow::Result<f64> {
    eprintln!("proxy: {requests} requests by {clients} at once, direct");
    let each = requests.div_ceil(clients);
    let connections = open(deployment, clients, deployment.upstream()).await?;
    let connections = ask(connections, question, WARM_UP).await?;
    let begun = Instant::now();
    ask(connections, question, each).await?;
    Ok(f64::from(u32::try_from(clients * each)?) / begun.elapsed().as_secs_f64())
}

/// CPU of the proxy for an event, each of which comes by itself; streams' own beginnings are in it.
pub(super) async fn cpu_per_event_us(
    deployment: &Deployment,
    streams: usize,
    events: usize,
) -> anyhow::Result<f64> {
    eprintln!("proxy: {streams} streams of {events} events");
    let question = Question::long_stream(super::SMALL_BYTES, events);
    let rows = deployment.rows().await?;
    let connections = open(deployment, streams, deployment.proxy()).await?;
    let before = deployment.cpu()?;
    ask(connections, &question, 1).await?;
    let after = deployment
        .cpu_when_written(rows + u64::try_from(streams)?)
        .await?;
    let passed = u32::try_from(streams * events)?;
    Ok(after.saturating_sub(before).as_secs_f64() * 1_000_000.0 / f64::from(passed))
}

/// The same of a program that only copies bytes: less is not to be had on this machine.
pub(super) async fn cpu_per_copied_event_us(
    deployment: &Deployment,
    streams: usize,
    events: usize,
) -> anyhow::Result<f64> {
    eprintln!("proxy: {streams} streams of {events} events, copied");
    let question = Question::long_stream(super::SMALL_BYTES, events);
    let (copier, address) = copier::start(deployment.upstream()).await?;
    let connections = open(deployment, streams, address).await?;
    let before = copier.cpu()?;
    ask(connections, &question, 1).await?;
    let passed = u32::try_from(streams * events)?;
    Ok(copier.cpu()?.saturating_sub(before).as_secs_f64() * 1_000_000.0 / f64::from(passed))
}

async fn open(
    deployment: &Deployment,
    count: usize,
    to: SocketAddr,
) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        connections.push(Connection::open(deployment.address_of(number)?, to).await?);
    }
    Ok(connections)
}

/// Each connection asks so many times, one after the other.
pub(super) async fn ask(
    connections: Vec<Connection>,
    question: &Question,
    times: usize,
) -> anyhow::Result<Vec<Connection>> {
    let question = Arc::new(question.clone());
    let mut asking = JoinSet::new();
    for mut connection in connections {
        let question = Arc::clone(&question);
        asking.spawn(async move {
            for _ in 0..times {
                connection.timed(&question).await?;
            }
            anyhow::Ok(connection)
        });
    }
    let mut connections = Vec::new();
    while let Some(done) = asking.join_next().await {
        connections.push(done??);
    }
    Ok(connections)
}
