//! A Redis of the bench's own.

use std::{net::SocketAddr, path::Path, time::Duration};

use tokio::{net::TcpStream, process::Command};

use super::{program::Program, until};

const PATIENCE: Duration = Duration::from_secs(10);

/// It keeps nothing on disk.
#[derive(Debug)]
pub(super) struct Redis {
    pub(super) url: String,
    _program: Program,
}

impl Redis {
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let address = super::deployment::free_address().await?;
        let mut command = Command::new("redis-server");
        command.current_dir(folder).args([
            "--bind",
            "127.0.0.1",
            "--port",
            &address.port().to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let program = Program::logged(&mut command, &folder.join("redis.log"))?;
        until("Redis listens", PATIENCE, || answers(address)).await?;
        Ok(Self {
            url: format!("redis://{address}/"),
            _program: program,
        })
    }
}

async fn answers(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}
