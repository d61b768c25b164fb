//! One nginx that is every server of this machine's network: it says at which address it was asked, and what
//! it was told. Whoever has no proof, or does not come by TLS as an edge, is refused, as by a server's own nginx;
//! each address has the door of its own server.

use std::{net::IpAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tidepool_certs::door::EDGE;
use tidepool_shared::id::ServerId;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{
    deployment::free_port,
    doors::{self, Doors},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The servers, all of them.
#[derive(Debug)]
pub struct Servers {
    pub port: u16,
    doors: Doors,
    folder: TempDir,
    _nginx: Child,
}

/// What a server was told.
#[derive(Debug)]
pub struct Told(Value);

impl Told {
    /// `None`: that was no server's answer.
    pub fn read(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok().map(Self)
    }

    pub fn get(&self, what: &str) -> &str {
        self.0.get(what).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Servers {
    /// With doors of this authority.
    pub async fn start(doors: Doors) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("tidepool-servers-")?;
        std::fs::write(
            folder.path().join("authority.pem"),
            doors.authority.root_pem(),
        )?;
        let port = free_port()?;
        let configuration = folder.path().join("nginx.conf");
        std::fs::write(&configuration, text(&folder, port))?;
        let nginx = Command::new("/usr/sbin/nginx")
            .args(["-e", "stderr", "-p"])
            .arg(folder.path())
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start nginx")?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(Instant::now() < deadline, "nginx does not come up");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(Self {
            port,
            doors,
            folder,
            _nginx: nginx,
        })
    }

    /// At this address is this server from now on.
    pub fn add(&self, address: IpAddr, server: ServerId) -> anyhow::Result<()> {
        let file = doors::file(self.folder.path(), address);
        Ok(std::fs::write(file, self.doors.door_pem(server)?)?)
    }
}

fn text(folder: &TempDir, port: u16) -> String {
    let path = folder.path().display();
    let told = [
        ("server", "$server_addr"),
        ("host", "$host"),
        ("proof", "$http_x_tidepool_proof"),
        ("visitor", "$http_x_tidepool_visitor"),
        ("client", "$http_x_tidepool_client"),
        ("cookie", "$http_cookie"),
        ("authorization", "$http_authorization"),
        (
            "claims",
            "$http_forwarded$http_x_forwarded_user$http_x_real_ip$http_remote_user$http_cf_connecting_ip",
        ),
    ];
    let told: Vec<_> = told
        .iter()
        .map(|(name, variable)| format!("\"{name}\":\"{variable}\""))
        .collect();
    // Without a master nothing outlives a kill.
    format!(
        "daemon off; master_process off; pid {path}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_timeout 120s; keepalive_requests 1000000; default_type application/json;
    client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;
    uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;
    map $server_addr $door {{ default {path}/$server_addr.pem; }}
    map $ssl_client_s_dn $edge {{ default 0; \"~^CN={EDGE}$\" 1; }}
    ssl_certificate $door; ssl_certificate_key $door; ssl_protocols TLSv1.3;
    ssl_session_tickets off; ssl_session_cache off;
    ssl_client_certificate {path}/authority.pem; ssl_verify_client on;
    server {{
        listen 0.0.0.0:{port} ssl;
        underscores_in_headers on;
        location / {{
            if ($edge = 0) {{ return 403; }}
            if ($http_x_tidepool_proof = \"\") {{ return 403; }}
            return 200 '{{{}}}';
        }}
    }}
}}
",
        told.join(",")
    )
}
