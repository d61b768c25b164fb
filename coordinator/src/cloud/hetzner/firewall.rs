//! The firewall of all servers: made once, named in every creation, put right when it drifted.
//!
//! It admits one TCP port from the main servers' addresses. No rule for what goes out means that all
//! of it may. It is named in the `POST` that makes a server, because a firewall that finds its servers
//! by label comes seconds late, and locks the server while it does.

use std::collections::BTreeSet;

use futures_util::TryFutureExt as _;
use tidepool_shared::admission::{Admission, Cidr};

use super::{
    HetznerCloud,
    api::Twice,
    call::{Call, CallFailed},
    code::Meaning,
    request::{CreateFirewall, SetRules},
    trouble::Trouble,
    wire::{Action, Firewall, Rule},
};
use crate::cloud::Labels;

/// How often the `POST` is sent when its outcome is in doubt.
const SENDS: u32 = 3;

/// Seconds before it is looked for.
const LOOK_AFTER: u32 = 5;

impl HetznerCloud {
    /// The firewall for a server that is about to be made.
    pub(super) async fn firewall_for_creation(&self) -> Result<u64, Trouble> {
        let mut known = self.firewall.lock().await;
        if let Some(id) = *known {
            return Ok(id);
        }
        let id = self.ensured().await?;
        *known = Some(id);
        Ok(id)
    }

    pub(super) async fn firewall_made_right(&self) -> Result<(), Trouble> {
        let mut known = self.firewall.lock().await;
        *known = None;
        *known = Some(self.ensured().await?);
        Ok(())
    }

    /// The next creation looks for it again.
    pub(super) async fn forget_firewall(&self) {
        *self.firewall.lock().await = None;
    }

    async fn ensured(&self) -> Result<u64, Trouble> {
        let rules = wanted(&self.settings.admission());
        let firewall = match self.our_firewall().await? {
            Some(firewall) => firewall,
            None => self.make_firewall(&rules).await?,
        };
        if !are_same(&firewall.rules, &rules) {
            tracing::warn!(
                firewall.name = firewall.name,
                "the firewall's rules are not what they should be, setting them"
            );
            self.set_rules(firewall.id, &rules).await?;
        }
        Ok(firewall.id)
    }

    fn firewall_name(&self) -> String {
        format!("tidepool-{}", self.settings.env)
    }

    async fn our_firewall(&self) -> Result<Option<Firewall>, Trouble> {
        let name = self.firewall_name();
        let found: Vec<Firewall> = self.api.list(&[("name", &name)]).await?;
        match found.into_iter().find(|firewall| firewall.name == name) {
            Some(foreign) if !self.mark.is_on(&foreign.labels) => Err(Trouble::NotOurs(name)),
            found => Ok(found),
        }
    }

    /// Its name is unique too, so it is made like a server: what is in doubt is looked for.
    async fn make_firewall(&self, rules: &[Rule]) -> Result<Firewall, Trouble> {
        let name = self.firewall_name();
        let labels = self.mark.with(&Labels::new())?;
        let body = CreateFirewall {
            name: &name,
            labels: &labels,
            rules,
        };
        let call = Call::post("firewalls", &body)?;
        let mut sends = 1;
        loop {
            let sent = self
                .api
                .call(&call, Twice::MakesTwo)
                .and_then(|mut answer| async move { answer.part::<Firewall>("firewall") })
                .await;
            let error: CallFailed = match sent {
                Ok(firewall) => return Ok(firewall),
                Err(error) => error,
            };
            if !error.leaves_it_open() && !error.means(Meaning::Taken) {
                return Err(error.into());
            }
            tokio::time::sleep(self.api.pace().seconds(LOOK_AFTER)).await;
            if let Some(firewall) = self.our_firewall().await? {
                return Ok(firewall);
            }
            if sends == SENDS {
                return Err(error.into());
            }
            sends += 1;
        }
    }

    async fn set_rules(&self, id: u64, rules: &[Rule]) -> Result<(), Trouble> {
        let path = format!("firewalls/{id}/actions/set_rules");
        let call = Call::post(path, &SetRules { rules })?;
        let mut answer = self.api.call(&call, Twice::IsHarmless).await?;
        let actions: Vec<Action> = answer.part("actions")?;
        let ids: Vec<u64> = actions.iter().map(|action| action.id).collect();
        self.all_ended_well(&ids).await?;
        Ok(())
    }
}

/// One rule: the edge's port, from where it is admitted.
fn wanted(admission: &Admission) -> Vec<Rule> {
    vec![Rule {
        direction: "in".to_owned(),
        protocol: "tcp".to_owned(),
        port: Some(admission.port.to_string()),
        source_ips: admission.sources.iter().map(Cidr::to_string).collect(),
        destination_ips: Vec::new(),
    }]
}

/// The same traffic, however it is written: addresses of version 6 have many spellings.
fn are_same(there: &[Rule], wanted: &[Rule]) -> bool {
    meaning(there) == meaning(wanted)
}

type RuleMeaning<'a> = (
    &'a str,
    &'a str,
    Option<&'a str>,
    BTreeSet<String>,
    BTreeSet<String>,
);

fn meaning(rules: &[Rule]) -> BTreeSet<RuleMeaning<'_>> {
    rules
        .iter()
        .map(|rule| {
            (
                rule.direction.as_str(),
                rule.protocol.as_str(),
                rule.port.as_deref(),
                networks(&rule.source_ips),
                networks(&rule.destination_ips),
            )
        })
        .collect()
}

fn networks(texts: &[String]) -> BTreeSet<String> {
    texts
        .iter()
        .map(|text| {
            text.parse::<Cidr>()
                .map_or_else(|_| text.clone(), |cidr| cidr.to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(sources: &[&str]) -> Vec<Rule> {
        wanted(&Admission {
            port: 443,
            sources: sources.iter().map(|text| text.parse().unwrap()).collect(),
        })
    }

    #[test]
    fn rules_are_compared_by_what_they_admit() {
        let wanted = rules(&["192.0.2.7/32", "2001:db8::7/128"]);
        let mut spelt_otherwise = wanted.clone();
        spelt_otherwise[0].source_ips.reverse();
        spelt_otherwise[0].source_ips[0] = "2001:0db8:0:0:0:0:0:7/128".to_owned();
        assert!(are_same(&spelt_otherwise, &wanted));

        let mut wider = wanted.clone();
        wider[0].port = Some("1-65535".to_owned());
        let mut one_more = wanted.clone();
        one_more.extend(rules(&["0.0.0.0/0"]));
        for drifted in [Vec::new(), rules(&["192.0.2.7/32"]), wider, one_more] {
            assert!(!are_same(&drifted, &wanted), "{drifted:?}");
        }
    }
}
