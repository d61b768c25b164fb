//! The buckets in a real Redis, and a Redis that fails in every way it has.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::directory::Standing;

const PATIENCE: Duration = Duration::from_secs(30);

/// A Redis of this test's own. `None` where none is installed; `./tidepool test` installs one.
struct Redis {
    folder: TempDir,
    process: Child,
}

impl Redis {
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let process = Self::run(&folder);
        if process.is_none() {
            eprintln!("SKIPPED: there is no redis-server; run `./tidepool test`");
        }
        Some(Self {
            process: process?,
            folder,
        })
    }

    fn run(folder: &TempDir) -> Option<Child> {
        Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(folder.path().join("redis.sock"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .ok()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Self::run(&self.folder).unwrap();
    }

    fn url(&self) -> String {
        let socket: PathBuf = self.folder.path().join("redis.sock");
        format!("unix:{}", socket.display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}

/// Rates over this Redis, running.
struct Proxy {
    rates: Arc<Rates>,
    _running: JoinSet<()>,
}

impl Proxy {
    async fn over(redis: &Redis) -> Self {
        Self::at(&redis.url()).await
    }

    async fn at(url: &str) -> Self {
        let rates = Arc::new(Rates::new(Some(Shared::of(url).unwrap())));
        let mut running = JoinSet::new();
        let runs = Arc::clone(&rates);
        running.spawn(async move { runs.run(CancellationToken::new()).await });
        let proxy = Self {
            rates,
            _running: running,
        };
        proxy.until_shared(true).await;
        proxy
    }

    /// Questions that Redis was asked for requests so far.
    fn questions(&self) -> u64 {
        let shared = self.rates.shared.as_ref().unwrap();
        shared.asked.load(Ordering::Relaxed)
    }

    async fn until_shared(&self, shared: bool) {
        let reached = async {
            while self.rates.is_shared() != Some(shared) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap();
    }

    async fn admitted(&self, customer: &Customer, tries: usize) -> usize {
        let mut count = 0;
        for _ in 0..tries {
            count += usize::from(self.rates.admit(customer).await.is_ok());
        }
        count
    }
}

fn customer(requests: Option<u64>, tokens: Option<u64>) -> Customer {
    Customer {
        instance: "inst_00000000000000000000000001".parse().unwrap(),
        tier: "basic".into(),
        limits: Limits {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            ..Limits::default()
        },
        standing: Standing::Good,
    }
}

#[tokio::test]
async fn redis_counts_as_this_process_does() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::over(&redis).await;
    let shared = proxy.rates.shared.as_ref().unwrap();
    // Limits so low that what the clock adds meanwhile is nothing.
    let questions = [
        (Some(10), 4, None, 0),
        (Some(10), 4, Some(20), 5),
        (Some(10), 4, Some(20), 14),
        (Some(10), 4, None, 0),
        (None, 7, Some(20), 0),
        (None, 7, Some(20), 100),
        (Some(0), 1, None, 0),
        (None, 7, Some(0), 0),
        (None, 7, None, 0),
    ];
    let mut own = Buckets::default();
    for (requests_per_minute, requests, tokens_per_minute, used) in questions {
        let ask = Ask {
            requests_per_minute,
            requests,
            tokens_per_minute,
            used,
        };
        let theirs = shared
            .ask(customer(None, None).instance, &ask)
            .await
            .unwrap();
        let ours = own.answer(&ask, 1_000_000_000);
        assert_eq!(
            (theirs.granted, theirs.tokens),
            (ours.granted, ours.tokens),
            "{ask:?}"
        );
        let apart = theirs.wait.abs_diff(ours.wait);
        assert!(apart < Duration::from_secs(3), "{ask:?}: {apart:?}");
    }
}

#[tokio::test]
async fn two_proxies_count_together() {
    let Some(redis) = Redis::start() else { return };
    let (one, other) = (Proxy::over(&redis).await, Proxy::over(&redis).await);
    let requests = customer(Some(10), None);
    let both = one.admitted(&requests, 6).await + other.admitted(&requests, 10).await;
    assert_eq!(both, 10);
    // Tokens that one proxy's requests used reach the other when they are told.
    let tokens = customer(None, Some(1000));
    assert_eq!(one.admitted(&tokens, 1).await, 1);
    one.rates.used(tokens.instance, 5000);
    let refused = async {
        while other.rates.admit(&tokens).await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
}

#[tokio::test]
async fn a_redis_that_stops_refuses_nobody_and_counts_again_when_it_is_back() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let proxy = Proxy::over(&redis).await;
    let customer = customer(Some(1000), None);
    redis.end();
    assert_eq!(proxy.admitted(&customer, 100).await, 100);
    proxy.until_shared(false).await;
    assert_eq!(proxy.admitted(&customer, 100).await, 100);
    redis.start_again();
    proxy.until_shared(true).await;
    assert_eq!(proxy.admitted(&customer, 100).await, 100);
}

#[tokio::test]
async fn a_redis_that_accepts_and_never_answers_refuses_nobody() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::over(&redis).await;
    let customer = customer(Some(1000), None);
    redis.signal(Signal::SIGSTOP);
    // Those of one moment wait as long as they may, together; nobody asks after that, and nobody connects to the
    // one that hangs.
    let before = proxy.questions();
    let wave = (0..50).map(|_| proxy.rates.admit(&customer));
    let wave = futures_util::future::join_all(wave).await;
    assert!(wave.iter().all(Result::is_ok));
    let asked = proxy.questions();
    assert!((1..=50).contains(&(asked - before)), "{before}, {asked}");
    assert_eq!(proxy.rates.is_shared(), Some(false));
    assert_eq!(proxy.admitted(&customer, 500).await, 500);
    assert_eq!(
        proxy.questions(),
        asked,
        "the second wave waits for nothing"
    );
    assert_eq!(proxy.rates.is_shared(), Some(false));
    redis.signal(Signal::SIGCONT);
    proxy.until_shared(true).await;
}

/// A way to this Redis that becomes slow when it is told to.
async fn slow_way(redis: &Redis, slow: Arc<AtomicBool>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let socket = redis.folder.path().join("redis.sock");
    let mut ways = JoinSet::new();
    ways.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            // It may not listen yet.
            let Ok(server) = UnixStream::connect(&socket).await else {
                continue;
            };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            open.spawn(async move { drop(io::copy(&mut from_client, &mut to_server).await) });
            let slow = Arc::clone(&slow);
            open.spawn(async move {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = from_server.read(&mut piece).await {
                    if slow.load(Ordering::Relaxed) {
                        sleep(Duration::from_secs(5)).await;
                    }
                    drop(to_client.write_all(&piece[..read]).await);
                }
            });
        }
    });
    (url, ways)
}

#[tokio::test]
async fn a_redis_that_is_slow_by_five_seconds_refuses_nobody() {
    let Some(redis) = Redis::start() else { return };
    let slow = Arc::new(AtomicBool::new(false));
    let (url, _ways) = slow_way(&redis, Arc::clone(&slow)).await;
    let proxy = Proxy::at(&url).await;
    let customer = customer(Some(1000), None);
    assert_eq!(proxy.admitted(&customer, 5).await, 5);
    slow.store(true, Ordering::Relaxed);
    assert_eq!(proxy.admitted(&customer, 500).await, 500);
    assert_eq!(proxy.rates.is_shared(), Some(false));
    slow.store(false, Ordering::Relaxed);
    proxy.until_shared(true).await;
}

#[tokio::test]
async fn a_redis_that_answers_with_errors_refuses_nobody() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::over(&redis).await;
    let customer = customer(Some(1000), None);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // No user may do anything any more, so every answer is an error.
    let () = redis::cmd("ACL")
        .arg(&["SETUSER", "default", "-@all", "+acl", "+ping"])
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(proxy.admitted(&customer, 200).await, 200);
    assert_eq!(proxy.rates.is_shared(), Some(false));
}

fn alone() -> Proxy {
    Proxy {
        rates: Arc::new(Rates::new(None)),
        _running: JoinSet::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_minutes_requests_pass_at_once_and_then_as_they_come_back() {
    let rates = alone();
    let customer = customer(Some(120), None);
    assert_eq!(rates.admitted(&customer, 200).await, 120);
    let refused = rates.rates.admit(&customer).await.unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_millis(500));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(rates.admitted(&customer, 200).await, 20);
}

#[tokio::test(start_paused = true)]
async fn tokens_count_when_they_were_used() {
    let rates = alone();
    let customer = customer(None, Some(1000));
    assert!(rates.rates.admit(&customer).await.is_ok());
    rates.rates.used(customer.instance, 1500);
    let refused = rates.rates.admit(&customer).await.unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_secs_f64(30.06));
    tokio::time::advance(refused.retry_after).await;
    assert!(rates.rates.admit(&customer).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn new_limits_count_at_once() {
    let rates = alone();
    assert_eq!(rates.admitted(&customer(Some(1), None), 2).await, 1);
    assert_eq!(rates.admitted(&customer(Some(5), None), 9).await, 5);
    assert_eq!(rates.admitted(&customer(Some(0), None), 9).await, 0);
    assert_eq!(rates.admitted(&customer(None, None), 9).await, 9);
}
