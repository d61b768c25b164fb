//! Both ends of the link against each other, over real QUIC on loopback, with the SQLite store.

#[path = "link/artefacts.rs"]
mod artefacts;
#[path = "link/flood.rs"]
mod flood;
#[path = "link/rig.rs"]
mod rig;

use std::{net::Ipv4Addr, time::Duration};

use rig::{Raw, Rig, held_of, soon};
use tidepool_agent::{door::Door, enrol::EnrolError, identity::Identity};
use tidepool_certs::request::AgentKey;
use tidepool_coordinator::{
    ambient::Moment,
    doorbell::Ring,
    model::{self, ServerState},
    store::{RouteStore as _, ServerStore as _},
};
use tidepool_shared::{
    capability::close,
    frame::{Frame, Kind},
    message::{self, GatewayStats, HostStats, Ping, Refused, Stats, Unsupported},
};

fn unknown_kind(kind: u16) -> Vec<u8> {
    let frame = Frame {
        kind: Kind(kind),
        body: vec![1, 2, 3],
    };
    frame.encode().expect("a small frame")
}

#[tokio::test]
async fn a_server_enrols_and_its_link_comes_up() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut agent = rig.agent(identity);
    assert_eq!(agent.connected().await, 1);
    soon("registered", || rig.links().is_connected(server.id)).await;
    agent.stop().await;
    soon("unregistered", || !rig.links().is_connected(server.id)).await;
}

#[tokio::test]
async fn a_links_holder_is_in_the_store_as_long_as_it_is_up() {
    let mut coordinator = None;
    let rig = Rig::start_with(|settings| coordinator = Some(settings.coordinator)).await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut agent = rig.agent(identity);
    assert_eq!(agent.connected().await, 1);
    let row = rig.store.server(server.id).await.unwrap().unwrap();
    assert!(coordinator.is_some());
    assert_eq!(row.holder, coordinator);
    agent.stop().await;
    // The session gives up its place last of all.
    soon("unregistered", || !rig.links().is_connected(server.id)).await;
    let row = rig.store.server(server.id).await.unwrap().unwrap();
    assert_eq!(row.holder, None);
}

#[tokio::test]
async fn a_token_is_good_for_one_enrolment_and_who_lost_its_certificate_is_replaced() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    rig.enrol(&server).await.unwrap();
    assert!(matches!(
        rig.enrol(&server).await,
        Err(EnrolError::Refused(_))
    ));
    let row = rig.store.server(server.id).await.unwrap().unwrap();
    assert_eq!(row.state, ServerState::Failed, "it never had a link");
    assert!(
        rig.events()
            .await
            .contains(&"security.enrolment_refused".to_owned())
    );
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let rig = Rig::start().await;
    let server = rig.plan_with_expired_token().await;
    assert!(matches!(
        rig.enrol(&server).await,
        Err(EnrolError::Refused(_))
    ));
}

#[tokio::test]
async fn a_token_from_another_address_is_refused() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let thief = rig::Planned {
        address: Ipv4Addr::new(127, 0, 0, 99).into(),
        ..server.clone()
    };
    assert!(matches!(
        rig.enrol(&thief).await,
        Err(EnrolError::Refused(_))
    ));
    assert!(
        rig.enrol(&server).await.is_ok(),
        "the thief's try must not spend the token"
    );
}

#[tokio::test]
async fn a_certificate_of_another_server_opens_no_link() {
    let rig = Rig::start().await;
    let (one, other) = (rig.plan().await, rig.plan().await);
    let identity = rig.enrol(&one).await.unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    raw.hello(other.id).await;
    assert_eq!(raw.closed().await, close::REFUSED);
    assert!(
        rig.events()
            .await
            .contains(&"security.impersonation_refused".to_owned())
    );
}

#[tokio::test]
async fn a_revoked_server_opens_no_link() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    rig.store.revoke(server.id, rig::now()).await.unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    raw.hello(server.id).await;
    assert_eq!(raw.closed().await, close::REFUSED);
    rig.audited("security.revoked_refused").await;
}

#[tokio::test]
async fn a_revocation_closes_a_live_link_within_a_second() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    raw.welcomed(server.id).await;
    rig.store.revoke(server.id, rig::now()).await.unwrap();
    rig.doorbell.ring(Ring::Server(server.id));
    let closed = tokio::time::timeout(Duration::from_secs(1), raw.closed()).await;
    assert_eq!(closed.unwrap(), close::REFUSED);
    rig.audited("security.revoked_refused").await;
}

#[tokio::test]
async fn a_good_certificate_opens_no_link_from_another_address() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut own = Raw::dial(&rig, &identity).await;
    own.welcomed(server.id).await;
    let thief = rig.agent_elsewhere(identity);
    rig.audited("security.wrong_address").await;
    assert_eq!(thief.sessions(), 0);
    own.send(&unknown_kind(999)).await;
    assert!(own.reply().await.is_some(), "the server's own link goes on");
    let row = rig.store.server(server.id).await.unwrap().unwrap();
    assert_eq!(row.epoch, 1, "the thief's tries cost no epoch");
    thief.stop().await;
}

#[tokio::test]
async fn the_same_alarm_is_written_once_a_minute() {
    let rig = Rig::start().await;
    let (one, other) = (rig.plan().await, rig.plan().await);
    let identity = rig.enrol(&one).await.unwrap();
    for _ in 0..3 {
        let mut raw = Raw::dial(&rig, &identity).await;
        raw.hello(other.id).await;
        assert_eq!(raw.closed().await, close::REFUSED);
    }
    assert_eq!(rig.events().await, ["security.impersonation_refused"]);
}

#[tokio::test]
async fn an_unknown_token_leaves_no_event() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let stranger = rig::Planned {
        token: "made up".into(),
        ..server.clone()
    };
    assert!(matches!(
        rig.enrol(&stranger).await,
        Err(EnrolError::Refused(_))
    ));
    assert_eq!(rig.events().await, Vec::<String>::new());
    assert!(rig.enrol(&server).await.is_ok());
}

#[tokio::test]
async fn a_spent_token_is_audited_once_however_often_it_is_shown() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    rig.enrol(&server).await.unwrap();
    for _ in 0..3 {
        assert!(rig.enrol(&server).await.is_err());
    }
    assert_eq!(rig.events().await, ["security.enrolment_refused"]);
}

#[tokio::test]
async fn a_bulk_frame_is_refused_by_its_header_while_enrolling_and_before_hello() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let announcement = [0x00, 0x10, 0x00, 0x00, 0, 33];
    let mut enrolling = Raw::without_certificate(&rig, rig::Protocol::Enrolment).await;
    let mut linking = Raw::dial(&rig, &identity).await;
    for raw in [&mut enrolling, &mut linking] {
        // Nothing of the body follows: the header alone must do.
        raw.send(&announcement).await;
        assert_eq!(raw.closed().await, close::BROKEN);
    }
}

#[tokio::test]
async fn a_stranger_with_many_connections_keeps_no_server_out() {
    let rig = Rig::start_with(|settings| settings.unwelcomed_per_source = 2).await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let stranger = || Raw::try_without_certificate(&rig, rig::Protocol::Enrolment);
    let _held = [stranger().await.unwrap(), stranger().await.unwrap()];
    assert!(stranger().await.is_err(), "its places are taken");
    Raw::dial(&rig, &identity).await.welcomed(server.id).await;
}

#[tokio::test]
async fn enrolments_have_places_of_their_own() {
    let rig = Rig::start_with(|settings| settings.enrolments_at_once = 1).await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut first = Raw::without_certificate(&rig, rig::Protocol::Enrolment).await;
    let mut second = Raw::without_certificate(&rig, rig::Protocol::Enrolment).await;
    let turned_away = tokio::select! {
        code = first.closed() => code,
        code = second.closed() => code,
    };
    assert_eq!(turned_away, close::TROUBLE);
    Raw::dial(&rig, &identity).await.welcomed(server.id).await;
}

#[tokio::test]
async fn a_certificate_is_renewed_once_a_minute_whatever_the_session() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    raw.welcomed(server.id).await;
    assert_eq!(raw.renewal().await.kind, Kind::ISSUED);
    let mut again = Raw::dial(&rig, &identity).await;
    again.welcomed(server.id).await;
    let refused: Refused = again.renewal().await.message().unwrap();
    assert!(refused.retry, "it may ask again later");
}

#[tokio::test]
async fn the_enrolment_protocol_cannot_open_a_link() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let mut raw = Raw::without_certificate(&rig, rig::Protocol::Enrolment).await;
    raw.hello(server.id).await;
    let answer = raw.reply().await.unwrap();
    assert_eq!(answer.message::<Unsupported>().unwrap().kind, Kind::HELLO.0);
    assert_eq!(rig.links().count(), 0);
}

#[tokio::test]
async fn a_link_without_a_certificate_is_refused_before_a_stream_is_read() {
    let rig = Rig::start().await;
    let mut raw = Raw::without_certificate(&rig, rig::Protocol::Link).await;
    assert_eq!(raw.closed().await, close::REFUSED);
}

#[tokio::test]
async fn an_oversized_frame_closes_its_own_session_only() {
    let rig = Rig::start().await;
    let (one, other) = (rig.plan().await, rig.plan().await);
    let [one_identity, other_identity] = [
        rig.enrol(&one).await.unwrap(),
        rig.enrol(&other).await.unwrap(),
    ];
    let mut sound = Raw::dial(&rig, &other_identity).await;
    sound.welcomed(other.id).await;
    let mut mad = Raw::dial(&rig, &one_identity).await;
    mad.welcomed(one.id).await;
    mad.send(&[0xff, 0xff, 0xff, 0xff, 0, 5]).await;
    assert_eq!(mad.closed().await, close::BROKEN);
    sound
        .send(
            &Frame {
                kind: Kind(999),
                body: Vec::new(),
            }
            .encode()
            .unwrap(),
        )
        .await;
    assert!(sound.reply().await.is_some(), "the other session goes on");
}

#[tokio::test]
async fn an_unknown_kind_is_answered_and_closes_nothing() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    raw.welcomed(server.id).await;
    for kind in [999, 1000] {
        raw.send(
            &Frame {
                kind: Kind(kind),
                body: vec![1, 2, 3],
            }
            .encode()
            .unwrap(),
        )
        .await;
        let answer = raw.reply().await.unwrap();
        assert_eq!(answer.message::<Unsupported>().unwrap().kind, kind);
    }
}

#[tokio::test]
async fn the_newer_session_wins_and_the_older_is_told() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut older = Raw::dial(&rig, &identity).await;
    older.welcomed(server.id).await;
    let mut newer = Raw::dial(&rig, &identity).await;
    let welcome = newer.welcomed(server.id).await;
    assert_eq!(welcome.epoch, 2);
    assert_eq!(older.closed().await, close::SUPERSEDED);
    assert_eq!(rig.links().count(), 1);
}

#[tokio::test]
async fn two_machines_with_one_identity_are_suspected() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::dial(&rig, &identity).await;
        raw.welcomed(server.id).await;
        sessions.push(raw);
    }
    assert!(
        rig.events()
            .await
            .contains(&"security.clone_suspected".to_owned())
    );
}

#[tokio::test]
async fn a_document_is_pushed_once_and_not_again_after_a_reconnect() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut agent = rig.agent(identity);
    agent.connected().await;
    agent.say_warm();
    rig.becomes_warm(server.id).await;
    let document = rig.claim().await;
    rig.doorbell.ring(Ring::Server(server.id));
    assert_eq!(agent.offered().await, document);
    // The same ring again, and a whole reconnect: no second offer, because nothing is newer.
    rig.doorbell.ring(Ring::Server(server.id));
    let identity = Identity::load(&rig.identity_dir(&server), server.id, "machine")
        .unwrap()
        .unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    let welcome = raw
        .welcomed_holding(server.id, Some(held_of(&document)))
        .await;
    assert_eq!(welcome.current_generation, document.generation.0);
    // A frame of ours is answered after anything that the welcome would have brought.
    raw.send(
        &Frame {
            kind: Kind(999),
            body: Vec::new(),
        }
        .encode()
        .unwrap(),
    )
    .await;
    assert_eq!(raw.reply().await.unwrap().kind, Kind::UNSUPPORTED);
    assert!(agent.no_offer_waits());
}

#[tokio::test]
async fn a_certificate_is_renewed_over_the_live_link() {
    // Half of this life is over at birth: the agent renews as soon as the link is up.
    let rig = Rig::start_with(|settings| settings.leaf_life = Duration::from_mins(5)).await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let serial = identity.leaf.serial.clone();
    let mut agent = rig.agent(identity);
    let renewed = agent.certificate_other_than(&serial).await;
    let stored = Identity::load(&rig.identity_dir(&server), server.id, "machine")
        .unwrap()
        .unwrap();
    assert_eq!(stored.leaf.serial, renewed);
    assert_eq!(agent.sessions(), 1, "renewal needs no reconnect");
    let mut raw = Raw::dial(&rig, &stored).await;
    raw.welcomed(server.id).await;
}

#[tokio::test]
async fn the_last_word_of_what_a_server_takes_is_stored_also_after_a_reconnect() {
    let rig = Rig::start_with(|settings| settings.stats_interval = Duration::from_millis(20)).await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut agent = rig.agent(identity);
    agent.connected().await;
    let taking = |memory_bytes| GatewayStats {
        cpu_millicores: Some(20),
        memory_bytes,
        memory_limit_bytes: Some(4000),
        pids: 30,
    };
    agent.say_what_it_takes(taking(1000));
    let written = rig.takes_since(server.id, 1000, Moment(0)).await;
    agent.say_what_it_takes(taking(2000));
    let written = rig.takes_since(server.id, 2000, written).await;

    // Another session takes over and speaks in the name of the one before; the agent comes back.
    let identity = Identity::load(&rig.identity_dir(&server), server.id, "machine")
        .unwrap()
        .unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    let stale = Stats {
        epoch: raw.welcomed(server.id).await.epoch - 1,
        gateway: Some(taking(3000)),
        host: HostStats::default(),
    };
    raw.say(&stale).await;
    agent.reconnected(2).await;
    rig.takes_since(server.id, 2000, written).await;
}

#[tokio::test]
async fn a_server_is_warm_once_its_door_has_a_certificate_and_is_then_reached_by_tls() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let file = rig::door_file(&rig.identity_dir(&server));
    assert!(Door::load(&file.path, server.id).unwrap().is_none());
    let to = rig.store.destinations().await.unwrap()[0].upstream;
    assert_eq!(to.door, model::Door::Open);
    let agent = rig.agent(identity);
    agent.say_warm();
    rig.becomes_warm(server.id).await;
    assert!(Door::load(&file.path, server.id).unwrap().is_some());
    let to = rig.store.destinations().await.unwrap()[0].upstream;
    assert_eq!(to.door, model::Door::Mutual);
}

#[tokio::test]
async fn a_door_is_renewed_over_the_live_link() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let file = rig::door_file(&rig.identity_dir(&server));
    // More than half of its life is over.
    let old = rig.door(server.id, Duration::from_hours(5 * 24));
    old.save(&file).unwrap();
    let mut agent = rig.agent(identity);
    agent.connected().await;
    let held = || Door::load(&file.path, server.id).unwrap().unwrap().leaf;
    soon("renewed", || held().serial != old.leaf.serial).await;
    assert!(held().life.ends > old.leaf.life.ends);
    assert_eq!(agent.sessions(), 1, "renewal needs no reconnect");
}

#[tokio::test]
async fn a_server_gets_one_certificate_for_its_door_in_a_while() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    raw.welcomed(server.id).await;
    let csr = AgentKey::generate().unwrap().request().unwrap();
    let request = message::Door { csr };
    assert_eq!(raw.asked(&request).await.kind, Kind::ISSUED);
    let refused = raw.asked(&request).await;
    assert!(refused.message::<Refused>().unwrap().retry);
    let garbled = message::Door { csr: vec![0; 9] };
    let refused = raw.asked(&garbled).await;
    assert!(!refused.message::<Refused>().unwrap().retry);
}

#[tokio::test]
async fn logs_are_asked_for_over_the_link() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut agent = rig.agent(identity);
    agent.connected().await;
    assert_eq!(
        rig.links().logs(server.id, 2).await.unwrap(),
        ["line 1", "line 2"]
    );
}

#[tokio::test]
async fn an_agent_whose_program_is_stuck_loses_its_link() {
    let rig = Rig::start_with(|settings| {
        settings.ping_interval = Duration::from_millis(50);
        settings.ping_deadline = Duration::from_millis(100);
    })
    .await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    raw.welcomed(server.id).await;
    let ping = raw.reply().await.unwrap();
    assert!(ping.message::<Ping>().is_ok());
    assert_eq!(raw.closed().await, close::SILENT);
}

#[test]
fn a_killed_coordinator_is_noticed_at_the_next_packet_and_the_link_comes_back() {
    rig::restart::a_killed_coordinator_is_noticed();
}
