//! Customers' own host names: proven, led here, given a certificate, and looked after.
//!
//! Whose a name is, its owner says in DNS: a TXT record with the token of the instance that asks for it. So
//! a name that somebody asked for first is not theirs, and one that another customer proves passes to them.
//! Certificates are ours to get (ACME, HTTP-01): Traefik's own would be as many as there are Traefiks, each
//! with an account file of its own, and a challenge would reach the wrong one. They are kept in the store,
//! their keys sealed, and every edge ends TLS by them itself, behind a route of Traefik's that passes
//! connections on unopened: no key is in Redis or in a file, and nothing of Traefik's changes when a name
//! comes or goes. Way not taken: certificates in Redis (`traefik/tls/certificates`), which would show every
//! key to whoever reads it, and have Traefik parse all of them at each change.
//!
//! What to do is decided by [`plan`]; this module reads, asks and writes, and holds no choices. It runs under
//! the lease. Documents follow the table: a name is in its instance's document from when it is proven.

use std::{collections::HashSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use reqwest::Certificate as Authority;
use tidepool_shared::id::{InstanceId, OperationId};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

mod acme;
mod dns;
pub mod name;
mod plan;

use self::{
    acme::Acme,
    dns::{Dns, Look, Said},
    plan::{Plan, Server},
};
pub use self::{
    dns::{PROOF_LABEL, proof_value},
    name::{DomainName, InvalidDomain},
    plan::{GIVEN_UP_AFTER, RELEASED_AFTER},
};
use crate::{
    ambient::{Chance, Clock},
    causes::chain,
    doorbell::{Doorbell, Heard, Ring},
    instance::{self, Present},
    model::{Certificate, Domain, DomainState, DomainStep},
    store::{ChangeRefused, OrdersSpent, Store, StoreError, Transition, Unserved},
};

/// How domains are proven and certified.
#[derive(Debug, Clone)]
pub struct DomainsSettings {
    /// The name that domains must lead to.
    pub target: String,
    /// The recursive resolver that is asked; `None`: the machine's own.
    pub resolver: Option<SocketAddr>,
    /// The directory of the certificate authority.
    pub directory: String,
    /// Whom it writes to.
    pub email: Option<String>,
    /// Who vouches for the directory itself, if that is nobody whom this machine knows.
    pub authority: Option<Authority>,
    /// The file of the keys that seal.
    pub master_keys: PathBuf,
}

/// Between looks, if nobody rings.
const TURN_INTERVAL: Duration = Duration::from_secs(5);
/// Between turns, whoever rings.
const BREATH: Duration = Duration::from_millis(200);
/// Domains looked at at the same time. An order takes seconds.
const AT_ONCE: usize = 8;
/// Domains looked at in a turn; the rest are due in the next.
const IN_A_TURN: u32 = 64;

/// The reconciler of domains.
pub struct Domains {
    store: Arc<dyn Store>,
    doorbell: Doorbell,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    dns: Dns,
    acme: Acme,
}

impl Domains {
    pub fn new(
        settings: DomainsSettings,
        store: Arc<dyn Store>,
        doorbell: Doorbell,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
    ) -> reqwest::Result<Self> {
        Ok(Self {
            dns: Dns::new(settings.resolver, settings.target.clone()),
            acme: Acme::new(settings, Arc::clone(&store), Arc::clone(&clock))?,
            store,
            doorbell,
            clock,
            chance,
        })
    }

    /// Runs until cancelled.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        // The ear is there before the first look, so that no change falls between the two.
        let mut ear = self.doorbell.listen();
        let mut looks = Looks::default();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = sleep_until(next) => {
                    next = Instant::now() + TURN_INTERVAL;
                    if let Err(error) = self.turn(&mut looks).await {
                        tracing::error!(error = %chain(&error), "look after domains");
                    }
                }
                Some(ended) = looks.tasks.join_next() => {
                    looks.end(ended);
                    next = next.min(Instant::now() + BREATH);
                }
                heard = ear.hear() => match heard {
                    Heard::Ring(Ring::Instance(_) | Ring::Server(_)) | Heard::Missed => {
                        next = next.min(Instant::now() + BREATH);
                    }
                    Heard::Ring(Ring::Pool | Ring::Events | Ring::Images) => {}
                    Heard::Closed => break,
                },
            }
        }
        looks.tasks.shutdown().await;
    }

    /// Begins to look at what is due, and looks at documents.
    async fn turn(self: &Arc<Self>, looks: &mut Looks) -> Result<(), StoreError> {
        for domain in self.store.due_domains(self.clock.now(), IN_A_TURN).await? {
            looks.begin(self, domain);
        }
        for unserved in self.store.unserved_domains().await? {
            self.serve(unserved).await?;
        }
        Ok(())
    }

    async fn look_after(&self, domain: Domain) -> Result<(), StoreError> {
        let look = self.dns.look(&domain.name, &domain.token).await;
        let server = self.server(&domain).await?;
        match plan::plan(&domain, &look, server, self.clock.now()) {
            Plan::Step(step) => self.step(&domain, &look, step).await,
            Plan::Order => self.order(&domain).await,
        }
    }

    async fn step(&self, domain: &Domain, look: &Look, step: DomainStep) -> Result<(), StoreError> {
        if self.write(&step).await? == Transition::Done || step.to != DomainState::Issuing {
            return Ok(());
        }
        // The name is another instance's. Its owner says in DNS whose it is to be.
        let holder = self.store.domain_holder(&domain.name).await?;
        let Some(holder) = holder.filter(|holder| holder.instance != domain.instance) else {
            return Ok(());
        };
        let why = if look.proofs.contains(&proof_value(&holder.token)) {
            "another agent has it, by a TXT record that is still there"
        } else {
            self.take_from(&holder).await?;
            "it passes over from another agent"
        };
        let waiting = Look {
            is_proven: Said::No(why.to_owned()),
            ..look.clone()
        };
        if let Plan::Step(step) = plan::plan(domain, &waiting, Server::NotYet, self.clock.now()) {
            self.write(&step).await?;
        }
        Ok(())
    }

    async fn take_from(&self, holder: &Domain) -> Result<(), StoreError> {
        let step = DomainStep {
            name: holder.name.clone(),
            instance: holder.instance,
            from: holder.state,
            to: DomainState::Failed,
            problem: Some("another agent has proven it".to_owned()),
            attempts: 0,
            failing_since: None,
            next_check_at: None,
            events: vec!["domain.failed"],
        };
        self.write(&step).await.map(drop)
    }

    async fn write(&self, step: &DomainStep) -> Result<Transition, StoreError> {
        let moved = self.store.move_domain(step, self.clock.now()).await?;
        if moved == Transition::Done && (step.from != step.to || !step.events.is_empty()) {
            tracing::info!(instance.id = %step.instance, domain = step.name, state = step.to.word(), why = step.problem, "a domain moved on");
            self.doorbell.ring(Ring::Instance(step.instance));
            self.doorbell.ring(Ring::Events);
        }
        Ok(moved)
    }

    async fn order(&self, domain: &Domain) -> Result<(), StoreError> {
        let begun = self
            .store
            .begin_order(domain.instance, self.clock.now())
            .await?;
        if let Err(OrdersSpent { limit, until }) = begun {
            let why = format!(
                "{} certificates were ordered in the last {} hours, and no more may be",
                limit.orders,
                limit.within.as_secs() / 3600
            );
            tracing::warn!(instance.id = %domain.instance, domain = domain.name, why, "no certificate is ordered");
            let step = plan::not_ordered(domain, why, until, self.clock.now());
            return self.write(&step).await.map(drop);
        }
        let ordered = self.acme.order(&domain.name, domain.instance).await;
        let now = self.clock.now();
        let certificate = match ordered {
            Ok(certificate) => certificate,
            Err(error) => {
                tracing::warn!(instance.id = %domain.instance, domain = domain.name, error = %chain(&error), "no certificate was given");
                let again = now.plus(error.rest());
                let step = plan::not_ordered(domain, error.for_people(), again, now);
                return self.write(&step).await.map(drop);
            }
        };
        self.keep(domain, &certificate).await
    }

    async fn keep(&self, domain: &Domain, certificate: &Certificate) -> Result<(), StoreError> {
        let now = self.clock.now();
        // Removed meanwhile, or another's: then it is of no use.
        if self.store.put_certificate(certificate, now).await? == Transition::NotPossible {
            return Ok(());
        }
        if matches!(domain.state, DomainState::Active | DomainState::Expiring) {
            self.write(&plan::renewed(domain, now)).await?;
        }
        self.doorbell.ring(Ring::Instance(domain.instance));
        Ok(())
    }

    /// Whether the instance's server has said that it answers to this name.
    async fn server(&self, domain: &Domain) -> Result<Server, StoreError> {
        let Some(instance) = self.store.instance(domain.instance).await? else {
            return Ok(Server::NotYet);
        };
        let server = match instance.server {
            Some(server) => self.store.server(server).await?,
            None => None,
        };
        let answers = instance.domains.contains(&domain.name)
            && server.is_some_and(|server| server.served >= instance.generation);
        Ok(if answers {
            Server::Answers
        } else {
            Server::NotYet
        })
    }

    /// Writes the document that names what it should. What is in the way now is not in the next turn.
    async fn serve(&self, unserved: Unserved) -> Result<(), StoreError> {
        let Some(found) = self.store.instance(unserved.instance).await? else {
            return Ok(());
        };
        let Present::Limits(limits) = instance::present_limits(&*self.store, &found).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let operation = OperationId::new(self.chance.uuid(now));
        let change = instance::serve_domains(&found, unserved.wanted, operation, limits);
        match self.store.change_document(&change, now).await {
            Ok(changed) => {
                for ring in changed
                    .server
                    .map(Ring::Server)
                    .into_iter()
                    .chain([Ring::Instance(changed.id), Ring::Events])
                {
                    self.doorbell.ring(ring);
                }
                Ok(())
            }
            Err(ChangeRefused::Store(error)) => Err(error),
            Err(refused) => {
                tracing::debug!(instance.id = %found.id, %refused, "its domains must wait");
                Ok(())
            }
        }
    }
}

/// The looks that are under way: at most one a domain.
#[derive(Default)]
struct Looks {
    tasks: JoinSet<Looked>,
    under_way: HashSet<Looked>,
}

/// Which domain was looked at.
type Looked = (String, InstanceId);

impl Looks {
    /// Beyond the bound the next turn comes back to it.
    fn begin(&mut self, domains: &Arc<Domains>, domain: Domain) {
        let looked = (domain.name.clone(), domain.instance);
        if self.tasks.len() >= AT_ONCE || !self.under_way.insert(looked.clone()) {
            return;
        }
        let domains = Arc::clone(domains);
        self.tasks.spawn(async move {
            if let Err(error) = domains.look_after(domain).await {
                tracing::error!(domain = looked.0, error = %chain(&error), "look after a domain");
            }
            looked
        });
    }

    fn end(&mut self, ended: Result<Looked, tokio::task::JoinError>) {
        match ended {
            Ok(looked) => drop(self.under_way.remove(&looked)),
            Err(error) => {
                tracing::error!(%error, "a look at a domain panicked");
                // Which one is not known any more.
                self.under_way.clear();
            }
        }
    }
}

/// What a domain's owner must put into DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: &'static str,
    pub name: String,
    pub value: String,
}

/// The records for a domain that is to lead to `target`.
pub fn records(domain: &Domain, target: &str) -> [Record; 2] {
    [
        Record {
            kind: "TXT",
            name: format!("{PROOF_LABEL}.{}", domain.name),
            value: proof_value(&domain.token),
        },
        Record {
            kind: "CNAME",
            name: domain.name.clone(),
            value: target.to_owned(),
        },
    ]
}
