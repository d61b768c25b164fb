//! The model proxy as its callers meet it: over TCP, from addresses of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tempfile::TempDir;
use tidepool_proxy::{
    budget::Budgets, catalog::Keyring, directory::Directory, forward::Forwarder, ledger::Ledger,
    price::Prices, rates::Rates, server, upstream::Client,
};
use tidepool_shared::database_url::DatabaseUrl;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

const SERVER: &str = "srv_00000000000000000000000001";
const INSTANCE: &str = "inst_00000000000000000000000002";
const OWNER: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);
const POOL: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 3);

/// A proxy over a database of its own.
struct Proxy {
    address: SocketAddr,
    database: PathBuf,
    _folder: TempDir,
    _serving: JoinSet<()>,
}

impl Proxy {
    async fn without_database() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("tidepool.db");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = DatabaseUrl::Sqlite(database.clone());
        let (directory, follower) = Directory::of(&url, Keyring::default()).unwrap();
        let budgets = Arc::new(Budgets::of(&url, "test").unwrap());
        let journal = folder.path().join("journal");
        let (ledger, _writer) = Ledger::open(&journal, &url, Arc::clone(&budgets)).unwrap();
        let rates = Arc::new(Rates::new(None));
        let prices = Arc::new(Prices::bundled());
        let forwarder = Forwarder::new(
            directory,
            ledger,
            budgets,
            rates,
            prices,
            Client::new().unwrap(),
        );
        let mut serving = JoinSet::new();
        serving.spawn(follower.run(CancellationToken::new()));
        serving.spawn(async move {
            server::serve(listener, Arc::new(forwarder), CancellationToken::new()).await;
        });
        Self {
            address,
            database,
            _folder: folder,
            _serving: serving,
        }
    }

    async fn start() -> Self {
        let proxy = Self::without_database().await;
        let mut database = open(&proxy.database).await;
        sqlx::raw_sql(
            "CREATE TABLE trust (address TEXT PRIMARY KEY, server_id TEXT NOT NULL, instance_id TEXT);
             CREATE TABLE instances (id TEXT PRIMARY KEY, tier TEXT NOT NULL, status TEXT NOT NULL)",
        )
        .execute(&mut database)
        .await
        .unwrap();
        sqlx::raw_sql(include_str!(
            "../../coordinator/migrations/sqlite/0004_models.sql"
        ))
        .execute(&mut database)
        .await
        .unwrap();
        sqlx::raw_sql(include_str!(
            "../../coordinator/migrations/sqlite/0005_limits.sql"
        ))
        .execute(&mut database)
        .await
        .unwrap();
        sqlx::query("INSERT INTO instances VALUES (?, 'free', 'running')")
            .bind(INSTANCE)
            .execute(&mut database)
            .await
            .unwrap();
        for (address, server, instance) in [
            (OWNER, SERVER, Some(INSTANCE)),
            (POOL, "srv_00000000000000000000000003", None),
        ] {
            sqlx::query("INSERT INTO trust VALUES (?, ?, ?)")
                .bind(address.to_string())
                .bind(server)
                .bind(instance)
                .execute(&mut database)
                .await
                .unwrap();
        }
        database.close().await.unwrap();
        proxy
    }

    async fn forget(&self, address: Ipv4Addr) {
        let mut database = open(&self.database).await;
        sqlx::query("DELETE FROM trust WHERE address = ?")
            .bind(address.to_string())
            .execute(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
    }

    /// Status and body of one request from `source`, with more header lines.
    async fn ask(&self, source: Ipv4Addr, request: &str, more: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect(source).await;
        let head = format!(
            "{request} HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\ncontent-length: {}\r\n{more}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A refusal may close the connection before all is written.
        drop(stream.write_all(body.as_bytes()).await);
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.contains("transfer-encoding: chunked");
        (
            status,
            if chunked {
                unchunk(body)
            } else {
                body.to_owned()
            },
        )
    }

    /// The head of a request whose body never comes, once the proxy waits for it.
    async fn slow(&self, source: Ipv4Addr) -> TcpStream {
        let mut stream = self.connect(source).await;
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: proxy\r\n\
                    expect: 100-continue\r\ncontent-length: 9\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn connect(&self, source: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn chat(&self, source: Ipv4Addr, request: &Value) -> (u16, String) {
        self.ask(
            source,
            "POST /v1/chat/completions",
            "",
            &request.to_string(),
        )
        .await
    }
}

async fn open(database: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    SqliteConnection::connect_with(&options).await.unwrap()
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
        if size == 0 {
            break;
        }
    }
    body
}

fn hello() -> Value {
    json!({"model": "managed-large", "messages": [{"role": "user", "content": "Say hello"}]})
}

fn refusal(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_owners_server_gets_an_answer_that_owns_up_to_being_a_demo() {
    let proxy = Proxy::start().await;
    let (status, body) = proxy.chat(OWNER, &hello()).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!(body["object"], "chat.completion");
    let content = body["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.contains("demo model") && content.contains("Say hello"));
}

#[tokio::test]
async fn an_unknown_address_is_refused_whatever_its_headers_say() {
    let proxy = Proxy::start().await;
    let forged = format!(
        "x-forwarded-for: {OWNER}\r\nx-real-ip: {OWNER}\r\nforwarded: for={OWNER}\r\n\
         authorization: Bearer x\r\n"
    );
    for path in ["POST /v1/chat/completions", "GET /v1/models", "GET /else"] {
        let (status, body) = proxy
            .ask(STRANGER, path, &forged, &hello().to_string())
            .await;
        assert_eq!(
            (status, refusal(&body).as_str()),
            (403, "unknown_address"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_address_that_left_the_table_is_refused_a_moment_later() {
    let proxy = Proxy::start().await;
    assert_eq!(proxy.chat(OWNER, &hello()).await.0, 200);
    proxy.forget(OWNER).await;
    let refused = async {
        while proxy.chat(OWNER, &hello()).await.0 != 403 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .unwrap();
    assert_eq!(proxy.chat(POOL, &hello()).await.0, 200);
}

#[tokio::test]
async fn without_the_database_nobody_is_let_in() {
    let proxy = Proxy::without_database().await;
    let (status, body) = proxy.chat(OWNER, &hello()).await;
    assert_eq!(
        (status, refusal(&body).as_str()),
        (503, "identity_unavailable")
    );
    assert_eq!(proxy.ask(STRANGER, "GET /healthz", "", "").await.0, 200);
}

#[tokio::test]
async fn a_warm_up_turn_of_the_pool_gets_a_constant_word() {
    let proxy = Proxy::start().await;
    let (status, body) = proxy.chat(POOL, &hello()).await;
    assert_eq!(status, 200);
    assert!(body.contains("\"Ready.\"") && !body.contains("Say hello"));
}

#[tokio::test]
async fn a_stream_is_one_of_the_openai_format_and_adds_up_to_the_whole_answer() {
    let proxy = Proxy::start().await;
    let (_, whole) = proxy.chat(OWNER, &hello()).await;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let mut request = hello();
    request["stream"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let (status, body) = proxy.chat(OWNER, &request).await;
    assert_eq!(status, 200);
    let mut events: Vec<&str> = body
        .split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap())
        .collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let (usage, turns) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"], whole["usage"]);
    assert_eq!(turns[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(turns.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(turns.len() > 4);
    assert!(turns.iter().all(|chunk| {
        chunk["object"] == "chat.completion.chunk"
            && chunk["id"] == turns[0]["id"]
            && chunk.as_object().unwrap().get("usage") == Some(&Value::Null)
    }));
    let text: String = turns
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(whole["choices"][0]["message"]["content"], text);
}

#[tokio::test]
async fn usage_that_was_not_asked_for_is_not_sent() {
    let proxy = Proxy::start().await;
    let mut request = hello();
    request["stream"] = json!(true);
    let (_, body) = proxy.chat(OWNER, &request).await;
    assert!(body.ends_with("data: [DONE]\n\n") && !body.contains("usage"));
}

#[tokio::test]
async fn what_is_no_chat_request_is_refused_in_the_same_dialect() {
    let proxy = Proxy::start().await;
    let (status, body) = proxy.ask(OWNER, "POST /v1/chat/completions", "", "{").await;
    assert_eq!((status, refusal(&body).as_str()), (400, "invalid_json"));
    let (status, body) = proxy.ask(OWNER, "POST /v1/files", "", "{}").await;
    assert_eq!((status, refusal(&body).as_str()), (404, "unknown_path"));
    let (status, body) = proxy.ask(OWNER, "POST /v1/embeddings", "", "{}").await;
    assert_eq!((status, refusal(&body).as_str()), (502, "nobody_answers"));
    let (status, body) = proxy.ask(OWNER, "GET /v1/chat/completions", "", "").await;
    assert_eq!(
        (status, refusal(&body).as_str()),
        (405, "method_not_allowed")
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let proxy = Proxy::start().await;
    let large = " ".repeat(20 * 1024 * 1024 + 1);
    let (status, body) = proxy
        .ask(OWNER, "POST /v1/chat/completions", "", &large)
        .await;
    assert_eq!(
        (status, refusal(&body).as_str()),
        (413, "request_too_large")
    );
}

#[tokio::test]
async fn one_servers_slow_bodies_hold_up_no_other_server() {
    let proxy = Proxy::start().await;
    let mut first = proxy.slow(OWNER).await;
    // `100 Continue` says that it has its place, as all would have, were there no bound.
    let mut word = [0; 12];
    first.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"HTTP/1.1 100");
    let mut slow = vec![first];
    for _ in 0..40 {
        slow.push(proxy.slow(OWNER).await);
    }
    let request = hello();
    let answer = proxy.chat(POOL, &request);
    let (status, _) = tokio::time::timeout(Duration::from_secs(5), answer)
        .await
        .unwrap();
    assert_eq!(status, 200);
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let proxy = Proxy::start().await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(proxy.connect(STRANGER).await);
    }
    let mut refused = proxy.connect(STRANGER).await;
    let mut nothing = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), refused.read_to_end(&mut nothing));
    assert_eq!(end.await.unwrap().unwrap_or(0), 0);
    assert_eq!(proxy.chat(OWNER, &hello()).await.0, 200);
}
