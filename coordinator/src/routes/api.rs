//! What we ask of Traefik's API.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect::Policy};
use serde::{Deserialize, de::DeserializeOwned};

use super::tree::{SIGN_IN, TRANSPORT};

/// For one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// One Traefik's API.
#[derive(Debug)]
pub(super) struct Api {
    /// Without a slash at the end.
    url: String,
    http: Client,
}

#[derive(Debug, Deserialize)]
pub(super) struct Router {
    status: String,
    pub(super) rule: String,
    service: String,
    #[serde(default)]
    middlewares: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    load_balancer: Option<Balancer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Balancer {
    servers: Vec<Server>,
    servers_transport: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Server {
    url: String,
}

impl Api {
    /// A client that does not wait for long.
    pub(super) fn client() -> reqwest::Result<Client> {
        Client::builder()
            .connect_timeout(ANSWER)
            .timeout(ANSWER)
            .redirect(Policy::none())
            .no_proxy()
            .build()
    }

    pub(super) fn new(url: &str, http: Client) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { url, http }
    }

    /// A router from Redis; `None`: it has none of this name.
    pub(super) async fn router(&self, name: &str) -> reqwest::Result<Option<Router>> {
        self.get("routers", name).await
    }

    pub(super) async fn service(&self, name: &str) -> reqwest::Result<Option<Service>> {
        self.get("services", name).await
    }

    async fn get<T: DeserializeOwned>(&self, kind: &str, name: &str) -> reqwest::Result<Option<T>> {
        let url = format!("{}/api/http/{kind}/{name}@redis", self.url);
        let answer = self.http.get(url).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.error_for_status()?.json().await.map(Some)
    }
}

impl Router {
    /// Whether it is in use, asks the edge, and leads to the service of its name.
    pub(super) fn is_whole(&self, name: &str) -> bool {
        self.status == "enabled"
            && self.middlewares == [format!("{name}@redis"), SIGN_IN.to_owned()]
            && [name.to_owned(), format!("{name}@redis")].contains(&self.service)
    }
}

impl Service {
    /// Whether it leads there and nowhere else.
    pub(super) fn leads_to(&self, url: &str) -> bool {
        self.load_balancer.as_ref().is_some_and(|balancer| {
            let urls = balancer.servers.iter().map(|server| server.url.as_str());
            urls.eq([url]) && balancer.servers_transport.as_deref() == Some(TRANSPORT)
        })
    }
}
