//! What lies on a warm server's disk: no row and no file of the turn that warmed it up.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use sqlx::{
    AssertSqlSafe, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions,
};

/// Tables of what was said, what it cost and what is remembered of it. They are made with their
/// databases, so that one that is not there has been renamed and must be looked for.
const EMPTY: [&str; 13] = [
    "audit_events",
    "conversations",
    "memory_embedding_cache",
    "memory_entry_origins",
    "memory_index_chunks",
    "memory_index_sources",
    "memory_session_tombstones",
    "session_nodes",
    "session_transcript_archives",
    "session_transcript_fts_rows",
    "task_runs",
    "trajectory_runtime_events",
    "transcript_events",
];

/// Looks through a gateway's state directory.
pub(crate) async fn holds_nothing_of_the_warm_up(state: &Path) -> anyhow::Result<()> {
    let files = files(state)?;
    let databases: Vec<_> = files
        .iter()
        .filter(|path| ends_in(path, "sqlite"))
        .collect();
    ensure!(databases.len() >= 2, "databases: {databases:?}");
    let mut seen = BTreeSet::new();
    for database in databases {
        seen.extend(empty_tables(database).await?);
    }
    for table in EMPTY {
        ensure!(seen.contains(table), "no table `{table}` among {seen:?}");
    }
    let remembered = |path: &&PathBuf| {
        let within = |name: &str| path.components().any(|part| part.as_os_str() == name);
        path.file_name().is_some_and(|name| name == "MEMORY.md")
            || (within("workspace") && within("memory"))
            || (within("sessions") && ends_in(path, "jsonl"))
    };
    let memories: Vec<_> = files.iter().filter(remembered).collect();
    ensure!(memories.is_empty(), "files: {memories:?}");
    Ok(())
}

/// The names of the tables that must be empty and are.
async fn empty_tables(database: &Path) -> anyhow::Result<Vec<String>> {
    // A running gateway keeps some of them to itself; it is at rest, so that a copy is whole.
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy.sqlite");
    fs::copy(database, &copy)?;
    let log = database.with_extension("sqlite-wal");
    if log.exists() {
        fs::copy(log, folder.path().join("copy.sqlite-wal"))?;
    }
    let options = SqliteConnectOptions::new().filename(&copy);
    let mut connection = SqliteConnection::connect_with(&options)
        .await
        .with_context(|| format!("open a copy of `{}`", database.display()))?;
    let tables = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut connection)
        .await?;
    let mut empty = Vec::new();
    for table in tables {
        let name: String = table.try_get("name")?;
        if !EMPTY.contains(&name.as_str()) {
            continue;
        }
        // The name is one of ours.
        let count = AssertSqlSafe(format!("SELECT count(*) AS rows FROM {name}"));
        let rows: i64 = sqlx::query(count)
            .fetch_one(&mut connection)
            .await?
            .try_get("rows")?;
        ensure!(
            rows == 0,
            "{rows} rows of `{name}` in `{}`",
            database.display()
        );
        empty.push(name);
    }
    Ok(empty)
}

fn ends_in(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read `{}`", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
