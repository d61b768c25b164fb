//! Images: a few of the system's, and the snapshots that were made.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tidepool_coordinator::ambient::Moment;

use super::{
    action::{Effect, Protection, Resource},
    books::Kind as BookKind,
    call::{Call, Outcome, Reply},
    clock::rfc3339,
    id::{ImageId, ServerId},
    label::{self, Labels, Selector},
    page,
    project::{Project, Work},
    refusal::Refusal,
    server::Server,
};

/// What a snapshot of a small disk takes, compressed.
const SNAPSHOT_SIZE_GB: f64 = 2.3;

/// Name, architecture, flavour and version of the system's own.
const SYSTEM: [(u64, &str, &str, &str, &str); 6] = [
    (101, "debian-13", "x86", "debian", "13"),
    (102, "debian-13", "arm", "debian", "13"),
    (103, "ubuntu-24.04", "x86", "ubuntu", "24.04"),
    (104, "ubuntu-24.04", "arm", "ubuntu", "24.04"),
    (105, "debian-12", "x86", "debian", "12"),
    (106, "debian-12", "arm", "debian", "12"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    System,
    Snapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Available,
    Creating,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Creating => "creating",
        }
    }
}

/// One image.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) id: ImageId,
    pub(super) kind: Kind,
    pub(super) status: Status,
    /// Snapshots have none.
    name: Option<String>,
    description: String,
    compressed_gb: Option<f64>,
    pub(super) disk_size_gb: u64,
    created: Moment,
    created_from: Option<(ServerId, String)>,
    os_flavor: String,
    os_version: Option<String>,
    pub(super) architecture: String,
    protection: Protection,
    pub(super) labels: Labels,
}

impl Image {
    fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::System => "system",
            Kind::Snapshot => "snapshot",
        }
    }

    pub(super) fn view(&self) -> Value {
        json!({
            "id": self.id,
            "type": self.kind_name(),
            "status": self.status.name(),
            "name": self.name,
            "description": self.description,
            "image_size": self.compressed_gb,
            "disk_size": self.disk_size_gb,
            "created": rfc3339(self.created),
            "created_from": self.created_from.as_ref().map(|(id, name)| json!({
                "id": id,
                "name": name,
            })),
            "bound_to": null,
            "os_flavor": self.os_flavor,
            "os_version": self.os_version,
            "rapid_deploy": self.kind == Kind::System,
            "protection": { "delete": self.protection == Protection::On },
            "deprecated": null,
            "deprecation": null,
            "deleted": null,
            "labels": self.labels,
            "architecture": self.architecture,
        })
    }
}

/// A snapshot to be there from the start; see [`super::FakeHetzner::add_snapshot`].
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewSnapshot {
    pub description: String,
    pub labels: BTreeMap<String, String>,
    /// `x86` or `arm`.
    pub architecture: String,
    pub disk_size_gb: u64,
}

impl Default for NewSnapshot {
    fn default() -> Self {
        Self {
            description: "a snapshot".to_owned(),
            labels: BTreeMap::new(),
            architecture: "x86".to_owned(),
            disk_size_gb: 40,
        }
    }
}

pub(super) fn system_images(now: Moment) -> BTreeMap<ImageId, Image> {
    let image = |(id, name, architecture, flavor, version): (u64, &str, &str, &str, &str)| Image {
        id: ImageId(id),
        kind: Kind::System,
        status: Status::Available,
        name: Some(name.to_owned()),
        description: name.to_owned(),
        compressed_gb: None,
        disk_size_gb: 5,
        created: now,
        created_from: None,
        os_flavor: flavor.to_owned(),
        os_version: Some(version.to_owned()),
        architecture: architecture.to_owned(),
        protection: Protection::Off,
        labels: Labels::new(),
    };
    SYSTEM.map(image).map(|image| (image.id, image)).into()
}

/// A name or an id, given as text or as a number.
pub(super) fn key(given: &Value) -> String {
    match given {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// An image by id, or by name for an architecture.
pub(super) fn find<'a>(project: &'a Project, key: &str, architecture: &str) -> Option<&'a Image> {
    let id = key.parse().ok().map(ImageId);
    let by_id = id.and_then(|id| project.images.get(&id));
    let named = |image: &&Image| image.name.as_deref() == Some(key);
    by_id.or_else(|| {
        let mut named = project.images.values().filter(named);
        named.find(|image| image.architecture == architecture)
    })
}

/// Begins a snapshot of a server's disk.
pub(super) fn make_snapshot(
    project: &mut Project,
    server: &Server,
    description: String,
    labels: Labels,
) -> Result<ImageId, Refusal> {
    let server_type = project.catalogue.server_type(&server.server_type);
    let architecture = server_type.map(|found| found.architecture);
    let snapshot = NewSnapshot {
        description,
        labels,
        architecture: architecture.unwrap_or_default(),
        disk_size_gb: server.disk_gb,
    };
    let from = Some((server.id, server.name.clone()));
    add(project, snapshot, from, Status::Creating)
}

pub(super) fn add(
    project: &mut Project,
    snapshot: NewSnapshot,
    created_from: Option<(ServerId, String)>,
    status: Status,
) -> Result<ImageId, Refusal> {
    let is_snapshot = |image: &&Image| image.kind == Kind::Snapshot;
    let snapshots = project.images.values().filter(is_snapshot).count();
    if snapshots >= project.settings.limits.snapshots {
        return Err(Refusal::limit("snapshot"));
    }
    let id = ImageId(project.next_id());
    let detail = format!("{SNAPSHOT_SIZE_GB} GB");
    project.enter(BookKind::Image, id.0, "", detail, &snapshot.labels);
    let image = Image {
        id,
        kind: Kind::Snapshot,
        status,
        name: None,
        description: snapshot.description,
        compressed_gb: Some(SNAPSHOT_SIZE_GB),
        disk_size_gb: snapshot.disk_size_gb,
        created: project.now,
        created_from,
        os_flavor: "debian".to_owned(),
        os_version: Some("13".to_owned()),
        architecture: snapshot.architecture,
        protection: Protection::Off,
        labels: snapshot.labels,
    };
    project.images.insert(id, image);
    Ok(id)
}

pub(super) fn list(project: &mut Project, call: &Call) -> Outcome {
    let selector = call.query("label_selector").map(Selector::parse);
    let selector = selector.transpose()?;
    let rows = project
        .images
        .values()
        .filter(|image| call.admits("type", image.kind_name()))
        .filter(|image| call.admits("status", image.status.name()))
        .filter(|image| call.admits("architecture", &image.architecture))
        .filter(|image| call.admits("name", image.name.as_deref().unwrap_or_default()))
        .filter(|image| selector.as_ref().is_none_or(|s| s.matches(&image.labels)))
        .map(Image::view)
        .collect();
    let sortable = ["id", "name", "created"];
    page::answer("images", rows, &sortable, &project.settings, call)
}

pub(super) fn show(project: &mut Project, call: &Call) -> Outcome {
    let image = project.image(ImageId(call.id("image")?))?;
    Ok(Reply::ok(json!({ "image": image.view() })))
}

/// A snapshot for a change: the system's images are nobody's to change.
fn own<'a>(project: &'a mut Project, call: &Call) -> Result<&'a mut Image, Refusal> {
    let image = project.images.get_mut(&ImageId(call.id("image")?));
    let image = image.ok_or_else(|| Refusal::not_found("image"))?;
    match image.kind {
        Kind::Snapshot => Ok(image),
        Kind::System => Err(Refusal::invalid("only snapshots can be changed")),
    }
}

#[derive(Deserialize)]
struct Update {
    description: Option<String>,
    labels: Option<Labels>,
}

pub(super) fn update(project: &mut Project, call: &Call) -> Outcome {
    let update: Update = call.body()?;
    if let Some(labels) = &update.labels {
        label::check(labels)?;
    }
    let image = own(project, call)?;
    image.description = update.description.unwrap_or(image.description.clone());
    image.labels = update.labels.unwrap_or(image.labels.clone());
    let (id, labels) = (image.id, image.labels.clone());
    project.ledger.relabel(BookKind::Image, id.0, "", &labels);
    show(project, call)
}

/// Servers that were made from it live on.
pub(super) fn delete(project: &mut Project, call: &Call) -> Outcome {
    let image = own(project, call)?;
    let id = image.id;
    if image.protection == Protection::On {
        return Err(Refusal::protected("image"));
    }
    if image.status == Status::Creating {
        return Err(Refusal::locked("image"));
    }
    project.images.remove(&id);
    project.ledger.end(BookKind::Image, id.0, project.now);
    Ok(Reply::empty())
}

#[derive(Deserialize)]
struct Protect {
    delete: Option<bool>,
}

pub(super) fn protect(project: &mut Project, call: &Call) -> Outcome {
    let body: Protect = call.body()?;
    let image = own(project, call)?;
    if let Some(delete) = body.delete {
        image.protection = delete.into();
    }
    let id = image.id;
    let takes = project.settings.pace.action;
    let work = Work::new("change_protection", takes, Effect::Nothing);
    let action = project.begin(work.on(Resource::Image(id)));
    Ok(Reply::created(
        json!({ "action": project.action_view(action) }),
    ))
}
