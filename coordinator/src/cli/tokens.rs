//! `tidepool token`.

use clap::Subcommand;
use reqwest::Method;

use super::{
    CommandFailed,
    client::{Client, segment},
    output::{Output, table},
};
use crate::api::tokens::{CreateToken, NewToken, Tokens};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token; it is shown once
    Create {
        name: String,
        /// Seconds until it expires [default: never]
        #[arg(long)]
        ttl: Option<u64>,
    },
    /// List tokens
    List,
    /// Revoke a token
    Revoke { id: String },
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        Command::Create { name, ttl } => {
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
