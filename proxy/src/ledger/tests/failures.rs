//! A database that is away, a disk that is full, a row that is refused.

use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn rows_wait_for_a_database_that_is_not_there_yet() {
    let place = Place::new();
    let (ledger, writer) = place.open();
    let cancel = CancellationToken::new();
    let mut writing = JoinSet::new();
    writing.spawn(writer.run(cancel.clone()));
    for _ in 0..700 {
        ledger.begin(attempt("early")).unwrap().finish(completed());
    }
    until(&ledger, |figures| figures.failed_batches > 0).await;
    assert_eq!(ledger.figures().waiting, 700);
    place.make_database().await;
    until(&ledger, |figures| figures.waiting == 0).await;
    cancel.cancel();
    writing.join_all().await;
    assert_eq!(place.rows().await.len(), 700);
    assert_eq!(ledger.figures().written, 700);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_never_answers_holds_up_neither_attempts_nor_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let database = DatabaseUrl::Postgres(format!("postgres://tidepool@{address}/tidepool"));
    let place = Place::new();
    let (ledger, writer) = Ledger::open(&place.journal(), &database, budgets(&database)).unwrap();
    let cancel = CancellationToken::new();
    let mut writing = JoinSet::new();
    writing.spawn(writer.run(cancel.clone()));
    ledger.begin(attempt("kept")).unwrap().finish(completed());
    until(&ledger, |figures| figures.failed_batches > 1).await;
    cancel.cancel();
    let cancelled = tokio::time::Instant::now();
    writing.join_all().await;
    assert!(cancelled.elapsed() < Duration::from_secs(11));
    drop(ledger);
    let (again, _writer) = Ledger::open(&place.journal(), &database, budgets(&database)).unwrap();
    assert_eq!(again.figures().waiting, 1);
}

#[tokio::test]
async fn no_attempt_begins_while_the_journal_cannot_be_written() {
    let place = Place::with_database().await;
    let (ledger, writer) = place.open();
    let under_way = ledger.begin(attempt("under way")).unwrap();
    ledger.0.journal.fill_disk();
    let refused = ledger.begin(attempt("refused")).unwrap_err();
    let NotBegun::Journal(error) = refused else {
        panic!("{refused}");
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    ledger.0.journal.fill_disk();
    under_way.finish(completed());
    // The disk has room again.
    ledger.begin(attempt("after")).unwrap().finish(completed());
    drain(writer).await;
    let rows = place.rows().await;
    let requests = rows.iter().map(|row| row.request_id.as_str());
    let mut requests = requests.collect::<Vec<_>>();
    requests.sort_unstable();
    assert_eq!(requests, ["after", "under way"]);
    let figures = ledger.figures();
    assert_eq!((figures.begun, figures.refused), (2, 1));
    assert_eq!((figures.unjournalled, figures.waiting), (1, 0));
}

#[tokio::test]
async fn no_attempt_begins_without_a_directory() {
    let place = Place::new();
    let (ledger, _writer) = place.open();
    fs::remove_dir_all(place.journal()).unwrap();
    let refused = ledger.begin(attempt("refused"));
    assert!(matches!(refused, Err(NotBegun::Journal(_))));
}

#[tokio::test]
async fn no_attempt_begins_with_a_full_journal_until_the_database_takes_rows() {
    let place = Place::with_database().await;
    let database = DatabaseUrl::Sqlite(place.database());
    let (ledger, writer) =
        Ledger::open_with(&place.journal(), &database, budgets(&database), 100).unwrap();
    let under_way = ledger.begin(attempt("under way")).unwrap();
    assert!(matches!(ledger.begin(attempt("over")), Err(NotBegun::Full)));
    under_way.finish(completed());
    drop((ledger, writer));
    let (_, writer) = place.open();
    drain(writer).await;
    let (ledger, _writer) =
        Ledger::open_with(&place.journal(), &database, budgets(&database), 100).unwrap();
    drop(ledger.begin(attempt("again")).unwrap());
    assert_eq!(place.rows().await.len(), 1);
}

#[tokio::test]
async fn a_row_that_is_never_taken_does_not_keep_the_others() {
    let place = Place::with_database().await;
    let mut connection = place.connect(false).await;
    let check = "ALTER TABLE usage_records ADD COLUMN checked TEXT CHECK (provider <> 'poison')";
    sqlx::query(check).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let (ledger, writer) = place.open();
    for provider in ["openai", "poison", "mistral"] {
        let attempt = Attempt {
            provider: provider.to_owned(),
            ..attempt("one of three")
        };
        ledger.begin(attempt).unwrap().finish(completed());
    }
    drain(writer).await;
    assert_eq!(place.rows().await.len(), 2);
    let figures = ledger.figures();
    assert_eq!((figures.waiting, figures.damaged_lines), (0, 1));
    let aside = fs::read_to_string(place.journal().join("lines.damaged")).unwrap();
    assert!(aside.contains("poison") && aside.lines().count() == 1);
}
