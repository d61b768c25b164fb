//! A PostgreSQL database of its own for each test.
//!
//! All tests of a run share one server: nextest's setup script starts it and says where it is; without
//! nextest the first test of the process does. It ends with who it was started for (`tests/postgres`). A
//! machine without PostgreSQL has no such test, and says so.

use std::{
    path::Path,
    process::{Command, Stdio},
    str::FromStr as _,
};

use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Where nextest's setup script says that the server is.
const SERVER: &str = "TIDEPOOL_TEST_POSTGRES";

/// What `tests/postgres` ends with when there is no PostgreSQL.
const NOT_INSTALLED: i32 = 77;

/// A database that is dropped with this.
#[derive(Debug)]
pub struct Throwaway {
    server: String,
    name: String,
}

impl Throwaway {
    /// Creates an empty database; `None`, said loudly, on a machine without PostgreSQL.
    pub async fn database() -> anyhow::Result<Option<Self>> {
        static SHARED: OnceCell<Option<String>> = OnceCell::const_new();
        let server = match std::env::var(SERVER) {
            Ok(url) => Some(url),
            Err(_) => SHARED.get_or_try_init(start).await?.clone(),
        };
        let Some(server) = server else {
            eprintln!("SKIPPED: PostgreSQL is not installed (Debian: postgresql)");
            return Ok(None);
        };
        Self::on(server).await.map(Some)
    }

    /// Creates an empty database on a server.
    pub async fn on(server: String) -> anyhow::Result<Self> {
        let mut bytes = [0; 16];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
        let name = format!("t{}", Uuid::from_bytes(bytes).simple());
        let mut connection = PgConnection::connect(&server).await?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .context("create a database")?;
        connection.close().await?;
        Ok(Self { server, name })
    }

    /// How to connect to it.
    pub fn options(&self) -> anyhow::Result<PgConnectOptions> {
        Ok(PgConnectOptions::from_str(&self.server)?.database(&self.name))
    }

    /// How a program is told of it.
    pub fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').unwrap_or_default();
        format!("{server}/{}", self.name)
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(drop_database(&server, &name))
        });
        match dropping.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("a test's database stays behind: {error:#}"),
            Err(_) => eprintln!("a test's database stays behind"),
        }
    }
}

async fn drop_database(server: &str, name: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// Starts a server that lives as long as this process.
async fn start() -> anyhow::Result<Option<String>> {
    tokio::task::spawn_blocking(|| server(&[])).await?
}

/// Starts a server with further arguments for `tests/postgres`.
pub fn server(arguments: &[&str]) -> anyhow::Result<Option<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/postgres");
    let output = Command::new(&script)
        .arg(std::process::id().to_string())
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run `{}`", script.display()))?;
    if output.status.code() == Some(NOT_INSTALLED) {
        return Ok(None);
    }
    ensure!(output.status.success(), "PostgreSQL did not start");
    Ok(Some(String::from_utf8(output.stdout)?.trim().to_owned()))
}
