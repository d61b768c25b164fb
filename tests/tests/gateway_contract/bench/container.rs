//! A gateway in a container, with a Docker of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tidepool_agent::{
    openclaw::Browsers,
    runtime::{Bridge, DockerRuntime, Run, Runtime as _},
};
use tidepool_shared::manifest::{ImageManifest, PinnedImage};
use tidepool_tests::{docker::Engine, programs};

use super::{Bench, Kind, bare_place, model, owned, stub_schema};

impl Bench {
    /// The stub in a container, started; `None` where there is no Docker.
    pub(crate) async fn stub_in_container(switches: &[(&str, &str)]) -> Option<Self> {
        let bench = Self::unstarted_stub_in_container(switches).await?;
        Some(bench.started().await)
    }

    /// The stub in a container that is not made yet; `None` where there is no Docker.
    pub(crate) async fn unstarted_stub_in_container(switches: &[(&str, &str)]) -> Option<Self> {
        let engine = Engine::start().await.expect("Docker")?;
        let image = engine.stub_image().expect("the stub's image");
        let folder = tempfile::tempdir().expect("a folder");
        let schema_path = stub_schema(&folder);
        let argv = vec!["/stub-gateway".to_owned(), "gateway".to_owned()];
        let mut bench = Self::in_container(folder, engine, image, argv, schema_path).await;
        bench.switch(owned(switches));
        bench.lay_down();
        Some(bench)
    }

    /// The stub in a container, started, with the browsers of this directory; `None` where there is no Docker.
    pub(crate) async fn stub_with_browsers(browsers: &Path) -> Option<Self> {
        let mut bench = Self::unstarted_stub_in_container(&[]).await?;
        let made = bench.engine().volume("browsers", browsers);
        made.expect("the browsers' volume");
        if let Kind::Container(run) = &mut bench.kind {
            run.manifest.browsers = Some("browsers".to_owned());
        }
        bench.runtime = bench.kind.runtime();
        Some(bench.started().await)
    }

    /// The real OpenClaw in a container, started; `None` where there is no Docker or no archive of it.
    pub(crate) async fn real_in_container(manifest: ImageManifest) -> Option<Self> {
        let archive = programs::container_archive()?;
        let engine = Engine::start().await.expect("Docker")?;
        let image = engine.import(&archive).expect("OpenClaw's image");
        let folder = tempfile::tempdir().expect("a folder");
        let argv = programs::container_argv();
        let schema = manifest.config_schema;
        let bench = Self::in_container(folder, engine, image, argv, schema).await;
        Some(bench.started().await)
    }

    async fn in_container(
        folder: TempDir,
        engine: Engine,
        image: PinnedImage,
        argv: Vec<String>,
        schema_path: PathBuf,
    ) -> Self {
        let mut place = bare_place(&folder);
        let bridge = Bridge::of(place.gateway.port());
        place.trusted_proxies = vec![bridge.address()];
        place.inside = Some(Run::inside(Browsers::None));
        let mut run = Run {
            server: format!("srv_{}", place.gateway.port()),
            manifest: engine.manifest(image),
            archive: None,
            argv,
            place: place.clone(),
            extra_env: BTreeMap::new(),
        };
        // The model's address is on the network that the container is in.
        let prepared = DockerRuntime::new(run.clone()).prepare().await;
        prepared.expect("the container's network");
        let (listener, relay) = model::listener(bridge.address());
        place.relay = format!("http://{relay}/v1");
        run.place = place.clone();
        let kind = Kind::Container(Box::new(run));
        let mut bench = Self::of(folder, kind, place, listener, schema_path, "2026.9.6");
        bench.engine = Some(engine);
        bench
    }

    /// What runs the container.
    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("a gateway in a container")
    }

    /// What the container is made from.
    pub(crate) fn run(&self) -> &Run {
        match &self.kind {
            Kind::Container(run) => run,
            Kind::Process(_) => panic!("not in a container"),
        }
    }
}
