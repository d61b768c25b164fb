//! One question to nginx, by the path that a request takes: a new connection, the instance's name.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Where nginx says which configuration it runs.
const PATH: &str = "/.well-known/tidepool/serving";
/// A question on the same machine that takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_ANSWER_BYTES: u64 = 8 * 1024;

/// What nginx said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Asks which configuration answers to this name. By HTTP/1.0, whose answers have no chunks.
pub(super) async fn serving(at: SocketAddr, host: &str, proof: Option<&str>) -> io::Result<Answer> {
    let proof = proof.map_or_else(String::new, |proof| {
        format!("X-Tidepool-Proof: {proof}\r\n")
    });
    let question = format!("GET {PATH} HTTP/1.0\r\nHost: {host}\r\n{proof}\r\n");
    timeout(PATIENCE, exchange(at, &question))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn exchange(at: SocketAddr, question: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(question.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream
        .take(MAX_ANSWER_BYTES)
        .read_to_end(&mut bytes)
        .await?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        body: body.to_owned(),
    })
}
