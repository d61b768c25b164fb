//! The private networks that a document allows the gateway's container, as commands for the packet filter.
//!
//! The agent may not change the packet filter and does not: it leaves a file, and systemd starts a service that has
//! nothing but that right (`tidepool-networks` in the image). The file is taken by a rename, so what is left behind
//! is what nobody has looked at yet, and a change that comes while another is being made is not overlooked.
//!
//! ```text
//! networks.next   wanted, and not taken yet
//! networks.nft    taken; read again whenever the packet filter is made anew
//! ```
//!
//! It is made of parsed networks alone, so that nothing in a document becomes a command. What becomes of it is in
//! the server's journal: a packet filter that refuses it keeps the networks that it has.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use tidepool_certs::secret_file;
use tidepool_shared::networks::Networks;

/// Where they are left for the packet filter.
#[derive(Debug)]
pub struct NetworksFile {
    next: PathBuf,
    taken: PathBuf,
}

/// They are not where the packet filter finds them.
#[derive(Debug, thiserror::Error)]
#[error("leave the gateway's networks in `{path}`")]
pub struct NotLeft {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl NetworksFile {
    /// In this state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self {
            next: state_dir.join("networks.next"),
            taken: state_dir.join("networks.nft"),
        }
    }

    /// Has the packet filter allow these networks and no others. Nothing is written if they were the last.
    pub fn allow(&self, networks: &Networks) -> Result<(), NotLeft> {
        let wanted = commands(networks);
        // In this order: a file that is taken in between is found where it then is.
        for path in [&self.next, &self.taken] {
            let last = secret_file::read(path).map_err(|source| NotLeft {
                path: path.clone(),
                source,
            })?;
            match last {
                Some(last) if last == wanted.as_bytes() => return Ok(()),
                Some(_) => break,
                None => {}
            }
        }
        tracing::info!(%networks, "the gateway may reach these private networks");
        secret_file::write(&self.next, wanted.as_bytes()).map_err(|source| NotLeft {
            path: self.next.clone(),
            source,
        })
    }
}

/// One transaction of nft's.
fn commands(networks: &Networks) -> String {
    let mut text: String = ["allowed4", "allowed6"]
        .map(|set| format!("flush set inet tidepool {set}\n"))
        .concat();
    for network in networks.iter() {
        let family = if network.is_v4() { 4 } else { 6 };
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "add element inet tidepool allowed{family} {{ {network} }}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NONE: &str = "flush set inet tidepool allowed4\nflush set inet tidepool allowed6\n";

    fn networks(texts: &[&str]) -> Networks {
        serde_json::from_value(serde_json::json!(texts)).unwrap()
    }

    #[test]
    fn both_sets_are_emptied_and_filled_by_family() {
        assert_eq!(commands(&Networks::default()), NONE);
        let said = commands(&networks(&["fd00::/8", "10.20.0.0/16"]));
        let added = "add element inet tidepool allowed4 { 10.20.0.0/16 }\n\
             add element inet tidepool allowed6 { fd00::/8 }\n";
        assert_eq!(said, format!("{NONE}{added}"));
    }

    #[test]
    fn what_was_left_last_is_not_left_again_taken_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = NetworksFile::of(dir.path());
        let (some, none) = (networks(&["10.20.0.0/16"]), Networks::default());
        file.allow(&none).unwrap();
        assert_eq!(fs::read_to_string(&file.next).unwrap(), NONE);
        fs::rename(&file.next, &file.taken).unwrap();
        file.allow(&none).unwrap();
        assert!(!file.next.exists(), "taken");
        file.allow(&some).unwrap();
        let before = fs::metadata(&file.next).unwrap().modified().unwrap();
        file.allow(&some).unwrap();
        let after = fs::metadata(&file.next).unwrap().modified().unwrap();
        assert_eq!(before, after, "not taken yet");
        // Back to what the packet filter has, before it looked: that is a change, too.
        file.allow(&none).unwrap();
        assert_eq!(fs::read_to_string(&file.next).unwrap(), NONE);
    }
}
