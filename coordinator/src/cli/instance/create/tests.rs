//! A create whose answer is lost.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::cli::target::Target;

/// The head of a request and the connection that it came on.
async fn request(listener: &TcpListener) -> std::io::Result<(String, TcpStream)> {
    let (mut stream, _) = listener.accept().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"}") {
        head.push(stream.read_u8().await?);
    }
    Ok((String::from_utf8_lossy(&head).to_lowercase(), stream))
}

fn key(head: &str) -> Option<&str> {
    head.lines()
        .find_map(|line| line.strip_prefix("idempotency-key: "))
}

fn created() -> String {
    let view = json!({
        "id": "inst_1", "name": "anna", "external_id": null, "tier": "basic",
        "region": "here", "purge_at": null,
        "status": "starting", "health": "unknown", "reasons": [], "url": "http://anna.localhost",
        "generation": 1, "observed_generation": 0, "operation": null, "allowed_actions": [],
        "timings_ms": {}, "warm": true, "pending": null, "created_at": "", "ready_at": null,
    })
    .to_string();
    let length = view.len();
    format!("HTTP/1.1 202 Accepted\r\ncontent-length: {length}\r\n\r\n{view}")
}

#[tokio::test]
async fn it_is_asked_for_again_under_the_same_key() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = Client::new(Target {
        url: format!("http://{}", listener.local_addr()?),
        token: "tp_none".to_owned(),
    })?;
    let body = CreateInstance {
        name: "anna".to_owned(),
        tier: None,
        region: None,
        external_id: None,
        config: None,
    };
    let server = async {
        let (first, lost) = request(&listener).await?;
        drop(lost);
        let (second, mut stream) = request(&listener).await?;
        stream.write_all(created().as_bytes()).await?;
        std::io::Result::Ok((first, second))
    };
    let (view, heads) = tokio::join!(ask(&body, Duration::ZERO, &client), server);
    let (first, second) = heads?;
    assert_eq!(view?.name, "anna");
    assert!(key(&first).is_some_and(|key| key.len() >= 32), "{first}");
    assert_eq!(key(&first), key(&second));
    Ok(())
}
