//! Who this server is: asked of the cloud at every boot, before the agent runs.
//!
//! The metadata service answers without a token, on a link-local address of either family. What it says is
//! kept in a directory that a power-off empties, so that a copy of the disk, booted as another server, finds
//! out that it is one; and an agent that is started again needs no cloud. Nobody knows what a server without
//! user data is for, so it asks until it has some.
//!
//! ```text
//! user-data.json   as the cloud gave it (0600: the enrolment token)
//! server.env       address, port and the cloud's id, for the agent's command line
//! admission.nft    who may reach the server, for nft
//! ```

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{ifaddrs::getifaddrs, net::if_::if_nameindex, sys::socket::SockaddrIn6};
use tidepool_certs::secret_file;
use tidepool_shared::{
    admission::{Admission, Cidr},
    user_data::UserData,
};
use tokio::time::sleep;

use crate::plain_http::{self, Bounds};

const V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// On whatever link there is.
const V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);
const PORT: u16 = 80;
/// Where no user data says another: see [`Admission::port`].
const DEFAULT_HTTP_PORT: u16 = 8080;
const PAUSE: Duration = Duration::from_secs(1);
const BOUNDS: Bounds = Bounds {
    patience: Duration::from_secs(5),
    // Hetzner's own limit of user data is 32 KiB.
    bytes: 40 * 1024,
};
/// Of an id that a cloud gives.
const INSTANCE_MAX: usize = 64;

/// Why an answer does not say who this server is; another one may.
#[derive(Debug, thiserror::Error)]
enum Unclear {
    #[error("no metadata service answers")]
    Silent(#[source] io::Error),
    #[error("the metadata service answers {status} to `{path}`")]
    Status { path: &'static str, status: u16 },
    // Without its cause, which may quote the enrolment token.
    #[error("user data is not what it should be")]
    UserData,
    #[error("the cloud's id of this server is not one")]
    Instance,
    #[error("this server has no public address")]
    Address,
}

/// Why what was learnt is not kept.
#[derive(Debug, thiserror::Error)]
#[error("write `{path}`")]
pub struct NotKept {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What a server is told about itself.
struct Told {
    user_data: String,
    admission: Option<Admission>,
    instance: String,
    address: IpAddr,
}

/// Asks until it is known who this server is, and writes it into `directory`.
pub async fn learn(directory: &Path) -> Result<(), NotKept> {
    let mut said = String::new();
    let told = loop {
        match ask().await {
            Ok(told) => break told,
            Err(error) => {
                // The same once, however often it is asked.
                let now = crate::converge::chain(&error);
                if now != said {
                    tracing::warn!(error = now, "not known who this server is, asking again");
                    said = now;
                }
                sleep(PAUSE).await;
            }
        }
    };
    keep(directory, &told)?;
    tracing::info!(address = %told.address, cloud.instance = told.instance, "server is known");
    Ok(())
}

async fn ask() -> Result<Told, Unclear> {
    let user_data = question("/hetzner/v1/userdata").await?;
    let parsed: UserData = serde_json::from_str(&user_data).map_err(|_| Unclear::UserData)?;
    let instance = question("/hetzner/v1/metadata/instance-id").await?;
    let instance = instance.trim().to_owned();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if instance.is_empty() || instance.len() > INSTANCE_MAX || !instance.bytes().all(plain) {
        return Err(Unclear::Instance);
    }
    // A server without an address of version 4 has an empty one.
    let address = match question("/hetzner/v1/metadata/public-ipv4").await {
        Ok(text) => text.trim().parse().ok(),
        Err(Unclear::Status { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Told {
        user_data,
        admission: parsed.admission,
        instance,
        address: address.or_else(global_v6).ok_or(Unclear::Address)?,
    })
}

/// Asks one service after the other; the first that answers counts.
async fn question(path: &'static str) -> Result<String, Unclear> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for service in services() {
        match plain_http::get(service, path, "Host: 169.254.169.254\r\n", BOUNDS).await {
            Ok(answer) if answer.status == 200 => return Ok(answer.body),
            Ok(answer) => {
                let status = answer.status;
                return Err(Unclear::Status { path, status });
            }
            Err(error) => failure = error,
        }
    }
    Err(Unclear::Silent(failure))
}

fn services() -> Vec<SocketAddr> {
    let links = if_nameindex().map_or_else(
        |_| Vec::new(),
        |links| {
            links
                .iter()
                .map(|link| SocketAddrV6::new(V6, PORT, 0, link.index()).into())
                .collect()
        },
    );
    std::iter::once(SocketAddr::from((V4, PORT)))
        .chain(links)
        .collect()
}

/// The first address of version 6 that the world can reach.
fn global_v6() -> Option<IpAddr> {
    let addresses = getifaddrs().ok()?;
    addresses
        .filter_map(|interface| interface.address?.as_sockaddr_in6().map(SockaddrIn6::ip))
        // 2000::/3
        .find(|address| address.segments()[0] >> 13 == 1)
        .map(IpAddr::V6)
}

fn keep(directory: &Path, told: &Told) -> Result<(), NotKept> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        secret_file::write(&path, text.as_bytes()).map_err(|source| NotKept { path, source })
    };
    secret_file::create_dir(directory).map_err(|source| NotKept {
        path: directory.to_owned(),
        source,
    })?;
    let port = told
        .admission
        .as_ref()
        .map_or(DEFAULT_HTTP_PORT, |to| to.port);
    write("user-data.json", &told.user_data)?;
    write("admission.nft", &packet_filter(told.admission.as_ref()))?;
    write(
        "server.env",
        &format!(
            "TIDEPOOL_ADDRESS={}\nTIDEPOOL_HTTP_PORT={port}\nTIDEPOOL_CLOUD_INSTANCE={}\n",
            told.address, told.instance
        ),
    )
}

/// For the sets of the image's `nftables.conf`; without an admission nobody is in them.
fn packet_filter(admission: Option<&Admission>) -> String {
    let sets = ["admitted4", "admitted6", "main4", "main6"];
    let mut text: String = sets
        .map(|set| format!("flush set inet tidepool {set}\n"))
        .concat();
    let Some(Admission { port, sources }) = admission else {
        return text;
    };
    // nftables takes no element that lies within another one, and with it nothing at all of what it is told.
    let is_within = |one: &Cidr, other: &Cidr| other != one && other.covers(one);
    let widest = |source: &&Cidr| !sources.iter().any(|other| is_within(source, other));
    for source in sources.iter().filter(widest) {
        let family = if source.is_v4() { 4 } else { 6 };
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "add element inet tidepool admitted{family} {{ {source} . {port} }}\n\
             add element inet tidepool main{family} {{ {source} }}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_filter_admits_what_user_data_says_and_else_nobody() {
        let admission = Admission {
            port: 443,
            sources: ["192.0.2.7/32", "2001:db8::/64"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
        };
        let text = packet_filter(Some(&admission));
        assert!(text.contains("admitted4 { 192.0.2.7/32 . 443 }"), "{text}");
        assert!(text.contains("admitted6 { 2001:db8::/64 . 443 }"), "{text}");
        assert!(text.contains("main4 { 192.0.2.7/32 }"), "{text}");
        assert!(!packet_filter(None).contains("add element"));
    }

    #[test]
    fn a_source_within_another_one_is_not_said_again() {
        let sources = [
            "203.0.113.7/32",
            "203.0.113.0/24",
            "203.0.113.7/32",
            "198.51.100.1/32",
            "2001:db8::1/128",
            "2001:db8::/64",
        ];
        let admission = Admission {
            port: 443,
            sources: sources.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let text = packet_filter(Some(&admission));
        let mains: Vec<_> = text
            .lines()
            .filter(|line| line.contains("add element inet tidepool main"))
            .collect();
        assert_eq!(
            mains,
            [
                "add element inet tidepool main4 { 198.51.100.1/32 }",
                "add element inet tidepool main4 { 203.0.113.0/24 }",
                "add element inet tidepool main6 { 2001:db8::/64 }",
            ]
        );
    }

    #[test]
    fn what_was_learnt_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let told = Told {
            user_data: "{}".to_owned(),
            admission: None,
            instance: "42".to_owned(),
            address: [192, 0, 2, 9].into(),
        };
        keep(dir.path(), &told).unwrap();
        let mode = |name: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let found = std::fs::metadata(dir.path().join(name)).unwrap();
            found.permissions().mode() & 0o777
        };
        assert_eq!(mode("user-data.json"), 0o600);
        let environment = std::fs::read_to_string(dir.path().join("server.env")).unwrap();
        assert_eq!(
            environment,
            "TIDEPOOL_ADDRESS=192.0.2.9\nTIDEPOOL_HTTP_PORT=8080\nTIDEPOOL_CLOUD_INSTANCE=42\n"
        );
    }
}
