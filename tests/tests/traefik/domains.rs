//! A customer's own name, from its records in DNS to its certificate: with a real certificate authority that
//! asks by plain http through Traefik, and Traefik that passes what comes by TLS on to the edge unopened.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    chaos::world::{Front, World},
    deployment::free_port,
    doors::Doors,
    evidence,
    front::{self, Authority, Ports, Redis, Traefik},
    programs,
};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::WebSocketStream;

use super::{DOMAIN, PATIENCE, alice, here, visitor};

const TARGET: &str = "edge.customers.test";
const CHAT: &str = "chat.customer.test";
/// Long enough that none is renewed meanwhile.
const VALIDITY: Duration = Duration::from_hours(24 * 90);

struct Deployment {
    world: World,
    traefik: Traefik,
    authority: Authority,
    _redis: Option<Redis>,
}

/// How Traefik leads to instances.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Routes {
    Wildcard,
    /// Each has one, in Redis.
    OfTheirOwn,
}

async fn start(routes: Routes, validity: Duration) -> anyhow::Result<Option<Deployment>> {
    let Some(program) = front::program() else {
        return Ok(None);
    };
    let (ports, redis_port) = (Ports::free()?, free_port()?);
    let authority = Authority::start(ports.http, validity).await?;
    let password = "the-coordinators-own";
    evidence::note_secret(password);
    let redis = (routes == Routes::OfTheirOwn).then(|| {
        let url = format!("redis://tidepool:{password}@127.0.0.1:{redis_port}/1");
        (url, format!("http://127.0.0.1:{}", ports.status))
    });
    let front = Front {
        https_port: ports.https,
        redis,
        domains: Some(authority.settings(TARGET, free_port()?)),
    };
    let mut world = World::start_behind(Some(front), None, 1).await?;
    // As if the coordinator had been started before.
    Doors::of(&world.state_dir())?;
    let mut traefik = Traefik::set_up(&program, &world.configuration(), DOMAIN, ports, &[]).await?;
    let redis = if routes == Routes::OfTheirOwn {
        let acl = Some(traefik.file("redis.acl"));
        Some(Redis::start(redis_port, acl).await?)
    } else {
        None
    };
    traefik.start().await?;
    world.up_all().await?;
    authority.lead(TARGET, &[Ipv4Addr::LOCALHOST]).await?;
    Ok(Some(Deployment {
        world,
        traefik,
        authority,
        _redis: redis,
    }))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// What the records of a domain must be.
fn proof(domain: &Value) -> anyhow::Result<(String, String)> {
    let records = domain.get("records").and_then(Value::as_array);
    let records = records.context("records")?;
    let record = records.iter().find(|record| text(record, "type") == "TXT");
    let record = record.context("a TXT record")?;
    Ok((
        text(record, "name").to_owned(),
        text(record, "value").to_owned(),
    ))
}

impl Deployment {
    fn api(&self) -> anyhow::Result<&Api> {
        self.world.api(0).context("the coordinator is up")
    }

    async fn tidepool(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let api = self.api()?;
        let output = Command::new(programs::program("tidepool")?)
            .args(arguments)
            .env("TIDEPOOL_URL", &api.url)
            .env("TIDEPOOL_TOKEN", &api.token)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}{complaint}");
        Ok(said)
    }

    /// Has a domain looked at until it is as wanted.
    async fn until(
        &self,
        instance: &str,
        domain: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let api = self.api()?;
        let path = format!("/instances/{instance}/domains/{domain}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = api.post(&format!("{path}/check"), &json!({})).await?;
            if wanted(&shown) {
                return Ok(shown);
            }
            let logs = || format!("{}{}", self.world.logs(), self.authority.log());
            ensure!(Instant::now() < deadline, "{shown}: {}", logs());
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// Puts the records into DNS and waits until the domain answers.
    async fn activate(&self, instance: &str, domain: &str) -> anyhow::Result<()> {
        let api = self.api()?;
        let path = format!("/instances/{instance}/domains/{domain}");
        let (name, value) = proof(&api.get(&path).await?)?;
        self.authority.say(&name, Some(&value)).await?;
        self.authority.lead(domain, &[Ipv4Addr::LOCALHOST]).await?;
        let is_active = |shown: &Value| text(shown, "state") == "active";
        self.until(instance, domain, is_active).await.map(drop)
    }

    /// A browser that knows the authority, and no other.
    async fn browser(&self) -> anyhow::Result<Browser> {
        let root = self.authority.root().await?;
        Browser::new(&self.traefik, root, here())
    }

    async fn kinds(&self) -> anyhow::Result<Vec<String>> {
        let events = self.api()?.events().await?;
        let kinds = events.iter().map(|event| text(event, "type").to_owned());
        Ok(kinds.filter(|kind| kind.starts_with("domain.")).collect())
    }
}

struct Browser {
    client: Client,
    origin: String,
    cookie: Option<String>,
}

impl Browser {
    fn new(traefik: &Traefik, root: Certificate, from: IpAddr) -> anyhow::Result<Self> {
        Ok(Self {
            client: traefik.browser(from).tls_certs_only([root]).build()?,
            origin: format!("https://{CHAT}:{}", traefik.ports.https),
            cookie: None,
        })
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.get(format!("{}{path}", self.origin));
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    async fn status(&self, path: &str) -> anyhow::Result<StatusCode> {
        Ok(self.get(path).send().await?.status())
    }

    async fn sign_in(&mut self, link: &str) -> anyhow::Result<()> {
        evidence::note_secret(link.rsplit('=').next().unwrap_or_default());
        ensure!(link.starts_with(&self.origin), "{link}");
        let form = self.client.post(link).header("origin", &self.origin);
        let answer = form.send().await?;
        let cookie = answer.headers().get("set-cookie").context("a cookie")?;
        let cookie = cookie.to_str()?.split(';').next().context("its value")?;
        evidence::note_secret(cookie.rsplit('=').next().unwrap_or_default());
        self.cookie = Some(cookie.to_owned());
        Ok(())
    }

    async fn socket(
        &self,
        origin: &str,
    ) -> anyhow::Result<Result<WebSocketStream<reqwest::Upgraded>, StatusCode>> {
        visitor::websocket(|| self.get("/"), origin).await
    }

    /// An open WebSocket of the owner's.
    async fn open(&self) -> anyhow::Result<WebSocketStream<reqwest::Upgraded>> {
        let socket = self.socket(&self.origin).await?;
        socket.map_err(|status| anyhow::anyhow!("refused: {status}"))
    }
}

async fn ends(mut socket: WebSocketStream<reqwest::Upgraded>) -> anyhow::Result<()> {
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    timeout(PATIENCE, rest).await.context("it stays open")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customers_own_name_is_proven_certified_served_and_ended() -> anyhow::Result<()> {
    let Some(tidepool) = start(Routes::Wildcard, VALIDITY).await? else {
        return Ok(());
    };
    let (api, id) = alice(&tidepool.world).await?;
    nothing_but_public_names_of_others_is_taken(api).await?;
    let said = tidepool
        .tidepool(&["instance", "domain", "add", "alice", "Chat.Customer.test"])
        .await?;
    ensure!(
        said.contains("_tidepool.chat.customer.test") && said.contains(TARGET),
        "{said}"
    );
    let is_told_why = |shown: &Value| text(shown, "problem").contains("no TXT record");
    let pending = tidepool.until("alice", CHAT, is_told_why).await?;
    ensure!(text(&pending, "state") == "pending_dns", "{pending}");
    // Leading here alone proves nothing.
    tidepool
        .authority
        .lead(CHAT, &[Ipv4Addr::LOCALHOST])
        .await?;
    sleep(Duration::from_secs(1)).await;
    let pending = tidepool.until("alice", CHAT, is_told_why).await?;
    ensure!(text(&pending, "state") == "pending_dns", "{pending}");
    let mut browser = tidepool.browser().await?;
    ensure!(
        browser.get("/").send().await.is_err(),
        "it has a certificate"
    );
    tidepool.activate("alice", CHAT).await?;

    ensure!(browser.status("/").await? == StatusCode::UNAUTHORIZED);
    let body = json!({ "domain": CHAT });
    let link = api
        .post(&format!("/instances/{id}/login_links"), &body)
        .await?;
    browser.sign_in(text(&link, "url")).await?;
    ensure!(browser.status("/control-ui-config.json").await? == StatusCode::OK);
    whoever_connects_is_known(&tidepool, &id).await?;
    let socket = browser.open().await?;
    let foreign = browser.socket("https://evil.example").await?;
    ensure!(foreign.err() == Some(StatusCode::FORBIDDEN));
    let own = format!("https://alice.{DOMAIN}:{}", tidepool.traefik.ports.https);
    ensure!(
        browser.socket(&own).await?.is_ok(),
        "its other name is its own too"
    );
    let misdirected = browser.get("/").header("host", format!("alice.{DOMAIN}"));
    let misdirected = misdirected.send().await?.status();
    ensure!(
        misdirected == StatusCode::MISDIRECTED_REQUEST,
        "{misdirected}"
    );

    // Another name of ours does not take it away.
    let at_rest = |instance: &Value| instance.get("operation") == Some(&Value::Null);
    api.until("/instances/alice", PATIENCE, at_rest).await?;
    tidepool
        .tidepool(&["instance", "rename", "alice", "bob"])
        .await?;
    ends(socket).await.context("it was renamed")?;
    api.until("/instances/bob", PATIENCE, at_rest).await?;
    let body = json!({ "domain": CHAT });
    let link = api
        .post(&format!("/instances/{id}/login_links"), &body)
        .await?;
    browser.sign_in(text(&link, "url")).await?;
    ensure!(browser.status("/control-ui-config.json").await? == StatusCode::OK);

    let socket = browser.open().await?;
    let list = tidepool
        .tidepool(&["instance", "domain", "list", "bob"])
        .await?;
    ensure!(list.contains(CHAT) && list.contains("active"), "{list}");
    tidepool
        .tidepool(&["instance", "domain", "remove", "bob", CHAT])
        .await?;
    ends(socket).await.context("the domain was removed")?;
    let gone = browser.status("/").await;
    ensure!(gone.is_err() || gone.is_ok_and(|status| status == StatusCode::NOT_FOUND));
    // The document follows.
    let generation = |instance: &Value| instance.get("generation").cloned();
    let settled = |instance: &Value| {
        at_rest(instance) && generation(instance) == instance.get("observed_generation").cloned()
    };
    api.until("/instances/bob", PATIENCE, settled).await?;
    let kinds = tidepool.kinds().await?;
    for kind in [
        "domain.added",
        "domain.proven",
        "domain.active",
        "domain.removed",
    ] {
        ensure!(kinds.iter().any(|told| told == kind), "{kind}: {kinds:?}");
    }
    drop(tidepool.traefik);
    tidepool.world.end().await
}

/// Whoever guesses too often is stopped, and nobody else, though Traefik passes connections on unopened; what
/// visitors say about where they come from changes nothing.
async fn whoever_connects_is_known(tidepool: &Deployment, id: &str) -> anyhow::Result<()> {
    let (api, path) = (tidepool.api()?, format!("/instances/{id}/basic_auth"));
    let body = json!({ "username": "alice" });
    let (set, _) = api.send(Method::PUT, &path, &[], Some(&body)).await?;
    ensure!(set.is_success(), "{set}");
    let guess = async |last: u8, from: &str| {
        let root = tidepool.authority.root().await?;
        let visitor = Ipv4Addr::new(127, 0, 0, last).into();
        let browser = Browser::new(&tidepool.traefik, root, visitor)?;
        let request = browser.get("/").basic_auth("alice", Some("wrong"));
        let answer = request.header("x-forwarded-for", from).send().await?;
        anyhow::Ok(answer.status())
    };
    let mut guesses = 0;
    while guess(2, &format!("198.51.100.{guesses}")).await? != StatusCode::TOO_MANY_REQUESTS {
        guesses += 1;
        ensure!(guesses < 60, "nobody stops them");
    }
    let other = guess(3, "127.0.0.2").await?;
    ensure!(other == StatusCode::UNAUTHORIZED, "{other}");
    let (removed, _) = api.send(Method::DELETE, &path, &[], None).await?;
    ensure!(removed.is_success(), "{removed}");
    Ok(())
}

async fn nothing_but_public_names_of_others_is_taken(api: &Api) -> anyhow::Result<()> {
    for (name, status) in [
        ("localhost", StatusCode::UNPROCESSABLE_ENTITY),
        (TARGET, StatusCode::UNPROCESSABLE_ENTITY),
        ("127.0.0.1", StatusCode::UNPROCESSABLE_ENTITY),
        ("x`) || Host(`y.test", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let body = json!({ "domain": name });
        let path = "/instances/alice/domains";
        let (told, problem) = api.send(Method::POST, path, &[], Some(&body)).await?;
        ensure!(told == status, "{name}: {told} {problem}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_whose_token_is_in_dns_and_beside_routes_of_traefiks_own_it_works_the_same()
-> anyhow::Result<()> {
    let Some(tidepool) = start(Routes::OfTheirOwn, VALIDITY).await? else {
        return Ok(());
    };
    let (api, _) = alice(&tidepool.world).await?;
    let carol = api.create("carol", 60).await?;
    ensure!(text(&carol, "status") == "running", "{carol}");
    let body = json!({ "domain": CHAT });
    // Whoever asks first has nothing of it.
    for name in ["carol", "alice"] {
        api.post(&format!("/instances/{name}/domains"), &body)
            .await?;
    }
    let again = api
        .send(Method::POST, "/instances/alice/domains", &[], Some(&body))
        .await?;
    ensure!(again.0 == StatusCode::CONFLICT, "{again:?}");
    tidepool.activate("alice", CHAT).await?;
    let browser = tidepool.browser().await?;
    ensure!(browser.status("/").await? == StatusCode::UNAUTHORIZED);
    // The owner gives it to carol.
    let (name, value) = proof(&api.get(&format!("/instances/carol/domains/{CHAT}")).await?)?;
    tidepool.authority.say(&name, Some(&value)).await?;
    let is_active = |shown: &Value| text(shown, "state") == "active";
    tidepool.until("carol", CHAT, is_active).await?;
    let before = api.get(&format!("/instances/alice/domains/{CHAT}")).await?;
    ensure!(text(&before, "state") == "failed", "{before}");
    let path = "/instances/carol/login_links";
    let link = api.post(path, &body).await?;
    let mut browser = tidepool.browser().await?;
    browser.sign_in(text(&link, "url")).await?;
    ensure!(browser.status("/control-ui-config.json").await? == StatusCode::OK);
    let socket = browser.open().await?;
    let (deleted, _) = api
        .send(Method::DELETE, "/instances/carol", &[], None)
        .await?;
    ensure!(deleted.is_success(), "{deleted}");
    ends(socket).await.context("the instance was deleted")?;
    drop(tidepool.traefik);
    tidepool.world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_before_it_ends_and_a_name_that_leads_elsewhere_is_told_of()
-> anyhow::Result<()> {
    let life = Duration::from_secs(24);
    let Some(tidepool) = start(Routes::Wildcard, life).await? else {
        return Ok(());
    };
    let (api, _) = alice(&tidepool.world).await?;
    let path = format!("/instances/alice/domains/{CHAT}");
    let body = json!({ "domain": CHAT });
    api.post("/instances/alice/domains", &body).await?;
    tidepool.activate("alice", CHAT).await?;
    let until = |domain: &Value| text(domain, "certificate_expires_at").to_owned();
    let first = until(&api.get(&path).await?);
    let is_renewed = |domain: &Value| until(domain) != first;
    api.until(&path, PATIENCE, is_renewed).await?;
    let told = async |kind: &str| {
        let deadline = Instant::now() + PATIENCE;
        while !tidepool.kinds().await?.iter().any(|told| told == kind) {
            ensure!(Instant::now() < deadline, "{kind} is not told");
            sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    told("domain.renewed").await?;
    let browser = tidepool.browser().await?;
    ensure!(browser.status("/").await? == StatusCode::UNAUTHORIZED);
    tidepool
        .authority
        .lead(CHAT, &[Ipv4Addr::new(192, 0, 2, 1)])
        .await?;
    let is_astray = |domain: &Value| text(domain, "problem").contains("192.0.2.1");
    let astray = tidepool.until("alice", CHAT, is_astray).await?;
    ensure!(
        ["active", "expiring"].contains(&text(&astray, "state")),
        "{astray}"
    );
    told("domain.failing").await?;
    // Not renewed any more, it is told of before it ends.
    told("domain.expiring").await?;
    drop(tidepool.traefik);
    tidepool.world.end().await
}
