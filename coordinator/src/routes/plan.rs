//! What to write next: a pure function of what the store wants, what is in Redis and what Traefik has shown.
//!
//! Traefik lists the tree by many `SCAN`s and reads all values by one `MGET`. So a transaction that adds
//! keys may be seen in part, and one that changes or deletes keys never is. Hence the order: a router is
//! *staged* (all its keys, with a rule that matches nothing), *confirmed* by Traefik, and made *live*, moved
//! or held by overwriting keys that are there. A tree that was lost is laid down without its rules and
//! without a word to Traefik, which goes on with what it has, and gets all rules at once a while later.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Name, Revision, Tree, Wanted};

#[cfg(test)]
mod tests;

/// One transaction's worth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Change {
    pub(super) set: BTreeMap<String, String>,
    pub(super) delete: BTreeSet<String>,
}

/// What to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// All is as wanted, or waits for Traefik to confirm it.
    Rest,
    /// Write and publish.
    Change(Change),
    /// Write `frame` and publish nothing; when no listing can be under way any more that began before,
    /// write `rules` and publish.
    Restore { frame: Change, rules: Change },
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.delete.is_empty()
    }

    /// Sets a key, unless it has that value.
    fn put(&mut self, found: &Tree, key: String, value: String) {
        if found.get(&key) != Some(&value) {
            self.set.insert(key, value);
        }
    }

    /// What becomes of a tree by it.
    pub(super) fn apply(&self, tree: &mut Tree) {
        for (key, value) in &self.set {
            tree.insert(key.clone(), value.clone());
        }
        for key in &self.delete {
            tree.remove(key);
        }
    }
}

/// Decides. `confirmed` are the staged routers that Traefik has shown whole.
pub(super) fn plan(wanted: &Wanted, found: &Tree, confirmed: &BTreeSet<Name>) -> Plan {
    if Revision::of_tree(found).is_none() {
        return restore(wanted, found);
    }
    let mut change = Change {
        delete: foreign(wanted, found),
        ..Change::default()
    };
    for (name, target) in wanted {
        let frame = target.frame(name);
        let rule = found.get(&name.rule_key());
        let is_whole = rule.is_some() && frame.iter().all(|(key, _)| found.contains_key(key));
        let staged = name.staged_rule();
        let may_be_live = is_whole && (rule != Some(&staged) || confirmed.contains(name));
        let next = target.live_rule().filter(|_| may_be_live).unwrap_or(staged);
        change.put(found, name.rule_key(), next);
        for (key, value) in frame {
            change.put(found, key, value);
        }
    }
    let (key, value) = Revision::frame();
    change.put(found, key, value);
    if change.is_empty() {
        Plan::Rest
    } else {
        Plan::Change(change)
    }
}

fn restore(wanted: &Wanted, found: &Tree) -> Plan {
    let mut frame = Change {
        delete: foreign(wanted, found),
        ..Change::default()
    };
    let mut rules = Change::default();
    for (name, target) in wanted {
        for (key, value) in target.frame(name) {
            frame.put(found, key, value);
        }
        let rule = target.live_rule().unwrap_or_else(|| name.staged_rule());
        rules.set.insert(name.rule_key(), rule);
    }
    // A rule that is there already must not be seen before its router is whole.
    let early = rules.set.keys().filter(|key| found.contains_key(*key));
    frame.delete.extend(early.cloned());
    let (key, value) = Revision::frame();
    frame.put(found, key, value);
    Plan::Restore { frame, rules }
}

/// What nobody wants: routers of servers that are gone, and whatever somebody else wrote, which may be
/// what freezes Traefik.
fn foreign(wanted: &Wanted, found: &Tree) -> BTreeSet<String> {
    let mut ours: BTreeSet<String> = wanted
        .iter()
        .flat_map(|(name, target)| target.frame(name).map(|(key, _)| key))
        .chain(wanted.keys().map(Name::rule_key))
        .collect();
    ours.extend([Revision::key(), Revision::frame().0]);
    let is_foreign = |key: &&String| !ours.contains(*key);
    found.keys().filter(is_foreign).cloned().collect()
}
