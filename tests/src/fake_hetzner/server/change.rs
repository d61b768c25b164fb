//! What can be done to a server that is there. One action at a time: everything else is `locked`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Server, Status, create::password};
use crate::fake_hetzner::{
    action::{Disk, Effect, Protection, Resource},
    call::{Call, Outcome, Reply},
    id::{ActionId, ServerId},
    image,
    label::{self, Labels},
    project::{Project, Work},
    refusal::Refusal,
};

/// Begins an action on the server of the call, which must not be locked.
fn act(
    project: &mut Project,
    call: &Call,
    command: &'static str,
    effect: impl FnOnce(ServerId) -> Effect,
    meanwhile: Option<Status>,
) -> Result<ActionId, Refusal> {
    let id = ServerId(call.id("server")?);
    let takes = project.settings.pace.action;
    let server = project.unlocked(id)?;
    server.status = meanwhile.unwrap_or(server.status);
    let work = Work::new(command, takes, effect(id));
    Ok(project.begin(work.on(Resource::Server(id))))
}

fn accepted(project: &Project, action: ActionId) -> Reply {
    Reply::created(json!({ "action": project.action_view(action) }))
}

pub(in crate::fake_hetzner) fn power_on(project: &mut Project, call: &Call) -> Outcome {
    let is_on = project.server(ServerId(call.id("server")?))?.is_on;
    let (effect, meanwhile): (fn(ServerId) -> Effect, _) = if is_on {
        (|_| Effect::Nothing, None)
    } else {
        (Effect::ServerStarted, Some(Status::Starting))
    };
    let action = act(project, call, "start_server", effect, meanwhile)?;
    Ok(accepted(project, action))
}

pub(in crate::fake_hetzner) fn power_off(project: &mut Project, call: &Call) -> Outcome {
    let meanwhile = Some(Status::Stopping);
    let action = act(
        project,
        call,
        "stop_server",
        Effect::ServerStopped,
        meanwhile,
    )?;
    Ok(accepted(project, action))
}

/// Succeeds when the machine has heard it; it is off later.
pub(in crate::fake_hetzner) fn shut_down(project: &mut Project, call: &Call) -> Outcome {
    check_on(project, call)?;
    let action = act(
        project,
        call,
        "shutdown_server",
        Effect::ShutdownHeard,
        None,
    )?;
    Ok(accepted(project, action))
}

pub(in crate::fake_hetzner) fn reboot(project: &mut Project, call: &Call) -> Outcome {
    check_on(project, call)?;
    let action = act(
        project,
        call,
        "reboot_server",
        Effect::ServerRestarted,
        None,
    )?;
    Ok(accepted(project, action))
}

pub(in crate::fake_hetzner) fn reset(project: &mut Project, call: &Call) -> Outcome {
    check_on(project, call)?;
    let action = act(project, call, "reset_server", Effect::ServerRestarted, None)?;
    Ok(accepted(project, action))
}

fn check_on(project: &Project, call: &Call) -> Result<(), Refusal> {
    let server = project.server(ServerId(call.id("server")?))?;
    if server.is_on || server.is_locked() {
        return Ok(());
    }
    let message = "server must be running";
    Err(Refusal::unprocessable("server_not_running", message))
}

#[derive(Deserialize)]
struct Protect {
    delete: Option<bool>,
    rebuild: Option<bool>,
}

pub(in crate::fake_hetzner) fn protect(project: &mut Project, call: &Call) -> Outcome {
    let wanted: Protect = call.body()?;
    let (Some(delete), Some(rebuild)) = (wanted.delete, wanted.rebuild) else {
        return Err(Refusal::field("delete", "must be given with rebuild"));
    };
    if delete != rebuild {
        return Err(Refusal::field("delete", "must be the same as rebuild"));
    }
    let protection = Protection::from(delete);
    let effect = |id| Effect::ServerProtected(id, protection);
    let action = act(project, call, "change_protection", effect, None)?;
    Ok(accepted(project, action))
}

#[derive(Deserialize)]
struct Retype {
    server_type: Value,
    upgrade_disk: bool,
}

pub(in crate::fake_hetzner) fn change_type(project: &mut Project, call: &Call) -> Outcome {
    let body: Retype = call.body()?;
    let server = project.server(ServerId(call.id("server")?))?;
    if server.is_on {
        let message = "server must be stopped";
        return Err(Refusal::unprocessable("server_not_stopped", message));
    }
    let wanted = new_type(project, server, &image::key(&body.server_type))?;
    let disk = if body.upgrade_disk {
        Disk::Grows
    } else {
        Disk::Stays
    };
    let effect = |id| Effect::TypeChanged(id, wanted, disk);
    let action = act(project, call, "change_server_type", effect, None)?;
    Ok(accepted(project, action))
}

fn new_type(project: &Project, server: &Server, key: &str) -> Result<String, Refusal> {
    let wrong = |message: &str| Refusal::unprocessable("invalid_server_type", message);
    let former = project.catalogue.server_type(&server.server_type);
    let wanted = project.catalogue.server_type(key);
    let wanted = wanted.ok_or_else(|| Refusal::not_found("server type"))?;
    if former.is_some_and(|former| former.architecture != wanted.architecture) {
        return Err(wrong("server type has another architecture"));
    }
    if wanted.disk_gb < server.disk_gb {
        return Err(wrong("server type has not sufficient disk space"));
    }
    if !wanted.locations.contains(&server.location) {
        return Err(wrong("server type is not offered in this location"));
    }
    if !project.has_room(&wanted.name, &server.location) {
        return Err(Refusal::no_capacity());
    }
    Ok(wanted.name)
}

#[derive(Deserialize)]
struct Rebuild {
    image: Value,
    user_data: Option<String>,
}

pub(in crate::fake_hetzner) fn rebuild(project: &mut Project, call: &Call) -> Outcome {
    let body: Rebuild = call.body()?;
    let id = ServerId(call.id("server")?);
    let server = project.server(id)?;
    if server.protection == Protection::On {
        return Err(Refusal::protected("server"));
    }
    let architecture = project
        .catalogue
        .server_type(&server.server_type)
        .map(|found| found.architecture)
        .unwrap_or_default();
    let image = image::find(project, &image::key(&body.image), &architecture);
    let image = image.ok_or_else(|| Refusal::not_found("image"))?;
    if image.architecture != architecture {
        return Err(Refusal::invalid("image has incompatible architecture"));
    }
    if image.disk_size_gb > server.disk_gb {
        return Err(Refusal::invalid(
            "image disk is bigger than server type disk",
        ));
    }
    let image = image.id;
    let effect = |id| Effect::ServerRebuilt(id, image);
    let meanwhile = Some(Status::Rebuilding);
    let action = act(project, call, "rebuild_server", effect, meanwhile)?;
    if let (Some(server), Some(user_data)) = (project.servers.get_mut(&id), body.user_data) {
        server.user_data = user_data;
    }
    let root_password = password(project);
    Ok(Reply::created(json!({
        "action": project.action_view(action),
        "root_password": root_password,
    })))
}

#[derive(Deserialize)]
struct Snapshot {
    #[serde(default)]
    description: String,
    #[serde(default, rename = "type")]
    kind: SnapshotKind,
    #[serde(default)]
    labels: Labels,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum SnapshotKind {
    #[default]
    Snapshot,
    Backup,
}

pub(in crate::fake_hetzner) fn create_image(project: &mut Project, call: &Call) -> Outcome {
    let body: Snapshot = call.body()?;
    label::check(&body.labels)?;
    let id = ServerId(call.id("server")?);
    let server = project.unlocked(id)?.clone();
    if body.kind == SnapshotKind::Backup {
        let message = "backups are not enabled for this server";
        return Err(Refusal::unprocessable("service_error", message));
    }
    let image = image::make_snapshot(project, &server, body.description, body.labels)?;
    let takes: Duration = project.settings.pace.snapshot;
    let work = Work::new("create_image", takes, Effect::SnapshotMade(image));
    let work = work.on(Resource::Server(id)).on(Resource::Image(image));
    let action = project.begin(work);
    Ok(Reply::created(json!({
        "image": project.image(image)?.view(),
        "action": project.action_view(action),
    })))
}
