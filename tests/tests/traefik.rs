//! The real Traefik in front of the edge, as `tidepool init traefik` sets it up: TLS, sign-in, WebSocket.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use reqwest::{Client, ClientBuilder, RequestBuilder, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidepool_tests::{api::Api, chaos::world::World, deployment::free_port, evidence, programs};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

const PATIENCE: Duration = Duration::from_mins(2);
const DOMAIN: &str = "chaos.localhost";

/// The real one, if this run has it.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("TIDEPOOL_TRAEFIK").map(PathBuf::from);
    if program.is_none() {
        eprintln!("SKIPPED: TIDEPOOL_TRAEFIK is not set; run `./tidepool test`");
    }
    program
}

/// Traefik with a certificate that its visitors know.
struct Traefik {
    https_port: u16,
    http_port: u16,
    status_port: u16,
    root: reqwest::Certificate,
    folder: TempDir,
    _process: Child,
}

impl Traefik {
    async fn start(program: &Path, world: &World, https_port: u16) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("tidepool-traefik-")?;
        let [certificate, key] =
            ["wildcard.pem", "wildcard.key"].map(|name| folder.path().join(name));
        let made = rcgen::generate_simple_self_signed([format!("*.{DOMAIN}")])?;
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let (http_port, status_port) = (free_port()?, free_port()?);
        let port = |port: u16| port.to_string();
        let written = Command::new(programs::program("tidepool")?)
            .args(["init", "traefik", "--config"])
            .arg(world.configuration())
            .arg("--out")
            .arg(folder.path().join("traefik"))
            .arg("--certificate")
            .arg(&certificate)
            .arg("--key")
            .arg(&key)
            .args([
                "--https-port",
                &port(https_port),
                "--http-port",
                &port(http_port),
            ])
            .args(["--status-port", &port(status_port)])
            .output()
            .await?;
        let said = String::from_utf8_lossy(&written.stderr);
        ensure!(written.status.success(), "{said}");
        let log = std::fs::File::create(folder.path().join("traefik.log"))?;
        let mut configuration = std::ffi::OsString::from("--configFile=");
        configuration.push(folder.path().join("traefik/traefik.yml"));
        let process = Command::new(program)
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start Traefik")?;
        let traefik = Self {
            https_port,
            http_port,
            status_port,
            root: reqwest::Certificate::from_pem(made.cert.pem().as_bytes())?,
            folder,
            _process: process,
        };
        traefik.is_up().await?;
        Ok(traefik)
    }

    async fn is_up(&self) -> anyhow::Result<()> {
        let ping = format!("http://127.0.0.1:{}/ping", self.status_port);
        let deadline = Instant::now() + PATIENCE;
        let client = Client::builder().no_proxy().build()?;
        while !client
            .get(&ping)
            .send()
            .await
            .is_ok_and(|pong| pong.status() == StatusCode::OK)
        {
            let log = std::fs::read_to_string(self.folder.path().join("traefik.log"))?;
            ensure!(Instant::now() < deadline, "Traefik does not come up: {log}");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// A browser that comes from this address.
    fn visitor(&self, from: IpAddr) -> anyhow::Result<Visitor> {
        let name = |name: &str| format!("{name}.{DOMAIN}");
        let https = ([127, 0, 0, 1], self.https_port).into();
        let builder: ClientBuilder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .add_root_certificate(self.root.clone())
            .local_address(from)
            .timeout(PATIENCE)
            .http1_only();
        let client = builder
            .resolve(&name("alice"), https)
            .resolve(&name("nobody"), https)
            .build()?;
        Ok(Visitor {
            client,
            port: self.https_port,
            cookie: None,
        })
    }
}

impl Drop for Traefik {
    fn drop(&mut self) {
        evidence::collect(self.folder.path(), "traefik");
    }
}

struct Visitor {
    client: Client,
    port: u16,
    cookie: Option<String>,
}

impl Visitor {
    fn url(&self, name: &str) -> String {
        format!("https://{name}.{DOMAIN}:{}", self.port)
    }

    fn get(&self, name: &str, path: &str) -> RequestBuilder {
        let request = self.client.get(format!("{}{path}", self.url(name)));
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    /// Opens a login link, and sends its page's form.
    async fn sign_in(&mut self, link: &str) -> anyhow::Result<()> {
        ensure!(link.starts_with(&self.url("alice")), "{link}");
        let origin = self.url("alice");
        let answer = self
            .client
            .post(link)
            .header("origin", origin)
            .send()
            .await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let said = answer.text().await?;
        let cookie = headers.get("set-cookie");
        let cookie = cookie.with_context(|| format!("no cookie: {status} {said}"))?;
        let cookie = cookie.to_str()?;
        ensure!(cookie.contains("Secure"), "{cookie}");
        let cookie = cookie.split(';').next().context("its name and value")?;
        evidence::note_secret(cookie.rsplit('=').next().unwrap_or_default());
        self.cookie = Some(cookie.to_owned());
        Ok(())
    }

    /// The first frame of the gateway's WebSocket, or the status of the refusal.
    async fn challenge(&self, origin: &str) -> anyhow::Result<Result<Value, StatusCode>> {
        let request = self
            .get("alice", "/")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("origin", origin);
        let answer = request.send().await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Err(answer.status()));
        }
        let upgraded = answer.upgrade().await?;
        let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
        let frame = socket.next().await.context("a frame")??;
        Ok(Ok(serde_json::from_str(frame.to_text()?)?))
    }
}

fn here() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

async fn alice(world: &World) -> anyhow::Result<(&Api, String)> {
    let api = world.api(0).context("the coordinator is up")?;
    let warm = |pool: &Value| pool.pointer("/pools/0/warm").and_then(Value::as_u64) >= Some(1);
    api.until("/pool", PATIENCE, warm).await?;
    let alice = api.create("alice", 60).await?;
    ensure!(alice.get("status") == Some(&json!("running")), "{alice}");
    let id = alice.get("id").and_then(Value::as_str);
    Ok((api, id.context("an id")?.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_comes_by_https_through_traefik_and_is_counted_by_their_own_address()
-> anyhow::Result<()> {
    let Some(program) = program() else {
        return Ok(());
    };
    let https_port = free_port()?;
    let mut world = World::start_behind(Some(https_port), None, 1).await?;
    world.up_all().await?;
    let traefik = Traefik::start(&program, &world, https_port).await?;
    let (api, id) = alice(&world).await?;
    let mut visitor = traefik.visitor(here())?;
    ensure!(visitor.get("alice", "/").send().await?.status() == StatusCode::UNAUTHORIZED);
    ensure!(visitor.get("nobody", "/").send().await?.status() == StatusCode::NOT_FOUND);
    visitor.sign_in(&api.login_link(&id).await?).await?;
    let settings = visitor
        .get("alice", "/control-ui-config.json")
        .send()
        .await?;
    ensure!(settings.status() == StatusCode::OK, "{}", settings.status());
    let challenge = visitor.challenge(&visitor.url("alice")).await?;
    let event = challenge.map_err(|status| anyhow::anyhow!("refused: {status}"))?;
    ensure!(
        event.get("event") == Some(&json!("connect.challenge")),
        "{event}"
    );
    let foreign = visitor.challenge("https://evil.example").await?;
    ensure!(foreign == Err(StatusCode::FORBIDDEN), "{foreign:?}");
    // Plain http is sent to https.
    let plain = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .build()?;
    let plain = plain.get(format!("http://127.0.0.1:{}/x", traefik.http_port));
    let moved = plain
        .header("host", format!("alice.{DOMAIN}"))
        .send()
        .await?;
    ensure!(moved.status().is_redirection(), "{}", moved.status());
    let to = moved
        .headers()
        .get("location")
        .context("where to")?
        .to_str()?;
    ensure!(to.starts_with(&format!("https://alice.{DOMAIN}")), "{to}");
    guesses_are_counted_by_visitor(api, &id, &traefik).await?;
    drop(traefik);
    world.end().await
}

/// Whoever guesses a password too often is stopped, and nobody else behind the same Traefik; what visitors say
/// about where they come from changes nothing.
async fn guesses_are_counted_by_visitor(
    api: &Api,
    id: &str,
    traefik: &Traefik,
) -> anyhow::Result<()> {
    let path = format!("/instances/{id}/basic_auth");
    let body = json!({ "username": "alice" });
    let (status, answer) = api
        .send(reqwest::Method::PUT, &path, &[], Some(&body))
        .await?;
    ensure!(status.is_success(), "{status}");
    let password = answer.get("password").and_then(Value::as_str);
    let password = password.context("a password")?.to_owned();
    evidence::note_secret(&password);
    let (guesser, other) = (
        traefik.visitor(Ipv4Addr::new(127, 0, 0, 2).into())?,
        traefik.visitor(Ipv4Addr::new(127, 0, 0, 3).into())?,
    );
    let guess = async |visitor: &Visitor, password: &str, from: &str| {
        let request = visitor.get("alice", "/control-ui-config.json");
        let request = request.basic_auth("alice", Some(password));
        let answer = request.header("x-forwarded-for", from).send().await?;
        anyhow::Ok(answer.status())
    };
    let known = Instant::now() + PATIENCE;
    while guess(&other, &password, "127.0.0.9").await? != StatusCode::OK {
        ensure!(Instant::now() < known, "the password is not known");
        sleep(Duration::from_millis(50)).await;
    }
    let mut stopped = false;
    for number in 0..30 {
        let from = format!("198.51.100.{number}");
        let status = guess(&guesser, &format!("wrong-{number}"), &from).await?;
        stopped |= status == StatusCode::TOO_MANY_REQUESTS;
    }
    ensure!(stopped, "30 guesses in a row");
    let status = guess(&other, "wrong", "127.0.0.2").await?;
    ensure!(status == StatusCode::UNAUTHORIZED, "{status}");
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_and_writes_nothing() -> anyhow::Result<()> {
    let world = World::start(None, 1).await?;
    let folder = TempDir::new()?;
    let out = folder.path().join("traefik");
    let init = async |more: &[&str]| {
        Command::new(programs::program("tidepool")?)
            .args(["init", "traefik", "--config"])
            .arg(world.configuration())
            .arg("--out")
            .arg(&out)
            .args(more)
            .output()
            .await
            .context("run tidepool")
    };
    for (arguments, code, says) in [
        (
            &["--email", "a@example.com", "--dns", "hetzner"][..],
            1,
            "edge.scheme",
        ),
        (&["--email", "a@example.com"], 2, "--dns"),
        (&[], 2, "--email"),
    ] {
        let refused = init(arguments).await?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(code), "{arguments:?}: {said}");
        ensure!(said.contains(says), "{arguments:?}: {said}");
    }
    ensure!(!out.exists());
    world.end().await
}
