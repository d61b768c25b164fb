//! A copy of a gateway's state, and its way back.
//!
//! The tree is the customer's: it may hold anything, be of any depth and pretend any size. It is counted
//! before anything is stopped, copied only while nothing runs that could change it, and no more of it than
//! was counted. Links are copied as links; pipes and sockets, which mean nothing to a gateway that does not
//! run, are left out. Where the disk can share blocks between files it does, so a copy costs nothing.
//!
//! A copy that is there is whole: it is made under another name, on disk, and then renamed. It lies on the
//! disk of the state, so that it comes back by a rename.

use std::{
    fs::{self, File, FileTimes, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::unistd::{geteuid, syncfs};
use tidepool_certs::secret_file;

use crate::disk::{self, UNSYNCED};

/// A plugin brings thousands of files; a million are no gateway's.
const MAX_ENTRIES: u64 = 1_000_000;
/// Of directories in directories.
const MAX_DEPTH: u32 = 128;
/// For the new version's own copies of its databases, and for everything else on the server.
const MARGIN_BYTES: u64 = 256 << 20;
/// For the journal, when the new version has filled the disk.
const RESERVE_BYTES: usize = 1 << 20;
/// How the names begin of states that a copy took the place of.
const DISCARDED: &str = "discarded-";

/// Where a state and its copy are.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The state.
    state: PathBuf,
    /// A directory of ours on the same disk.
    directory: PathBuf,
}

/// Whether a copy stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Copy,
    Nothing,
}

/// What a state amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub bytes: u64,
    pub entries: u64,
}

/// Why a state is not copied; nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum NoRoom {
    #[error("look at the state")]
    Look(#[source] io::Error),
    #[error("the state has more than {MAX_ENTRIES} files, or lies more than {MAX_DEPTH} deep")]
    TooMuch,
    #[error("{free_mib} MiB are free, and {needed_mib} MiB are needed")]
    Full { needed_mib: u64, free_mib: u64 },
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum NotSaved {
    #[error("copy the state")]
    Copy(#[source] io::Error),
    #[error("the state has grown since it was looked at")]
    Grown,
    #[error("told to stop")]
    Stopped,
}

impl Saved {
    /// The copy of this state, in this directory.
    pub fn of(state: PathBuf, directory: PathBuf) -> Self {
        Self { state, directory }
    }

    /// Where a whole copy is.
    pub fn path(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn partial(&self) -> PathBuf {
        self.directory.join("state.partial")
    }

    fn replaced(&self) -> PathBuf {
        self.directory.join("state.replaced")
    }

    fn reserve(&self) -> PathBuf {
        self.directory.join("reserve")
    }

    /// Where the state is that the copy took the place of.
    pub fn discarded(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{DISCARDED}{number}"))
    }

    /// Whether there is room for the copy, and for what the new version makes of the state.
    pub fn check_room(&self) -> Result<Amount, NoRoom> {
        let never = AtomicBool::new(false);
        let most = Amount {
            bytes: u64::MAX,
            entries: MAX_ENTRIES,
        };
        let mut walk = Walk::new(most, &never);
        walk.tree(&self.state, None, 0)
            .map_err(|error| match error {
                NotSaved::Copy(source) => NoRoom::Look(source),
                NotSaved::Grown | NotSaved::Stopped => NoRoom::TooMuch,
            })?;
        let amount = walk.seen;
        // The state may not be made yet.
        let home = self.state.parent().unwrap_or(&self.state);
        let free = disk::free_bytes(home).map_err(NoRoom::Look)?;
        let needed = needed(amount);
        if free < needed {
            return Err(NoRoom::Full {
                needed_mib: needed >> 20,
                free_mib: free >> 20,
            });
        }
        Ok(amount)
    }

    /// Copies the state, of which nothing may run. An earlier copy stays until this one [takes its place](Self::keep).
    pub fn copy(&self, stop: &AtomicBool) -> Result<(), NotSaved> {
        self.clear().map_err(NotSaved::Copy)?;
        let amount = self
            .check_room()
            .map_err(|error| NotSaved::Copy(io::Error::other(error)))?;
        secret_file::create_dir(&self.directory).map_err(NotSaved::Copy)?;
        let mut walk = Walk::new(amount, stop);
        let copied = walk.tree(&self.state, Some(&self.partial()), 0);
        let copied = copied.and_then(|()| self.finish(stop));
        if copied.is_err() {
            // What is left of it may have filled the disk.
            disk::remove_tree(&self.partial()).map_err(NotSaved::Copy)?;
        }
        copied
    }

    /// Removes what was cut off, and what lies aside.
    fn clear(&self) -> io::Result<()> {
        disk::remove_tree(&self.partial())?;
        disk::remove_tree(&self.replaced())
    }

    fn finish(&self, stop: &AtomicBool) -> Result<(), NotSaved> {
        let done = || -> io::Result<()> {
            fs::write(self.reserve(), vec![0xa5; RESERVE_BYTES])?;
            syncfs(File::open(&self.directory)?)?;
            Ok(())
        };
        done().map_err(NotSaved::Copy)?;
        // Nobody waits for it any more, and the gateway may be running again.
        if stop.load(Ordering::Relaxed) {
            return Err(NotSaved::Stopped);
        }
        Ok(())
    }

    /// Puts the copy that was just made in the place of an earlier one, which lies aside until it is removed: it may
    /// have a million files, and a gateway waits.
    pub fn keep(&self) -> io::Result<()> {
        match fs::rename(self.path(), self.replaced()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(self.partial(), self.path())?;
        File::open(&self.directory)?.sync_all()
    }

    /// Puts the copy in the place of the state, of which nothing may run, and the state aside under this number. When
    /// there is no copy that was done already.
    pub fn put_back(&self, number: u64) -> io::Result<()> {
        let (copy, discarded) = (self.path(), self.discarded(number));
        if !copy.try_exists()? {
            return Ok(());
        }
        if self.state.try_exists()? {
            disk::remove_tree(&discarded)?;
            fs::rename(&self.state, &discarded)?;
        }
        fs::rename(&copy, &self.state)?;
        for parent in [self.state.parent(), Some(self.directory.as_path())]
            .into_iter()
            .flatten()
        {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    /// Whether the state that was put aside can stay beside what runs, which needs room too.
    pub fn has_margin(&self) -> io::Result<bool> {
        Ok(disk::free_bytes(&self.directory)? >= MARGIN_BYTES)
    }

    /// Gives back the room without which nothing could be written down on a full disk.
    pub fn release_reserve(&self) -> io::Result<()> {
        match fs::remove_file(self.reserve()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes all that is not one of these.
    pub fn keep_only(&self, copy: Keep, discarded: Option<u64>) -> io::Result<()> {
        self.release_reserve()?;
        self.clear()?;
        if copy == Keep::Nothing {
            disk::remove_tree(&self.path())?;
        }
        let kept = discarded.map(|number| self.discarded(number));
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let is_discarded = name.to_str().is_some_and(|it| it.starts_with(DISCARDED));
            if is_discarded && Some(entry.path()) != kept {
                disk::remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// The copy, as much again for what a new version copies by itself, and the margin.
const fn needed(amount: Amount) -> u64 {
    amount.bytes.saturating_mul(2).saturating_add(MARGIN_BYTES)
}

/// A walk through a tree, which counts it and may copy it.
struct Walk<'a> {
    seen: Amount,
    most: Amount,
    /// Bytes of small files that may be in memory only.
    unsynced: u64,
    stop: &'a AtomicBool,
}

impl<'a> Walk<'a> {
    fn new(most: Amount, stop: &'a AtomicBool) -> Self {
        Self {
            seen: Amount::default(),
            most,
            unsynced: 0,
            stop,
        }
    }

    fn tree(&mut self, from: &Path, to: Option<&Path>, depth: u32) -> Result<(), NotSaved> {
        let looked = fs::symlink_metadata(from);
        let Some(meta) = there(looked, to)? else {
            return Ok(());
        };
        self.count(&meta, depth)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            if let Some(to) = to {
                fs::create_dir(to).map_err(NotSaved::Copy)?;
            }
            for entry in there(fs::read_dir(from), to)?.into_iter().flatten() {
                let name = entry.map_err(NotSaved::Copy)?.file_name();
                let to = to.map(|to| to.join(&name));
                self.tree(&from.join(&name), to.as_deref(), depth + 1)?;
            }
        } else if let Some(to) = to {
            if kind.is_symlink() {
                fs::read_link(from)
                    .and_then(|target| symlink(target, to))
                    .map_err(NotSaved::Copy)?;
            } else if kind.is_file() {
                self.file(from, to)?;
            } else {
                return Ok(());
            }
        }
        to.map_or(Ok(()), |to| like(to, &meta))
            .map_err(NotSaved::Copy)
    }

    /// Not by `fs::copy`, which takes the file's mode along at once.
    fn file(&mut self, from: &Path, to: &Path) -> Result<(), NotSaved> {
        let copied = || -> io::Result<u64> {
            let mut new = File::create_new(to)?;
            let bytes = disk::copy(&mut File::open(from)?, &mut new, self.stop)?;
            let unsynced = self.unsynced.saturating_add(bytes);
            if unsynced < UNSYNCED {
                return Ok(unsynced);
            }
            syncfs(&new)?;
            Ok(0)
        };
        match copied() {
            Ok(unsynced) => self.unsynced = unsynced,
            Err(_) if self.stop.load(Ordering::Relaxed) => return Err(NotSaved::Stopped),
            Err(error) => return Err(NotSaved::Copy(error)),
        }
        Ok(())
    }

    fn count(&mut self, meta: &Metadata, depth: u32) -> Result<(), NotSaved> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(NotSaved::Stopped);
        }
        self.seen.entries = self.seen.entries.saturating_add(1);
        if meta.is_file() {
            self.seen.bytes = self.seen.bytes.saturating_add(meta.len());
        }
        let within = self.seen.entries <= self.most.entries
            && self.seen.bytes <= self.most.bytes
            && depth <= MAX_DEPTH;
        if within { Ok(()) } else { Err(NotSaved::Grown) }
    }
}

/// What is counted may be gone at the next look, for the gateway still runs; what is copied may not.
fn there<T>(found: io::Result<T>, to: Option<&Path>) -> Result<Option<T>, NotSaved> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && to.is_none() => Ok(None),
        Err(error) => Err(NotSaved::Copy(error)),
    }
}

/// Gives a copy the owner, the mode and the time of what it is a copy of.
fn like(path: &Path, meta: &Metadata) -> io::Result<()> {
    if geteuid().is_root() {
        lchown(path, Some(meta.uid()), Some(meta.gid()))?;
    }
    if meta.is_symlink() {
        return Ok(());
    }
    // Without the bits that give somebody's rights to others: they mean nothing in a container that may gain
    // none, and the agent's unit may not set them.
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o1777))?;
    File::open(path)?.set_times(FileTimes::new().set_modified(meta.modified()?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    static GO_ON: AtomicBool = AtomicBool::new(false);

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("home/.openclaw/state/deep")).unwrap();
            let bench = Self { dir };
            bench.write("openclaw.json", "{}");
            bench.write("state/deep/db.sqlite", "before");
            symlink("../openclaw.json", bench.state().join("state/link")).unwrap();
            mkfifo(&bench.state().join("pipe"), Mode::S_IRWXU).unwrap();
            let key = bench.state().join("state/deep/db.sqlite");
            fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
            bench
        }

        fn state(&self) -> PathBuf {
            self.dir.path().join("home/.openclaw")
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.state().join(name), text).unwrap();
        }

        fn save(&self) {
            self.saved().copy(&GO_ON).unwrap();
            self.saved().keep().unwrap();
        }

        fn saved(&self) -> Saved {
            Saved::of(self.state(), self.dir.path().join("upgrade"))
        }
    }

    /// All files with mode and content.
    fn contents(of: &Path) -> BTreeMap<PathBuf, (u32, String)> {
        let mut found = BTreeMap::new();
        let mut left = vec![of.to_owned()];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let text = if meta.is_dir() {
                left.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                String::new()
            } else if meta.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if meta.is_file() {
                fs::read_to_string(&path).unwrap()
            } else {
                continue;
            };
            let place = path.strip_prefix(of).unwrap().to_owned();
            found.insert(place, (meta.mode(), text));
        }
        found
    }

    #[test]
    fn a_copy_is_the_state_file_by_file_and_comes_back_as_it_was() {
        let bench = Bench::new();
        let before = contents(&bench.state());
        bench.save();
        assert_eq!(contents(&bench.saved().path()), before);
        bench.write("state/deep/db.sqlite", "migrated");
        bench.write("new", "of the new version");
        let after = contents(&bench.state());
        bench.saved().put_back(7).unwrap();
        assert_eq!(contents(&bench.state()), before);
        bench.saved().put_back(7).unwrap();
        assert_eq!(contents(&bench.state()), before, "done already");
        assert!(!bench.saved().path().exists());
        assert_eq!(contents(&bench.saved().discarded(7)), after, "put aside");
    }

    #[test]
    fn a_copy_that_fails_leaves_the_earlier_one() {
        let bench = Bench::new();
        let before = contents(&bench.state());
        bench.save();
        bench.write("new", "of the new version");
        bench.saved().copy(&AtomicBool::new(true)).unwrap_err();
        assert_eq!(contents(&bench.saved().path()), before);
        bench.saved().copy(&GO_ON).unwrap();
        assert_eq!(contents(&bench.saved().path()), before, "until it is taken");
        bench.saved().keep().unwrap();
        assert_eq!(contents(&bench.saved().path()), contents(&bench.state()));
    }

    #[test]
    fn only_what_is_still_wanted_stays() {
        let bench = Bench::new();
        for number in [7, 8] {
            bench.save();
            bench.saved().put_back(number).unwrap();
        }
        bench.save();
        fs::create_dir_all(bench.saved().partial()).unwrap();
        bench.saved().keep_only(Keep::Copy, Some(8)).unwrap();
        assert!(bench.saved().path().exists() && bench.saved().discarded(8).exists());
        for gone in [
            bench.saved().discarded(7),
            bench.saved().partial(),
            bench.saved().reserve(),
        ] {
            assert!(!gone.exists(), "{}", gone.display());
        }
        bench.saved().keep_only(Keep::Nothing, None).unwrap();
        assert!(!bench.saved().path().exists() && !bench.saved().discarded(8).exists());
    }

    #[test]
    fn a_way_back_that_was_cut_off_anywhere_ends_with_the_state_of_before() {
        for cut in 0..2 {
            let bench = Bench::new();
            let before = contents(&bench.state());
            bench.save();
            bench.write("state/deep/db.sqlite", "migrated");
            fs::create_dir_all(bench.saved().discarded(7).join("of an earlier one")).unwrap();
            if cut > 0 {
                disk::remove_tree(&bench.saved().discarded(7)).unwrap();
                fs::rename(bench.state(), bench.saved().discarded(7)).unwrap();
            }
            bench.saved().put_back(7).unwrap();
            assert_eq!(contents(&bench.state()), before, "cut off at {cut}");
        }
    }

    #[test]
    fn half_a_copy_counts_for_none_and_is_replaced() {
        let bench = Bench::new();
        fs::create_dir_all(bench.saved().partial()).unwrap();
        fs::write(bench.saved().partial().join("half"), "of a file").unwrap();
        bench.save();
        assert!(!bench.saved().partial().exists());
        assert!(!bench.saved().path().join("half").exists());
    }

    #[test]
    fn a_state_that_pretends_to_be_larger_than_the_disk_is_refused_before_anything_is_done() {
        let bench = Bench::new();
        let file = File::create(bench.state().join("large")).unwrap();
        file.set_len(1 << 43).unwrap();
        let refused = bench.saved().check_room();
        assert!(matches!(refused, Err(NoRoom::Full { .. })), "{refused:?}");
        bench.saved().copy(&GO_ON).unwrap_err();
        assert!(!bench.saved().path().exists());
    }

    #[test]
    fn a_tree_without_an_end_is_refused() {
        let bench = Bench::new();
        let deep = (0..=MAX_DEPTH).fold(bench.state(), |path, _| path.join("d"));
        fs::create_dir_all(deep).unwrap();
        assert!(matches!(bench.saved().check_room(), Err(NoRoom::TooMuch)));
    }

    #[test]
    fn a_copy_ends_when_it_is_told_to() {
        let bench = Bench::new();
        let stopped = bench.saved().copy(&AtomicBool::new(true));
        assert!(matches!(stopped, Err(NotSaved::Stopped)), "{stopped:?}");
        assert!(!bench.saved().path().exists());
    }
}
