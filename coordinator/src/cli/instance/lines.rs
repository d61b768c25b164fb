//! Instances as lines for a person.

use crate::{
    api::{instances::view::InstanceView, servers::StatsView},
    cli::output::table,
    model::{InstanceStatus, Stats},
};

/// Many, one line each.
pub(super) fn table_of(instances: &[InstanceView]) -> Vec<String> {
    let mut rows = vec![
        ["NAME", "STATUS", "HEALTH", "URL", "ID"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(instances.iter().map(|instance| {
        vec![
            instance.name.clone(),
            instance.status.word().to_owned(),
            instance.health.word().to_owned(),
            instance.url.clone(),
            instance.id.clone(),
        ]
    }));
    table(&rows)
}

/// One, in full.
pub(super) fn details(instance: &InstanceView) -> Vec<String> {
    let mut lines = vec![
        instance.url.clone(),
        format!("  id          {}", instance.id),
        format!(
            "  status      {}, health {}",
            instance.status.word(),
            instance.health.word()
        ),
        format!(
            "  generation  {} wanted, {} in effect",
            instance.generation, instance.observed_generation
        ),
    ];
    lines.extend(
        instance
            .reasons
            .iter()
            .map(|reason| format!("  because     {reason}")),
    );
    if !instance.networks.is_empty() {
        lines.push(format!("  reaches     {}", instance.networks.join(", ")));
    }
    lines.extend(instance.stats.iter().flat_map(taken));
    lines.extend(instance.suspension.iter().map(|suspension| {
        let message = suspension.message.as_deref();
        let message = message.map_or_else(String::new, |message| format!(": {message}"));
        format!(
            "  suspended   for {} since {}{message}",
            suspension.reason.word(),
            suspension.since
        )
    }));
    lines.extend(instance.operation.iter().map(|operation| {
        format!(
            "  operation   {:?} {:?} {}",
            operation.kind, operation.state, operation.id
        )
    }));
    if let Some(pending) = &instance.pending {
        let place = pending
            .queue_position
            .map_or_else(String::new, |place| format!("no. {place}"));
        let eta = pending
            .eta_s
            .map_or_else(String::new, |eta_s| format!(", about {eta_s} s"));
        lines.push(format!("  waiting     {place} in line for a server{eta}"));
    }
    if !instance.timings_ms.is_empty() {
        let steps = instance
            .timings_ms
            .iter()
            .map(|(step, ms)| format!("{step} {ms} ms"));
        lines.push(format!(
            "  took        {}",
            steps.collect::<Vec<_>>().join(", ")
        ));
    }
    lines
}

/// What its gateway takes, and what its server has left.
fn taken(view: &StatsView) -> Vec<String> {
    let Stats { gateway, host } = view.stats;
    let gateway = gateway.map(|taken| {
        let limit = taken
            .memory_limit_bytes
            .map_or_else(String::new, |limit| format!(" of {}", mib(limit)));
        let cpu = taken.cpu_millicores.map_or_else(String::new, |cpu| {
            format!(", {}.{} % of a core", cpu / 10, cpu % 10)
        });
        format!(
            "  takes       {}{limit}, {} processes and threads{cpu}",
            mib(taken.memory_bytes),
            taken.pids
        )
    });
    let left = format!(
        "  left        {} of {} memory, {} of {} disk",
        mib(host.memory_available_bytes),
        mib(host.memory_bytes),
        mib(host.disk_free_bytes),
        mib(host.disk_bytes)
    );
    gateway.into_iter().chain([left]).collect()
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// What became of a deletion.
pub(super) fn deleted(instance: &InstanceView) -> Vec<String> {
    let name = &instance.name;
    match &instance.purge_at {
        Some(until) if instance.status == InstanceStatus::Deleted => vec![
            format!("{name} deleted; it can be brought back until {until}:"),
            format!("  tidepool instance undelete {name}"),
        ],
        _ => vec![format!("{name} deleted")],
    }
}
