//! What an instance is made of before it is stored: its name, its public names, its documents.
//!
//! Text from outside becomes a [`Name`] or is refused; from there on nobody checks again. A document
//! is sealed here, once, and does not depend on the server that will serve it, so a pending instance
//! has one too.

pub mod name;

use std::time::Duration;

use serde_json::Value;
use tidepool_shared::{
    document::{DesiredDocument, EdgeProof, GatewayLimits, Generation, Power, SealedDocument},
    id::{InstanceId, OperationId},
};

pub use self::name::{InvalidName, Name};
use crate::{
    ambient::{Chance, Moment},
    model::{
        DocumentChange, Instance, InstanceStatus, NewInstance, OperationKind, PoolKey, Rename,
    },
};

/// Under which names instances are reached by browsers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicNames {
    /// Instances are `<name>.<domain>`.
    pub domain: String,
    /// `http` or `https`, as the browser sees it.
    pub scheme: String,
    /// The port that browsers use; `None` when it is the scheme's own.
    pub port: Option<u16>,
}

impl PublicNames {
    /// The host name of an instance, without port.
    pub fn host(&self, name: &Name) -> String {
        format!("{name}.{}", self.domain)
    }

    /// The origin of a host, which is also its URL without a path.
    pub fn origin(&self, host: &str) -> String {
        match self.port {
            Some(port) => format!("{}://{host}:{port}", self.scheme),
            None => format!("{}://{host}", self.scheme),
        }
    }
}

/// What a customer asked for, already checked.
#[derive(Debug, Clone)]
pub struct Wish {
    pub name: Name,
    pub pool: PoolKey,
    pub external_id: Option<String>,
    pub config: Value,
    /// Its tier's.
    pub limits: GatewayLimits,
}

/// Everything the transaction that creates an instance needs.
pub fn prepare(wish: Wish, names: &PublicNames, now: Moment, chance: &Chance) -> NewInstance {
    let id = InstanceId::new(chance.uuid(now));
    let edge_proof = EdgeProof(chance.secret());
    let hosts = vec![names.host(&wish.name)];
    let url = names.origin(&names.host(&wish.name));
    let document = SealedDocument::seal(&DesiredDocument {
        instance: id,
        generation: Generation::FIRST,
        hosts: hosts.clone(),
        origins: vec![url.clone()],
        edge_proof: edge_proof.clone(),
        config: wish.config.clone(),
        restarts: 0,
        limits: wish.limits,
        power: Power::On,
        evictions: 0,
    });
    NewInstance {
        id,
        operation: OperationId::new(chance.uuid(now)),
        name: wish.name.into(),
        external_id: wish.external_id,
        pool: wish.pool,
        hosts,
        url,
        edge_proof,
        config: wish.config,
        document,
    }
}

/// The next document of an instance with another configuration.
pub fn reconfigure(
    instance: &Instance,
    config: Value,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let restarts = instance.restarts;
    let kind = OperationKind::Configure;
    change(instance, kind, config, restarts, operation, limits)
}

/// The next document of an instance, which asks for one restart of its gateway.
pub fn restart(
    instance: &Instance,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let restarts = instance.restarts.saturating_add(1);
    let (kind, config) = (OperationKind::Restart, instance.config.clone());
    change(instance, kind, config, restarts, operation, limits)
}

/// How long an old name leads to the new one, and is kept from others: bookmarks and web hooks are found
/// out by then.
const MOVED_FOR: Duration = Duration::from_hours(30 * 24);

/// Another name for an instance. Whoever came in by the old one is cut off.
pub fn rename(
    instance: &Instance,
    name: Name,
    names: &PublicNames,
    operation: OperationId,
    limits: GatewayLimits,
    now: Moment,
) -> Rename {
    let host = names.host(&name);
    let renamed = Instance {
        name: name.into(),
        url: names.origin(&host),
        hosts: vec![host],
        evictions: instance.evictions.saturating_add(1),
        ..instance.clone()
    };
    let change = change(
        &renamed,
        OperationKind::Rename,
        instance.config.clone(),
        instance.restarts,
        operation,
        limits,
    );
    Rename {
        name: renamed.name,
        hosts: renamed.hosts,
        url: renamed.url,
        moved_until: now.plus(MOVED_FOR),
        change,
    }
}

/// The next document of an instance that comes back from deletion: the same, to be proven again, and still
/// suspended if it was.
pub fn undelete(
    instance: &Instance,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let back = Instance {
        status: match instance.suspension {
            Some(_) => InstanceStatus::Suspended,
            None => InstanceStatus::Starting,
        },
        ..instance.clone()
    };
    let (kind, config) = (OperationKind::Undelete, instance.config.clone());
    change(&back, kind, config, instance.restarts, operation, limits)
}

fn change(
    instance: &Instance,
    kind: OperationKind,
    config: Value,
    restarts: u64,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let document = SealedDocument::seal(&DesiredDocument {
        instance: instance.id,
        generation: instance.generation.next(),
        hosts: instance.hosts.clone(),
        origins: vec![instance.url.clone()],
        edge_proof: instance.edge_proof.clone(),
        config: config.clone(),
        restarts,
        limits,
        power: instance.status.power(),
        evictions: instance.evictions,
    });
    DocumentChange {
        instance: instance.id,
        operation,
        kind,
        expected: instance.generation,
        config,
        restarts,
        evictions: instance.evictions,
        document,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wish(name: &str) -> Wish {
        Wish {
            name: name.parse().unwrap(),
            pool: crate::model::sample::pool(),
            external_id: None,
            config: json!({"ui": {"name": "x"}}),
            limits: GatewayLimits {
                pids: Some(300),
                ..GatewayLimits::default()
            },
        }
    }

    fn names(port: Option<u16>) -> PublicNames {
        PublicNames {
            domain: "apps.example.com".into(),
            scheme: "https".into(),
            port,
        }
    }

    #[test]
    fn a_new_instance_answers_to_its_name_under_the_domain() {
        let new = prepare(wish("anna"), &names(None), Moment(0), &Chance::from_seed(1));
        assert_eq!(new.hosts, ["anna.apps.example.com"]);
        assert_eq!(new.url, "https://anna.apps.example.com");
    }

    #[test]
    fn the_first_document_holds_the_origin_with_its_port() {
        let chance = Chance::from_seed(1);
        let new = prepare(wish("anna"), &names(Some(8443)), Moment(0), &chance);
        let document = new.document.open().unwrap();
        assert_eq!(document.origins, ["https://anna.apps.example.com:8443"]);
        assert_eq!(document.generation, Generation::FIRST);
        assert_eq!(document.edge_proof, new.edge_proof);
        assert_eq!(document.edge_proof.0.len(), 64);
        assert_eq!(document.limits.pids, Some(300));
    }
}
