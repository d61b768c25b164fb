//! Who serves models, and what a name that a server asks for stands for.
//!
//! A name is an alias of the caller's tier (`default`), or `provider/model` of a provider for which the
//! customer has a key of their own. On the operator's key customers reach only what the operator named.

mod keyring;
mod provider;

use std::{collections::HashMap, str::FromStr as _, sync::Arc};

use serde::Deserialize;
use sqlx::FromRow;
use tidepool_shared::{id::InstanceId, sealed_place::SealedPlace};

pub(crate) use self::{keyring::Opener, provider::Call};
pub use self::{
    keyring::{Key, Keyring},
    provider::{Kind, Provider},
};
use crate::{dialect::Dialect, directory::Customer, ledger::Payer};

/// Targets of one alias that are tried, at most; the API takes no more.
const TARGETS_MAX: usize = 16;

#[derive(Debug, FromRow)]
pub(crate) struct ProviderRow {
    name: String,
    kind: String,
    base_url: String,
    sealed_key: Option<Vec<u8>>,
}

#[derive(Debug, FromRow)]
pub(crate) struct AliasRow {
    tier: String,
    alias: String,
    targets: String,
}

#[derive(Debug, FromRow)]
pub(crate) struct CustomerKeyRow {
    instance_id: String,
    provider: String,
    sealed_key: Vec<u8>,
}

#[derive(Debug, Clone, Deserialize)]
struct TargetRow {
    provider: String,
    model: String,
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

/// Where a request may go.
#[derive(Debug, Clone)]
pub struct Target {
    pub provider: Arc<Provider>,
    /// As the provider calls it.
    pub model: String,
    pub weight: u32,
    pub payer: Payer,
    pub key: Option<Key>,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// Nothing is configured at all.
    NoProviders,
    UnknownModel,
    /// There are targets, and none of them speaks the dialect of the request.
    OtherDialect,
    /// The customer's own key for it does not open.
    OwnKey,
}

/// Providers, aliases and keys.
#[derive(Debug, Default)]
pub struct Catalog {
    providers: HashMap<String, Arc<Provider>>,
    aliases: HashMap<String, HashMap<String, Vec<TargetRow>>>,
    /// `None`: there is one, and it does not open.
    keys: HashMap<(InstanceId, String), Option<Key>>,
}

impl Catalog {
    pub(crate) fn of(
        providers: Vec<ProviderRow>,
        aliases: Vec<AliasRow>,
        keys: Vec<CustomerKeyRow>,
        opener: &Opener,
    ) -> Self {
        let mut catalog = Self::default();
        for row in providers {
            let place = SealedPlace::Provider(row.name.clone());
            let key = row
                .sealed_key
                .and_then(|sealed| opener.open(&sealed, &place));
            if let Some(provider) = Provider::of(&row.name, &row.kind, &row.base_url, key) {
                catalog.providers.insert(row.name, Arc::new(provider));
            }
        }
        for row in aliases {
            if let Ok(mut targets) = serde_json::from_str::<Vec<TargetRow>>(&row.targets) {
                targets.truncate(TARGETS_MAX);
                let of_tier = catalog.aliases.entry(row.tier).or_default();
                of_tier.insert(row.alias, targets);
            } else {
                tracing::error!(row.tier, row.alias, "an alias in the database is none");
            }
        }
        for row in keys {
            if let Ok(instance) = InstanceId::from_str(&row.instance_id) {
                let place = SealedPlace::CustomerKey {
                    instance: row.instance_id,
                    provider: row.provider.clone(),
                };
                let key = opener.open(&row.sealed_key, &place);
                catalog.keys.insert((instance, row.provider), key);
            }
        }
        catalog
    }

    /// Whether anything is configured.
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    /// The names that a customer may ask for.
    pub fn names(&self, customer: &Customer) -> Vec<&str> {
        let of_tier = self.aliases.get(&*customer.tier);
        let mut names: Vec<_> = of_tier
            .into_iter()
            .flat_map(HashMap::keys)
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names
    }

    /// Where a request for this name may go, in order of preference. Whoever has a key of their own for one of the
    /// targets is served with keys of their own only: what their key is refused must not be charged to them.
    pub fn resolve(
        &self,
        customer: &Customer,
        name: &str,
        dialect: Dialect,
    ) -> Result<Vec<Target>, Unresolved> {
        if self.is_empty() {
            return Err(Unresolved::NoProviders);
        }
        let aliased = self
            .aliases
            .get(&*customer.tier)
            .and_then(|of_tier| of_tier.get(name));
        let direct;
        let rows = match (aliased, name.split_once('/')) {
            (Some(rows), _) => rows.as_slice(),
            (None, Some((provider, model))) if !model.is_empty() => {
                direct = [TargetRow {
                    provider: provider.to_owned(),
                    model: model.to_owned(),
                    weight: 1,
                }];
                direct.as_slice()
            }
            (None, _) => return Err(Unresolved::UnknownModel),
        };
        let known = |row: &&TargetRow| self.providers.contains_key(&row.provider);
        let speaks = |row: &&TargetRow| {
            let provider = self.providers.get(&row.provider);
            provider.is_some_and(|provider| provider.kind.path(dialect).is_some())
        };
        let is_own = |row: &&TargetRow| {
            let own = (customer.instance, row.provider.clone());
            self.keys.contains_key(&own)
        };
        let own_only = aliased.is_none() || rows.iter().filter(speaks).any(|row| is_own(&row));
        let meant: Vec<_> = rows
            .iter()
            .filter(known)
            .filter(|row| !own_only || is_own(row))
            .collect();
        if meant.is_empty() {
            return Err(Unresolved::UnknownModel);
        }
        let speaking: Vec<_> = meant.into_iter().filter(speaks).collect();
        if speaking.is_empty() {
            return Err(Unresolved::OtherDialect);
        }
        let targets: Vec<_> = speaking
            .into_iter()
            .filter_map(|row| self.target(customer, row))
            .collect();
        if targets.is_empty() {
            return Err(Unresolved::OwnKey);
        }
        Ok(targets)
    }

    fn target(&self, customer: &Customer, row: &TargetRow) -> Option<Target> {
        let provider = Arc::clone(self.providers.get(&row.provider)?);
        let own = self.keys.get(&(customer.instance, row.provider.clone()));
        let (payer, key) = match own {
            // One that does not open is not replaced by ours: it would be charged.
            Some(key) => (Payer::Own, Some(Arc::clone(key.as_ref()?))),
            None => (Payer::Managed, provider.key.clone()),
        };
        Some(Target {
            provider,
            model: row.model.clone(),
            weight: row.weight,
            payer,
            key,
        })
    }
}
