//! The calls to Docker that are made, each with a deadline, and only on what bears our label.

use std::{collections::HashMap, future::Future, path::PathBuf, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{ContainerInspectResponse, ContainerStatsResponse, NetworkCreateRequest},
    query_parameters::{
        CreateContainerOptions, ImportImageOptions, ListContainersOptions, ListNetworksOptions,
        RemoveContainerOptions, RemoveImageOptions, StatsOptions, StopContainerOptions,
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::{fs::File, sync::OnceCell, time::timeout};
use tokio_util::io::ReaderStream;

use super::run::{Ceilings, IMAGE_LABEL, Run, SERVER_LABEL};
use crate::runtime::Taken;

/// For a call. Starting a container on a busy disk takes seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// For an image to be unpacked: measured half a minute on a slow disk, for 0.9 GB.
const LOAD_DEADLINE: Duration = Duration::from_mins(10);
/// The client's own patience, in seconds, which must be longer than any of ours: a stop waits for the gateway.
const CLIENT_PATIENCE_S: u64 = 600;

/// Docker on this machine, from the first call on.
#[derive(Debug)]
pub(super) struct Engine {
    socket: PathBuf,
    client: OnceCell<Docker>,
}

/// A container of ours as Docker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: String,
    /// The image that it was made from, by our own label.
    pub(super) image: Option<String>,
    pub(super) life: Life,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// With its first process, as this machine numbers it.
    Running(i32),
    /// Ended, not begun, or waiting for Docker to start it again.
    Ended { exit_code: Option<i32> },
}

/// Why Docker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineFailed {
    #[error("connect to Docker at `{socket}`")]
    Connect {
        socket: PathBuf,
        #[source]
        source: Error,
    },
    #[error("{doing}")]
    Call {
        doing: &'static str,
        #[source]
        source: Error,
    },
    #[error("{doing}: no answer within {DEADLINE:?}")]
    Timeout { doing: &'static str },
}

impl Engine {
    pub(super) fn at(socket: PathBuf) -> Self {
        Self {
            socket,
            client: OnceCell::new(),
        }
    }

    /// The containers of this server, whatever state they are in.
    pub(super) async fn containers(&self, server: &str) -> Result<Vec<Seen>, EngineFailed> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(of_server(server)),
            ..ListContainersOptions::default()
        };
        let docker = self.docker().await?;
        let listed = within("list containers", docker.list_containers(Some(options))).await?;
        let mut found = Vec::new();
        for id in listed.into_iter().filter_map(|container| container.id) {
            found.extend(self.look(docker, &id).await?);
        }
        Ok(found)
    }

    async fn look(&self, docker: &Docker, id: &str) -> Result<Option<Seen>, EngineFailed> {
        match within("look at the container", docker.inspect_container(id, None)).await {
            Ok(seen) => Ok(Some(Seen::read(id, &seen))),
            Err(failed) if failed.is_absence() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Whether the image is there.
    pub(super) async fn has_image(&self, image: &str) -> Result<bool, EngineFailed> {
        let docker = self.docker().await?;
        match within("look for the image", docker.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(failed) if failed.is_absence() => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// Removes an image that no container is made from. Docker may take longer than we wait, and goes on.
    pub(super) async fn remove_image(&self, image: &str) -> Result<(), EngineFailed> {
        let docker = self.docker().await?;
        let removed = docker.remove_image(image, None::<RemoveImageOptions>, None);
        absence_is_fine(within("remove the image", removed).await.map(drop))
    }

    /// Loads the images of an archive.
    pub(super) async fn load(&self, archive: File) -> Result<(), EngineFailed> {
        let doing = "load the image";
        let docker = self.docker().await?;
        let options = ImportImageOptions {
            quiet: true,
            ..ImportImageOptions::default()
        };
        let told = docker.import_image_stream(options, ReaderStream::new(archive), None);
        let all = async { told.try_for_each(|_| async { Ok(()) }).await };
        timeout(LOAD_DEADLINE, all)
            .await
            .map_err(|_| EngineFailed::Timeout { doing })?
            .map_err(|source| EngineFailed::Call { doing, source })
    }

    /// Makes a container and says its id.
    pub(super) async fn create(
        &self,
        run: &Run,
        ceilings: Ceilings,
    ) -> Result<String, EngineFailed> {
        let options = CreateContainerOptions {
            name: Some(run.name()),
            ..CreateContainerOptions::default()
        };
        let docker = self.docker().await?;
        let made = docker.create_container(Some(options), run.request(ceilings));
        Ok(within("make the container", made).await?.id)
    }

    /// Gives a container other limits, without a restart.
    pub(super) async fn update(&self, id: &str, ceilings: Ceilings) -> Result<(), EngineFailed> {
        let docker = self.docker().await?;
        let updated = docker.update_container(id, ceilings.update());
        within("change the container's limits", updated).await
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), EngineFailed> {
        let docker = self.docker().await?;
        within("start the container", docker.start_container(id, None)).await
    }

    /// Asks the container to stop and waits for that. From then on Docker does not start it again by itself.
    /// The deadline is the caller's, who kills; that Docker does so after `patience` is for an agent that dies.
    pub(super) async fn stop(&self, id: &str, patience: Duration) -> Result<(), EngineFailed> {
        let doing = "stop the container";
        let options = StopContainerOptions {
            t: Some(i32::try_from(patience.as_secs()).unwrap_or(i32::MAX)),
            signal: None,
        };
        let docker = self.docker().await?;
        match docker.stop_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(source) => {
                let failed = EngineFailed::Call { doing, source };
                if failed.is_absence() {
                    Ok(())
                } else {
                    Err(failed)
                }
            }
        }
    }

    /// Removes a container, whatever it does; one that is gone is as good.
    pub(super) async fn remove(&self, id: &str) -> Result<(), EngineFailed> {
        let options = RemoveContainerOptions {
            force: true,
            // Unnamed volumes, which an image may declare, go with it.
            v: true,
            link: false,
        };
        let docker = self.docker().await?;
        let removed = docker.remove_container(id, Some(options));
        absence_is_fine(within("remove the container", removed).await)
    }

    /// What a container takes now; `None` when it does not run.
    pub(super) async fn taken(&self, id: &str) -> Result<Option<Taken>, EngineFailed> {
        let docker = self.docker().await?;
        let options = StatsOptions {
            stream: false,
            // Without waiting for a second look, from which Docker would make a percentage.
            one_shot: true,
        };
        let stats = docker.stats(id, Some(options));
        tokio::pin!(stats);
        let told = within("ask what the container takes", async {
            stats.next().await.transpose()
        });
        match told.await {
            Ok(told) => Ok(told.as_ref().and_then(read_taken)),
            Err(failed) if failed.is_absence() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Makes the network unless this server has it.
    pub(super) async fn ensure_network(
        &self,
        server: &str,
        request: NetworkCreateRequest,
    ) -> Result<(), EngineFailed> {
        if self.networks(server).await?.contains(&request.name) {
            return Ok(());
        }
        let docker = self.docker().await?;
        within("make the network", docker.create_network(request)).await?;
        Ok(())
    }

    /// Removes the networks of this server.
    pub(super) async fn remove_networks(&self, server: &str) -> Result<(), EngineFailed> {
        let docker = self.docker().await?;
        for name in self.networks(server).await? {
            absence_is_fine(within("remove the network", docker.remove_network(&name)).await)?;
        }
        Ok(())
    }

    async fn networks(&self, server: &str) -> Result<Vec<String>, EngineFailed> {
        let options = ListNetworksOptions {
            filters: Some(of_server(server)),
        };
        let docker = self.docker().await?;
        let listed = within("list networks", docker.list_networks(Some(options))).await?;
        Ok(listed
            .into_iter()
            .filter_map(|network| network.name)
            .collect())
    }

    async fn docker(&self) -> Result<&Docker, EngineFailed> {
        self.client.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Docker, EngineFailed> {
        let failed = |source| EngineFailed::Connect {
            socket: self.socket.clone(),
            source,
        };
        let socket = self.socket.display().to_string();
        let docker = Docker::connect_with_unix(&socket, CLIENT_PATIENCE_S, API_DEFAULT_VERSION)
            .map_err(failed)?;
        // Older engines refuse newer clients.
        timeout(DEADLINE, docker.negotiate_version())
            .await
            .map_err(|_| EngineFailed::Timeout {
                doing: "ask for Docker's version",
            })?
            .map_err(failed)
    }
}

impl Seen {
    fn read(id: &str, told: &ContainerInspectResponse) -> Self {
        let labels = told
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref());
        let state = told.state.as_ref();
        // One that waits for its next start counts as running with Docker, and has no process.
        let pid = state
            .and_then(|state| state.pid)
            .and_then(|pid| i32::try_from(pid).ok());
        let exit_code = state.and_then(|state| state.exit_code);
        Self {
            id: id.to_owned(),
            image: labels.and_then(|labels| labels.get(IMAGE_LABEL)).cloned(),
            life: match pid {
                Some(pid) if pid > 0 => Life::Running(pid),
                Some(_) | None => Life::Ended {
                    exit_code: exit_code.and_then(|code| i32::try_from(code).ok()),
                },
            },
        }
    }
}

impl EngineFailed {
    fn is_absence(&self) -> bool {
        let Self::Call { source, .. } = self else {
            return false;
        };
        matches!(
            source,
            Error::DockerResponseServerError {
                status_code: 404,
                ..
            }
        )
    }
}

/// Of a container that has ended Docker tells of no memory.
fn read_taken(told: &ContainerStatsResponse) -> Option<Taken> {
    let memory = told.memory_stats.as_ref()?;
    let kept = memory.stats.as_ref();
    // By its name in control groups of version 2, and of version 1.
    let cached = kept.and_then(|kept| {
        kept.get("inactive_file")
            .or_else(|| kept.get("total_inactive_file"))
    });
    let cpu = told
        .cpu_stats
        .as_ref()
        .and_then(|cpu| cpu.cpu_usage.as_ref());
    let pids = told.pids_stats.as_ref().and_then(|pids| pids.current);
    Some(Taken {
        cpu: Duration::from_nanos(cpu.and_then(|cpu| cpu.total_usage).unwrap_or(0)),
        memory_bytes: memory.usage?.saturating_sub(cached.copied().unwrap_or(0)),
        memory_limit_bytes: memory.limit,
        pids: u32::try_from(pids.unwrap_or(0)).unwrap_or(u32::MAX),
        // They are in a namespace of their own.
        processes: Vec::new(),
    })
}

fn of_server(server: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{SERVER_LABEL}={server}")])])
}

fn absence_is_fine(outcome: Result<(), EngineFailed>) -> Result<(), EngineFailed> {
    match outcome {
        Err(failed) if !failed.is_absence() => Err(failed),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn within<T>(
    doing: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineFailed> {
    timeout(DEADLINE, call)
        .await
        .map_err(|_| EngineFailed::Timeout { doing })?
        .map_err(|source| EngineFailed::Call { doing, source })
}
