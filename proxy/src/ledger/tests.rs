//! The ledger over real files and a real database.

mod failures;
mod holders;
mod killed;
mod postgres;
mod recovered;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use sqlx::{
    Connection as _, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::usage::Usage;

/// How long to wait for what must happen.
const PATIENCE: Duration = Duration::from_mins(1);

/// A row, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Stored {
    id: String,
    request_id: String,
    model: String,
    payer: String,
    outcome: String,
    estimated: bool,
    status: i32,
    input: i64,
    output: i64,
    cost_microcents: Option<i64>,
    first_token_ms: Option<i64>,
    total_ms: i64,
    at: i64,
}

const ROWS: &str = "SELECT id, request_id, model, payer, outcome, estimated, status, input, output, \
    cost_microcents, first_token_ms, total_ms, at FROM usage_records ORDER BY id";

/// A journal's directory and a database beside it.
struct Place(TempDir);

impl Place {
    /// The database is not made yet.
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn with_database() -> Self {
        let place = Self::new();
        place.make_database().await;
        place
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("tidepool.db")
    }

    fn open(&self) -> (Ledger, Writer) {
        let database = DatabaseUrl::Sqlite(self.database());
        Ledger::open(&self.journal(), &database, budgets(&database)).unwrap()
    }

    /// What is on disk at this moment, which is what `kill -9` would leave.
    fn killed(&self) -> Self {
        let left = Self::new();
        fs::create_dir(left.journal()).unwrap();
        for name in segments(&self.journal()) {
            fs::copy(self.journal().join(&name), left.journal().join(&name)).unwrap();
        }
        left
    }

    async fn make_database(&self) {
        let folder = "../coordinator/migrations/sqlite";
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut connection = self.connect(true).await;
        let migrator = Migrator::new(folder).await.unwrap();
        migrator.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn connect(&self, create: bool) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(self.database())
            .journal_mode(SqliteJournalMode::Wal)
            .create_if_missing(create);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    async fn rows(&self) -> Vec<Stored> {
        let mut connection = self.connect(false).await;
        let rows = sqlx::query_as(ROWS).fetch_all(&mut connection).await;
        connection.close().await.unwrap();
        rows.unwrap()
    }
}

fn budgets(database: &DatabaseUrl) -> Arc<Budgets> {
    Arc::new(Budgets::of(database, "test").unwrap())
}

/// Writes all that waits, and ends.
async fn drain(writer: Writer) {
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    writer.run(cancelled).await;
}

fn segments(journal: &Path) -> Vec<String> {
    let numbers = segment::list(journal).unwrap();
    numbers
        .iter()
        .map(|number| format!("{number:06}.jsonl"))
        .collect()
}

async fn until(ledger: &Ledger, holds: impl Fn(Figures) -> bool) {
    let began = tokio::time::Instant::now();
    while !holds(ledger.figures()) {
        assert!(began.elapsed() < PATIENCE, "{:?}", ledger.figures());
        sleep(Duration::from_millis(5)).await;
    }
}

fn attempt(request: &str) -> Attempt {
    Attempt {
        request_id: request.to_owned(),
        server: "srv_00000000000000000000000001".parse().unwrap(),
        instance: Some("inst_00000000000000000000000002".parse().unwrap()),
        provider: "openai".to_owned(),
        model: "gpt-4o-mini-2024-07-18".to_owned(),
        asked_model: "default".to_owned(),
        dialect: "openai_chat",
        payer: Payer::Managed,
        estimate: usage(900, 400),
        estimate_cost_microcents: Some(77),
        holder: None,
        at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_790_000_000_123_456),
    }
}

fn usage(input: u64, output: u64) -> Usage {
    Usage {
        input,
        output,
        ..Usage::default()
    }
}

fn completed() -> Ending {
    Ending {
        status: 200,
        outcome: Outcome::Completed,
        usage: usage(1000, 20),
        cost_microcents: Some(16_200),
        estimated: false,
        first_token_ms: Some(210),
        total_ms: 900,
    }
}

#[tokio::test]
async fn an_attempt_that_ended_is_a_row() {
    let place = Place::with_database().await;
    let (ledger, writer) = place.open();
    let entry = ledger.begin(attempt("one")).unwrap();
    let id = entry.id().to_string();
    entry.finish(completed());
    drain(writer).await;
    assert_eq!(
        place.rows().await,
        [Stored {
            id,
            request_id: "one".to_owned(),
            model: "gpt-4o-mini-2024-07-18".to_owned(),
            payer: "managed".to_owned(),
            outcome: "completed".to_owned(),
            estimated: false,
            status: 200,
            input: 1000,
            output: 20,
            cost_microcents: Some(16_200),
            first_token_ms: Some(210),
            total_ms: 900,
            at: 1_790_000_000_123_456,
        }]
    );
    let figures = ledger.figures();
    assert_eq!((figures.begun, figures.ended), (1, 1));
    assert_eq!((figures.written, figures.waiting), (1, 0));
}

#[tokio::test]
async fn an_attempt_that_nobody_finishes_is_a_row_with_what_was_seen() {
    let place = Place::with_database().await;
    let (ledger, writer) = place.open();
    let mut entry = ledger.begin(attempt("left")).unwrap();
    entry.seen(Seen {
        status: 200,
        usage: usage(950, 3),
        cost_microcents: None,
        first_token_ms: Some(12),
    });
    drop(entry);
    drop(ledger.begin(attempt("unseen")).unwrap());
    drain(writer).await;
    let rows = place.rows().await;
    let seen = rows.iter().find(|row| row.request_id == "left").unwrap();
    assert_eq!((seen.outcome.as_str(), seen.estimated), ("abandoned", true));
    assert_eq!((seen.status, seen.input, seen.output), (200, 950, 3));
    assert_eq!(
        (seen.cost_microcents, seen.first_token_ms),
        (None, Some(12))
    );
    let unseen = rows.iter().find(|row| row.request_id == "unseen").unwrap();
    assert_eq!((unseen.status, unseen.input, unseen.output), (0, 900, 400));
    assert_eq!(unseen.cost_microcents, Some(77));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_attempts_from_eight_threads_are_ten_thousand_rows() {
    const EACH: usize = 1250;
    let place = Place::with_database().await;
    let (ledger, writer) = place.open();
    let cancel = CancellationToken::new();
    let mut writing = JoinSet::new();
    writing.spawn(writer.run(cancel.clone()));
    let threads = [0; 8].map(|_| {
        let ledger = ledger.clone();
        thread::spawn(move || {
            for _ in 0..EACH {
                ledger.begin(attempt("many")).unwrap().finish(completed());
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    cancel.cancel();
    writing.join_all().await;
    assert_eq!(place.rows().await.len(), 8 * EACH);
    let figures = ledger.figures();
    assert_eq!((figures.written, figures.waiting), (8 * 1250, 0));
    // About 10 MB were written; what is in the database does not stay.
    assert!(segments(&place.journal()).len() <= 1, "{figures:?}");
}

#[tokio::test]
async fn a_journal_has_one_proxy() {
    let place = Place::new();
    let (ledger, writer) = place.open();
    let database = DatabaseUrl::Sqlite(place.database());
    let second = Ledger::open(&place.journal(), &database, budgets(&database));
    assert!(matches!(second, Err(OpenLedger::Lock(NotLocked::Held(_)))));
    drop((ledger, writer));
    place.open();
}

/// Prints what noting an attempt takes: `cargo test --release ledger_costs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn ledger_costs() {
    const ATTEMPTS: u32 = 100_000;
    let place = Place::new();
    let (ledger, _writer) = place.open();
    let began = Instant::now();
    for _ in 0..ATTEMPTS {
        ledger.begin(attempt("cost")).unwrap().finish(completed());
    }
    let each = began.elapsed() / ATTEMPTS;
    let bytes = ledger.figures().journal_bytes / u64::from(ATTEMPTS);
    println!("begin and finish: {} ns, {bytes} bytes", each.as_nanos());
}
