//! `tidepool key`: customers' own keys.

use clap::Subcommand;
use reqwest::Method;

use super::{
    CommandFailed,
    client::{Client, segment},
    models::{key_from_stdin, with_header},
    output::Output,
};
use crate::api::instances::keys::{KeyView, Keys, PutKey};

/// What to do with customers' own keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the providers for which an instance has a key of its own
    List { instance: String },
    /// Read a key from standard input, try it, and use it instead of the operator's
    Set { instance: String, provider: String },
    /// Forget a key
    Delete { instance: String, provider: String },
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let path = |instance: &str| format!("/v1/instances/{}/keys", segment(instance));
    let of = |instance: &str, provider: &str| format!("{}/{}", path(instance), segment(provider));
    match command {
        Command::List { instance } => {
            let keys: Keys = client.get(&path(&instance)).await?;
            output.show(&keys, |keys| lines(&keys.data))
        }
        Command::Set { instance, provider } => {
            let body = PutKey {
                key: key_from_stdin()?,
            };
            let request = client.request(Method::PUT, &of(&instance, &provider));
            let key: KeyView = client.send(request.json(&body)).await?;
            output.show(&key, |key| lines(std::slice::from_ref(key)))
        }
        Command::Delete { instance, provider } => {
            let request = client.request(Method::DELETE, &of(&instance, &provider));
            client.send_only(request).await?;
            Ok(())
        }
    }
}

fn lines(keys: &[KeyView]) -> Vec<String> {
    let rows = keys
        .iter()
        .map(|key| vec![key.provider.clone(), key.created_at.clone()]);
    with_header(&["PROVIDER", "SET"], rows)
}
