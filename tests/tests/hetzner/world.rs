//! The client and a fake Hetzner, with seconds that are short.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidepool_coordinator::{
    ambient::{Chance, SystemClock},
    cloud::{
        CloudError, Fault, Labels, Order, Placement,
        hetzner::{HetznerCloud, HetznerSettings, Pace},
    },
};
use tidepool_shared::{id::ServerId, user_data::UserData};
use tidepool_tests::fake_hetzner::{FakeHetzner, Kind, NewSnapshot, Settings};
use uuid::Uuid;

/// Of the client: its longest time-out is 60 of these, a deletion may take 600.
pub(crate) const SECOND: Duration = Duration::from_millis(20);

pub(crate) struct World {
    pub(crate) fake: FakeHetzner,
    pub(crate) cloud: HetznerCloud,
    http: reqwest::Client,
    /// Holds the token file.
    _dir: TempDir,
}

/// A fake with room for what the tests make.
pub(crate) fn roomy() -> Settings {
    Settings::quick().with_room("cx23", "nbg1", 200)
}

/// The client's settings for an endpoint, with a token file in this directory.
pub(crate) fn settings(
    endpoint: &str,
    token: &str,
    dir: &TempDir,
) -> anyhow::Result<HetznerSettings> {
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, format!("{token}\n")).context("write the token file")?;
    Ok(serde_json::from_value(json!({
        "endpoint": endpoint,
        "token_file": token_file,
        "env": "test",
        "admitted": ["192.0.2.7/32", "2001:db8::7/128"],
        "edge_port": 443,
        "settle_deadline_s": 100,
    }))?)
}

pub(crate) fn client(settings: HetznerSettings) -> anyhow::Result<HetznerCloud> {
    let chance = Arc::new(Chance::from_os());
    let pace = Pace::with_second(SECOND);
    Ok(HetznerCloud::paced(
        settings,
        pace,
        Arc::new(SystemClock),
        chance,
    )?)
}

impl World {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::with(roomy()).await
    }

    pub(crate) async fn with(fake_settings: Settings) -> anyhow::Result<Self> {
        let fake = FakeHetzner::start(fake_settings).await?;
        fake.add_snapshot(NewSnapshot {
            labels: [("role", "tidepool-image"), ("promoted", "true")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..NewSnapshot::default()
        })?;
        let dir = tempfile::tempdir()?;
        let cloud = client(settings(&fake.url(), fake.token(), &dir)?)?;
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self {
            fake,
            cloud,
            http,
            _dir: dir,
        })
    }

    /// Also fails if the fake gave an answer that its schema does not allow.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.fake.end().await?;
        Ok(())
    }

    /// A call by somebody else with the same token.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let response = self
            .http
            .request(method, format!("{}{path}", self.fake.url()))
            .bearer_auth(self.fake.token())
            .json(body)
            .send()
            .await?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(serde_json::from_str(&body).unwrap_or_default())
    }

    /// Servers that exist and servers that ever existed.
    pub(crate) fn servers(&self) -> (usize, usize) {
        let books = self.fake.books();
        let existing = books.existing(Kind::Server).count();
        (existing, books.ever(Kind::Server).count())
    }

    pub(crate) fn calls(&self, operation: &str) -> u64 {
        self.fake.books().calls_of(operation)
    }
}

pub(crate) fn order(name: &str) -> Order {
    Order {
        image: None,
        name: name.to_owned(),
        placement: Placement {
            server_type: "cx23".to_owned(),
            location: "nbg1".to_owned(),
        },
        labels: Labels::from([("role".to_owned(), "pool".to_owned())]),
        user_data: UserData {
            server: ServerId::new(Uuid::nil()),
            enrolment_token: "einmalig".to_owned(),
            coordinators: std::net::SocketAddr::from(([192, 0, 2, 7], 4433)).into(),
            ca: "PEM".to_owned(),
            proxy: "http://192.0.2.7:8080".to_owned(),
            admission: None,
        },
    }
}

/// What an error asks for; fails the test if there was none.
pub(crate) fn fault<T: std::fmt::Debug>(outcome: Result<T, CloudError>) -> Fault {
    outcome.expect_err("it cannot have gone well").fault
}
