//! SSH keys: unique by name and by fingerprint.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};
use serde::Deserialize;
use serde_json::{Value, json};
use tidepool_coordinator::ambient::Moment;

use super::{
    books::Kind,
    call::{Call, Outcome, Reply},
    clock::rfc3339,
    id::SshKeyId,
    label::{self, Labels, Selector},
    page,
    project::Project,
    refusal::Refusal,
};

/// One key.
#[derive(Debug, Clone)]
pub(super) struct SshKey {
    id: SshKeyId,
    name: String,
    fingerprint: String,
    public_key: String,
    labels: Labels,
    created: Moment,
}

impl SshKey {
    fn view(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "public_key": self.public_key,
            "labels": self.labels,
            "created": rfc3339(self.created),
        })
    }
}

/// A key by name or id.
pub(super) fn find<'a>(project: &'a Project, key: &str) -> Option<&'a SshKey> {
    let id = key.parse().ok().map(SshKeyId);
    let is_it = |known: &&SshKey| known.name == key || Some(known.id) == id;
    project.ssh_keys.values().find(is_it)
}

/// The MD5 form, pairs of digits with colons between.
fn fingerprint(public_key: &str) -> Option<String> {
    let mut words = public_key.split_whitespace();
    let kind = words.next()?;
    if !kind.starts_with("ssh-") && !kind.starts_with("ecdsa-") && !kind.starts_with("sk-") {
        return None;
    }
    let key = STANDARD.decode(words.next()?).ok()?;
    let digest = Md5::digest(&key);
    let pairs: Vec<_> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(pairs.join(":"))
}

pub(super) fn list(project: &mut Project, call: &Call) -> Outcome {
    let selector = call.query("label_selector").map(Selector::parse);
    let selector = selector.transpose()?;
    let rows = project
        .ssh_keys
        .values()
        .filter(|key| call.admits("name", &key.name))
        .filter(|key| call.admits("fingerprint", &key.fingerprint))
        .filter(|key| selector.as_ref().is_none_or(|s| s.matches(&key.labels)))
        .map(SshKey::view)
        .collect();
    let sortable = ["id", "name"];
    page::answer("ssh_keys", rows, &sortable, &project.settings, call)
}

fn get<'a>(project: &'a mut Project, call: &Call) -> Result<&'a mut SshKey, Refusal> {
    let key = project.ssh_keys.get_mut(&SshKeyId(call.id("ssh key")?));
    key.ok_or_else(|| Refusal::not_found("ssh key"))
}

pub(super) fn show(project: &mut Project, call: &Call) -> Outcome {
    let key = get(project, call)?;
    Ok(Reply::ok(json!({ "ssh_key": key.view() })))
}

#[derive(Deserialize)]
struct Create {
    name: String,
    public_key: String,
    #[serde(default)]
    labels: Labels,
}

pub(super) fn create(project: &mut Project, call: &Call) -> Outcome {
    let body: Create = call.body()?;
    label::check(&body.labels)?;
    let fingerprint = fingerprint(&body.public_key)
        .ok_or_else(|| Refusal::field("public_key", "is not an SSH public key"))?;
    let mut known = project.ssh_keys.values();
    if known.any(|key| key.name == body.name) {
        return Err(Refusal::taken("SSH key name", "name"));
    }
    let mut known = project.ssh_keys.values();
    if known.any(|key| key.fingerprint == fingerprint) {
        return Err(Refusal::taken("SSH key", "public_key"));
    }
    let id = SshKeyId(project.next_id());
    project.enter(Kind::SshKey, id.0, &body.name, String::new(), &body.labels);
    let key = SshKey {
        id,
        name: body.name,
        fingerprint,
        public_key: body.public_key,
        labels: body.labels,
        created: project.now,
    };
    let view = key.view();
    project.ssh_keys.insert(id, key);
    Ok(Reply::created(json!({ "ssh_key": view })))
}

#[derive(Deserialize)]
struct Update {
    name: Option<String>,
    labels: Option<Labels>,
}

pub(super) fn update(project: &mut Project, call: &Call) -> Outcome {
    let update: Update = call.body()?;
    if let Some(labels) = &update.labels {
        label::check(labels)?;
    }
    let id = get(project, call)?.id;
    let taken = |name: &String| {
        let mut others = project.ssh_keys.values().filter(|key| key.id != id);
        others.any(|key| key.name == *name)
    };
    if update.name.as_ref().is_some_and(taken) {
        return Err(Refusal::taken("SSH key name", "name"));
    }
    let key = get(project, call)?;
    key.name = update.name.unwrap_or(key.name.clone());
    key.labels = update.labels.unwrap_or(key.labels.clone());
    let (name, labels) = (key.name.clone(), key.labels.clone());
    project.ledger.relabel(Kind::SshKey, id.0, &name, &labels);
    show(project, call)
}

/// Servers keep the keys that they were made with.
pub(super) fn delete(project: &mut Project, call: &Call) -> Outcome {
    let id = get(project, call)?.id;
    project.ssh_keys.remove(&id);
    project.ledger.end(Kind::SshKey, id.0, project.now);
    Ok(Reply::empty())
}
