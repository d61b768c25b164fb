//! A client of the HTTP API, as the web app would be one: plain JSON over HTTP.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::evidence;

/// A client with an address and a token.
#[derive(Debug, Clone)]
pub struct Api {
    pub url: String,
    pub token: String,
    http: reqwest::Client,
}

impl Api {
    /// Address and token as `tidepool up` wrote them.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let file: Value = serde_json::from_slice(&fs::read(path)?)?;
        let text = |field: &str| {
            file.get(field)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .context("client.json")
        };
        Self::new(&text("url")?, &text("token")?)
    }

    pub fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(90))
            .build()?;
        Ok(Self {
            url: url.to_owned(),
            token: token.to_owned(),
            http,
        })
    }

    pub async fn is_up(&self) -> bool {
        let answer = self.http.get(format!("{}/healthz", self.url)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// One request; the answer whatever its status. The secrets in both are noted.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self
            .http
            .request(method, format!("{}/v1{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            evidence::note_secrets_in(body);
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, bytes) = (answer.status(), answer.bytes().await?);
        let value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)?
        };
        evidence::note_secrets_in(&value);
        Ok((status, value))
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.expect_success(Method::GET, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.expect_success(Method::POST, path, &[], Some(body))
            .await
    }

    async fn expect_success(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let (status, value) = self.send(method.clone(), path, headers, body).await?;
        ensure!(status.is_success(), "{method} {path}: {status} {value}");
        Ok(value)
    }

    /// Creates an instance and waits for it to run, up to `seconds`.
    pub async fn create(&self, name: &str, seconds: u32) -> anyhow::Result<Value> {
        let wait = format!("wait={seconds}");
        let body = serde_json::json!({ "name": name });
        self.expect_success(
            Method::POST,
            "/instances",
            &[("prefer", &wait)],
            Some(&body),
        )
        .await
    }

    /// A login link's URL; its secret is noted as one that no log may hold.
    pub async fn login_link(&self, instance: &str) -> anyhow::Result<String> {
        let path = format!("/instances/{instance}/login_links");
        let link = self.post(&path, &serde_json::json!({})).await?;
        let url = link
            .get("url")
            .and_then(Value::as_str)
            .context("a link has a url")?;
        evidence::note_secret(url.rsplit('=').next().unwrap_or_default());
        Ok(url.to_owned())
    }

    /// The whole event log.
    pub async fn events(&self) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        let mut path = "/events?limit=200".to_owned();
        loop {
            let mut answer = self.get(&path).await?;
            if let Some(data) = answer.get_mut("data").and_then(Value::as_array_mut) {
                events.append(data);
            }
            match answer.pointer("/page/next_cursor").and_then(Value::as_str) {
                Some(cursor) => path = format!("/events?limit=200&after={cursor}"),
                None => return Ok(events),
            }
        }
    }

    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.expect_success(Method::DELETE, path, &[], None).await
    }

    /// Asks again and again until the answer satisfies, or fails with the last one.
    pub async fn until(
        &self,
        path: &str,
        patience: Duration,
        satisfied: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.get(path).await;
            match answer {
                Ok(value) if satisfied(&value) => return Ok(value),
                answer if Instant::now() > deadline => {
                    return answer.and_then(|value| {
                        anyhow::bail!("`{path}` was not satisfied in {patience:?}: {value}")
                    });
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}
