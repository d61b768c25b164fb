//! For `tidepool doctor`: Redis and every Traefik against the store. Writes nothing.

use std::collections::BTreeSet;

use super::{
    RoutesSettings,
    api::Api,
    plan::{Change, Plan, plan},
    sink::{Sink, SinkError},
    tree::{self, Revision, Tree, Wanted},
};
use crate::{
    causes::chain,
    doctor::{Finding, Verdict},
    store::RouteStore,
};

/// Looks at everything that routes depend on.
pub async fn inspect(settings: &RoutesSettings, store: &dyn RouteStore) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wanted = match store.destinations().await {
        Ok(destinations) => tree::wanted(destinations, settings.server_port),
        Err(error) => return vec![Finding::wrong("store", chain(&error))],
    };
    let tree = match read(settings).await {
        Ok((mut sink, tree)) => {
            let routers = tree.keys().filter(|key| key.ends_with("/rule")).count();
            findings.push(Finding::fine(
                "redis",
                format!("{routers} routers are in it"),
            ));
            findings.push(key_events(&mut sink).await);
            findings.push(compared(&wanted, &tree));
            tree
        }
        Err(error) => {
            findings.push(Finding::wrong("redis", chain(&error)));
            return findings;
        }
    };
    let http = match Api::client() {
        Ok(http) => http,
        Err(error) => {
            findings.push(Finding::wrong("traefik", chain(&error)));
            return findings;
        }
    };
    for url in &settings.traefik {
        let api = Api::new(url, http.clone());
        let check = format!("traefik {url}");
        findings.push(match differences(&api, &wanted, &tree).await {
            Ok(0) => Finding::fine(&check, format!("knows all {} routes", wanted.len())),
            Ok(count) => {
                let detail = "routers are not as Redis has them (look again in a few seconds)";
                Finding::wrong(&check, format!("{count} {detail}"))
            }
            Err(error) => Finding::wrong(&check, chain(&error)),
        });
    }
    findings
}

async fn read(settings: &RoutesSettings) -> Result<(Sink, Tree), SinkError> {
    let mut sink = settings.redis.connect().await?;
    let tree = sink.read().await?;
    Ok((sink, tree))
}

/// With events on keys Traefik lists everything once for each key that is written.
async fn key_events(sink: &mut Sink) -> Finding {
    let check = "redis key events";
    match sink.key_events().await {
        Ok(None) => Finding::fine(
            check,
            "this user may not ask, nor Traefik switch them on".to_owned(),
        ),
        Ok(Some(flags)) if flags.is_empty() => Finding {
            verdict: Verdict::Doubtful,
            ..Finding::fine(
                check,
                "are off, but users may do everything: load redis.acl".to_owned(),
            )
        },
        Ok(Some(flags)) => Finding::wrong(
            check,
            format!("are on (`{flags}`): set notify-keyspace-events to \"\" and load redis.acl"),
        ),
        Err(error) => Finding::wrong(check, chain(&error)),
    }
}

/// Redis against the store. What is only staged may wait for Traefik.
fn compared(wanted: &Wanted, tree: &Tree) -> Finding {
    let all: BTreeSet<_> = wanted.keys().cloned().collect();
    let differing = |change: &Change| change.set.len() + change.delete.len();
    let detail = match plan(wanted, tree, &all) {
        Plan::Rest => return Finding::fine("routes", "Redis has what the store has".to_owned()),
        Plan::Change(change) => {
            format!("{} keys in Redis differ from the store", differing(&change))
        }
        Plan::Restore { .. } => "there are none in Redis: does a coordinator run?".to_owned(),
    };
    Finding::wrong("routes", detail)
}

/// How many routers Traefik does not have as Redis has them.
async fn differences(api: &Api, wanted: &Wanted, tree: &Tree) -> reqwest::Result<usize> {
    let shown = api.router(Revision::ROUTER).await?;
    let shown = shown.and_then(|router| Revision::of_rule(&router.rule));
    let mut count = usize::from(shown.is_none() || shown != Revision::of_tree(tree));
    for name in wanted.keys() {
        let router = api.router(&name.to_string()).await?;
        let is_right = router.is_some_and(|router| {
            router.is_whole(&name.to_string()) && tree.get(&name.rule_key()) == Some(&router.rule)
        });
        count += usize::from(!is_right);
    }
    Ok(count)
}
