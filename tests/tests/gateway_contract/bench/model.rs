//! A model that says hello to everything, and counts how often it was asked.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
    data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hello\"},\"finish_reason\":null}]}\n\n\
    data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
    data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"total_tokens\":10}}\n\n\
    data: [DONE]\n\n";

/// A free port of this address.
pub(super) fn listener(address: IpAddr) -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind((address, 0)).expect("a port");
    listener.set_nonblocking(true).expect("non-blocking");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

pub(super) async fn serve(listener: std::net::TcpListener, calls: Arc<AtomicU32>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let mut answers = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        answers.spawn(answer(stream, calls.clone()));
    }
}

/// Reads one request as far as its length says, and streams the answer.
async fn answer(mut stream: TcpStream, calls: Arc<AtomicU32>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, _)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if bytes.len() >= head.len() + 4 + length.unwrap_or(0) {
            break;
        }
    }
    calls.fetch_add(1, Ordering::SeqCst);
    stream.write_all(ANSWER.as_bytes()).await?;
    stream.shutdown().await
}
