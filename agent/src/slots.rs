//! Which agent runs: the one in the image, or one of two that came later.
//!
//! `run` of the image's agent is what systemd starts. It looks here, and gives its process to the chosen
//! agent (`exec`), so that whoever watches the process watches the agent. A new one is on trial: the start is
//! noted before it happens, and the kernel is asked to end the process after a while (`alarm`, which outlives
//! `exec`), unless the new agent has proved itself and takes the alarm back. So whatever is wrong with it
//! (it ends at once, it hangs, it never reaches a coordinator), the next start finds a trial that was begun
//! and not passed, and goes back. The decision is made by the image's agent alone, which no update replaces.
//!
//! Only a machine that lost its power says nothing about the agent that was on trial there. That it did is known by
//! the name of the boot in which the trial began; then the trial begins again, [`CUTS_MAX`] times, for an
//! agent may also be what brings its machine down.
//!
//! ```text
//! STATE/agent/slots.json        the record below
//! STATE/agent/a/tidepool-agent
//! STATE/agent/b/tidepool-agent
//! ```
//!
//! *Invariants:* the record's form, and the command `slot` to which the process is given, are for ever: the
//! agents on either side are of different versions. A slot is written only while the other one, or the image,
//! is chosen. A record that cannot be read or written, or a slot that is not whole, means the image's agent.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::alarm;
use serde::{Deserialize, Serialize};
use tidepool_certs::secret_file;
use tidepool_shared::artefact::{Sha256, Statement, Version};

use crate::{artefact, disk, link::error_chain, machine};

const RECORD: &str = "slots.json";
const PROGRAM: &str = "tidepool-agent";

/// The bounds of a trial, in seconds, whatever a coordinator says.
const TRIAL_S: std::ops::RangeInclusive<u32> = 10..=600;

/// How often a trial that its machine's reboot cut short begins again.
const CUTS_MAX: u32 = 3;

/// The directory with the slots.
#[derive(Debug, Clone)]
pub struct Slots(PathBuf);

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    A,
    B,
}

/// What is known of the agents on this disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// What runs; the image's when there is none.
    chosen: Option<Installed>,
    trial: Option<Trial>,
    failed: Option<Failed>,
}

/// An agent in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Installed {
    slot: Slot,
    version: Version,
    sha256: Sha256,
}

/// One that has to prove itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    installed: Installed,
    /// Which rollout wanted it.
    pub rollout: u64,
    /// How long it has, in seconds.
    lasts_s: u32,
    /// Whether the gateway was well before, and so must be well after.
    pub was_well: bool,
    started: bool,
    /// In which boot it began last. Not known when an agent of before began it.
    #[serde(default)]
    boot: Option<Boot>,
    /// How many reboots cut it short.
    #[serde(default)]
    cuts: u32,
}

/// One boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot(String);

/// The last one that did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub sha256: Sha256,
    pub rollout: u64,
    pub reason: String,
}

/// What to try next, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub rollout: u64,
    pub trial_s: u32,
    pub was_well: bool,
}

/// Which program is to have the process.
#[derive(Debug, PartialEq, Eq)]
pub enum Launch {
    /// This one.
    Image,
    Slot(PathBuf),
}

/// Why the slots are not as they should be.
#[derive(Debug, thiserror::Error)]
#[error("{doing} in `{path}`")]
pub struct SlotError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Slots {
    /// The slots of a state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self(state_dir.join("agent"))
    }

    /// Decides who runs in this boot, and notes it. To be called by the image's agent, before it does anything else.
    pub fn launch(&self, boot: Option<&Boot>) -> Launch {
        self.decide(boot).unwrap_or_else(|error| {
            tracing::error!(error = error_chain(&error), "the image's agent runs");
            Launch::Image
        })
    }

    fn decide(&self, boot: Option<&Boot>) -> Result<Launch, SlotError> {
        let mut record = self.read()?;
        if let Some(trial) = record.trial.take() {
            let reason = match self.begin(&record, &trial, boot) {
                Ok(program) => return Ok(Launch::Slot(program)),
                Err(reason) => reason,
            };
            tracing::error!(reason, "the agent before is back");
            record.failed = Some(Failed {
                sha256: trial.installed.sha256,
                rollout: trial.rollout,
                reason,
            });
            if let Err(error) = self.write(&record) {
                // A trial that was begun is found again at the next start.
                tracing::error!(error = error_chain(&error), "a failed agent is not noted");
            }
        }
        let Some(chosen) = &record.chosen else {
            return Ok(Launch::Image);
        };
        self.whole(chosen).map(Launch::Slot)
    }

    /// Notes the beginning of a trial, or says why there is none.
    fn begin(
        &self,
        record: &Record,
        trial: &Trial,
        boot: Option<&Boot>,
    ) -> Result<PathBuf, String> {
        let begun = Record {
            trial: Some(trial.begun(boot)?),
            ..record.clone()
        };
        let program = self.whole(&trial.installed);
        let noted = program.and_then(|program| self.write(&begun).map(|()| program));
        let program = noted.map_err(|error| error_chain(&error))?;
        alarm::set(trial.lasts_s);
        Ok(program)
    }

    /// The trial that this process is, if it is one. To be called by an agent in a slot.
    pub fn trial(&self) -> Result<Option<Trial>, SlotError> {
        Ok(self.read()?.trial.filter(|trial| trial.started))
    }

    /// This process has passed its trial: it is what runs from now on.
    pub fn keep(&self) -> Result<(), SlotError> {
        let mut record = self.read()?;
        if let Some(trial) = record.trial.take() {
            record.chosen = Some(trial.installed);
            record.failed = None;
            self.write(&record)?;
        }
        alarm::cancel();
        Ok(())
    }

    /// This process was told to end before its trial was over, which is not its fault: it has another, however
    /// often that happens.
    pub fn postpone(&self) -> Result<(), SlotError> {
        let mut record = self.read()?;
        if let Some(trial) = &mut record.trial {
            trial.started = false;
            self.write(&record)?;
        }
        alarm::cancel();
        Ok(())
    }

    /// The last one that failed its trial, unless another one has passed since.
    pub fn failed(&self) -> Result<Option<Failed>, SlotError> {
        Ok(self.read()?.failed)
    }

    /// Puts a program into the slot that is not in use; where it is. It is not chosen by that.
    pub fn install(&self, file: &Path) -> Result<PathBuf, SlotError> {
        let directory = self.directory(self.read()?.unused());
        let program = directory.join(PROGRAM);
        secret_file::create_dir(&directory)
            .and_then(|()| fs::set_permissions(file, Permissions::from_mode(0o700)))
            .and_then(|()| fs::rename(file, &program))
            .and_then(|()| File::open(&directory)?.sync_all())
            .map_err(|source| SlotError {
                doing: "install an agent",
                path: directory,
                source,
            })?;
        Ok(program)
    }

    /// What was installed last is tried at the next start.
    pub fn try_next(&self, statement: &Statement, terms: Terms) -> Result<(), SlotError> {
        let mut record = self.read()?;
        record.trial = Some(Trial {
            installed: Installed {
                slot: record.unused(),
                version: statement.version.clone(),
                sha256: statement.sha256,
            },
            rollout: terms.rollout,
            lasts_s: terms.trial_s.clamp(*TRIAL_S.start(), *TRIAL_S.end()),
            was_well: terms.was_well,
            started: false,
            boot: None,
            cuts: 0,
        });
        self.write(&record)
    }

    fn directory(&self, slot: Slot) -> PathBuf {
        self.0.join(match slot {
            Slot::A => "a",
            Slot::B => "b",
        })
    }

    /// The program in a slot, if it is all there: it was whole once, but a disk may have lost some of it.
    fn whole(&self, installed: &Installed) -> Result<PathBuf, SlotError> {
        let program = self.directory(installed.slot).join(PROGRAM);
        let failed = |source| SlotError {
            doing: "find the chosen agent",
            path: program.clone(),
            source,
        };
        let sha256 = artefact::digest(&program).map_err(failed)?;
        if sha256 != installed.sha256 {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        }
        Ok(program)
    }

    fn read(&self) -> Result<Record, SlotError> {
        let path = self.0.join(RECORD);
        let failed = |source| SlotError {
            doing: "read which agent runs",
            path: path.clone(),
            source,
        };
        let Some(text) = secret_file::read(&path).map_err(failed)? else {
            return Ok(Record::default());
        };
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }

    fn write(&self, record: &Record) -> Result<(), SlotError> {
        secret_file::create_dir(&self.0)
            .and_then(|()| disk::write_json(&self.0.join(RECORD), record))
            .map_err(|source| SlotError {
                doing: "note which agent runs",
                path: self.0.clone(),
                source,
            })
    }
}

impl Boot {
    /// The one that lasts, if the kernel tells.
    pub(crate) fn of_now() -> Option<Self> {
        machine::boot().map(Self)
    }
}

impl Trial {
    /// The same as it begins in this boot, or why it is over instead.
    fn begun(&self, boot: Option<&Boot>) -> Result<Self, String> {
        let version = &self.installed.version;
        let cuts = match (self.started, self.was_cut(boot)) {
            (false, _) => self.cuts,
            (true, true) if self.cuts < CUTS_MAX => {
                tracing::warn!(%version, "a reboot cut a trial short, which begins again");
                self.cuts.saturating_add(1)
            }
            (true, true) => {
                return Err(format!(
                    "every trial of agent {version} was cut short by a reboot, and it had {CUTS_MAX} more"
                ));
            }
            (true, false) => {
                return Err(format!(
                    "agent {version} ended, hung, or had no link and no well gateway within {} s",
                    self.lasts_s
                ));
            }
        };
        Ok(Self {
            started: true,
            boot: boot.cloned(),
            cuts,
            ..self.clone()
        })
    }

    /// Whether it began in another boot than this one. Where one of them is not known, it is held against the agent.
    fn was_cut(&self, now: Option<&Boot>) -> bool {
        self.boot
            .as_ref()
            .zip(now)
            .is_some_and(|(began, now)| began != now)
    }
}

impl Record {
    fn unused(&self) -> Slot {
        match &self.chosen {
            Some(Installed { slot: Slot::A, .. }) => Slot::B,
            Some(Installed { slot: Slot::B, .. }) | None => Slot::A,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::artefact::Kind;

    use super::*;

    struct Disk {
        dir: tempfile::TempDir,
        slots: Slots,
    }

    impl Disk {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let slots = Slots::of(dir.path());
            Self { dir, slots }
        }

        fn stage(&self, version: &str, rollout: u64) -> PathBuf {
            let file = self.dir.path().join("fetched");
            fs::write(&file, version).unwrap();
            let statement = Statement {
                kind: Kind::Agent,
                version: version.parse().unwrap(),
                sha256: artefact::digest(&file).unwrap(),
                size: 1,
                replaces_up_to: None,
            };
            let program = self.slots.install(&file).unwrap();
            let terms = Terms {
                rollout,
                trial_s: 600,
                was_well: true,
            };
            self.slots.try_next(&statement, terms).unwrap();
            program
        }

        fn launch(&self) -> Launch {
            self.launch_in(Some("one"))
        }

        fn launch_in(&self, boot: Option<&str>) -> Launch {
            let boot = boot.map(|name| Boot(name.to_owned()));
            let launch = self.slots.launch(boot.as_ref());
            // These tests are one process, which is not on trial.
            alarm::cancel();
            launch
        }
    }

    #[test]
    fn without_a_record_the_images_agent_runs() {
        assert_eq!(Disk::new().launch(), Launch::Image);
    }

    #[test]
    fn an_agent_that_passes_is_chosen_and_the_next_one_comes_beside_it() {
        let disk = Disk::new();
        let first = disk.stage("1.0.0", 1);
        assert_eq!(disk.launch(), Launch::Slot(first.clone()));
        assert_eq!(disk.slots.trial().unwrap().unwrap().rollout, 1);
        disk.slots.keep().unwrap();
        assert_eq!(disk.slots.trial().unwrap(), None);
        assert_eq!(disk.launch(), Launch::Slot(first.clone()));
        let second = disk.stage("2.0.0", 2);
        assert_ne!(second, first);
        assert_eq!(disk.launch(), Launch::Slot(second.clone()));
        disk.slots.keep().unwrap();
        assert_eq!(disk.stage("3.0.0", 3), first);
        assert_eq!(disk.launch(), Launch::Slot(first));
    }

    #[test]
    fn an_agent_that_did_not_pass_is_not_started_again() {
        let disk = Disk::new();
        let first = disk.stage("1.0.0", 1);
        disk.launch();
        disk.slots.keep().unwrap();
        let second = disk.stage("2.0.0", 7);
        assert_eq!(disk.launch(), Launch::Slot(second));
        assert_eq!(disk.launch(), Launch::Slot(first.clone()));
        let failed = disk.slots.failed().unwrap().unwrap();
        assert_eq!(failed.rollout, 7);
        assert!(failed.reason.contains("2.0.0"), "{failed:?}");
        assert_eq!(disk.launch(), Launch::Slot(first));
    }

    #[test]
    fn the_first_one_that_did_not_pass_gives_way_to_the_image() {
        let disk = Disk::new();
        disk.stage("1.0.0", 1);
        disk.launch();
        assert_eq!(disk.launch(), Launch::Image);
    }

    #[test]
    fn a_power_off_in_the_middle_is_not_held_against_it() {
        let disk = Disk::new();
        let program = disk.stage("1.0.0", 1);
        disk.launch();
        disk.slots.postpone().unwrap();
        assert_eq!(disk.launch(), Launch::Slot(program));
        assert_eq!(disk.slots.failed().unwrap(), None);
    }

    #[test]
    fn a_trial_that_a_reboot_cut_short_begins_again() {
        let disk = Disk::new();
        let program = disk.stage("1.0.0", 1);
        disk.launch_in(Some("one"));
        assert_eq!(disk.launch_in(Some("two")), Launch::Slot(program.clone()));
        assert_eq!(disk.slots.trial().unwrap().unwrap().rollout, 1);
        disk.slots.keep().unwrap();
        assert_eq!(disk.launch_in(Some("three")), Launch::Slot(program));
        assert_eq!(disk.slots.failed().unwrap(), None);
    }

    #[test]
    fn one_that_ends_in_the_boot_in_which_it_began_again_has_failed() {
        let disk = Disk::new();
        disk.stage("1.0.0", 1);
        disk.launch_in(Some("one"));
        disk.launch_in(Some("two"));
        assert_eq!(disk.launch_in(Some("two")), Launch::Image);
        assert_eq!(disk.slots.failed().unwrap().unwrap().rollout, 1);
    }

    #[test]
    fn one_that_every_reboot_cuts_short_is_not_begun_for_ever() {
        let disk = Disk::new();
        let program = disk.stage("1.0.0", 1);
        for boot in ["one", "two", "three", "four"] {
            assert_eq!(disk.launch_in(Some(boot)), Launch::Slot(program.clone()));
        }
        assert_eq!(disk.launch_in(Some("five")), Launch::Image);
        let failed = disk.slots.failed().unwrap().unwrap();
        assert!(failed.reason.contains("reboot"), "{failed:?}");
    }

    #[test]
    fn where_the_boot_is_not_known_it_is_held_against_the_agent() {
        for (began, now) in [(None, Some("two")), (Some("one"), None), (None, None)] {
            let disk = Disk::new();
            disk.stage("1.0.0", 1);
            disk.launch_in(began);
            assert_eq!(disk.launch_in(now), Launch::Image, "{began:?}, {now:?}");
        }
    }

    #[test]
    fn a_trial_that_an_agent_of_before_noted_is_read() {
        for (started, then) in [(false, "slot"), (true, "image")] {
            let disk = Disk::new();
            let program = disk.stage("1.0.0", 1);
            let path = disk.dir.path().join("agent/slots.json");
            let mut record: serde_json::Value =
                serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let trial = record["trial"].as_object_mut().unwrap();
            assert!(trial.remove("boot").is_some() && trial.remove("cuts").is_some());
            trial.insert("started".to_owned(), started.into());
            fs::write(&path, record.to_string()).unwrap();
            let launched = match disk.launch() {
                Launch::Image => "image",
                Launch::Slot(launched) => {
                    assert_eq!(launched, program);
                    "slot"
                }
            };
            assert_eq!(launched, then);
        }
    }

    #[test]
    fn a_slot_that_is_not_whole_is_not_started() {
        let disk = Disk::new();
        let program = disk.stage("1.0.0", 1);
        fs::write(&program, "1.0").unwrap();
        assert_eq!(disk.launch(), Launch::Image);
        assert_eq!(disk.slots.failed().unwrap().unwrap().rollout, 1);
        let program = disk.stage("1.0.0", 2);
        disk.launch();
        disk.slots.keep().unwrap();
        fs::remove_file(program).unwrap();
        assert_eq!(disk.launch(), Launch::Image);
    }

    #[test]
    fn a_record_that_is_none_means_the_image() {
        let disk = Disk::new();
        disk.stage("1.0.0", 1);
        fs::write(disk.dir.path().join("agent/slots.json"), "{").unwrap();
        assert_eq!(disk.launch(), Launch::Image);
    }

    #[test]
    fn a_record_of_a_later_agent_is_read() {
        let disk = Disk::new();
        let program = disk.stage("1.0.0", 1);
        let path = disk.dir.path().join("agent/slots.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen('{', r#"{"later":1,"#, 1)).unwrap();
        assert_eq!(disk.launch(), Launch::Slot(program));
    }
}
