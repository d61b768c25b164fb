//! What an instance is made of before it is stored: its name, its public names, its documents.
//!
//! Text from outside becomes a [`Name`] or is refused; from there on nobody checks again. A document
//! is sealed here, once, and does not depend on the server that will serve it, so a pending instance
//! has one too.

pub mod name;

use std::time::Duration;

use serde_json::Value;
use tidepool_shared::{
    document::{
        DesiredDocument, EdgeProof, GatewayLimits, Generation, OpenClawOrder, Power, SealedDocument,
    },
    id::{InstanceId, OperationId},
    networks::Networks,
    openclaw_version::OpenClawVersion,
};

pub use self::name::{InvalidName, Name};
use crate::{
    ambient::{Chance, Moment},
    causes::chain,
    model::{
        DocumentChange, EdgeLimits, Instance, InstanceStatus, NewInstance, OperationKind, PoolKey,
        Rename,
    },
    store::{Store, StoreError},
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
        max_body_bytes: None,
        openclaw: None,
        networks: Networks::default(),
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
    let next = Instance {
        config,
        ..instance.clone()
    };
    change(&next, OperationKind::Configure, operation, limits)
}

/// The next document of an instance with other bounds for its visitors.
pub fn limit(
    instance: &Instance,
    bounds: EdgeLimits,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let next = Instance {
        edge_limits: bounds,
        ..instance.clone()
    };
    change(&next, OperationKind::Limit, operation, limits)
}

/// The next document of an instance whose gateway may reach these private networks.
pub fn allow_networks(
    instance: &Instance,
    networks: Networks,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let next = Instance {
        networks,
        ..instance.clone()
    };
    change(&next, OperationKind::Networks, operation, limits)
}

/// The next document of an instance that also answers to these names of its customer's.
pub fn serve_domains(
    instance: &Instance,
    domains: Vec<String>,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let next = Instance {
        domains,
        ..instance.clone()
    };
    change(&next, OperationKind::Domains, operation, limits)
}

/// The next document of an instance, which asks for one restart of its gateway.
pub fn restart(
    instance: &Instance,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let next = Instance {
        restarts: instance.restarts.saturating_add(1),
        ..instance.clone()
    };
    change(&next, OperationKind::Restart, operation, limits)
}

/// The next document of an instance, which orders a version of OpenClaw, be it another one or the same once more, and
/// names the artefact that brings it.
pub fn upgrade(
    instance: &Instance,
    version: OpenClawVersion,
    signed: Option<String>,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let ordered = Instance {
        openclaw: Some(OpenClawOrder {
            number: instance.openclaw_orders.saturating_add(1),
            version,
            signed,
        }),
        ..instance.clone()
    };
    change(&ordered, OperationKind::Upgrade, operation, limits)
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
    let change = change(&renamed, OperationKind::Rename, operation, limits);
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
    change(&back, OperationKind::Undelete, operation, limits)
}

/// The document that follows the present one, of what `next` says.
fn change(
    next: &Instance,
    kind: OperationKind,
    operation: OperationId,
    limits: GatewayLimits,
) -> DocumentChange {
    let origins = next.domains.iter().map(|domain| origin(next, domain));
    let document = SealedDocument::seal(&DesiredDocument {
        instance: next.id,
        generation: next.generation.next(),
        hosts: next.hosts.iter().chain(&next.domains).cloned().collect(),
        origins: std::iter::once(next.url.clone()).chain(origins).collect(),
        edge_proof: next.edge_proof.clone(),
        config: next.config.clone(),
        restarts: next.restarts,
        limits,
        power: next.status.power(),
        evictions: next.evictions,
        max_body_bytes: next.edge_limits.max_body_bytes,
        openclaw: next.openclaw.clone(),
        networks: next.networks.clone(),
    });
    DocumentChange {
        instance: next.id,
        operation,
        kind,
        expected: next.generation,
        config: next.config.clone(),
        restarts: next.restarts,
        evictions: next.evictions,
        edge_limits: next.edge_limits,
        networks: next.networks.clone(),
        domains: next.domains.clone(),
        openclaw: next.openclaw.clone(),
        document,
    }
}

/// What the present document allows the gateway to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    Limits(GatewayLimits),
    /// There is no document on a server.
    Nowhere,
    Unreadable,
}

/// What the present document allows the gateway to take, for a next one that leaves it at that.
pub async fn present_limits(store: &dyn Store, instance: &Instance) -> Result<Present, StoreError> {
    let Some(server) = instance.server else {
        return Ok(Present::Nowhere);
    };
    let present = store.document_for(server).await?;
    Ok(match present.map(|document| document.open()) {
        Some(Ok(present)) => Present::Limits(present.limits),
        Some(Err(error)) => {
            tracing::error!(instance.id = %instance.id, error = %chain(&error), "its document cannot be read");
            Present::Unreadable
        }
        None => Present::Nowhere,
    })
}

/// The URL of a customer's own name, which is reached as the instance's main one is.
pub fn origin(instance: &Instance, domain: &str) -> String {
    let host = instance.hosts.first().map_or("", String::as_str);
    instance.url.replacen(host, domain, 1)
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
