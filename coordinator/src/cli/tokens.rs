//! `tidepool token`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Subcommand;
use reqwest::Method;

use super::{
    CommandFailed,
    client::{Client, segment},
    output::{Output, table},
};
use crate::{
    ambient::{Chance, Clock as _, SystemClock},
    api::{
        auth,
        tokens::{CreateToken, NewToken, Tokens},
    },
    serve::config::Config,
    store,
};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token; it is shown once
    Create {
        name: String,
        /// Seconds until it expires [default: never]
        #[arg(long)]
        ttl: Option<u64>,
        /// Straight in the store that this configuration of `serve` names: for the first one
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// List tokens
    List,
    /// Revoke a token
    Revoke { id: String },
}

/// Makes a token without asking a coordinator; `None` for every other command.
pub(super) async fn first(command: &Command) -> Option<anyhow::Result<String>> {
    match command {
        Command::Create {
            name,
            ttl,
            config: Some(config),
        } => Some(in_store(name, *ttl, config).await),
        Command::Create { .. } | Command::List | Command::Revoke { .. } => None,
    }
}

async fn in_store(name: &str, ttl: Option<u64>, config: &Path) -> anyhow::Result<String> {
    let config = Config::read(config)?;
    let chance = Arc::new(Chance::from_os());
    let store = store::open(&config.database(None)?, Arc::clone(&chance)).await?;
    let now = SystemClock.now();
    let expires = ttl.map(|seconds| now.plus(Duration::from_secs(seconds)));
    let (token, text) = auth::issue(name.to_owned(), expires, now, &chance);
    store.create_api_token(&token).await?;
    Ok(text)
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        Command::Create { name, ttl, .. } => {
            let body = CreateToken { name, ttl_s: ttl };
            let token: NewToken = client.post("/v1/tokens", &body).await?;
            output.show(&token, |token| vec![token.token.clone()])
        }
        Command::List => {
            let tokens: Tokens = client.get("/v1/tokens").await?;
            output.show(&tokens, lines)
        }
        Command::Revoke { id } => {
            let path = format!("/v1/tokens/{}", segment(&id));
            client
                .send_only(client.request(Method::DELETE, &path))
                .await?;
            output.show(&serde_json::json!({"revoked": id}), |_| {
                vec![format!("{id} revoked")]
            })
        }
    }
}

fn lines(tokens: &Tokens) -> Vec<String> {
    let mut rows = vec![
        ["ID", "NAME", "CREATED", "STATE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(tokens.data.iter().map(|token| {
        let state = match (&token.revoked_at, &token.expires_at) {
            (Some(at), _) => format!("revoked {at}"),
            (None, Some(at)) => format!("expires {at}"),
            (None, None) => "valid".to_owned(),
        };
        vec![
            token.id.clone(),
            token.name.clone(),
            token.created_at.clone(),
            state,
        ]
    }));
    table(&rows)
}
