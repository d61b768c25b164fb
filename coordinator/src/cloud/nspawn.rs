//! Servers that are machines of this one: the image's own root file system, booted by systemd-nspawn.
//!
//! What a real cloud has is here in small: a disk that is the server's own (an overlay over the image), power
//! that can be cut, a network with addresses of its own (a switch in a namespace of its own, see [`switch`]), and
//! a metadata service at the well-known address, so that a server enrols exactly as on Hetzner. This machine
//! is the main server and a port of the switch: coordinator and proxy listen on [`NspawnSettings::main`].
//!
//! Servers outlive the coordinator. A machine that rebooted or died is booted again by
//! [`NspawnCloud::supervise`]; only [`NspawnCloud::shut_down`] leaves it off. Needs root.
//!
//! ```text
//! promoted                     the name of the image that new servers are made from
//! image-NAME/root/             an unpacked image, which all servers of it share
//! servers/NAME/server.json     what the cloud knows of it
//! servers/NAME/user-data.json  what the metadata service tells it (0600)
//! servers/NAME/disk/           what the server has written
//! servers/NAME/docker/         its /var/lib/docker
//! servers/NAME/console.log     what it says while it boots
//! servers/NAME/machine.pid     its systemd-nspawn
//! ```

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidepool_certs::secret_file;
use tidepool_shared::user_data::UserData;
use tokio::{sync::Mutex, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{machine::Machine, switch::Switch};
use super::{
    Cloud, CloudError, CloudImage, CloudObject, CloudServer, Fault, Labels, ObjectKind, Order, disk,
};

mod image;
pub mod machine;
pub mod metadata;
mod run;
mod settings;
pub mod switch;

pub use self::{image::unpack, settings::NspawnSettings};

/// How often machines that do not run are looked for.
const SUPERVISION_INTERVAL: Duration = Duration::from_millis(500);

/// A server's own record.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ServerRecord {
    name: String,
    /// Of its address, and of its place at the switch.
    number: u8,
    address: Ipv4Addr,
    image: String,
    power: Power,
}

/// Whether a server is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Power {
    On,
    Off,
}

/// The cloud. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NspawnCloud {
    settings: Arc<NspawnSettings>,
    switch: Arc<Switch>,
    /// Held while servers come and go, and while machines are started.
    turn: Arc<Mutex<()>>,
}

impl NspawnCloud {
    /// Unpacks the image that servers are made from if it is not there, and puts up the switch. Boots nothing.
    pub async fn open(settings: NspawnSettings) -> io::Result<Self> {
        settings::check(&settings)?;
        secret_file::create_dir(&settings.directory)?;
        secret_file::create_dir(&servers_dir(&settings))?;
        image::unpacked(&settings, &image::promoted(&settings)?).await?;
        let switch = Switch::put_up(&settings).await?;
        Ok(Self {
            settings: Arc::new(settings),
            switch: Arc::new(switch),
            turn: Arc::default(),
        })
    }

    /// Answers servers' questions about themselves, and boots machines that do not run though they should,
    /// until cancelled.
    pub async fn supervise(&self, cancel: CancellationToken) {
        let answer = metadata::of_servers(servers_dir(&self.settings));
        let metadata = metadata::serve(&self.switch, answer, cancel.clone());
        let supervision = async {
            while cancel
                .run_until_cancelled(sleep(SUPERVISION_INTERVAL))
                .await
                .is_some()
            {
                if let Err(error) = self.boot_all().await {
                    tracing::error!(%error, "machines could not be supervised");
                }
            }
        };
        let (served, ()) = tokio::join!(metadata, supervision);
        if let Err(error) = served {
            tracing::error!(%error, "the metadata service ended");
        }
    }

    /// Boots every machine that is to run and does not.
    async fn boot_all(&self) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        for record in self.records()? {
            let machine = self.machine(&record);
            if record.power == Power::On && !machine.is_running() {
                tracing::info!(server.name = %record.name, "booting");
                let booted = self.boot_machine(&record, &machine).await;
                if let Err(error) = booted {
                    tracing::error!(server.name = %record.name, %error, "not booted");
                }
            }
        }
        Ok(())
    }

    async fn boot_machine(&self, record: &ServerRecord, machine: &Machine) -> io::Result<()> {
        let root = image::unpacked(&self.settings, &record.image).await?;
        machine.boot(&root, &self.switch).await
    }

    fn records(&self) -> io::Result<Vec<ServerRecord>> {
        disk::servers(&servers_dir(&self.settings))
    }

    fn machine(&self, record: &ServerRecord) -> Machine {
        Machine::new(self.dir(&record.name), record.name.clone(), record.number)
    }

    fn dir(&self, name: &str) -> PathBuf {
        servers_dir(&self.settings).join(name)
    }

    fn seen(&self, record: &ServerRecord) -> CloudServer {
        CloudServer {
            id: record.name.clone(),
            name: record.name.clone(),
            address: IpAddr::V4(self.settings.address(record.number)),
            image: Some(record.image.clone()),
        }
    }

    /// Makes a server that is off, of the image that new ones are made from. Its user data is the agent's to
    /// understand.
    pub async fn reserve(&self, name: &str, user_data: &[u8]) -> io::Result<CloudServer> {
        self.reserve_of(&image::promoted(&self.settings)?, name, user_data)
            .await
    }

    async fn reserve_of(
        &self,
        image: &str,
        name: &str,
        user_data: &[u8],
    ) -> io::Result<CloudServer> {
        let _turn = self.turn.lock().await;
        let dir = self.dir(name);
        if let Some(record) = disk::server::<ServerRecord>(&dir)? {
            return Ok(self.seen(&record));
        }
        let others = self.records()?;
        let number = NspawnSettings::numbers()
            .find(|number| others.iter().all(|other| other.number != *number))
            .ok_or_else(|| io::Error::other("all addresses of the switch are taken"))?;
        let record = ServerRecord {
            name: name.to_owned(),
            number,
            address: self.settings.address(number),
            image: image.to_owned(),
            power: Power::Off,
        };
        secret_file::create_dir(&dir)?;
        secret_file::write(&dir.join("user-data.json"), user_data)?;
        // The record is what makes the directory a server, so it is written last.
        disk::write_record(&dir, &record)?;
        Ok(self.seen(&record))
    }

    /// Lets a server run, from now on.
    pub async fn boot(&self, name: &str) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let record = self.switched(name, Power::On)?;
        let machine = self.machine(&record);
        if machine.is_running() {
            return Ok(());
        }
        self.boot_machine(&record, &machine).await
    }

    /// Powers a server off in order; its disk stays, and it is off until [`NspawnCloud::boot`].
    pub async fn shut_down(&self, name: &str) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let record = self.switched(name, Power::Off)?;
        self.machine(&record).shut_down().await
    }

    /// What a plug that is pulled does; supervision boots it again.
    pub async fn cut_power(&self, name: &str) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let record: ServerRecord = disk::server(&self.dir(name))?.ok_or(io::ErrorKind::NotFound)?;
        self.machine(&record).cut_power().await
    }

    fn switched(&self, name: &str, power: Power) -> io::Result<ServerRecord> {
        let dir = self.dir(name);
        let record: ServerRecord = disk::server(&dir)?.ok_or(io::ErrorKind::NotFound)?;
        let record = ServerRecord { power, ..record };
        disk::write_record(&dir, &record)?;
        Ok(record)
    }

    async fn unmake(&self, name: &str) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let dir = self.dir(name);
        // First it is marked, so that nothing boots it again, now or after a crash here.
        if let Some(record) = disk::condemn::<ServerRecord>(&dir)? {
            let machine = self.machine(&record);
            machine.cut_power().await?;
            machine.unplug(&self.switch).await?;
        }
        disk::remove(&dir).await
    }

    async fn make_default(&self, name: &str) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        image::promote(&self.settings, name)?;
        let records = self.records()?;
        let mut used: HashSet<String> = records.into_iter().map(|record| record.image).collect();
        used.insert(name.to_owned());
        image::clear(&self.settings, &used).await
    }

    /// Removes every server, the switch and the unpacked images. No other process may be at work on them.
    pub async fn tear_down(&self) -> io::Result<()> {
        // By their directories and not by their records: one whose deletion was cut off has no record any more, and
        // may still have its machine and its mount.
        for entry in fs::read_dir(servers_dir(&self.settings))? {
            let name = entry?.file_name();
            self.unmake(&name.to_string_lossy()).await?;
        }
        self.switch.take_down().await?;
        disk::remove(&self.settings.directory).await
    }
}

fn servers_dir(settings: &NspawnSettings) -> PathBuf {
    settings.directory.join("servers")
}

/// The servers' directories in a cloud's directory, for who looks at them from outside.
pub fn server_dir(directory: &Path, name: &str) -> PathBuf {
    directory.join("servers").join(name)
}

#[async_trait]
impl Cloud for NspawnCloud {
    async fn create(&self, order: &Order) -> Result<CloudServer, CloudError> {
        let user_data = UserData {
            admission: Some(self.settings.admission()),
            ..order.user_data.clone()
        };
        let made = async {
            let text = serde_json::to_vec(&user_data).map_err(io::Error::other)?;
            let image = match &order.image {
                Some(image) => image.clone(),
                None => image::promoted(&self.settings)?,
            };
            let server = self.reserve_of(&image, &order.name, &text).await?;
            self.boot(&order.name).await?;
            Ok(server)
        };
        made.await
            .map_err(|source| failed("create", &order.name, source))
    }

    /// A machine is started by its creation.
    async fn settle(&self, _name: &str) -> Result<(), CloudError> {
        Ok(())
    }

    async fn find(&self, name: &str) -> Result<Option<CloudServer>, CloudError> {
        disk::server::<ServerRecord>(&self.dir(name))
            .map(|record| record.map(|record| self.seen(&record)))
            .map_err(|source| failed("find", name, source))
    }

    /// It is made by this process or not at all.
    fn latest_appearance(&self) -> Duration {
        Duration::ZERO
    }

    async fn image(&self, _server_type: &str) -> Result<Option<String>, CloudError> {
        image::promoted(&self.settings)
            .map(Some)
            .map_err(|source| failed("find", "image", source))
    }

    async fn images(&self) -> Result<Vec<CloudImage>, CloudError> {
        image::all(&self.settings).map_err(|source| failed("list", "images", source))
    }

    async fn fits(&self, image: &str, _server_type: &str) -> Result<bool, CloudError> {
        Ok(image::exists(&self.settings, image))
    }

    async fn promote(&self, image: &str) -> Result<(), CloudError> {
        self.make_default(image)
            .await
            .map_err(|source| failed("promote", image, source))
    }

    async fn delete(&self, name: &str) -> Result<(), CloudError> {
        self.unmake(name)
            .await
            .map_err(|source| failed("delete", name, source))
    }

    async fn inventory(&self) -> Result<Vec<CloudObject>, CloudError> {
        let object = |record: ServerRecord| {
            Ok(CloudObject {
                kind: ObjectKind::Server,
                created_at: disk::made_at(&self.dir(&record.name))?,
                id: record.name.clone(),
                name: record.name,
                labels: Labels::new(),
                in_use: false,
            })
        };
        self.records()
            .and_then(|records| records.into_iter().map(object).collect())
            .map_err(|source| failed("list", "servers", source))
    }

    async fn remove(&self, object: &CloudObject) -> Result<(), CloudError> {
        self.delete(&object.name).await
    }
}

fn failed(doing: &'static str, object: &str, source: io::Error) -> CloudError {
    CloudError {
        doing,
        object: object.to_owned(),
        fault: Fault::Busy,
        source: source.into(),
    }
}
