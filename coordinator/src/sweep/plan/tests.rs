use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{cloud::Labels, model::sample};

const NOW: Moment = Moment(40 * 24 * 3_600_000_000);

fn object(kind: ObjectKind, name: &str, age: Duration) -> CloudObject {
    CloudObject {
        kind,
        id: name.to_owned(),
        name: name.to_owned(),
        labels: Labels::new(),
        created_at: Moment(NOW.0 - i64::try_from(age.as_micros()).unwrap()),
        in_use: false,
    }
}

fn server(number: u128, state: ServerState) -> Server {
    Server {
        name: format!("s{number}"),
        state,
        ..sample::server(ServerId::new(Uuid::from_u128(number)))
    }
}

fn sweep(objects: &[CloudObject], servers: &[Server], missed: &HashSet<ServerId>) -> Plan {
    sweep_around(objects, servers, missed, &HashSet::new())
}

fn sweep_around(
    objects: &[CloudObject],
    servers: &[Server],
    missed: &HashSet<ServerId>,
    stubborn: &HashSet<(ObjectKind, String)>,
) -> Plan {
    let needed = HashSet::from([
        (ObjectKind::Firewall, "firewall".to_owned()),
        (ObjectKind::Snapshot, "image".to_owned()),
    ]);
    let view = View {
        objects,
        servers,
        missed,
        needed: &needed,
        stubborn,
        now: NOW,
    };
    plan(&Policy::default(), &view)
}

const HOUR: Duration = Duration::from_hours(1);
const WEEKS: Duration = Duration::from_hours(24 * 20);

#[test]
fn a_server_that_no_row_knows_is_removed_once_it_is_old_enough() {
    let old = object(ObjectKind::Server, "unknown", HOUR);
    let young = object(ObjectKind::Server, "fresh", Duration::from_mins(29));
    let swept = sweep(&[young, old.clone()], &[], &HashSet::new());
    assert_eq!(swept.remove, [old]);
}

#[test]
fn what_cannot_be_removed_does_not_keep_the_rest_from_it() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let objects = names.map(|name| object(ObjectKind::Server, name, HOUR));
    let stubborn = names[..5]
        .iter()
        .map(|name| (ObjectKind::Server, (*name).to_owned()));
    let swept = sweep_around(&objects, &[], &HashSet::new(), &stubborn.collect());
    assert_eq!(
        swept.remove.first().map(|object| object.name.as_str()),
        Some("f")
    );
    assert_eq!((swept.remove.len(), swept.over_cap), (5, 1));
}

#[test]
fn what_is_in_use_or_needed_stays() {
    let used = |kind, name| CloudObject {
        in_use: true,
        ..object(kind, name, WEEKS)
    };
    let objects = [
        used(ObjectKind::Firewall, "applied"),
        used(ObjectKind::PrimaryAddress, "assigned"),
        object(ObjectKind::Firewall, "firewall", WEEKS),
        object(ObjectKind::Snapshot, "image", WEEKS),
        object(ObjectKind::Snapshot, "recent", HOUR),
        object(ObjectKind::Snapshot, "left", WEEKS),
        object(ObjectKind::PrimaryAddress, "free", HOUR),
    ];
    let swept = sweep(&objects, &[], &HashSet::new());
    let names: Vec<_> = swept
        .remove
        .iter()
        .map(|object| object.name.as_str())
        .collect();
    assert_eq!(names, ["left", "free"]);
}

#[test]
fn a_server_is_lost_when_two_passes_miss_it() {
    let servers = [
        server(1, ServerState::Claimed),
        server(2, ServerState::Deleting),
    ];
    let first = sweep(&[], &servers, &HashSet::new());
    assert_eq!(first.lost, []);
    let second = sweep(&[], &servers, &first.missed);
    assert_eq!(second.lost, [servers[0].id]);
}

#[test]
fn a_pass_removes_no_more_than_its_cap_and_counts_the_rest() {
    let objects: Vec<_> = (0..9)
        .map(|n| object(ObjectKind::Server, &format!("x{n}"), HOUR))
        .collect();
    let swept = sweep(&objects, &[], &HashSet::new());
    assert_eq!((swept.remove.len(), swept.over_cap), (5, 4));
}

fn any_state() -> impl Strategy<Value = ServerState> {
    use ServerState::{Booting, Claimed, Creating, Deleting, Draining, Failed, Planned, Warm};
    prop::sample::select(vec![
        Planned, Creating, Booting, Warm, Claimed, Draining, Deleting, Failed,
    ])
}

proptest! {
    #[test]
    fn nothing_that_the_store_counts_on_is_removed(
        rows in prop::collection::vec((any_state(), any::<bool>(), 0u64..100_000), 0..20),
        strangers in 0usize..10,
    ) {
        let servers: Vec<_> = (1u128..).zip(&rows).map(|(n, row)| server(n, row.0)).collect();
        let listed = servers.iter().zip(&rows).filter(|(_, row)| row.1).map(|(server, row)| {
            object(ObjectKind::Server, &server.name, Duration::from_secs(row.2))
        });
        let unknown = (0..strangers).map(|n| object(ObjectKind::Server, &format!("x{n}"), HOUR));
        let objects: Vec<_> = listed.chain(unknown).collect();
        let everything: HashSet<_> = servers.iter().map(|server| server.id).collect();
        let swept = sweep(&objects, &servers, &everything);
        prop_assert!(swept.remove.iter().all(|object| object.name.starts_with('x')));
        prop_assert_eq!(swept.remove.len(), strangers.min(5));
        let found: HashSet<_> = objects.iter().map(|object| object.name.as_str()).collect();
        for id in &swept.lost {
            let row = servers.iter().find(|server| server.id == *id);
            prop_assert!(row.is_some_and(|row| is_expected(row.state) && !found.contains(row.name.as_str())));
        }
    }
}
