//! A fake and a client that assumes nothing.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use tidepool_tests::fake_hetzner::{FakeHetzner, NewSnapshot, Settings};
use tokio::time::{Instant, sleep};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) fake: FakeHetzner,
    pub(crate) token: String,
    http: reqwest::Client,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.body.pointer(pointer).unwrap_or(&Value::Null)
    }

    pub(crate) fn id(&self, pointer: &str) -> u64 {
        self.at(pointer).as_u64().unwrap_or(0)
    }

    /// Status and code, of a refusal.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        let code = self.at("/error/code").as_str();
        (self.status, code.unwrap_or_default())
    }

    pub(crate) fn rows(&self, name: &str) -> &[Value] {
        let rows = self.body.get(name).and_then(Value::as_array);
        rows.map_or(&[], Vec::as_slice)
    }
}

impl World {
    /// One with room for cx23 in nbg1.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::with(Settings::quick().with_room("cx23", "nbg1", 50)).await
    }

    pub(crate) async fn with(settings: Settings) -> anyhow::Result<Self> {
        Self::around(FakeHetzner::start(settings).await?)
    }

    pub(crate) fn around(fake: FakeHetzner) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
        Ok(Self {
            token: fake.token().to_owned(),
            fake,
            http,
        })
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.fake.end().await?;
        Ok(())
    }

    /// Errors when there is no answer at all.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.fake.url());
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)?
        };
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::DELETE, path, None).await
    }

    pub(crate) fn snapshot(&self) -> anyhow::Result<u64> {
        Ok(self.fake.add_snapshot(NewSnapshot::default())?.0)
    }

    /// Asks for a cx23 in nbg1.
    pub(crate) async fn order(&self, name: &str, more: &Value) -> anyhow::Result<Answer> {
        let mut body = json!({
            "name": name, "server_type": "cx23", "location": "nbg1", "image": "debian-13",
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            body[field] = value.clone();
        }
        self.post("/servers", &body).await
    }

    /// A server that runs.
    pub(crate) async fn server(&self, name: &str, more: &Value) -> anyhow::Result<u64> {
        let ordered = self.order(name, more).await?;
        ensure!(ordered.status == 201, "{ordered:?}");
        self.success(ordered.id("/next_actions/0/id")).await?;
        Ok(ordered.id("/server/id"))
    }

    /// Waits until an action has ended, and says how.
    pub(crate) async fn outcome(&self, action: u64) -> anyhow::Result<Value> {
        let path = format!("/actions/{action}");
        let done = |answer: &Answer| *answer.at("/action/status") != json!("running");
        let ended = self.until(&path, done).await?;
        ended.body.get("action").cloned().context("an action")
    }

    pub(crate) async fn success(&self, action: u64) -> anyhow::Result<()> {
        let ended = self.outcome(action).await?;
        ensure!(ended["status"] == "success", "{ended}");
        Ok(())
    }

    pub(crate) async fn until(
        &self,
        path: &str,
        mut wanted: impl FnMut(&Answer) -> bool,
    ) -> anyhow::Result<Answer> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).await?;
            if wanted(&answer) {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                bail!("{path} is still {answer:?}");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}
