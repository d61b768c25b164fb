//! Routes that Traefik itself knows, from Redis: the whole way, with servers' real agents and nginx.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use reqwest::{Client, Method, Response, StatusCode, Upgraded};
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    chaos::world::{Front, World},
    deployment::free_port,
    doors::{self, Doors},
    evidence,
    front::{self, Ports, Redis, Traefik},
    programs,
};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::WebSocketStream;

use super::{DOMAIN, PATIENCE, Visitor, alice, guesses_are_counted_by_visitor, here};

/// For what was under way when somebody's access ended.
const CUT_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Where nginx listens on the world's machines.
const SERVER_PORT: u16 = 8080;

/// The world with routes in Redis, each with only the rights that `tidepool init` gives it.
async fn start() -> anyhow::Result<Option<(World, Traefik, Redis)>> {
    let Some(program) = front::program() else {
        return Ok(None);
    };
    let (ports, redis_port) = (Ports::free()?, free_port()?);
    let password = "the-coordinators-own";
    evidence::note_secret(password);
    let url = format!("redis://tidepool:{password}@127.0.0.1:{redis_port}/1");
    let api = format!("http://127.0.0.1:{}", ports.status);
    let front = Front {
        https_port: ports.https,
        redis: Some((url, api)),
        domains: None,
    };
    let mut world = World::start_behind(Some(front), None, 1).await?;
    // As if the coordinator had been started before.
    Doors::of(&world.state_dir())?;
    let mut traefik = Traefik::set_up(&program, &world.configuration(), DOMAIN, ports, &[]).await?;
    let redis = Redis::start(redis_port, Some(traefik.file("redis.acl"))).await?;
    traefik.start().await?;
    world.up_all().await?;
    Ok(Some((world, traefik, redis)))
}

/// The name of the router and the address of alice's server.
async fn server_of_alice(api: &Api) -> anyhow::Result<(String, String)> {
    let alice = api.get("/instances/alice").await?;
    let pools = api.get("/pool").await?;
    let of_alice = |server: &&Value| server.get("instance_id") == alice.get("id");
    let servers = pools.get("servers").and_then(Value::as_array);
    let server = servers.and_then(|servers| servers.iter().find(of_alice));
    let server = server.context("alice has a server")?;
    let text = |field: &str| server.get(field).and_then(Value::as_str).map(str::to_owned);
    let id = text("id").context("it has an id")?;
    let name = id.replace("srv_", "s");
    Ok((name, text("address").context("it has an address")?))
}

/// Until Traefik leads a name to this server by itself.
async fn route_is_live(traefik: &Traefik, host: &str, name: &str) -> anyhow::Result<()> {
    let rule = json!(format!("Host(`{host}.{DOMAIN}`)"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = traefik.shows("routers", name).await?;
        if shown.as_ref().and_then(|router| router.get("rule")) == Some(&rule) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{shown:?}: {}", traefik.log());
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_comes_by_a_route_of_their_own_and_nobody_else_does() -> anyhow::Result<()> {
    let Some((world, traefik, redis)) = start().await? else {
        return Ok(());
    };
    let (api, id) = alice(&world).await?;
    let (name, address) = server_of_alice(api).await?;
    route_is_live(&traefik, "alice", &name).await?;
    let mut visitor = Visitor::of(&traefik, here())?;
    let status = async |path: &str| {
        let answer = visitor.get("alice", path).send().await?;
        anyhow::Ok(answer.status())
    };
    ensure!(status("/").await? == StatusCode::UNAUTHORIZED);
    // Traefik's question is not a visitor's to ask.
    ensure!(status("/.tidepool/authorize").await? == StatusCode::NOT_FOUND);
    let nobody = visitor.get("nobody", "/").send().await?.status();
    ensure!(nobody == StatusCode::NOT_FOUND, "{nobody}");
    let before = traefik.passed_to(&name).await?;
    ensure!(before == 0.0, "a stranger reached the server");
    visitor.sign_in(&api.login_link(&id).await?).await?;
    let settings = visitor.get("alice", "/control-ui-config.json").send();
    let settings = settings.await?;
    ensure!(settings.status() == StatusCode::OK, "{}", settings.status());
    let challenge = visitor.challenge(&visitor.url("alice")).await?;
    let event = challenge.map_err(|status| anyhow::anyhow!("refused: {status}"))?;
    ensure!(
        event.get("event") == Some(&json!("connect.challenge")),
        "{event}"
    );
    let foreign = visitor.challenge("https://evil.example").await?;
    ensure!(foreign == Err(StatusCode::FORBIDDEN), "{foreign:?}");
    let passed = traefik.passed_to(&name).await?;
    // The WebSocket is not: the edge must be able to cut it.
    ensure!(
        (1.0..2.0).contains(&passed),
        "not by Traefik's own route: {passed}"
    );
    nobody_comes_past_traefik(&world, &visitor, &address).await?;
    the_proof_is_nowhere_in_redis(&redis).await?;
    traefiks_api_shows_no_secret(&traefik).await?;
    the_doctor_finds_what_is_wrong_and_nothing_else(&world, &traefik, &redis).await?;
    a_new_certificate_is_taken_up(&world, &traefik, &visitor).await?;
    let socket = visitor.socket(&visitor.url("alice")).await?;
    let socket = socket.map_err(|status| anyhow::anyhow!("refused: {status}"))?;
    guesses_are_counted_by_visitor(api, &id, &traefik).await?;
    it_ends(socket).await.context("the password was changed")?;
    let socket = visitor.socket(&visitor.url("alice")).await?;
    let socket = socket.map_err(|status| anyhow::anyhow!("refused: {status}"))?;
    let (gone, _) = api
        .send(Method::DELETE, &format!("/instances/{id}"), &[], None)
        .await?;
    ensure!(gone.is_success(), "{gone}");
    it_ends(socket).await.context("the instance was deleted")?;
    let after = visitor.get("alice", "/").send().await?.status();
    ensure!(after == StatusCode::NOT_FOUND, "{after}");
    drop((traefik, redis));
    world.end().await
}

/// A WebSocket ends, whatever it still says before.
async fn it_ends(mut socket: WebSocketStream<Upgraded>) -> anyhow::Result<()> {
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    timeout(PATIENCE, rest).await.context("it stays open")
}

/// Looks in on what was open: whether it ends soon after somebody's access did.
async fn is_cut(visitor: &Visitor, name: &str, download: Response) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut rest = download.bytes_stream();
    let ended = async { while let Some(Ok(_)) = rest.next().await {} };
    let ended = timeout(CUT_WITHIN, ended).await;
    ended.with_context(|| format!("a plain answer to {} goes on", visitor.url(name)))?;
    eprintln!("cut after {} ms", begun.elapsed().as_millis());
    Ok(())
}

/// What this visitor asks for plainly, Traefik passes to the server by itself.
async fn goes_by_itself(
    traefik: &Traefik,
    visitor: &Visitor,
    host: &str,
    name: &str,
) -> anyhow::Result<()> {
    let before = traefik.passed_to(name).await?;
    let asked = visitor.get(host, "/control-ui-config.json").send().await?;
    ensure!(asked.status() == StatusCode::OK, "{}", asked.status());
    ensure!(traefik.passed_to(name).await? > before);
    Ok(())
}

/// Traefik may have the old name's route for a moment, and is told to come back then.
async fn the_old_name_leads_to(visitor: &Visitor, new: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let moved = loop {
        let answer = visitor.get("alice", "/chat?session=main").send().await?;
        if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
            break answer;
        }
        ensure!(Instant::now() < deadline, "it is never told");
        sleep(std::time::Duration::from_millis(50)).await;
    };
    let status = moved.status();
    ensure!(status == StatusCode::PERMANENT_REDIRECT, "{status}");
    let location = moved.headers().get("location").context("where to")?;
    let wanted = format!("{}/chat?session=main", visitor.url(new));
    ensure!(location.to_str()? == wanted, "{location:?}");
    Ok(())
}

/// A plain answer that would never end, by Traefik's own route.
async fn download(visitor: &Visitor, name: &str) -> anyhow::Result<Response> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut answer = visitor.get(name, "/download").send().await?;
        if answer.status() == StatusCode::OK {
            let first = answer.chunk().await?.context("it comes")?;
            ensure!(first.starts_with(b"drop"), "it is another page");
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "{}", answer.status());
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Until nothing is under way.
async fn settled(api: &Api, id: &str, status: &str) -> anyhow::Result<()> {
    let at_rest = |instance: &Value| {
        instance.get("operation") == Some(&Value::Null)
            && instance.get("status") == Some(&json!(status))
            && instance.get("generation") == instance.get("observed_generation")
    };
    let path = format!("/instances/{id}");
    api.until(&path, PATIENCE, at_rest).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_access_ends_is_cut_off_in_the_middle_of_a_plain_answer() -> anyhow::Result<()> {
    let Some((world, traefik, redis)) = start().await? else {
        return Ok(());
    };
    let (api, id) = alice(&world).await?;
    let (name, _) = server_of_alice(api).await?;
    route_is_live(&traefik, "alice", &name).await?;
    let mut visitor = Visitor::of(&traefik, here())?;
    visitor.sign_in(&api.login_link(&id).await?).await?;
    let change = async |method: Method, path: &str, body: Value| {
        let path = format!("/instances/{id}{path}");
        let (status, answer) = api.send(method, &path, &[], Some(&body)).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        anyhow::Ok(())
    };

    goes_by_itself(&traefik, &visitor, "alice", &name).await?;
    let open = download(&visitor, "alice").await?;
    let user = json!({ "username": "alice" });
    change(Method::PUT, "/basic_auth", user).await?;
    is_cut(&visitor, "alice", open)
        .await
        .context("another password")?;
    settled(api, &id, "running").await?;

    goes_by_itself(&traefik, &visitor, "alice", &name).await?;
    let open = download(&visitor, "alice").await?;
    let why = json!({"reason": "operator", "message": "Back at noon."});
    change(Method::POST, "/suspend", why).await?;
    is_cut(&visitor, "alice", open).await.context("suspended")?;
    let told = visitor.get("alice", "/").send().await?;
    ensure!(
        told.status() == StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        told.status()
    );
    ensure!(told.headers().contains_key("retry-after"));
    ensure!(told.text().await?.contains("Back at noon."));
    change(Method::POST, "/unsuspend", json!({})).await?;
    settled(api, &id, "running").await?;
    route_is_live(&traefik, "alice", &name).await?;

    goes_by_itself(&traefik, &visitor, "alice", &name).await?;
    let open = download(&visitor, "alice").await?;
    change(Method::DELETE, "/sessions", json!({})).await?;
    is_cut(&visitor, "alice", open)
        .await
        .context("signed out")?;
    settled(api, &id, "running").await?;
    visitor.sign_in(&api.login_link(&id).await?).await?;

    goes_by_itself(&traefik, &visitor, "alice", &name).await?;
    let open = download(&visitor, "alice").await?;
    change(Method::POST, "/rename", json!({"name": "bob"})).await?;
    is_cut(&visitor, "alice", open).await.context("renamed")?;
    settled(api, &id, "running").await?;
    route_is_live(&traefik, "bob", &name).await?;
    the_old_name_leads_to(&visitor, "bob").await?;
    visitor.sign_in(&api.login_link(&id).await?).await?;

    goes_by_itself(&traefik, &visitor, "bob", &name).await?;
    let open = download(&visitor, "bob").await?;
    change(Method::DELETE, "", json!({})).await?;
    is_cut(&visitor, "bob", open).await.context("deleted")?;
    drop((traefik, redis));
    world.end().await
}

/// A server's own address answers nobody, whatever name they say and whoever they say they are.
async fn nobody_comes_past_traefik(
    world: &World,
    visitor: &Visitor,
    address: &str,
) -> anyhow::Result<()> {
    let server: SocketAddr = format!("{address}:{SERVER_PORT}").parse()?;
    let clear = Client::builder().no_proxy().build()?;
    let clear = clear.get(format!("http://{server}/")).send().await?;
    ensure!(clear.status() == StatusCode::BAD_REQUEST);
    // Not even with an edge's certificate.
    let client = Doors::of(&world.state_dir())?.client(server)?;
    let cookie = visitor.cookie.clone().context("signed in")?;
    for host in [
        format!("alice.{DOMAIN}"),
        address.to_owned(),
        "x".to_owned(),
    ] {
        let request = client
            .get(doors::url(server, "/"))
            .header("host", &host)
            .header("cookie", &cookie)
            .header("x-tidepool-visitor", "owner")
            .header("x-tidepool-proof", "guess");
        let status = request.send().await?.status();
        ensure!(status == StatusCode::FORBIDDEN, "{host}: {status}");
    }
    ensure!(address != Ipv4Addr::LOCALHOST.to_string());
    Ok(())
}

/// What coordinators ask of it is shown, and nothing else.
async fn traefiks_api_shows_no_secret(traefik: &Traefik) -> anyhow::Result<()> {
    let client = Client::builder().no_proxy().build()?;
    for path in [
        "rawdata",
        "overview",
        "http/middlewares",
        "http/middlewares/hop@file",
        "http/services/edges@file",
    ] {
        let url = format!("http://127.0.0.1:{}/api/{path}", traefik.ports.status);
        let status = client.get(url).send().await?.status();
        ensure!(status == StatusCode::NOT_FOUND, "{path}: {status}");
    }
    Ok(())
}

/// Servers let Traefik in by its certificate alone, and it takes a new one without a restart.
async fn a_new_certificate_is_taken_up(
    world: &World,
    traefik: &Traefik,
    visitor: &Visitor,
) -> anyhow::Result<()> {
    let until = async |wanted: StatusCode| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = visitor.get("alice", "/control-ui-config.json").send();
            let status = answer.await?.status();
            if status == wanted {
                return anyhow::Ok(());
            }
            ensure!(Instant::now() < deadline, "{status}: {}", traefik.log());
            sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    until(StatusCode::OK).await?;
    let folder = tempfile::tempdir()?;
    let foreign = Doors::of(folder.path())?;
    let edge = (foreign.authority).edge(std::time::Duration::from_hours(1), doors::now()?)?;
    std::fs::write(traefik.file("edge.pem"), edge.chain_pem())?;
    std::fs::write(traefik.file("edge.key"), edge.key_pem())?;
    let dynamic = traefik.file("dynamic.yml");
    std::fs::write(&dynamic, std::fs::read(&dynamic)?)?;
    // It is nginx that says so: no certificate of ours was shown.
    until(StatusCode::BAD_REQUEST).await?;
    let out = dynamic.parent().context("a folder")?;
    let renewed = Command::new(programs::program("tidepool")?)
        .args(["init", "traefik-certificate", "--config"])
        .arg(world.configuration())
        .arg("--out")
        .arg(out)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&renewed.stderr);
    ensure!(renewed.status.success(), "{said}");
    until(StatusCode::OK).await
}

async fn the_proof_is_nowhere_in_redis(redis: &Redis) -> anyhow::Result<()> {
    let mut keys = redis::cmd("KEYS");
    let keys: Vec<String> = redis.ask(keys.arg("*")).await?;
    ensure!(keys.len() > 5, "{keys:?}");
    for key in keys {
        let value = redis.get(&key).await?.unwrap_or_default();
        // Proofs are 64 hexadecimal digits.
        let longest = value.split(|char: char| !char.is_ascii_hexdigit());
        ensure!(longest.map(str::len).max() < Some(32), "{key}: {value}");
    }
    Ok(())
}

/// Runs `tidepool doctor`; whether it was content, and what it found to be how.
async fn doctor(world: &World, traefik: &Traefik) -> anyhow::Result<(bool, Vec<[String; 3]>)> {
    let output = Command::new(programs::program("tidepool")?)
        .args(["doctor", "--json", "--at", "127.0.0.1", "--config"])
        .arg(world.configuration())
        .args(["--http-port", &traefik.ports.http.to_string()])
        .arg("--ca")
        .arg(traefik.authority())
        .env("TIDEPOOL_DATABASE_URL", world.database_url())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    let found: Value = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    let found = found.get("findings").and_then(Value::as_array);
    let text = |finding: &Value, field: &str| {
        let text = finding.get(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let read = |finding: &Value| ["check", "verdict", "detail"].map(|field| text(finding, field));
    let found = found.context("findings")?.iter().map(read).collect();
    Ok((output.status.success(), found))
}

async fn the_doctor_finds_what_is_wrong_and_nothing_else(
    world: &World,
    traefik: &Traefik,
    redis: &Redis,
) -> anyhow::Result<()> {
    // Servers come and go in a pool: what was just staged may be on its way to Traefik.
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        let (content, found) = doctor(world, traefik).await?;
        if content {
            break found;
        }
        ensure!(Instant::now() < deadline, "{found:?}: {}", world.logs());
        sleep(std::time::Duration::from_millis(200)).await;
    };
    let checks: Vec<&str> = found.iter().map(|[check, ..]| check.as_str()).collect();
    let begin = [
        "edge",
        "certificate",
        "visitor",
        "http",
        "sign-in",
        "traefik's certificate",
        "redis",
        "redis key events",
        "routes",
    ];
    ensure!(checks.starts_with(&begin), "{found:?}");
    ensure!(
        checks.ends_with(&["servers", "doors", "open files"]),
        "{found:?}"
    );
    ensure!(checks.len() == begin.len() + 4, "{found:?}");
    // How many files may be open is this machine's business.
    let doubts = found
        .iter()
        .filter(|[check, verdict, _]| verdict != "fine" && check != "open files");
    ensure!(doubts.count() == 0, "{found:?}");
    the_doctor_warns_of_the_certificates_end(world, traefik).await?;
    let mut junk = redis::cmd("SET");
    let () = redis.ask(junk.arg("traefik/http/junk").arg("1")).await?;
    let secrets = world
        .configuration()
        .with_file_name("state/traefik.secrets");
    let known = std::fs::read_to_string(&secrets)?;
    std::fs::write(&secrets, "another")?;
    sleep(std::time::Duration::from_millis(1100)).await;
    let (content, found) = doctor(world, traefik).await?;
    std::fs::write(&secrets, known)?;
    let sign_in = found.iter().find(|[check, ..]| check == "sign-in");
    let [_, verdict, detail] = sign_in.context("a finding")?;
    ensure!(!content && verdict == "wrong", "{found:?}");
    ensure!(
        detail.contains("does not know Traefik's secret"),
        "{detail}"
    );
    sleep(std::time::Duration::from_millis(1100)).await;
    let (content, found) = doctor(world, traefik).await?;
    let is_wrong = |[_, verdict, _]: &&[String; 3]| verdict == "wrong";
    let wrong: Vec<_> = found
        .iter()
        .filter(is_wrong)
        .map(|[check, ..]| check)
        .collect();
    ensure!(
        !content && wrong.contains(&&"routes".to_owned()),
        "{found:?}"
    );
    Ok(())
}

/// A month before, and then it is wrong. What is kept of Traefik's certificate is as `init` has left it.
async fn the_doctor_warns_of_the_certificates_end(
    world: &World,
    traefik: &Traefik,
) -> anyhow::Result<()> {
    let kept = world.state_dir().join("certs/traefik.pem");
    let before = std::fs::read(&kept)?;
    let authority = Doors::of(&world.state_dir())?.authority;
    let life = std::time::Duration::from_hours(20 * 24);
    for (age_days, verdict) in [(0, "doubtful"), (30, "wrong")] {
        let made = doors::now()? - std::time::Duration::from_hours(age_days * 24);
        std::fs::write(&kept, authority.edge(life, made)?.chain_pem())?;
        let (_, found) = doctor(world, traefik).await?;
        let mut of = found
            .iter()
            .filter(|[check, ..]| check == "traefik's certificate");
        let told = of.next().map(|[_, verdict, _]| verdict.as_str());
        ensure!(told == Some(verdict), "{found:?}");
    }
    Ok(std::fs::write(&kept, before)?)
}
