//! The same on PostgreSQL. A machine without it has no such test, and says so.

use std::process::{Command, Stdio};

use sqlx::{AssertSqlSafe, PgConnection};

use super::*;

/// Where nextest's setup script says that the server is.
const SERVER: &str = "TIDEPOOL_TEST_POSTGRES";
/// What `tests/postgres` ends with when there is none.
const NOT_INSTALLED: i32 = 77;

/// A new database with the coordinator's tables. It goes with the server, at the end of the run.
pub(super) async fn database() -> Option<String> {
    let server = std::env::var(SERVER).ok().or_else(start)?;
    let mut connection = PgConnection::connect(&server).await.unwrap();
    let name = format!("t{}", uuid::Uuid::from_u128(rand::random()).simple());
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();
    let url = format!("{server}/{name}");
    let folder = "../coordinator/migrations/postgres";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let migrator = Migrator::new(folder).await.unwrap();
    migrator.run(&mut connection).await.unwrap();
    Some(url)
}

/// A server that ends with this process.
fn start() -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/postgres");
    let output = Command::new(script)
        .arg(std::process::id().to_string())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    if output.status.code() == Some(NOT_INSTALLED) {
        eprintln!("SKIPPED: PostgreSQL is not installed (Debian: postgresql)");
        return None;
    }
    assert!(output.status.success(), "PostgreSQL did not start");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[tokio::test]
async fn postgres_takes_each_row_once_and_whatever_a_client_asked_for() {
    let Some(url) = database().await else {
        return;
    };
    let place = Place::new();
    let database = DatabaseUrl::Postgres(url.clone());
    let (ledger, writer) = Ledger::open(&place.journal(), &database, budgets(&database)).unwrap();
    let odd = Attempt {
        model: "zero\0 and more".to_owned(),
        instance: None,
        payer: Payer::Own,
        estimate: usage(u64::MAX, 0),
        estimate_cost_microcents: None,
        ..attempt("odd")
    };
    drop(ledger.begin(odd).unwrap());
    for _ in 0..600 {
        ledger.begin(attempt("plain")).unwrap().finish(completed());
    }
    let left = place.killed();
    drain(writer).await;
    assert_eq!(ledger.figures().written, 601);

    let (again, writer) = Ledger::open(&left.journal(), &database, budgets(&database)).unwrap();
    drain(writer).await;
    assert_eq!((again.figures().written, again.figures().waiting), (601, 0));

    let mut connection = PgConnection::connect(&url).await.unwrap();
    let rows = sqlx::query_as::<_, Stored>(ROWS);
    let rows = rows.fetch_all(&mut connection).await.unwrap();
    assert_eq!(rows.len(), 601);
    let odd = rows.iter().find(|row| row.request_id == "odd").unwrap();
    assert_eq!(odd.model, "zero\u{fffd} and more");
    assert_eq!((odd.input, odd.cost_microcents), (i64::MAX, None));
    assert_eq!(
        (odd.payer.as_str(), odd.outcome.as_str()),
        ("own", "abandoned")
    );
}
