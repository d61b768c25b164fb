//! `tidepool-proxy`: logging, settings, the listener, and an orderly end.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use tidepool_proxy::{
    budget::Budgets,
    catalog::Keyring,
    directory::Directory,
    files,
    forward::Forwarder,
    ledger::Ledger,
    lock::{Lock, NotLocked},
    metrics,
    price::Prices,
    rates::{Rates, Shared},
    server,
    settings::Settings,
    upstream::Client,
    workers::Workers,
};
use tidepool_shared::{database_url::DatabaseUrl, hops::Hops};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// `EX_USAGE`: the settings are wrong, and starting again will not help.
const BAD_SETTINGS: u8 = 64;

/// `EX_TEMPFAIL`: another proxy holds the lock and may be gone soon.
const HELD: u8 = 75;

fn main() -> ExitCode {
    let settings = match Settings::try_parse() {
        Ok(settings) => settings,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { BAD_SETTINGS } else { 0 });
        }
    };
    let Ok(filter) = EnvFilter::try_new(&settings.log) else {
        eprintln!("tidepool-proxy: `{}` is not a log filter", settings.log);
        return ExitCode::from(BAD_SETTINGS);
    };
    let database = match settings.database.read() {
        Ok(database) => database,
        Err(error) => {
            eprintln!("tidepool-proxy: --database: {error}");
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    files::allow_all();
    // Until the end of the program.
    let _lock = match settings.lock.as_deref().map(Lock::take).transpose() {
        Ok(lock) => lock,
        Err(error) => {
            let code = match &error {
                NotLocked::Held(_) => ExitCode::from(HELD),
                NotLocked::File { .. } => ExitCode::FAILURE,
            };
            tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "lock");
            return code;
        }
    };
    match run(&settings, &database) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "model proxy ended");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings, database: &DatabaseUrl) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("build the runtime")?
        .block_on(serve(settings, database))
}

async fn serve(settings: &Settings, database: &DatabaseUrl) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    let mut reload = signal(SignalKind::user_defined1()).context("listen to SIGUSR1")?;
    let exporter = match settings.metrics {
        Some(address) => Some((metrics::listen(address).await?, metrics::install()?)),
        None => None,
    };
    let keyring = match &settings.master_keys {
        Some(path) => Keyring::at(path.clone()),
        None => Keyring::default(),
    };
    let (directory, follower) =
        Directory::of(database, keyring).context("read the database's URL")?;
    // Of this run: an earlier one's grants are not ours to use.
    let holder = format!("{:032x}", rand::random::<u128>());
    let budgets = Budgets::of(database, &holder).context("read the database's URL")?;
    let budgets = Arc::new(budgets);
    let (ledger, writer) = Ledger::open(&settings.journal, database, Arc::clone(&budgets))
        .context("open the journal")?;
    let redis = settings.redis.as_deref().map(Shared::of).transpose();
    // The error may repeat the URL, and so a password.
    let Ok(redis) = redis else {
        anyhow::bail!("--redis is not a URL of the form redis://HOST:PORT/DB or unix:PATH");
    };
    let rates = Arc::new(Rates::new(redis));
    let prices = Prices::with_own(settings.prices.clone()).context("--prices")?;
    let prices = Arc::new(prices);
    let mut forwarder = Forwarder::new(
        directory.clone(),
        ledger,
        budgets,
        Arc::clone(&rates),
        Arc::clone(&prices),
        Client::new().context("read whose certificates this machine trusts")?,
    );
    forwarder.hops = Hops::of(&settings.trusted_hop);
    let forwarder = Arc::new(forwarder);
    let workers = Workers::start().context("start threads")?;
    let mut serving_on = Vec::new();
    for runtime in workers.handles() {
        let forwarder = Arc::new(forwarder.apart());
        serving_on.push((runtime.clone(), forwarder));
    }
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listen on {}", settings.listen))?;
    let address = listener.local_addr().context("read the bound address")?;
    tracing::info!(%address, "model proxy listens");
    let (cancel, done) = (CancellationToken::new(), CancellationToken::new());
    let serving = async {
        server::serve_on(listener, serving_on, cancel.clone()).await;
        forwarder.drained().await;
        // Nothing begins any more: the writer may write what is left and end.
        done.cancel();
    };
    let stopping = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = reload.recv() => reread(&directory, &prices),
            }
        }
        tracing::info!("model proxy stops");
        cancel.cancel();
    };
    let measuring = async {
        if let Some((listener, exporter)) = exporter {
            metrics::serve(listener, exporter, Arc::clone(&forwarder), done.clone()).await;
        }
    };
    tokio::join!(
        serving,
        measuring,
        stopping,
        follower.run(done.clone()),
        rates.run(done.clone()),
        writer.run(done.clone())
    );
    Ok(())
}

/// SIGUSR1: everything that is configuration is read again; streams go on.
fn reread(directory: &Directory, prices: &Prices) {
    directory.refresh();
    if let Err(error) = prices.read_again() {
        let error = format!("{:#}", anyhow::Error::new(error));
        tracing::error!(error, "the prices of before stay");
    }
}
