//! `tidepool instance basic-auth`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;

use super::{
    CommandFailed,
    client::{Client, segment},
    output::Output,
};
use crate::api::instances::basic_auth::BasicAuthView;

/// What to do with basic auth.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn it on
    Set {
        name: String,
        username: String,
        /// Read the password from this environment variable [default: one is made and shown once]
        #[arg(long, value_name = "VARIABLE")]
        password_env: Option<String>,
    },
    /// Turn it off
    Remove { name: String },
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        Command::Set {
            name,
            username,
            password_env,
        } => {
            let password = password_env
                .map(|variable| {
                    std::env::var(&variable)
                        .map_err(|error| CommandFailed::Usage(format!("`{variable}`: {error}")))
                })
                .transpose()?;
            let body = json!({"username": username, "password": password});
            let request = client.request(Method::PUT, &path(&name)).json(&body);
            let view: BasicAuthView = client.send(request).await?;
            output.show(&view, |view| match &view.password {
                Some(password) => vec![format!("{}:{password}", view.username)],
                None => vec![format!("basic auth is on for {}", view.username)],
            })
        }
        Command::Remove { name } => {
            client
                .send_only(client.request(Method::DELETE, &path(&name)))
                .await?;
            output.show(&json!({"removed": name}), |_| {
                vec!["basic auth is off".to_owned()]
            })
        }
    }
}

fn path(name: &str) -> String {
    format!("/v1/instances/{}/basic_auth", segment(name))
}
