//! Short chaos runs; long ones are made by hand (`./tidepool chaos --seed S --minutes M`).

use tidepool_tests::chaos::{self, Database, Options, Verdict};

async fn is_clean(seed: u64, database: Database) -> anyhow::Result<()> {
    let options = Options {
        seed,
        minutes: 0.4,
        database,
    };
    let verdict = chaos::run(&options, &|line| eprintln!("{line}")).await?;
    assert_eq!(verdict, Verdict::Clean, "seed {seed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_chaos_on_sqlite_the_books_agree() -> anyhow::Result<()> {
    is_clean(11, Database::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_chaos_on_postgres_with_two_coordinators_the_books_agree() -> anyhow::Result<()> {
    is_clean(12, Database::Postgres).await
}
