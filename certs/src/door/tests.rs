use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{ServerName, UnixTime},
    server::WebPkiClientVerifier,
};
use time::macros::datetime;

use super::*;
use crate::{
    COORDINATOR_NAME,
    authority::{DOOR_LIFE, LEAF_LIFE},
    leaf::{Leaf, NotAnAgent},
    request::{AgentKey, CheckedRequest},
};

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

fn server(number: u8) -> ServerId {
    format!("srv_{number:026}").parse().unwrap()
}

struct World {
    authority: Arc<Authority>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), NOW).unwrap();
        Self {
            authority: Arc::new(authority),
            _dir: dir,
        }
    }

    fn door(&self, number: u8) -> Chain {
        let request = AgentKey::generate().unwrap().request().unwrap();
        let request = CheckedRequest::check(&request).unwrap();
        self.authority.door(&request, server(number), NOW).unwrap()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        Arc::new(tls::roots(self.authority.root()).unwrap())
    }

    /// Whether a chain is taken for the server of this name.
    fn is_server(&self, chain: &Chain, name: &str) -> bool {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots(), tls::provider());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let verdict = verifier.build().unwrap().verify_server_cert(
            &chain[0],
            &chain[1..],
            &name,
            &[],
            moment(),
        );
        verdict.is_ok()
    }

    /// Whether a chain is taken for any client's.
    fn is_client(&self, chain: &Chain) -> bool {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), tls::provider());
        let verifier = verifier.build().unwrap();
        let verdict = verifier.verify_client_cert(&chain[0], &chain[1..], moment());
        verdict.is_ok()
    }
}

fn moment() -> UnixTime {
    let seconds = NOW.unix_timestamp().try_into().unwrap();
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

#[test]
fn a_door_is_known_by_the_common_name_and_by_its_own_and_by_no_other() {
    let (world, stranger) = (World::new(), World::new());
    let chain = world.door(1);
    assert!(world.is_server(&chain, SERVERS_NAME));
    assert!(world.is_server(&chain, &name_of(server(1))));
    assert!(!world.is_server(&chain, &name_of(server(2))));
    assert!(!world.is_server(&chain, COORDINATOR_NAME));
    assert!(!stranger.is_server(&chain, SERVERS_NAME));
}

#[test]
fn a_doors_certificate_opens_neither_a_link_nor_another_door() {
    let world = World::new();
    let chain = world.door(1);
    assert!(!world.is_client(&chain));
    assert_eq!(Leaf::read(&chain[0]), Err(NotAnAgent::NoServer));
}

#[test]
fn an_edges_certificate_is_no_servers_and_no_agents() {
    let world = World::new();
    let edge = world.authority.edge(LEAF_LIFE, NOW).unwrap();
    assert!(world.is_client(&edge.chain));
    assert!(!world.is_server(&edge.chain, SERVERS_NAME));
    assert_eq!(Leaf::read(&edge.chain[0]), Err(NotAnAgent::NoServer));
    let (_, parsed) = X509Certificate::from_der(&edge.chain[0]).unwrap();
    assert_eq!(parsed.subject().to_string(), format!("CN={EDGE}"));
}

#[test]
fn an_agents_and_the_coordinators_certificates_are_no_doors() {
    let world = World::new();
    let request = AgentKey::generate().unwrap().request().unwrap();
    let request = CheckedRequest::check(&request).unwrap();
    let agent = world.authority.issue(&request, server(1), LEAF_LIFE, NOW);
    let (coordinator, _) = world.authority.coordinator(NOW).unwrap();
    for chain in [agent.unwrap(), coordinator] {
        assert!(!world.is_server(&chain, SERVERS_NAME));
        assert!(!world.is_server(&chain, &name_of(server(1))));
    }
}

#[test]
fn a_door_reads_back_for_its_own_server_only() {
    let chain = World::new().door(1);
    let leaf = DoorLeaf::read(&chain[0], server(1)).unwrap();
    assert_eq!(leaf.life.ends, NOW + DOOR_LIFE);
    assert_eq!(DoorLeaf::read(&chain[0], server(2)), Err(NotThisDoor));
}

#[test]
fn a_renewed_credential_shows_another_certificate() {
    let world = World::new();
    let credential = Credential::new(Arc::clone(&world.authority), NOW).unwrap();
    let shown = || {
        let shown = credential.resolve(&[], &[SignatureScheme::ECDSA_NISTP256_SHA256]);
        shown.unwrap().cert.clone()
    };
    let before = shown();
    credential.renew(NOW).unwrap();
    assert_ne!(before, shown());
}
