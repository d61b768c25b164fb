//! A provider that is fast: a process that answers with prepared bytes, and how the bench holds it.
//!
//! What it does is said in the request's `user`, among the first or the last bytes of the body.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::client::{content_length, head_length};

const USAGE: &str = r#"{"prompt_tokens":16000,"completion_tokens":20,"total_tokens":16020,"prompt_tokens_details":{"cached_tokens":15000,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\nx-request-id: req_1\r\n\r\n";
/// Where in a body the behaviour is looked for, from either end.
const LOOK_BYTES: usize = 400;
/// Between two events of a stream: a fast model's tokens.
const PACE: Duration = Duration::from_millis(4);

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// An answer in one piece.
    Plain,
    /// An event, and some more at once.
    Short,
    /// So many events, one after the other.
    Paced(usize),
    /// One event, and silence.
    Open,
    /// Twenty, and silence.
    Full,
}

impl Behaviour {
    pub(super) fn word(self) -> String {
        match self {
            Self::Plain => "bench-plain".to_owned(),
            Self::Short => "bench-short".to_owned(),
            Self::Paced(events) => format!("bench-paced-{events}."),
            Self::Open => "bench-open".to_owned(),
            Self::Full => "bench-full".to_owned(),
        }
    }

    fn of(body: &[u8]) -> Self {
        let first = &body[..body.len().min(LOOK_BYTES)];
        let last = &body[body.len().saturating_sub(LOOK_BYTES)..];
        for part in [first, last] {
            let Some(at) = memmem::find(part, b"bench-") else {
                continue;
            };
            let word = &part[at + "bench-".len()..];
            if word.starts_with(b"short") {
                return Self::Short;
            } else if word.starts_with(b"open") {
                return Self::Open;
            } else if word.starts_with(b"full") {
                return Self::Full;
            } else if let Some(number) = word.strip_prefix(b"paced-") {
                let digits = number.split(|byte| *byte == b'.').next();
                let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
                return Self::Paced(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0));
            }
        }
        Self::Plain
    }
}

/// None so far: it listens on a free port, says which, and ends with its standard input.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Arguments {}

/// The upstream's process.
pub async fn serve(_: Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(std::io::stdout().lock(), "{}", listener.local_addr()?)?;
    let mut ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    let answers = Arc::new(Answers::prepared());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let answers = Arc::clone(&answers);
                // A client that leaves is no failure.
                connections.spawn(async move { drop(answers.serve(stream).await) });
            }
            Some(_) = connections.join_next() => {}
            _ = &mut ended => return Ok(()),
        }
    }
}

/// Bytes that were made once.
struct Answers {
    plain: Vec<u8>,
    /// The head of a stream and its first event, in one write.
    begin: Vec<u8>,
    event: Vec<u8>,
    end: Vec<u8>,
}

impl Answers {
    fn prepared() -> Self {
        let body = format!(
            "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"Hello! How can I help you today?\"}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":{USAGE},\"service_tier\":\"default\"}}"
        );
        let plain = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len(),
        );
        let chunk = |choices: &str, usage: &str| {
            chunked(&format!(
                "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini\",\"service_tier\":\"default\",\"choices\":[{choices}],\"usage\":{usage}}}\n\n"
            ))
        };
        let event = chunk(
            r#"{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}"#,
            "null",
        );
        let last = chunk(
            r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}"#,
            "null",
        );
        let end = [
            last,
            chunk("", USAGE),
            chunked("data: [DONE]\n\n"),
            "0\r\n\r\n".to_owned(),
        ];
        Self {
            plain: plain.into_bytes(),
            begin: format!("{STREAM_HEAD}{event}").into_bytes(),
            event: event.into_bytes(),
            end: end.concat().into_bytes(),
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut got = Vec::new();
        while let Some((behaviour, length)) = request(&mut stream, &mut got).await? {
            got.drain(..length);
            got.shrink_to(0);
            match behaviour {
                Behaviour::Plain => stream.write_all(&self.plain).await?,
                Behaviour::Short => {
                    stream.write_all(&self.begin).await?;
                    stream.write_all(&self.event.repeat(10)).await?;
                    stream.write_all(&self.end).await?;
                }
                Behaviour::Paced(events) => {
                    stream.write_all(&self.begin).await?;
                    let mut pace = interval(PACE);
                    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    for _ in 1..events {
                        pace.tick().await;
                        stream.write_all(&self.event).await?;
                    }
                    stream.write_all(&self.end).await?;
                }
                Behaviour::Open => stream.write_all(&self.begin).await?,
                Behaviour::Full => {
                    stream.write_all(&self.begin).await?;
                    for _ in 0..20 {
                        sleep(PACE).await;
                        stream.write_all(&self.event).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn chunked(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// The next request and how many bytes it has; `None` at the end of the connection.
async fn request(
    stream: &mut TcpStream,
    got: &mut Vec<u8>,
) -> anyhow::Result<Option<(Behaviour, usize)>> {
    loop {
        if let Some(head) = head_length(got) {
            let length = head + content_length(&got[..head]).context("no content-length")?;
            if let Some(body) = got.get(head..length) {
                return Ok(Some((Behaviour::of(body), length)));
            }
            got.reserve(length - got.len());
        }
        got.reserve(4096);
        if stream.read_buf(got).await? == 0 {
            return Ok(None);
        }
    }
}

/// Where it listens, and its process.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    _program: super::program::Program,
}

impl Upstream {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let this = std::env::current_exe()?;
        let (program, address) = super::program::Program::told(&this, &["proxy-upstream"]).await?;
        Ok(Self {
            address: address.parse()?,
            _program: program,
        })
    }
}
