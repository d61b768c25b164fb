//! A real browser: Debian's Chromium, headless, driven over WebDriver.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use fantoccini::{Client, ClientBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{deployment::end_processes_of, evidence};

const PATIENCE: Duration = Duration::from_mins(1);

/// A browser of one person: its own profile, its own cookies.
#[derive(Debug)]
pub struct Browser {
    pub page: Client,
    driver: Child,
    profile: TempDir,
}

impl Browser {
    /// Starts ChromeDriver on a free port and one Chromium through it.
    pub async fn start() -> anyhow::Result<Self> {
        Self::knowing(None).await
    }

    /// One that knows this authority, too, as its user would have told it.
    pub async fn trusting(authority: &Path) -> anyhow::Result<Self> {
        Self::knowing(Some(authority)).await
    }

    async fn knowing(authority: Option<&Path>) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
            .local_addr()?
            .port();
        let profile = tempfile::Builder::new()
            .prefix("tidepool-browser-")
            .tempdir()?;
        if let Some(authority) = authority {
            trust(profile.path(), authority).await?;
        }
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start chromedriver (Debian package chromium-driver)")?;
        let deadline = Instant::now() + PATIENCE;
        let page = loop {
            let mut builder =
                ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
            builder.capabilities(capabilities(profile.path())?);
            match builder.connect(&format!("http://127.0.0.1:{port}")).await {
                Ok(page) => break page,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        };
        Ok(Self {
            page,
            driver,
            profile,
        })
    }

    /// Evaluates an expression in the page.
    pub async fn evaluate(&self, expression: &str) -> anyhow::Result<Value> {
        Ok(self
            .page
            .execute(&format!("return ({expression});"), Vec::new())
            .await?)
    }

    /// Waits until an expression is true in the page; on failure says what the page shows.
    pub async fn until(&self, expression: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A page that is being replaced has no answer: ask again.
            if self
                .evaluate(expression)
                .await
                .is_ok_and(|value| value == Value::Bool(true))
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                anyhow::bail!(
                    "`{expression}` did not become true; the page: {}",
                    self.text().await
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the page reads so, in any case.
    pub async fn until_text(&self, wanted: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text().await;
            if text.to_lowercase().contains(wanted) {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "`{wanted}` is not in the page: {text}"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Everything that can be read in the page, shadow roots included.
    pub async fn text(&self) -> String {
        let all = "(function read(node) { let text = node.nodeType === 3 ? node.textContent : ''; \
                    if (node.shadowRoot) text += read(node.shadowRoot); \
                    if (node.nodeName !== 'SCRIPT' && node.nodeName !== 'STYLE') \
                      for (const child of node.childNodes) text += read(child); \
                    return text + (node.nodeType === 1 ? ' ' : ''); })(document.documentElement)";
        let text = self.evaluate(all).await.unwrap_or_default();
        text.as_str()
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Keeps a picture of the page among the test's artefacts.
    pub async fn screenshot(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = evidence::screenshots();
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{name}.png"));
        std::fs::write(&path, self.page.screenshot().await?)?;
        Ok(path)
    }

    /// Ends the browser in order.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.page.clone().close().await?;
        self.driver.kill().await?;
        Ok(())
    }
}

impl Drop for Browser {
    /// A test that failed leaves no browser behind: ChromeDriver's end alone does not end Chromium.
    fn drop(&mut self) {
        end_processes_of(self.profile.path());
    }
}

/// Puts an authority into the certificate database of this home.
async fn trust(home: &Path, authority: &Path) -> anyhow::Result<()> {
    let database = home.join(".pki/nssdb");
    std::fs::create_dir_all(&database)?;
    let database = format!("sql:{}", database.display());
    let certutil = async |arguments: &[&str]| {
        let mut command = Command::new("certutil");
        let command = command.args(["-d", &database]).args(arguments);
        let done = command.stdin(Stdio::null()).output().await;
        let done = done.context("run certutil (Debian package libnss3-tools)")?;
        let said = String::from_utf8_lossy(&done.stderr);
        anyhow::ensure!(done.status.success(), "{said}");
        anyhow::Ok(())
    };
    certutil(&["-N", "--empty-password"]).await?;
    let authority = authority.to_string_lossy();
    certutil(&["-A", "-n", "tests", "-t", "C,,", "-i", &authority]).await
}

fn capabilities(profile: &Path) -> anyhow::Result<serde_json::Map<String, Value>> {
    let options = json!({
        "goog:chromeOptions": {
            "binary": "/usr/bin/chromium",
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--window-size=1280,900",
                format!("--user-data-dir={}", profile.join("profile").display()),
            ],
        },
    });
    options
        .as_object()
        .cloned()
        .context("capabilities are an object")
}
