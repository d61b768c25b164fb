//! One server's nginx on a loopback address of its own, with a gateway and a proxy behind it.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tidepool_agent::nginx::{Llm, Nginx, Site, Worker};
use tidepool_shared::{
    document::{DesiredDocument, EdgeProof, GatewayLimits, Generation, Power},
    id::InstanceId,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::upstream::Upstream;

pub(crate) const PROOF: &str = "5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c";

static NEXT: AtomicU8 = AtomicU8::new(1);

pub(crate) struct Place {
    pub(crate) nginx: Nginx,
    pub(crate) upstream: Upstream,
    pub(crate) llm: Upstream,
    site: Site,
    dir: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
}

pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) async fn echo(&mut self, word: &str) -> String {
        self.0.write_all(word.as_bytes()).await.unwrap();
        let mut bytes = vec![0; word.len()];
        let read = self.0.read_exact(&mut bytes);
        timeout(Duration::from_secs(5), read)
            .await
            .unwrap()
            .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Whether it ends within a second, without another word.
    pub(crate) async fn has_ended(&mut self) -> bool {
        let mut byte = [0];
        let read = timeout(Duration::from_secs(1), self.0.read(&mut byte));
        matches!(read.await, Ok(Ok(0) | Err(_)))
    }
}

pub(crate) fn document(generation: u64, hosts: &[&str]) -> DesiredDocument {
    DesiredDocument {
        instance: InstanceId::new(Uuid::from_u128(1)),
        generation: Generation(generation),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        origins: hosts
            .iter()
            .map(|host| format!("http://{host}:8443"))
            .collect(),
        edge_proof: EdgeProof(PROOF.into()),
        config: serde_json::json!({}),
        restarts: 0,
        limits: GatewayLimits::default(),
        power: Power::On,
        evictions: 0,
        max_body_bytes: None,
    }
}

impl Place {
    pub(crate) async fn new() -> Self {
        // By process and place, so that tests in parallel have addresses of their own.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let place = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(127, 100 + (high & 0x3f) + (place << 6 >> 1), low, 1 + place);
        let upstream = Upstream::new((address, 0).into()).await;
        let llm = Upstream::new((Ipv4Addr::LOCALHOST, 0).into()).await;
        let free = || {
            let probe = TcpListener::bind((address, 0)).unwrap();
            probe.local_addr().unwrap().port()
        };
        let dir = tempfile::tempdir().unwrap();
        let site = Site {
            prefix: dir.path().join("nginx"),
            address: address.into(),
            http_port: free(),
            relay: (address, free()).into(),
            gateway: upstream.address,
            llm: Llm::parse(&format!("http://{}", llm.address)).unwrap(),
            relay_secret: "7e".repeat(32),
            worker: if nix::unistd::geteuid().is_root() {
                Worker::Root
            } else {
                Worker::Same
            },
        };
        std::fs::create_dir(&site.prefix).unwrap();
        Self {
            nginx: Nginx::new("/usr/sbin/nginx".into(), site.clone()),
            upstream,
            llm,
            site,
            dir,
        }
    }

    pub(crate) async fn claimed(document: &DesiredDocument) -> Self {
        let place = Self::new().await;
        place.nginx.serve(Some(document)).await.unwrap();
        place
    }

    pub(crate) fn http(&self) -> SocketAddr {
        SocketAddr::new(self.site.address, self.site.http_port)
    }

    pub(crate) fn prefix(&self) -> PathBuf {
        self.dir.path().join("nginx")
    }

    pub(crate) fn relay_path(&self) -> String {
        format!("/{}", self.site.relay_secret)
    }

    /// As after `kill -9` of the agent: nobody remembers the process that was started.
    pub(crate) fn forget_nginx(&mut self) {
        self.nginx = Nginx::new("/usr/sbin/nginx".into(), self.site.clone());
    }

    pub(crate) fn master(&self) -> String {
        std::fs::read_to_string(self.prefix().join("nginx.pid")).unwrap()
    }

    /// The master dies without a word; its workers do not.
    pub(crate) fn kill_master(&self) {
        let pid = self.master().trim().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }

    pub(crate) fn write_pid(&self, pid: u32) {
        std::fs::write(self.prefix().join("nginx.pid"), format!("{pid}\n")).unwrap();
    }

    pub(crate) async fn get(&self, host: &str, headers: &[(&str, &str)]) -> Answer {
        self.raw(&request(host, headers)).await
    }

    pub(crate) async fn raw(&self, request: &str) -> Answer {
        exchange(self.http(), request).await
    }

    /// Everything that is answered until the connection is closed.
    pub(crate) async fn whole(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.http()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        timeout(Duration::from_secs(5), read)
            .await
            .unwrap()
            .unwrap();
        answer
    }

    pub(crate) async fn raw_relay(&self, request: &str) -> Answer {
        exchange(self.site.relay, request).await
    }

    pub(crate) async fn upgraded(&self, host: &str) -> Socket {
        let mut stream = TcpStream::connect(self.http()).await.unwrap();
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("X-Tidepool-Proof", PROOF),
        ];
        let request = request(host, &headers);
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(head(&mut stream).await.status, 101);
        Socket(stream)
    }

    pub(crate) async fn eventually(&self, done: impl Fn() -> bool) {
        let wait = async {
            while !done() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(5), wait).await.unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.prefix().join("nginx.pid")).unwrap_or_default();
        let Ok(pid) = pid.trim().parse() else { return };
        let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if title.contains(&*self.prefix().to_string_lossy()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        }
    }
}

fn request(host: &str, headers: &[(&str, &str)]) -> String {
    let headers = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers: String = headers.collect();
    format!("GET /x?y=1 HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")
}

async fn exchange(at: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    head(&mut stream).await
}

async fn head(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(Duration::from_secs(5), read).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    Answer {
        status: text.split(' ').nth(1).unwrap().parse().unwrap(),
        head: text,
    }
}
