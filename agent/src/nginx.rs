//! nginx on the server: the only door to the gateway, shut until a claim opens it for its own names.
//!
//! [`Nginx::serve`] makes one configuration true, whatever is running: it starts nginx, reloads it,
//! or finds that there is nothing to do. A reload is done when nginx itself says so over a new
//! connection: it names the configuration that answered ([`Rendered::fingerprint`]), and
//! no worker of an older one takes connections. Then no request can be answered by the old names.
//!
//! Workers of an older configuration finish what they carry, for as long as that takes. If the document says
//! that somebody's access ended since ([`eviction`]), they are ended at once, and what they carry with them:
//! streams of models to the gateway, too, which asks again.
//!
//! Edges come by TLS 1.3 and show a certificate of their kind; nginx shows the one in [`crate::door`].
//!
//! nginx is a daemon of its own and outlives the agent; see [`master`].
//!
//! Limits that are known: the proof is compared by a regular expression and not in constant time, which
//! only an edge could make use of; and on one machine with several local servers, whoever can read the
//! server's directory can read the relay's secret path.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;
use tidepool_certs::secret_file;
use tidepool_shared::document::{DesiredDocument, Power};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use self::{eviction::Eviction, logs::Rotation, master::Master};
pub use self::{
    logs::MAX_LOG_BYTES,
    names::{Claim, UnusableDocument},
    template::{Llm, Rendered, Site, Worker},
};

mod ask;
mod eviction;
mod logs;
mod master;
mod names;
mod template;

/// For nginx's own check of a configuration, and for its start.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(10);
/// From the signal until the new configuration is the only one.
const RELOAD_DEADLINE: Duration = Duration::from_secs(5);
const STOP_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// The nginx of one server.
pub struct Nginx {
    program: PathBuf,
    site: Site,
}

/// What had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Nothing: it was so already.
    Already,
    Reloaded,
    Started,
}

impl Nginx {
    pub fn new(program: PathBuf, site: Site) -> Self {
        Self { program, site }
    }

    /// Where the gateway finds its models; a secret.
    pub fn relay_url(&self) -> String {
        self.site.relay_url()
    }

    /// Makes nginx answer to this document's names and to no other; without one, to none.
    pub async fn serve(&self, document: Option<&DesiredDocument>) -> Result<Served, NotServing> {
        // Switched off, it answers to nobody, as before a claim.
        let claim = document
            .filter(|document| document.power == Power::On)
            .map(Claim::of)
            .transpose()?;
        let wanted = self.site.render(claim.as_ref());
        let running = Master::find(&self.site.prefix);
        let eviction = Eviction::of(&self.site.prefix);
        if running.is_some() && !eviction.is_due() && self.is_true(&wanted).await {
            return Ok(Served::Already);
        }
        if eviction::is_wanted(self.on_disk().as_deref(), &wanted.text) {
            eviction.note().map_err(|source| NotServing::Write {
                path: self.site.prefix.clone(),
                source,
            })?;
        }
        self.install(&wanted).await?;
        let served = if let Some(master) = running {
            self.reload(&master, &wanted, &eviction).await?;
            Served::Reloaded
        } else {
            self.start(&wanted).await?;
            Served::Started
        };
        eviction.done().map_err(|source| NotServing::Write {
            path: self.site.prefix.clone(),
            source,
        })?;
        Ok(served)
    }

    /// Whether nginx runs.
    pub fn is_running(&self) -> bool {
        Master::find(&self.site.prefix).is_some()
    }

    /// Ends nginx, at once for its clients, by force if it does not go.
    pub async fn stop(&self) {
        let Some(master) = Master::find(&self.site.prefix) else {
            return self.end_orphans().await;
        };
        // Gone in between is as good.
        drop(master.signal(Signal::SIGTERM));
        if !master.gone(Instant::now() + STOP_DEADLINE).await {
            tracing::warn!("nginx did not end in time: killing it");
            master.kill_all();
        }
    }

    /// Keeps the log files within `limit_bytes` each, twice.
    pub fn rotate_logs(&self, limit_bytes: u64) -> io::Result<()> {
        match logs::put_aside(&self.site.prefix, limit_bytes)? {
            Rotation::Nothing => Ok(()),
            Rotation::Reopen => match Master::find(&self.site.prefix) {
                Some(master) => master.signal(Signal::SIGUSR1),
                None => Ok(()),
            },
        }
    }

    fn config_path(&self) -> PathBuf {
        self.site.prefix.join("nginx.conf")
    }

    /// Whether exactly this is on disk and running.
    async fn is_true(&self, wanted: &Rendered) -> bool {
        self.on_disk().is_some_and(|text| text == wanted.text) && self.answers(wanted).await
    }

    /// The configuration that was written last; one that cannot be read is none.
    fn on_disk(&self) -> Option<String> {
        let bytes = secret_file::read(&self.config_path()).ok().flatten()?;
        String::from_utf8(bytes).ok()
    }

    async fn answers(&self, wanted: &Rendered) -> bool {
        let answer = ask::serving(&self.site).await;
        answer.is_ok_and(|answer| answer.status == 200 && answer.body == wanted.fingerprint)
    }

    /// Puts a configuration on disk after nginx itself has checked it.
    async fn install(&self, wanted: &Rendered) -> Result<(), NotServing> {
        let write = |path: &Path, text: &str| {
            secret_file::write(path, text.as_bytes()).map_err(|source| NotServing::Write {
                path: path.to_owned(),
                source,
            })
        };
        // The worker may be somebody else, and has directories of its own inside.
        let temporary = self.site.prefix.join("tmp");
        create_passable(&temporary).map_err(|source| NotServing::Write {
            path: temporary,
            source,
        })?;
        self.begin_bans()?;
        write(&self.site.authority_path(), &self.site.authority)?;
        let candidate = self.site.prefix.join("candidate.conf");
        write(&candidate, &wanted.text)?;
        self.run(&candidate, &["-t", "-q"])
            .await
            .map_err(NotServing::Refused)?;
        write(&self.config_path(), &wanted.text)
    }

    /// The list of banned visitors is fail2ban's; where there is none, it is empty.
    fn begin_bans(&self) -> Result<(), NotServing> {
        let path = self.site.prefix.join("banned");
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map(drop)
            .map_err(|source| NotServing::Write { path, source })
    }

    async fn end_orphans(&self) {
        master::end_orphans(&self.site.prefix, Instant::now() + STOP_DEADLINE).await;
    }

    async fn start(&self, wanted: &Rendered) -> Result<(), NotServing> {
        self.end_orphans().await;
        self.run(&self.config_path(), &[])
            .await
            .map_err(NotServing::NotStarted)?;
        let deadline = Instant::now() + RELOAD_DEADLINE;
        self.await_answer(wanted, deadline).await
    }

    async fn reload(
        &self,
        master: &Master,
        wanted: &Rendered,
        eviction: &Eviction,
    ) -> Result<(), NotServing> {
        let deadline = Instant::now() + RELOAD_DEADLINE;
        let old = master.workers();
        master
            .signal(Signal::SIGHUP)
            .map_err(|source| NotServing::Signal { source })?;
        self.await_answer(wanted, deadline).await?;
        if eviction.is_due() && !master.evict(&old, deadline).await {
            return Err(NotServing::OldStillCarries);
        }
        if !master.retire(&old, deadline).await {
            return Err(NotServing::OldStillAnswers);
        }
        self.await_answer(wanted, deadline).await
    }

    async fn await_answer(&self, wanted: &Rendered, deadline: Instant) -> Result<(), NotServing> {
        while !self.answers(wanted).await {
            if Instant::now() >= deadline {
                return Err(NotServing::NoAnswer);
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Runs nginx's program to its end; as a daemon it ends when its ports are open.
    async fn run(&self, config: &Path, arguments: &[&str]) -> Result<(), ProgramFailed> {
        let errors = self.site.prefix.join("start.log");
        let stderr = fs::File::create(&errors).map_err(ProgramFailed::Run)?;
        let mut command = Command::new(&self.program);
        // The prefix first: nginx shows its arguments in its title, and a cut would take the last.
        command
            .arg("-p")
            .arg(&self.site.prefix)
            .arg("-c")
            .arg(config)
            .args(["-e", "error.log"])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
            .current_dir(&self.site.prefix)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true);
        let status = timeout(PROGRAM_DEADLINE, command.status())
            .await
            .map_err(|_| ProgramFailed::TooSlow)?
            .map_err(ProgramFailed::Run)?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&errors).unwrap_or_default();
        Err(ProgramFailed::Said(said.chars().take(600).collect()))
    }
}

/// Makes a directory, or changes it into one, that others may pass through but not look into.
pub(crate) fn create_passable(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o711))
}

/// Why nginx does not serve what it should.
#[derive(Debug, thiserror::Error)]
pub enum NotServing {
    #[error("document cannot be served")]
    Document(#[from] UnusableDocument),
    #[error("write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("nginx refused its configuration")]
    Refused(#[source] ProgramFailed),
    #[error("nginx did not start")]
    NotStarted(#[source] ProgramFailed),
    #[error("signal nginx to reload")]
    Signal {
        #[source]
        source: io::Error,
    },
    #[error("nginx does not answer with the new configuration")]
    NoAnswer,
    #[error("an nginx worker of the old configuration still takes connections")]
    OldStillAnswers,
    #[error("an nginx worker still carries connections of those who lost access")]
    OldStillCarries,
}

/// How nginx's program failed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramFailed {
    #[error("run nginx")]
    Run(#[source] io::Error),
    #[error("nginx took too long")]
    TooSlow,
    #[error("nginx said: {0}")]
    Said(String),
}
