//! One server's nginx on a loopback address of its own, with a gateway and a proxy behind it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tidepool_agent::{
    door::{Door, DoorFile},
    nginx::{Llm, Nginx, Site, Worker},
};
use tidepool_certs::door::name_of;
use tidepool_shared::{
    document::{DesiredDocument, EdgeProof, GatewayLimits, Generation, Power},
    id::{InstanceId, ServerId},
    networks::Networks,
};
use tidepool_tests::doors::Doors;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use uuid::Uuid;

use super::upstream::Upstream;

pub(crate) const PROOF: &str = "5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c";

static NEXT: AtomicU8 = AtomicU8::new(1);

pub(crate) struct Place {
    pub(crate) nginx: Nginx,
    pub(crate) upstream: Upstream,
    pub(crate) llm: Upstream,
    pub(crate) doors: Doors,
    edge: Arc<ClientConfig>,
    site: Site,
    dir: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
}

pub(crate) struct Socket(TlsStream<TcpStream>);

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
        openclaw: None,
        networks: Networks::default(),
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
        let doors = Doors::of(dir.path()).unwrap();
        let site = Site {
            prefix: dir.path().join("nginx"),
            address: address.into(),
            http_port: free(),
            relay: (address, free()).into(),
            gateway: upstream.address,
            llm: Llm::parse(&format!("http://{}", llm.address)).unwrap(),
            door: dir.path().join("door.pem"),
            authority: doors.authority.root_pem().to_owned(),
            relay_secret: "7e".repeat(32),
            worker: if nix::unistd::geteuid().is_root() {
                Worker::Root
            } else {
                Worker::Same
            },
        };
        std::fs::create_dir(&site.prefix).unwrap();
        let place = Self {
            nginx: Nginx::new("/usr/sbin/nginx".into(), site.clone()),
            upstream,
            llm,
            edge: Arc::new(doors.edge().unwrap()),
            doors,
            site,
            dir,
        };
        place.renew_door();
        place
    }

    /// As the agent does it: the file is another one.
    pub(crate) fn renew_door(&self) {
        let (chain, key) = self.doors.door(server()).unwrap();
        let door = Door::new(server(), &key, &chain).unwrap();
        let path = self.site.door.clone();
        door.save(&DoorFile { path, owner: None }).unwrap();
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

    /// The master's children.
    pub(crate) fn workers(&self) -> String {
        let master = self.master();
        let master = master.trim();
        std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap()
    }

    /// The master dies without a word, and is gone with all that it held; its workers are not.
    pub(crate) async fn kill_master(&self) {
        let pid = self.master().trim().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        self.eventually(|| {
            std::fs::read_to_string(format!("/proc/{pid}/status"))
                .map_or(true, |status| status.contains("State:\tZ"))
        })
        .await;
    }

    pub(crate) fn write_pid(&self, pid: u32) {
        std::fs::write(self.prefix().join("nginx.pid"), format!("{pid}\n")).unwrap();
    }

    pub(crate) async fn get(&self, host: &str, headers: &[(&str, &str)]) -> Answer {
        self.raw(&request(host, headers)).await
    }

    pub(crate) async fn raw(&self, request: &str) -> Answer {
        self.raw_as(&self.edge, request).await.unwrap()
    }

    /// As somebody who shows something else, or nothing.
    pub(crate) async fn raw_as(
        &self,
        client: &Arc<ClientConfig>,
        request: &str,
    ) -> io::Result<Answer> {
        exchange(self.connect(client).await?, request).await
    }

    pub(crate) async fn raw_in_clear(&self, request: &str) -> Answer {
        let stream = TcpStream::connect(self.http()).await.unwrap();
        exchange(stream, request).await.unwrap()
    }

    /// Everything that is answered until the connection is closed.
    pub(crate) async fn whole(&self, request: &str) -> String {
        let mut stream = self.connect(&self.edge).await.unwrap();
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
        let stream = TcpStream::connect(self.site.relay).await.unwrap();
        exchange(stream, request).await.unwrap()
    }

    async fn connect(&self, client: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.http()).await?;
        let name = ServerName::try_from(name_of(server())).unwrap();
        TlsConnector::from(Arc::clone(client))
            .connect(name, stream)
            .await
    }

    /// The certificate that the door shows, if it shows any.
    pub(crate) async fn shown(&self) -> io::Result<CertificateDer<'static>> {
        let stream = self.connect(&self.edge).await?;
        let (_, connection) = stream.get_ref();
        Ok(connection.peer_certificates().unwrap()[0]
            .clone()
            .into_owned())
    }

    pub(crate) fn without_door(&self) {
        std::fs::remove_file(&self.site.door).unwrap();
    }

    pub(crate) async fn upgraded(&self, host: &str) -> Socket {
        let mut stream = self.connect(&self.edge).await.unwrap();
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("X-Tidepool-Proof", PROOF),
        ];
        let request = request(host, &headers);
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(head(&mut stream).await.unwrap().status, 101);
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

fn server() -> ServerId {
    ServerId::new(Uuid::from_u128(1))
}

pub(crate) fn request(host: &str, headers: &[(&str, &str)]) -> String {
    let headers = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers: String = headers.collect();
    format!("GET /x?y=1 HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> io::Result<Answer> {
    stream.write_all(request.as_bytes()).await?;
    head(&mut stream).await
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await?);
        }
        io::Result::Ok(())
    };
    timeout(Duration::from_secs(5), read).await??;
    let text = String::from_utf8(bytes).unwrap();
    Ok(Answer {
        status: text.split(' ').nth(1).unwrap().parse().unwrap(),
        head: text,
    })
}
