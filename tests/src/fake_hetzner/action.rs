//! Actions: what the API has accepted and works on.

use serde_json::{Value, json};
use tidepool_coordinator::ambient::Moment;

use super::{
    call::{Call, Outcome, Reply},
    clock::rfc3339,
    id::{ActionId, FirewallId, ImageId, PrimaryIpId, ServerId},
    page,
    project::Project,
    refusal::Refusal,
};

/// What becomes true when an action succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    ServerMade(ServerId),
    ServerStarted(ServerId),
    ServerStopped(ServerId),
    /// It will be off a little later.
    ShutdownHeard(ServerId),
    ServerRestarted(ServerId),
    ServerGone(ServerId),
    ServerRebuilt(ServerId, ImageId),
    /// The type, and whether the disk grows with it.
    TypeChanged(ServerId, String, Disk),
    ServerProtected(ServerId, Protection),
    SnapshotMade(ImageId),
    FirewallApplied(FirewallId, ServerId),
    FirewallRemoved(FirewallId, ServerId),
}

/// What a change of type does to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    Grows,
    Stays,
}

/// Whether something may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    On,
    Off,
}

impl From<bool> for Protection {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Success,
    Error,
}

/// Something that an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Server(ServerId),
    Image(ImageId),
    Firewall(FirewallId),
    PrimaryIp(PrimaryIpId),
}

impl Resource {
    fn view(self) -> Value {
        let (kind, id) = match self {
            Self::Server(id) => ("server", id.0),
            Self::Image(id) => ("image", id.0),
            Self::Firewall(id) => ("firewall", id.0),
            Self::PrimaryIp(id) => ("primary_ip", id.0),
        };
        json!({ "id": id, "type": kind })
    }
}

/// One action.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) id: ActionId,
    pub(super) command: &'static str,
    pub(super) status: Status,
    pub(super) started: Moment,
    /// When it is to end; never when `None`.
    pub(super) due: Option<Moment>,
    pub(super) finished: Option<Moment>,
    pub(super) resources: Vec<Resource>,
    pub(super) effect: Effect,
    /// The action that must have succeeded before this one can.
    pub(super) after: Option<ActionId>,
    /// A switch said that it ends in an error.
    pub(super) fails: bool,
    pub(super) error: Option<&'static str>,
}

impl Action {
    pub(super) fn server(&self) -> Option<ServerId> {
        self.resources.iter().find_map(|resource| match resource {
            Resource::Server(id) => Some(*id),
            _ => None,
        })
    }

    pub(super) fn concerns(&self, resource: Resource) -> bool {
        self.resources.contains(&resource)
    }

    pub(super) fn view(&self, now: Moment) -> Value {
        json!({
            "id": self.id,
            "command": self.command,
            "status": match self.status {
                Status::Running => "running",
                Status::Success => "success",
                Status::Error => "error",
            },
            "progress": self.progress(now),
            "started": rfc3339(self.started),
            "finished": self.finished.map(rfc3339),
            "resources": self.resources.iter().map(|r| r.view()).collect::<Vec<_>>(),
            "error": self.error.map(|message| json!({
                "code": "action_failed",
                "message": message,
            })),
        })
    }

    /// Reaches 100 a little before the end, as the real one does: only the status is to be trusted.
    fn progress(&self, now: Moment) -> u128 {
        let Some(due) = self.due.filter(|_| self.status == Status::Running) else {
            return if self.status == Status::Running {
                0
            } else {
                100
            };
        };
        let whole = due.since(self.started).as_micros().max(1);
        (now.since(self.started).as_micros() * 110 / whole).min(100)
    }
}

pub(super) fn show(project: &mut Project, call: &Call) -> Outcome {
    let id = ActionId(call.id("action")?);
    let action = project.actions.get(&id);
    let action = action.ok_or_else(|| Refusal::not_found("action"))?;
    Ok(Reply::ok(json!({ "action": action.view(project.now) })))
}

/// `GET /actions`: those with the given ids, which are required.
pub(super) fn list_by_id(project: &mut Project, call: &Call) -> Outcome {
    let ids: Vec<_> = call.all("id").collect();
    if ids.is_empty() {
        return Err(Refusal::field("id", "is required"));
    }
    let ids: Result<Vec<_>, _> = ids.iter().map(|id| id.parse().map(ActionId)).collect();
    let ids = ids.map_err(|_| Refusal::field("id", "must be numbers"))?;
    list(project, call, |action| ids.contains(&action.id))
}

/// Every action that concerns servers.
pub(super) fn list_of_servers(project: &mut Project, call: &Call) -> Outcome {
    list(project, call, |action| action.server().is_some())
}

pub(super) fn list_of_server(project: &mut Project, call: &Call) -> Outcome {
    let id = ServerId(call.id("server")?);
    project.server(id)?;
    list_of(project, call, Resource::Server(id))
}

pub(super) fn list_of_firewall(project: &mut Project, call: &Call) -> Outcome {
    let id = FirewallId(call.id("firewall")?);
    project.firewall(id)?;
    list_of(project, call, Resource::Firewall(id))
}

pub(super) fn list_of_image(project: &mut Project, call: &Call) -> Outcome {
    let id = ImageId(call.id("image")?);
    project.image(id)?;
    list_of(project, call, Resource::Image(id))
}

fn list_of(project: &mut Project, call: &Call, resource: Resource) -> Outcome {
    list(project, call, |action| action.concerns(resource))
}

fn list(project: &Project, call: &Call, wanted: impl Fn(&Action) -> bool) -> Outcome {
    let status = |row: &Value| row.get("status").and_then(Value::as_str).map(str::to_owned);
    let rows = project
        .actions
        .values()
        .filter(|action| wanted(action))
        .map(|action| action.view(project.now))
        .filter(|row| status(row).is_some_and(|status| call.admits("status", &status)))
        .collect();
    let sortable = ["id", "command", "status", "started", "finished"];
    page::answer("actions", rows, &sortable, &project.settings, call)
}
