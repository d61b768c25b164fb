//! Speaking to a coordinator by its own configuration: who can read that and its database needs no token of
//! their own. One is made for the command, straight in the store, and revoked after it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tidepool_shared::id::TokenId;

use super::{CommandFailed, Common, client::Client, target::Target};
use crate::{
    ambient::{Chance, Clock as _, SystemClock},
    api::auth,
    serve::config::Config,
    store::{self, Store},
};

/// A command that was killed leaves a token for this long; none takes longer.
const LIFETIME: Duration = Duration::from_hours(1);

/// A client, and what was made for it.
pub struct Lent {
    pub client: Client,
    token: Option<(Arc<dyn Store>, TokenId)>,
}

/// A client of the coordinator with this configuration, or of the API that the command line names.
pub async fn speak(common: &Common, config: Option<&Path>) -> Result<Lent, CommandFailed> {
    let Some(config) = config else {
        let client = Client::new(Target::resolve(common)?)?;
        return Ok(Lent {
            client,
            token: None,
        });
    };
    let lent = lend(config).await;
    let (target, token) = lent.map_err(|error| CommandFailed::Deployment(error.into()))?;
    let client = Client::new(target)?;
    Ok(Lent {
        client,
        token: Some(token),
    })
}

async fn lend(config: &Path) -> anyhow::Result<(Target, (Arc<dyn Store>, TokenId))> {
    let config = Config::read(config)?;
    let chance = Arc::new(Chance::from_os());
    let store = store::open(&config.database(None)?, Arc::clone(&chance)).await?;
    let now = SystemClock.now();
    let name = "a command with --config".to_owned();
    let (token, text) = auth::issue(name, Some(now.plus(LIFETIME)), now, &chance);
    store.create_api_token(&token).await?;
    let target = Target {
        url: format!("http://{}", reachable(config.api.listen)),
        token: text,
    };
    Ok((target, (store, token.id)))
}

/// Who listens everywhere listens here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let here = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(here, listen.port())
}

impl Lent {
    /// Revokes the token.
    pub async fn give_back(&self) -> Result<(), CommandFailed> {
        if let Some((store, token)) = &self.token {
            store
                .revoke_api_token(*token, SystemClock.now())
                .await
                .map_err(|error| CommandFailed::Deployment(error.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_found_here() {
        for (listen, found) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            let listen = listen.parse().unwrap();
            assert_eq!(reachable(listen).to_string(), found);
        }
    }
}
