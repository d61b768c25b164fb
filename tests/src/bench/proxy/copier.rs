//! A process that copies bytes between two connections and does nothing else: what an event costs in the
//! kernel and in the runtime, whoever relays it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    task::JoinSet,
};

use super::program::Program;

/// What is read at a time, as in the proxy.
const READ_BYTES: usize = 32 * 1024;

/// Where to.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Arguments {
    /// Whom to connect to, for each connection
    #[arg(long)]
    to: SocketAddr,
}

/// The copier's process: it listens on a free port, says which, and ends with its standard input.
pub async fn copy(arguments: Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(std::io::stdout().lock(), "{}", listener.local_addr()?)?;
    let mut ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A client that leaves is no failure.
                let (client, _) = accepted?;
                connections.spawn(async move { drop(relay(client, arguments.to).await) });
            }
            Some(_) = connections.join_next() => {}
            _ = &mut ended => return Ok(()),
        }
    }
}

async fn relay(client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let upstream = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_upstream, to_upstream) = upstream.into_split();
    tokio::select! {
        ended = pass(from_client, to_upstream) => ended,
        ended = pass(from_upstream, to_client) => ended,
    }
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) -> std::io::Result<()> {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..read]).await?;
    }
}

/// The copier, in front of an upstream.
pub(super) async fn start(to: SocketAddr) -> anyhow::Result<(Program, SocketAddr)> {
    let this = std::env::current_exe()?;
    let arguments = ["proxy-copier", "--to", &to.to_string()];
    let (program, address) = Program::told(&this, &arguments).await?;
    Ok((program, address.parse()?))
}
