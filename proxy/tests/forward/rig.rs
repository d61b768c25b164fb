//! A proxy over a database of its own, with a customer, a provider and some aliases.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{
    Connection as _, FromRow, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tempfile::TempDir;
use tidepool_certs::sealed::MasterKeys;
use tidepool_proxy::{
    budget::Budgets, catalog::Keyring, directory::Directory, forward::Forwarder, ledger::Ledger,
    price::Prices, rates::Rates, server, upstream::Client,
};
use tidepool_shared::{database_url::DatabaseUrl, hops::Hops};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::upstream::Upstream;

pub(crate) const INSTANCE: &str = "inst_00000000000000000000000002";
pub(crate) const OWNER: Ipv4Addr = Ipv4Addr::new(127, 9, 1, 1);

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    pub(crate) request_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) model: String,
    pub(crate) asked_model: String,
    pub(crate) input: i64,
    pub(crate) cache_read: i64,
    pub(crate) cache_write_5m: i64,
    pub(crate) output: i64,
    pub(crate) cost_microcents: Option<i64>,
    pub(crate) payer: String,
    pub(crate) status: i64,
    pub(crate) outcome: String,
    pub(crate) estimated: bool,
}

pub(crate) struct Rig {
    pub(crate) upstream: Upstream,
    proxy: SocketAddr,
    client: reqwest::Client,
    directory: Directory,
    database: PathBuf,
    master: MasterKeys,
    _serving: JoinSet<()>,
    folder: TempDir,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Where some addresses are load balancers.
    pub(crate) async fn start_with(hops: &[IpAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("tidepool.db");
        let keys = folder.path().join("master.keys");
        let master = MasterKeys::read_or_create(&keys).unwrap();
        let upstream = Upstream::start().await;
        lay_out(&database, &master, upstream.address).await;
        let url = DatabaseUrl::Sqlite(database.clone());
        let (directory, follower) = Directory::of(&url, Keyring::at(keys)).unwrap();
        let budgets = Arc::new(Budgets::of(&url, "test").unwrap());
        let journal = folder.path().join("journal");
        let (ledger, writer) = Ledger::open(&journal, &url, Arc::clone(&budgets)).unwrap();
        let rates = Arc::new(Rates::new(None));
        let prices = Arc::new(Prices::bundled());
        let mut forwarder = Forwarder::new(
            directory.clone(),
            ledger,
            budgets,
            rates,
            prices,
            Client::new().unwrap(),
        );
        forwarder.hops = Hops::of(hops);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(follower.run(CancellationToken::new()));
        serving.spawn(writer.run(CancellationToken::new()));
        serving.spawn(server::serve(
            listener,
            Arc::new(forwarder),
            CancellationToken::new(),
        ));
        let client = reqwest::Client::builder()
            .local_address(IpAddr::from(OWNER))
            .no_proxy()
            .build()
            .unwrap();
        Self {
            upstream,
            proxy,
            client,
            directory,
            database,
            master,
            _serving: serving,
            folder,
        }
    }

    /// A second customer, whose server has this address; its client.
    pub(crate) async fn second_customer(&self, id: &str, address: Ipv4Addr) -> reqwest::Client {
        let mut connection = open(&self.database).await;
        sqlx::query("INSERT INTO instances VALUES (?, 'free', 'running')")
            .bind(id)
            .execute(&mut connection)
            .await
            .unwrap();
        sqlx::query("INSERT INTO trust VALUES (?, 'srv_00000000000000000000000009', ?)")
            .bind(address.to_string())
            .bind(id)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        reqwest::Client::builder()
            .local_address(IpAddr::from(address))
            .no_proxy()
            .build()
            .unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy)
    }

    pub(crate) fn request(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client
            .post(format!("http://{}{path}", self.proxy))
            .json(body)
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(crate) async fn send(&self, path: &str, body: &Value) -> reqwest::Response {
        self.request(path, body).send().await.unwrap()
    }

    /// Status and whole body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        self.post_text(path, &body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: &str) -> (u16, String) {
        let request = self.client.post(format!("http://{}{path}", self.proxy));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_owned());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn only_row(&self) -> Row {
        self.rows(1).await.pop().unwrap()
    }

    /// Waits for so many rows; fails if there are more.
    pub(crate) async fn rows(&self, count: usize) -> Vec<Row> {
        let found = async {
            loop {
                let mut connection = open(&self.database).await;
                let rows: Vec<Row> = sqlx::query_as("SELECT * FROM usage_records ORDER BY id")
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
                if rows.len() >= count {
                    return rows;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let rows = tokio::time::timeout(Duration::from_secs(20), found)
            .await
            .expect("no such rows");
        assert_eq!(rows.len(), count, "{rows:?}");
        rows
    }

    pub(crate) async fn give_own_key(&self, provider: &str, key: &str) {
        let sealed = self
            .master
            .seal(key, &format!("instance/{INSTANCE}/provider/{provider}"));
        let mut connection = open(&self.database).await;
        sqlx::query("INSERT INTO customer_keys VALUES (?, ?, ?, 0)")
            .bind(INSTANCE)
            .bind(provider)
            .bind(sealed)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        self.is_read().await;
    }

    pub(crate) async fn hide_ledger_table(&self) {
        self.run("ALTER TABLE usage_records RENAME TO hidden").await;
    }

    pub(crate) async fn show_ledger_table(&self) {
        self.run("ALTER TABLE hidden RENAME TO usage_records").await;
    }

    /// Waits until the proxy has read all that is in the database now.
    pub(crate) async fn is_read(&self) {
        let written = Instant::now();
        self.directory.refresh();
        while self
            .directory
            .age()
            .is_none_or(|age| age > written.elapsed())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What is in the journal now.
    pub(crate) fn journal(&self) -> String {
        let folder = self.folder.path().join("journal");
        let files = std::fs::read_dir(folder).unwrap();
        files
            .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok())
            .collect()
    }

    /// Sets limits, and waits until they count.
    pub(crate) async fn limit(&self, subject: &str, limits: &Value) {
        let mut connection = open(&self.database).await;
        sqlx::query(
            "INSERT OR REPLACE INTO model_limits
             SELECT $1, $2 ->> 'requests_per_minute', $2 ->> 'tokens_per_minute',
                    $2 ->> 'day_microcents', $2 ->> 'month_microcents', 0",
        )
        .bind(subject)
        .bind(limits.to_string())
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
        self.is_read().await;
    }

    /// What the instance spent in all days and in all months.
    pub(crate) async fn spent(&self) -> [i64; 2] {
        let mut connection = open(&self.database).await;
        let sums = sqlx::query_as::<_, (i64, i64)>(
            "SELECT coalesce(sum(CASE WHEN length(period) = 10 THEN microcents END), 0),
                    coalesce(sum(CASE WHEN length(period) = 7 THEN microcents END), 0)
             FROM spending WHERE instance_id = ?",
        )
        .bind(INSTANCE)
        .fetch_one(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
        [sums.0, sums.1]
    }

    pub(crate) async fn run(&self, statement: &'static str) {
        let mut connection = open(&self.database).await;
        sqlx::raw_sql(statement)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}

async fn open(database: &std::path::Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(true)
        .foreign_keys(false)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(5));
    SqliteConnection::connect_with(&options).await.unwrap()
}

async fn lay_out(database: &std::path::Path, master: &MasterKeys, upstream: SocketAddr) {
    let mut connection = open(database).await;
    sqlx::raw_sql(
        "CREATE TABLE trust (address TEXT PRIMARY KEY, server_id TEXT NOT NULL, instance_id TEXT);
         CREATE TABLE instances (id TEXT PRIMARY KEY, tier TEXT NOT NULL, status TEXT NOT NULL)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::raw_sql(include_str!(
        "../../../coordinator/migrations/sqlite/0004_models.sql"
    ))
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::raw_sql(include_str!(
        "../../../coordinator/migrations/sqlite/0005_limits.sql"
    ))
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::query("INSERT INTO instances VALUES (?, 'free', 'running')")
        .bind(INSTANCE)
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query("INSERT INTO trust VALUES (?, 'srv_00000000000000000000000001', ?)")
        .bind(OWNER.to_string())
        .bind(INSTANCE)
        .execute(&mut connection)
        .await
        .unwrap();
    for (name, kind) in [
        ("main", "openai"),
        ("claude", "anthropic"),
        ("google", "gemini"),
        ("router", "openrouter"),
    ] {
        sqlx::query("INSERT INTO providers VALUES (?, ?, ?, ?, 0, 0)")
            .bind(name)
            .bind(kind)
            .bind(format!("http://{upstream}"))
            .bind(master.seal("sk-ours", &format!("provider/{name}")))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    for (alias, targets) in aliases() {
        sqlx::query("INSERT INTO model_aliases VALUES ('free', ?, ?, 0)")
            .bind(alias)
            .bind(targets.to_string())
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
}

fn aliases() -> Vec<(&'static str, Value)> {
    let main = |model: &str| json!({"provider": "main", "model": model, "weight": 1});
    vec![
        ("default", json!([main("gpt-4o-mini")])),
        (
            "fallback",
            json!([{"provider": "main", "model": "fails", "weight": 1000}, {"provider": "main", "model": "gpt-4o-mini", "weight": 0}]),
        ),
        ("unpriced", json!([main("nobodys-model")])),
        (
            "mixed",
            json!([{"provider": "main", "model": "refuses-key", "weight": 1}, {"provider": "google", "model": "gemini-2.5-flash", "weight": 0}]),
        ),
        ("refused", json!([main("refuses-key")])),
        (
            "routed",
            json!([{"provider": "router", "model": "openai/gpt-4o-mini", "weight": 1}]),
        ),
        (
            "claude",
            json!([{"provider": "claude", "model": "claude-haiku-4-5", "weight": 1}]),
        ),
        (
            "gemini",
            json!([{"provider": "google", "model": "gemini-2.5-flash", "weight": 1}]),
        ),
    ]
}
