//! Nouns to begin a test with; each test changes what it is about.

use std::net::IpAddr;

use tidepool_shared::{document::Generation, id::ServerId};

use super::{Health, PoolKey, Server, ServerState};
use crate::{
    ambient::Moment,
    cloud::{CloudServer, Placement},
};

/// The only pool of most tests.
pub fn pool() -> PoolKey {
    PoolKey {
        tier: "standard".to_owned(),
        region: "here".to_owned(),
    }
}

/// The usual placement.
pub fn placement() -> Placement {
    Placement {
        server_type: "small".to_owned(),
        location: "here-1".to_owned(),
    }
}

/// A planned server.
pub fn server(id: ServerId) -> Server {
    Server {
        id,
        name: id.to_string(),
        pool: pool(),
        placement: placement(),
        image: None,
        state: ServerState::Planned,
        cloud_id: None,
        address: None,
        instance: None,
        openclaw_version: None,
        takes_orders: false,
        holder: None,
        epoch: 0,
        served: Generation(0),
        observed: Generation(0),
        health: Health::Unknown,
        reasons: Vec::new(),
        gateway_starts: 0,
        revoked: false,
        failure: None,
        created_at: Moment(0),
        state_since: Moment(0),
        warmed_at: None,
        boot_steps: Vec::new(),
    }
}

/// What a cloud answers about a server at this address.
pub fn made(cloud_id: &str, address: IpAddr) -> CloudServer {
    CloudServer {
        id: cloud_id.to_owned(),
        name: cloud_id.to_owned(),
        address,
        image: None,
    }
}
