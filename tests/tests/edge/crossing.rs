//! No instance's visitor ever meets another's server, whatever moves meanwhile.

use std::net::IpAddr;

use http::StatusCode;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use super::{
    upstream::Upstream,
    world::{World, route},
};

const SERVERS: u8 = 4;
const STEPS: usize = 300;

/// Servers with names of their own on one port, each on its own loopback address.
async fn servers() -> Vec<Upstream> {
    'ports: loop {
        let mut servers: Vec<Upstream> = Vec::new();
        for number in 1..=SERVERS {
            let address: IpAddr = [127, 0, 77, number].into();
            let port = servers.first().map_or(0, |first| first.port);
            let Some(server) = Upstream::start(&address.to_string(), address, port).await else {
                continue 'ports;
            };
            servers.push(server);
        }
        return servers;
    }
}

#[tokio::test]
async fn two_instances_never_cross_while_their_servers_change() {
    let servers = servers().await;
    let world = World::start(servers[0].port).await;
    let seed = rand::random();
    let mut chance = StdRng::seed_from_u64(seed);
    let hosts = ["a.localhost", "b.localhost"];
    let mut places: [usize; 2] = [0, 1];
    let mut cookies = Vec::new();
    for (instance, host) in hosts.iter().enumerate() {
        let address = servers[places[instance]].address;
        world
            .publish(route(host, instance as u128, Some(address)))
            .await;
        cookies.push(world.sign_in(host, instance as u128).await);
    }
    for step in 0..STEPS {
        let instance = chance.random_range(0..2);
        if chance.random_bool(0.2) {
            let taken = places[1 - instance];
            let free = (0..servers.len()).filter(|place| *place != taken);
            places[instance] = free.collect::<Vec<_>>()[chance.random_range(0..servers.len() - 1)];
            let address = servers[places[instance]].address;
            world
                .publish(route(hosts[instance], instance as u128, Some(address)))
                .await;
        }
        let visitor = chance.random_range(0..2);
        let shown = [("cookie", cookies[visitor].as_str())];
        let got = world.get(hosts[instance], "/", &shown).await;
        if visitor != instance {
            assert_eq!(
                got.status,
                StatusCode::UNAUTHORIZED,
                "seed {seed}, step {step}"
            );
            continue;
        }
        let told: Value = serde_json::from_str(&got.body).unwrap();
        let expected = servers[places[instance]].address.to_string();
        assert_eq!(told["name"], expected, "seed {seed}, step {step}");
        let proof = format!("proof-{instance}");
        assert_eq!(
            told["headers"]["x-tidepool-proof"], proof,
            "seed {seed}, step {step}"
        );
    }
}
