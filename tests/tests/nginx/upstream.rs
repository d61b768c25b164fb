//! A gateway that only remembers what it was asked; upgraded connections echo.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) peer: SocketAddr,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(n, _)| n == name).count()
    }
}

/// A listener that ends with its value.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: CancellationToken,
    _guard: DropGuard,
    _task: JoinSet<()>,
}

impl Upstream {
    pub(crate) async fn new(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(listener, Arc::clone(&seen), stop.clone()));
        Self {
            address,
            seen,
            _guard: stop.clone().drop_guard(),
            stop,
            _task: task,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().last().cloned().unwrap()
    }

    pub(crate) fn close(&self) {
        self.stop.cancel();
    }
}

async fn run(listener: TcpListener, seen: Arc<Mutex<Vec<Seen>>>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { return };
                connections.spawn(serve(stream, peer, Arc::clone(&seen)));
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_head(&mut stream, peer).await {
        let upgrade = request.header("upgrade").is_some();
        let frames = request.target.starts_with("/framed");
        let length = request.header("content-length");
        let length = length.and_then(|l| l.parse().ok()).unwrap_or(0);
        seen.lock().unwrap().push(request);
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let answer = if upgrade {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        } else if frames {
            "HTTP/1.1 200 OK\r\nContent-Security-Policy: Frame-Ancestors https://a.example\r\nContent-Length: 2\r\n\r\nok"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if upgrade {
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut to).await.ok();
            return;
        }
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>, peer: SocketAddr) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let headers = lines[1..].iter().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Seen {
        target: lines[0].split(' ').nth(1)?.to_owned(),
        headers: headers.collect(),
        peer,
    })
}
