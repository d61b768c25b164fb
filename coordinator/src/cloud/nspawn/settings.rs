//! What the cloud is told, and what it makes of it.

use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidepool_shared::admission::{Admission, Cidr};

use super::switch::SWITCH;

/// The part of the configuration that is about machines on this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NspawnSettings {
    /// Where servers live. In a memory file system (`/dev/shm`) they are as fast as they can be, and gone
    /// when this machine reboots.
    pub directory: PathBuf,
    /// The image, as `tidepool image build` made it.
    pub image: PathBuf,
    /// The switch's network, `10.78.0` for 10.78.0.0/24: nobody else's on this machine.
    #[serde(default = "network")]
    pub network: String,
    /// The one port of a server that can be reached, from the main server only.
    pub edge_port: u16,
}

fn network() -> String {
    "10.78.0".to_owned()
}

/// Programs of others, and the packages that have them.
const PROGRAMS: [(&str, &str); 5] = [
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("tar", "tar"),
    ("zstd", "zstd"),
];

/// Where programs are looked for.
const PATHS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Says at once what would fail later.
pub(super) fn check(settings: &NspawnSettings) -> io::Result<()> {
    if !geteuid().is_root() {
        return Err(io::Error::other("machines of systemd-nspawn need root"));
    }
    settings.check().map_err(io::Error::other)?;
    for (program, package) in PROGRAMS {
        if !PATHS
            .iter()
            .any(|path| Path::new(path).join(program).exists())
        {
            return Err(io::Error::other(format!(
                "`{program}` is missing (Debian: {package})"
            )));
        }
    }
    Ok(())
}

impl NspawnSettings {
    /// Says what is wrong with them, on whatever machine.
    pub fn check(&self) -> Result<(), String> {
        if self.base().is_none() {
            return Err(format!(
                "`{}` is not a network such as `10.78.0`",
                self.network
            ));
        }
        if self.edge_port == 0 {
            return Err("port 0 cannot be reached".to_owned());
        }
        Ok(())
    }

    fn base(&self) -> Option<[u8; 3]> {
        let mut parts = self.network.split('.').map(|part| part.parse().ok());
        let base = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(base)
    }

    /// The address of this number in the switch's network.
    pub fn address(&self, number: u8) -> Ipv4Addr {
        // Checked when the cloud was opened.
        let [a, b, c] = self.base().unwrap_or_default();
        Ipv4Addr::new(a, b, c, number)
    }

    /// This machine's address on the switch: the main server.
    pub fn main(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The switch's own, from which the metadata service answers.
    pub(super) fn switch(&self) -> Ipv4Addr {
        self.address(SWITCH)
    }

    /// Servers' numbers; those above 200 are for tests' own machines.
    pub(super) fn numbers() -> RangeInclusive<u8> {
        2..=200
    }

    /// What servers are told.
    pub(super) fn admission(&self) -> Admission {
        let main: Option<Cidr> = format!("{}/32", self.main()).parse().ok();
        Admission {
            port: self.edge_port,
            sources: BTreeSet::from_iter(main),
        }
    }

    /// Begins the names of all that this cloud makes in the kernel. By the directory, so that two clouds of one
    /// machine do not meet, and a cloud that is opened again finds its own.
    pub fn prefix(&self) -> String {
        let digest = Sha256::digest(self.directory.as_os_str().as_encoded_bytes());
        let digits = format!("{digest:x}");
        format!("tp{}", digits.get(..6).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_that_the_main_server_alone_may_come() {
        let settings = NspawnSettings {
            directory: "/dev/shm/a".into(),
            image: "/a.tar.zst".into(),
            network: "10.9.8".to_owned(),
            edge_port: 8080,
        };
        let told = serde_json::to_value(settings.admission()).unwrap();
        assert_eq!(
            told,
            serde_json::json!({"port": 8080, "sources": ["10.9.8.1/32"]})
        );
        assert_eq!(settings.prefix().len(), 8);
        for bad in ["10.9", "10.9.8.7", "10.9.256", ""] {
            let settings = NspawnSettings {
                network: bad.to_owned(),
                ..settings.clone()
            };
            assert_eq!(settings.base(), None, "{bad}");
        }
    }
}
