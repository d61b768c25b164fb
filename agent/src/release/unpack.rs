//! A version's artefact as it came, into a directory of its own: a tar of exactly the members that
//! [`Member`] names, read without believing any of it.
//!
//! It was signed, so this guards against a mistake of who made it, not against a stranger. All the same nothing in it
//! chooses where a byte goes: names, kinds and order are compared, and the paths in the record as well.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::atomic::AtomicBool,
};

use tar::{Archive, Entry, EntryType};
use tidepool_certs::secret_file;
use tidepool_shared::{
    manifest::Release, openclaw_version::OpenClawVersion, release_artefact::Member,
};

use crate::disk;

/// Why an artefact holds no version that can be run here.
#[derive(Debug, thiserror::Error)]
pub enum NotUnpacked {
    #[error("read it, or write what is in it")]
    Io(#[from] io::Error),
    #[error("it is no tar that holds `{}` next, as a plain file of at most {} bytes", .0.name(), .0.max_size())]
    Unexpected(Member),
    #[error("it holds more than it should")]
    Surplus,
    #[error("its `release.json` is not readable")]
    Record(#[source] serde_json::Error),
    #[error("its `release.json` is of OpenClaw {0}")]
    OtherVersion(String),
    #[error("its `release.json` names other files than those beside it")]
    OtherFiles,
}

/// Puts what is in the artefact into a directory, of which nothing was there before. All of it is on disk at the end.
pub(super) fn unpack(
    artefact: &Path,
    version: &OpenClawVersion,
    directory: &Path,
    stop: &AtomicBool,
) -> Result<(), NotUnpacked> {
    disk::remove_tree(directory)?;
    secret_file::create_dir(directory)?;
    let mut archive = Archive::new(File::open(artefact)?);
    // Raw: what would change the meaning of the next header is a member too many.
    let mut entries = archive.entries()?.raw(true);
    let mut image_bytes = 0;
    for member in Member::ALL {
        let mut entry = match entries.next() {
            Some(entry) => entry?,
            None => return Err(NotUnpacked::Unexpected(member)),
        };
        if !is(&entry, member)? {
            return Err(NotUnpacked::Unexpected(member));
        }
        image_bytes = entry.size();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.join(member.name()))?;
        disk::copy(&mut entry, &mut file, stop)?;
        file.sync_all()?;
    }
    if entries.next().is_some() {
        return Err(NotUnpacked::Surplus);
    }
    let record = fs::read(directory.join(Member::Record.name()))?;
    check(&record, version, image_bytes)?;
    Ok(File::open(directory)?.sync_all()?)
}

fn is(entry: &Entry<'_, File>, member: Member) -> io::Result<bool> {
    let header = entry.header();
    Ok(header.entry_type() == EntryType::Regular
        && *header.path_bytes() == *member.name().as_bytes()
        && header.entry_size()? <= member.max_size())
}

fn check(record: &[u8], version: &OpenClawVersion, image_bytes: u64) -> Result<(), NotUnpacked> {
    let release: Release = serde_json::from_slice(record).map_err(NotUnpacked::Record)?;
    if release.openclaw_version != version.as_str() {
        let said = release.openclaw_version.chars().take(64).collect();
        return Err(NotUnpacked::OtherVersion(said));
    }
    let is_container = release.container.is_some();
    let archive = is_container.then(|| Path::new(Member::Image.name()));
    let fits = release.config_schema == Path::new(Member::Schema.name())
        && release.archive.as_deref() == archive
        && is_container == (image_bytes > 0);
    if fits {
        Ok(())
    } else {
        Err(NotUnpacked::OtherFiles)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;
    use tar::{Builder, Header};

    use super::*;

    const VERSION: &str = "2026.9.6-r20261101";

    struct Pack {
        dir: tempfile::TempDir,
    }

    impl Pack {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
            }
        }

        fn of(&self, members: &[(&str, EntryType, &[u8])]) -> PathBuf {
            let path = self.dir.path().join("artefact");
            let mut tar = Builder::new(File::create(&path).unwrap());
            for (name, kind, bytes) in members {
                let mut header = Header::new_ustar();
                // By hand: the crate refuses to write some of these.
                header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
                header.set_entry_type(*kind);
                header.set_size(u64::try_from(bytes.len()).unwrap());
                header.set_cksum();
                tar.append(&header, *bytes).unwrap();
            }
            tar.finish().unwrap();
            path
        }

        fn unpack(&self, artefact: &Path) -> Result<(), NotUnpacked> {
            let to = self.dir.path().join("to");
            unpack(
                artefact,
                &VERSION.parse().unwrap(),
                &to,
                &AtomicBool::new(false),
            )
        }
    }

    fn record(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let mut record = json!({
            "openclaw_version": VERSION, "gateway": ["node"], "config_schema": "config-schema.json",
        });
        change(&mut record);
        serde_json::to_vec(&record).unwrap()
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn three_members_are_laid_out() {
        let pack = Pack::new();
        let image = format!("sha256:{}", "0a".repeat(32));
        let own = record(|it| {
            it["container"] = json!(image);
            it["archive"] = json!("image.tar");
        });
        let artefact = pack.of(&[
            ("release.json", FILE, &own),
            ("config-schema.json", FILE, b"{}"),
            ("image.tar", FILE, b"layers"),
        ]);
        let left = pack.dir.path().join("to/of an earlier one");
        fs::create_dir_all(left.parent().unwrap()).unwrap();
        fs::write(&left, "half").unwrap();
        pack.unpack(&artefact).unwrap();
        let read = |name: &str| fs::read(pack.dir.path().join("to").join(name)).unwrap();
        assert_eq!(read("release.json"), own);
        assert_eq!(read("image.tar"), b"layers");
        assert!(!left.exists());
    }

    #[test]
    fn other_names_kinds_orders_and_numbers_of_members_are_refused() {
        let own = record(|_| ());
        let schema: (&str, EntryType, &[u8]) = ("config-schema.json", FILE, b"{}");
        let release: (&str, EntryType, &[u8]) = ("release.json", FILE, &own);
        let image: (&str, EntryType, &[u8]) = ("image.tar", FILE, b"");
        let large = vec![b' '; 64 * 1024 + 1];
        let wrong: [&[(&str, EntryType, &[u8])]; 9] = [
            &[],
            &[release, schema],
            &[schema, release, image],
            &[release, schema, image, image],
            &[release, schema, ("../image.tar", FILE, b"")],
            &[release, schema, ("/image.tar", FILE, b"")],
            &[release, schema, ("image.tar", EntryType::Symlink, b"")],
            &[
                ("long", EntryType::GNULongName, b"release.json"),
                release,
                schema,
                image,
            ],
            &[("release.json", FILE, &large), schema, image],
        ];
        let pack = Pack::new();
        for members in wrong {
            let refused = pack.unpack(&pack.of(members));
            let is_refused = matches!(
                refused,
                Err(NotUnpacked::Unexpected(_) | NotUnpacked::Surplus)
            );
            assert!(is_refused, "{:?}: {refused:?}", members.len());
        }
        pack.unpack(&pack.of(&[release, schema, image])).unwrap();
    }

    #[test]
    fn a_record_that_leads_elsewhere_or_is_of_another_version_is_refused() {
        let pack = Pack::new();
        let tried = |own: &[u8], image: &[u8]| {
            pack.unpack(&pack.of(&[
                ("release.json", FILE, own),
                ("config-schema.json", FILE, b"{}"),
                ("image.tar", FILE, image),
            ]))
        };
        let other = tried(
            &record(|it| it["openclaw_version"] = json!("2026.9.6")),
            b"",
        );
        assert!(
            matches!(other, Err(NotUnpacked::OtherVersion(_))),
            "{other:?}"
        );
        let unknown = tried(&record(|it| it["later"] = json!(1)), b"");
        assert!(
            matches!(unknown, Err(NotUnpacked::Record(_))),
            "{unknown:?}"
        );
        let outside = record(|it| it["config_schema"] = json!("/etc/passwd"));
        let archive = record(|it| it["archive"] = json!("image.tar"));
        for (own, image) in [
            (&outside, b"".as_slice()),
            (&archive, b""),
            (&record(|_| ()), b"layers"),
        ] {
            let refused = tried(own, image);
            assert!(
                matches!(refused, Err(NotUnpacked::OtherFiles)),
                "{refused:?}"
            );
        }
    }
}
