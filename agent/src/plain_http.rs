//! One question by HTTP/1.0, whose answers have no chunks: to nginx on this server, and to the cloud's
//! metadata service.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// How much and how long is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) patience: Duration,
    /// With its head; more is cut off.
    pub(crate) bytes: u64,
}

/// Asks for `path`; each of `headers` ends with a line end.
pub(crate) async fn get(
    at: SocketAddr,
    path: &str,
    headers: &str,
    bounds: Bounds,
) -> io::Result<Answer> {
    let question = format!("GET {path} HTTP/1.0\r\n{headers}\r\n");
    timeout(bounds.patience, exchange(at, &question, bounds.bytes))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn exchange(at: SocketAddr, question: &str, limit: u64) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(question.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(limit).read_to_end(&mut bytes).await?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        body: body.to_owned(),
    })
}
