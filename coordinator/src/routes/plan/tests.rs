//! Whatever is found and wanted, nothing that Traefik may see on the way is wrong, and the way ends.

use std::net::SocketAddr;

use proptest::{collection::btree_map, prelude::*, sample::subsequence};
use tidepool_shared::id::ServerId;
use uuid::Uuid;

use super::*;
use crate::{
    model::Door,
    routes::tree::{Host, Target},
};

const SERVERS: u8 = 4;
const HOSTS: u8 = 5;

fn name(number: u8) -> Name {
    Name::of(ServerId::new(Uuid::from_u128(number.into())))
}

/// Each host leads to one server at most, as the store has it.
fn a_wanted() -> impl Strategy<Value = Wanted> {
    let servers = btree_map(0..SERVERS, 1..4u8, 0..=usize::from(SERVERS));
    let hosts = btree_map(0..HOSTS, 0..SERVERS, 0..=usize::from(HOSTS));
    (servers, hosts).prop_map(|(servers, hosts)| {
        let target = |(server, address): (u8, u8)| {
            let led = hosts.iter().filter(|(_, to)| **to == server);
            let target = Target {
                upstream: SocketAddr::from(([10, 0, server, address], 80)),
                door: Door::Mutual,
                hosts: led
                    .filter_map(|(host, _)| Host::of(&format!("h{host}.example")))
                    .collect(),
            };
            (name(server), target)
        };
        servers.into_iter().map(target).collect()
    })
}

/// What an accident or a person may have done to a tree.
fn harm() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0..40usize, 0..3u8), 0..4)
}

fn harmed(mut tree: Tree, harm: &[(usize, u8)]) -> Tree {
    for (place, kind) in harm {
        let Some(key) = tree.keys().nth(*place).cloned() else {
            continue;
        };
        match kind {
            0 => drop(tree.remove(&key)),
            1 => drop(tree.insert(key, "nonsense".to_owned())),
            _ => drop(tree.insert("traefik/http/junk".to_owned(), "1".to_owned())),
        }
    }
    tree
}

/// Executes plans until there is nothing to do; every change is shown with the tree before it.
fn settle(wanted: &Wanted, tree: &mut Tree, mut seen: impl FnMut(&Tree, &Change)) -> bool {
    let mut confirmed = BTreeSet::new();
    for revision in 0..8 {
        let shown: BTreeSet<_> = super::super::tree::staged(wanted, tree).cloned().collect();
        let changes = match plan(wanted, tree, &confirmed) {
            Plan::Rest if confirmed == shown => return true,
            // It waits for Traefik, which has nothing new to take in.
            Plan::Rest => {
                confirmed = shown;
                continue;
            }
            Plan::Change(change) => vec![change],
            Plan::Restore { frame, rules } => vec![frame, rules],
        };
        let last = changes.len() - 1;
        for (number, change) in changes.into_iter().enumerate() {
            seen(tree, &change);
            change.apply(tree);
            if number == last {
                tree.insert(Revision::key(), Revision(revision).rule());
            }
        }
        confirmed = super::super::tree::staged(wanted, tree).cloned().collect();
    }
    false
}

fn settled(wanted: &Wanted, tree: &mut Tree) -> bool {
    settle(wanted, tree, |_, _| ())
}

/// What Traefik may take for the tree while it lists: of the new keys any, of all others the new value.
fn view(before: &Tree, change: &Change, hidden: &[usize]) -> Tree {
    let mut after = before.clone();
    change.apply(&mut after);
    let new = change.set.keys().filter(|key| !before.contains_key(*key));
    for (number, key) in new.enumerate() {
        if hidden.contains(&number) {
            after.remove(key);
        }
    }
    after
}

/// A router with a rule that somebody can match has everything else as it was wanted, now or before.
fn is_right(view: &Tree, versions: &[&Wanted]) -> Result<(), TestCaseError> {
    let mut led: BTreeMap<String, Name> = BTreeMap::new();
    for number in 0..SERVERS {
        let name = name(number);
        let Some(rule) = view.get(&name.rule_key()) else {
            continue;
        };
        if *rule == name.staged_rule() || rule == "nonsense" {
            continue;
        }
        let fits = versions.iter().any(|wanted| {
            wanted.get(&name).is_some_and(|target| {
                let frame = target.frame(&name);
                frame
                    .iter()
                    .all(|(key, value)| view.get(key) == Some(value))
            })
        });
        prop_assert!(fits, "{name} is live and not whole: {view:#?}");
        for host in rule.split(" || ") {
            let other = led.insert(host.to_owned(), name.clone());
            prop_assert_eq!(other, None, "{} leads to two servers", host);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_found_becomes_exactly_what_is_wanted(
        before in a_wanted(), wanted in a_wanted(), harm in harm(),
    ) {
        let mut tree = Tree::new();
        prop_assert!(settled(&before, &mut tree));
        let mut tree = harmed(tree, &harm);
        prop_assert!(settled(&wanted, &mut tree));
        let mut expected: Tree = Tree::from([Revision::frame()]);
        for (name, target) in &wanted {
            expected.extend(target.frame(name));
            let rule = target.live_rule().unwrap_or_else(|| name.staged_rule());
            expected.insert(name.rule_key(), rule);
        }
        tree.remove(&Revision::key());
        prop_assert_eq!(tree, expected);
    }

    #[test]
    fn nothing_that_traefik_may_see_leads_wrong_or_is_open(
        before in a_wanted(), wanted in a_wanted(), lost: bool,
        hidden in subsequence((0..30usize).collect::<Vec<_>>(), 0..30),
    ) {
        let mut tree = Tree::new();
        prop_assert!(settled(&before, &mut tree));
        if lost {
            tree.clear();
        }
        let mut views = Vec::new();
        settle(&wanted, &mut tree, |tree, change| views.push(view(tree, change, &hidden)));
        for view in views {
            is_right(&view, &[&before, &wanted])?;
        }
    }

    #[test]
    fn a_live_rule_is_never_written_with_new_keys(
        before in a_wanted(), wanted in a_wanted(), harm in harm(),
    ) {
        let mut tree = Tree::new();
        prop_assert!(settled(&before, &mut tree));
        let mut tree = harmed(tree, &harm);
        let mut mixed = Vec::new();
        settle(&wanted, &mut tree, |tree, change| {
            for (name, target) in &wanted {
                let is_live = change.set.get(&name.rule_key()) != Some(&name.staged_rule())
                    && change.set.contains_key(&name.rule_key());
                let frame = target.frame(name);
                if is_live && frame.iter().any(|(key, _)| !tree.contains_key(key)) {
                    mixed.push(name.clone());
                }
            }
        });
        prop_assert_eq!(mixed, Vec::<Name>::new());
    }
}

#[test]
fn a_claim_writes_one_key() {
    let host = Host::of("a.example").unwrap();
    let upstream = SocketAddr::from(([10, 0, 0, 1], 80));
    let target = |hosts: &[Host]| Target {
        upstream,
        door: Door::Mutual,
        hosts: hosts.iter().cloned().collect(),
    };
    let mut tree = Tree::new();
    assert!(settle(
        &[(name(1), target(&[]))].into(),
        &mut tree,
        |_, _| ()
    ));
    let wanted = [(name(1), target(&[host]))].into();
    assert_eq!(plan(&wanted, &tree, &BTreeSet::new()), Plan::Rest);
    let Plan::Change(change) = plan(&wanted, &tree, &[name(1)].into()) else {
        panic!("nothing to do");
    };
    let rule = (name(1).rule_key(), "Host(`a.example`)".to_owned());
    assert_eq!(
        (change.set, change.delete),
        ([rule].into(), BTreeSet::new())
    );
}

#[test]
fn a_deletion_overwrites_one_key_and_its_return_too() {
    let host = Host::of("a.example").unwrap();
    let upstream = SocketAddr::from(([10, 0, 0, 1], 80));
    let live: Wanted = [(
        name(1),
        Target {
            upstream,
            door: Door::Mutual,
            hosts: [host].into(),
        },
    )]
    .into();
    let held: Wanted = [(
        name(1),
        Target {
            upstream,
            door: Door::Mutual,
            hosts: BTreeSet::new(),
        },
    )]
    .into();
    let mut tree = Tree::new();
    assert!(settle(&live, &mut tree, |_, _| ()));
    let Plan::Change(change) = plan(&held, &tree, &BTreeSet::new()) else {
        panic!("nothing to do");
    };
    let rule = (name(1).rule_key(), name(1).staged_rule());
    assert_eq!(
        (change.set, change.delete),
        ([rule].into(), BTreeSet::new())
    );
}
