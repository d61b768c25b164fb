//! The budget of requests, and who asks.

use anyhow::Context as _;
use tidepool_coordinator::cloud::{Cloud as _, Fault};
use tidepool_tests::fake_hetzner::{Fault as Switch, Rate};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::world::{World, client, fault, order, roomy, settings};

const NAME: &str = "tidepool-a";

#[tokio::test]
async fn a_storm_of_refusals_is_waited_out() -> anyhow::Result<()> {
    let world = World::start().await?;
    for operation in [
        "GET /servers",
        "GET /images",
        "POST /firewalls",
        "POST /servers",
    ] {
        world.fake.faults().next(4, Switch::RateLimited, operation);
    }
    world.cloud.create(&order(NAME)).await?;
    world.cloud.settle(NAME).await?;
    assert_eq!(world.servers(), (1, 1));
    world.end().await
}

#[tokio::test]
async fn deletions_go_on_while_creations_are_held_back() -> anyhow::Result<()> {
    let mut slow = roomy();
    // A sixth of it, 20, is the reserve; it refills by next to nothing.
    slow.rate = Rate {
        requests: 120,
        refill: 0.01,
    };
    let world = World::with(slow).await?;
    world.cloud.create(&order(NAME)).await?;
    while world.fake.requests().len() < 101 {
        world.cloud.find(NAME).await?;
    }
    assert_eq!(
        fault(world.cloud.create(&order("tidepool-b")).await),
        Fault::Busy
    );
    assert_eq!(world.calls("POST /servers"), 1);
    world.cloud.delete(NAME).await?;
    assert_eq!(world.servers(), (0, 1));
    world.end().await
}

#[tokio::test]
async fn a_token_that_may_only_read_stops_everything() -> anyhow::Result<()> {
    let world = World::start().await?;
    let dir = tempfile::tempdir()?;
    let reader = client(settings(
        &world.fake.url(),
        world.fake.read_only_token(),
        &dir,
    )?)?;
    assert_eq!(reader.find(NAME).await?, None);
    assert_eq!(
        fault(reader.create(&order(NAME)).await),
        Fault::Unauthorized
    );
    let wrong = client(settings(&world.fake.url(), "wrong", &dir)?)?;
    assert_eq!(fault(wrong.inventory().await), Fault::Unauthorized);
    world.end().await
}

#[tokio::test]
async fn every_call_says_who_makes_it() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let endpoint = format!("http://{}/v1", listener.local_addr()?);
    let dir = tempfile::tempdir()?;
    let cloud = client(settings(&endpoint, "geheim", &dir)?)?;
    let serve = async {
        let (mut stream, _) = listener.accept().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let body = r#"{"servers": [], "meta": {"pagination": {"next_page": null}}}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        String::from_utf8(head).context("read the head")
    };
    let (found, head) = tokio::join!(cloud.find(NAME), serve);
    assert_eq!(found?, None);
    let head = head?.to_ascii_lowercase();
    let agent = format!("user-agent: tidepool/{}\r\n", env!("CARGO_PKG_VERSION"));
    assert!(head.contains(&agent), "{head}");
    assert!(head.contains("authorization: bearer geheim\r\n"), "{head}");
    assert!(
        head.starts_with("get /v1/servers?name=tidepool-a&"),
        "{head}"
    );
    Ok(())
}
