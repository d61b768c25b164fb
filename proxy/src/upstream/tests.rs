//! The client against a provider that says exactly what a test wants.

use std::time::Duration;

use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Provider {
    listener: TcpListener,
    url: Url,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self {
            listener,
            url: format!("http://{address}/v1/x?alt=sse").parse().unwrap(),
        }
    }

    async fn accept(&self) -> TcpStream {
        timeout(PATIENCE, self.listener.accept())
            .await
            .unwrap()
            .unwrap()
            .0
    }
}

/// Reads a request: its head, and as much of a body as it announces.
async fn request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    loop {
        let read = timeout(PATIENCE, stream.read(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert_ne!(read, 0, "closed within a request: {text}");
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split_once("content-length: ").unwrap().1;
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() == length {
                return text;
            }
        }
    }
}

fn client() -> Client {
    Client::new().unwrap()
}

async fn post(client: &Client, url: &Url, body: &'static str) -> Result<Answer, Broken> {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_static("secret"));
    // Not the caller's to say.
    headers.insert("host", HeaderValue::from_static("elsewhere"));
    headers.insert("content-length", HeaderValue::from_static("1"));
    let asked = client.post(url, &headers, Bytes::from_static(body.as_bytes()));
    let answer = timeout(PATIENCE, asked).await.unwrap();
    answer.map_err(|no_answer| no_answer.why)
}

/// The whole body, or what broke it.
async fn whole(mut answer: Answer) -> Result<String, Broken> {
    let mut body = Vec::new();
    while let Some(chunk) = timeout(PATIENCE, answer.body.chunk()).await.unwrap() {
        body.extend_from_slice(&chunk?);
    }
    Ok(String::from_utf8(body).unwrap())
}

/// What comes of bytes that a provider answers with before it closes.
async fn answered(bytes: &'static [u8]) -> Result<String, Broken> {
    let provider = Provider::start().await;
    let answering = async {
        let mut stream = provider.accept().await;
        request(&mut stream).await;
        stream.write_all(bytes).await.unwrap();
    };
    let client = client();
    let (answer, ()) = tokio::join!(post(&client, &provider.url, "{}"), answering);
    whole(answer?).await
}

#[tokio::test]
async fn a_request_is_what_was_asked_for() {
    let provider = Provider::start().await;
    let answering = async {
        let mut stream = provider.accept().await;
        let text = request(&mut stream).await;
        let answer = b"HTTP/1.1 202 Accepted\r\nrequest-id: 7\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        text
    };
    let client = client();
    let (answer, text) = tokio::join!(post(&client, &provider.url, "{\"a\":1}"), answering);
    let answer = answer.unwrap();
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.headers["request-id"], "7");
    assert_eq!(whole(answer).await.unwrap(), "ok");
    let host = provider.listener.local_addr().unwrap();
    let wanted = format!(
        "POST /v1/x?alt=sse HTTP/1.1\r\nhost: {host}\r\nx-api-key: secret\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}"
    );
    assert_eq!(text, wanted);
}

#[tokio::test]
async fn every_way_to_frame_a_body_is_read() {
    for (bytes, body) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"[..], "abc"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", "old"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            "abc",
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
            "a",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        assert_eq!(answered(bytes).await.unwrap(), body, "{}", bytes.escape_ascii());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
    ] {
        let broken = answered(bytes).await.unwrap_err();
        assert!(matches!(broken, Broken::CutOff), "{broken:?}");
    }
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/2",
    ] {
        let broken = answered(bytes).await.unwrap_err();
        assert!(matches!(broken, Broken::Malformed(_)), "{broken:?}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_read_for_ever() {
    let provider = Provider::start().await;
    let answering = async {
        let mut stream = provider.accept().await;
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        // Until the other end has had enough.
        while stream
            .write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
            .await
            .is_ok()
        {}
    };
    let client = client();
    let (answer, ()) = tokio::join!(post(&client, &provider.url, "{}"), answering);
    let broken = answer.unwrap_err();
    assert!(
        matches!(broken, Broken::Malformed(Malformed::LongHead)),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_connection_is_used_again_and_one_that_was_closed_is_not() {
    let provider = Provider::start().await;
    let client = client();
    let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let answering = async {
        let mut stream = provider.accept().await;
        for _ in 0..3 {
            request(&mut stream).await;
            stream.write_all(answer).await.unwrap();
        }
        drop(stream);
        let mut second = provider.accept().await;
        request(&mut second).await;
        let last =
            b"HTTP/1.1 200 OK\r\nconnection: keep-alive, Close\r\ncontent-length: 1\r\n\r\na";
        second.write_all(last).await.unwrap();
        let mut third = provider.accept().await;
        request(&mut third).await;
        // More than was asked for.
        third
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab")
            .await
            .unwrap();
        let mut fourth = provider.accept().await;
        request(&mut fourth).await;
        fourth.write_all(answer).await.unwrap();
    };
    let asking = async {
        for turn in 0..6 {
            if turn == 3 {
                // The end of the first is heard.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let answer = post(&client, &provider.url, "{}").await.unwrap();
            assert_eq!(whole(answer).await.unwrap(), "a");
        }
    };
    timeout(PATIENCE, async { tokio::join!(asking, answering) })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_that_nobody_reads_on_closes_its_connection() {
    let provider = Provider::start().await;
    let client = client();
    let answering = async {
        let mut stream = provider.accept().await;
        request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
            .await
            .unwrap();
        let end = timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    };
    let asking = async {
        let mut answer = post(&client, &provider.url, "{}").await.unwrap();
        assert_eq!(answer.body.chunk().await.unwrap().unwrap(), "abc");
    };
    tokio::join!(asking, answering);
}

#[tokio::test]
async fn a_provider_may_refuse_a_body_before_it_has_read_it() {
    let provider = Provider::start().await;
    let client = client();
    let answering = async {
        let mut stream = provider.accept().await;
        stream.read_exact(&mut [0; 100]).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        // Not one byte more is read, and nothing is closed.
        provider.accept().await
    };
    let body = Bytes::from(vec![b'x'; 64 * 1024 * 1024]);
    let asking = async {
        let headers = HeaderMap::new();
        let answer = client.post(&provider.url, &headers, body).await.unwrap();
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(whole(answer).await.unwrap(), "");
        // Half a request is on that connection: another one is taken.
        drop(
            timeout(
                Duration::from_millis(200),
                post(&client, &provider.url, "{}"),
            )
            .await,
        );
    };
    timeout(PATIENCE, async { tokio::join!(asking, answering) })
        .await
        .unwrap();
}

#[tokio::test]
async fn whether_a_request_had_gone_is_told_when_no_answer_comes() {
    let provider = Provider::start().await;
    let client = client();
    let headers = HeaderMap::new();
    // More than the sockets between them hold, which nobody reads.
    for (body, is_sent) in [(b"{}".to_vec(), true), (vec![b' '; 32 << 20], false)] {
        let answering = async {
            let mut stream = provider.accept().await;
            stream.read_u8().await.unwrap();
            if is_sent {
                request(&mut stream).await;
            }
        };
        let asked = client.post(&provider.url, &headers, body.into());
        let asked = timeout(PATIENCE, asked);
        let (answer, ()) = tokio::join!(asked, answering);
        assert_eq!(answer.unwrap().unwrap_err().is_sent, is_sent);
    }
    drop(provider);
}

#[tokio::test]
async fn what_went_into_a_kept_connection_that_was_closing_is_not_said_to_have_gone() {
    let provider = Provider::start().await;
    let client = client();
    let answering = async {
        let mut stream = provider.accept().await;
        request(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na";
        stream.write_all(answer).await.unwrap();
        // It arrives, and nobody reads it any more.
        stream.peek(&mut [0]).await.unwrap();
    };
    let asking = async {
        let first = post(&client, &provider.url, "{}").await.unwrap();
        assert_eq!(whole(first).await.unwrap(), "a");
        let headers = HeaderMap::new();
        let second = client.post(&provider.url, &headers, Bytes::from_static(b"{}"));
        second.await.unwrap_err()
    };
    let (no_answer, ()) = timeout(PATIENCE, async { tokio::join!(asking, answering) })
        .await
        .unwrap();
    assert!(!no_answer.is_sent, "{no_answer:?}");
}

#[tokio::test]
async fn who_is_not_there_is_told_at_once() {
    let url = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
            .parse()
            .unwrap()
    };
    let broken = post(&client(), &url, "{}").await.unwrap_err();
    assert!(
        matches!(broken, Broken::Dial(NoConnection::Connect(_))),
        "{broken:?}"
    );
}

mod tls {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[tokio::test]
    async fn with_tls_only_who_is_trusted_is_told_anything() {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let trusting = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let trusting = Client::trusting(trusting);

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url: Url = format!("https://localhost:{port}/v1").parse().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let answering = async {
            let (stranger, _) = listener.accept().await.unwrap();
            acceptor.accept(stranger).await.unwrap_err();
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            for _ in 0..2 {
                let mut request = Vec::new();
                while !request.ends_with(b"{}") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
            }
        };
        let asking = async {
            let broken = post(&client(), &url, "{}").await.unwrap_err();
            assert!(
                matches!(broken, Broken::Dial(NoConnection::Secure(_))),
                "{broken:?}"
            );
            for _ in 0..2 {
                let answer = post(&trusting, &url, "{}").await.unwrap();
                assert_eq!(whole(answer).await.unwrap(), "ok");
            }
        };
        timeout(PATIENCE, async { tokio::join!(asking, answering) })
            .await
            .unwrap();
    }
}
