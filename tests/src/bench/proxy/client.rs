//! A client that costs next to nothing: prepared bytes out, and of what comes in only the end is looked for.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail, ensure};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::Instant,
};

use super::upstream::Behaviour;

const READ_BYTES: usize = 64 * 1024;

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Question {
    bytes: Vec<u8>,
    /// What the time of the answer is taken of.
    until: Until,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    End,
    FirstEvent,
}

impl Question {
    /// For an answer in one piece.
    pub(super) fn plain(body_bytes: usize) -> Self {
        Self::of(Behaviour::Plain, body_bytes, Until::End)
    }

    /// For a few events, the first of which counts.
    pub(super) fn short_stream(body_bytes: usize) -> Self {
        Self::of(Behaviour::Short, body_bytes, Until::FirstEvent)
    }

    /// For many events.
    pub(super) fn long_stream(body_bytes: usize, events: usize) -> Self {
        Self::of(Behaviour::Paced(events), body_bytes, Until::End)
    }

    /// For an event, and no end.
    pub(super) fn open_stream(body_bytes: usize) -> Self {
        Self::of(Behaviour::Open, body_bytes, Until::FirstEvent)
    }

    /// For more events than the proxy's tail has room for, and no end.
    pub(super) fn full_stream(body_bytes: usize) -> Self {
        Self::of(Behaviour::Full, body_bytes, Until::FirstEvent)
    }

    fn of(behaviour: Behaviour, body_bytes: usize, until: Until) -> Self {
        let stream = behaviour != Behaviour::Plain;
        let mut body = format!(
            "{{\"model\":\"default\",\"user\":\"{}\",\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"",
            behaviour.word(),
        );
        let end = "\"}]}";
        let sentence = "You are an agent. Be \\\"brief\\\", and use tools where they help.\\n";
        while body.len() + sentence.len() + end.len() < body_bytes {
            body.push_str(sentence);
        }
        body.push_str(end);
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: proxy\r\naccept: application/json\r\n\
             content-type: application/json\r\nauthorization: Bearer none\r\nuser-agent: OpenAI/JS 6.0\r\n\
             x-stainless-lang: js\r\nx-stainless-retry-count: 0\r\ncontent-length: {}\r\n\r\n",
            body.len(),
        );
        Self {
            bytes: [head.as_bytes(), body.as_bytes()].concat(),
            until,
        }
    }
}

/// A connection that is kept from one question to the next.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(from: IpAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket
            .connect(to)
            .await
            .with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            got: Vec::new(),
        })
    }

    /// Milliseconds until the end of the answer, or its first event; reads the rest all the same.
    pub(super) async fn timed(&mut self, question: &Question) -> anyhow::Result<f64> {
        let begun = Instant::now();
        self.begin(question).await?;
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        self.finish().await?;
        Ok(ms)
    }

    /// Asks, and waits for what the question is about.
    pub(super) async fn begin(&mut self, question: &Question) -> anyhow::Result<()> {
        self.got.clear();
        self.stream.write_all(&question.bytes).await?;
        while !self.is_there(question.until)? {
            self.read().await?;
        }
        Ok(())
    }

    /// Reads to the end of the answer; how many bytes it had.
    pub(super) async fn finish(&mut self) -> anyhow::Result<usize> {
        let mut bytes = 0;
        while !self.is_there(Until::End)? {
            // Of a long stream only the end of its head and its last bytes are of interest.
            if self.got.len() > READ_BYTES {
                let kept = head_length(&self.got).unwrap_or(0);
                let last = self.got.len() - TERMINATOR.len();
                bytes += last - kept;
                self.got.drain(kept..last);
            }
            self.read().await?;
        }
        Ok(bytes + self.got.len())
    }

    fn is_there(&self, until: Until) -> anyhow::Result<bool> {
        let Some(head) = head_length(&self.got) else {
            return Ok(false);
        };
        let status = self.got.get(9..12).unwrap_or_default();
        if status != b"200" {
            bail!("an answer: {}", self.got.escape_ascii());
        }
        let (head, body) = self.got.split_at(head);
        Ok(match (until, content_length(head)) {
            (Until::FirstEvent, _) => memmem::find(body, b"data: ").is_some(),
            (Until::End, Some(length)) => body.len() >= length,
            (Until::End, None) => body.ends_with(TERMINATOR),
        })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        self.got.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.got).await?;
        ensure!(read > 0, "cut off after {} bytes", self.got.len());
        Ok(())
    }

    /// Whether the other end is there, whatever it has said meanwhile.
    pub(super) fn is_open(&self) -> bool {
        let mut unread = [0; 16 * 1024];
        loop {
            match self.stream.try_read(&mut unread) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Frees what was read.
    pub(super) fn forget(&mut self) {
        self.got = Vec::new();
    }
}

/// What ends a body in chunks.
const TERMINATOR: &[u8] = b"\r\n0\r\n\r\n";

/// With the empty line behind it.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

pub(super) fn content_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    })
}
