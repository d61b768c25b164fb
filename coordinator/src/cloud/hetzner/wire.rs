//! What is read from Hetzner's answers: the fields that matter, and no more.
//!
//! Answers gain fields and enumerations gain values at any time. Unknown fields are passed over, every
//! enumeration is open, and what may be absent has a default on the safe side: without labels a thing
//! is not ours. `root_password` is deliberately in no type here.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::super::{CloudServer, Labels};
use crate::ambient::Moment;

macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(from = "String")]
        pub(super) enum $name {
            $($variant,)+
            /// Newer than this client, or of no interest to it.
            Other(String),
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => Self::$variant,)+
                    _ => Self::Other(text),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                })
            }
        }
    };
}

/// Something with an id of which there are lists.
pub(super) trait Resource: DeserializeOwned {
    /// Its name in the answer with one.
    const ONE: &'static str;
    /// Its name in the answer with many, and in the path.
    const MANY: &'static str;
    /// How a list is put in order, if it can be: new things come last then, and shift nothing.
    const ORDER: Option<&'static str> = Some("id:asc");

    fn id(&self) -> u64;
}

macro_rules! resource {
    ($name:ident, $one:literal, $many:literal $(, $order:expr)?) => {
        impl Resource for $name {
            const ONE: &'static str = $one;
            const MANY: &'static str = $many;
            $(const ORDER: Option<&'static str> = $order;)?

            fn id(&self) -> u64 {
                self.id
            }
        }
    };
}

resource!(Server, "server", "servers");
resource!(Action, "action", "actions");
resource!(Firewall, "firewall", "firewalls");
resource!(Image, "image", "images");
resource!(PrimaryIp, "primary_ip", "primary_ips");
resource!(ServerType, "server_type", "server_types", None);

open_enum! {
    /// How a server is.
    ServerStatus { Running = "running", Deleting = "deleting" }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Server {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) status: ServerStatus,
    #[serde(deserialize_with = "moment")]
    pub(super) created: Moment,
    pub(super) public_net: PublicNet,
    /// Null once the image is deleted.
    #[serde(default)]
    image: Option<ImageRef>,
    #[serde(default)]
    pub(super) labels: Labels,
    #[serde(default)]
    pub(super) protection: Protection,
}

#[derive(Debug, Clone, Deserialize)]
struct ImageRef {
    id: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PublicNet {
    ipv4: Option<PublicAddress>,
    ipv6: Option<PublicAddress>,
}

#[derive(Debug, Clone, Deserialize)]
struct PublicAddress {
    /// Of version 6 it is the network, with its prefix.
    ip: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Protection {
    #[serde(default)]
    pub(super) delete: bool,
}

impl Server {
    /// As the rest of Tidepool sees it; `None` without a public address.
    pub(super) fn seen(&self) -> Option<CloudServer> {
        Some(CloudServer {
            id: self.id.to_string(),
            name: self.name.clone(),
            address: self.public_net.address()?,
            image: self.image.as_ref().map(|image| image.id.to_string()),
        })
    }
}

impl PublicNet {
    /// Version 4 by preference; of a network of version 6 the server has the address 1.
    fn address(&self) -> Option<IpAddr> {
        if let Some(v4) = &self.ipv4 {
            return v4.ip.parse().ok();
        }
        let network = self.ipv6.as_ref()?.ip.split('/').next()?;
        let network: Ipv6Addr = network.parse().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from_bits(network.to_bits() | 1)))
    }
}

open_enum! {
    /// How an action is. Its `progress` is not read: it reaches 100 before the end.
    ActionStatus { Running = "running", Success = "success", Error = "error" }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Action {
    pub(super) id: u64,
    pub(super) command: String,
    pub(super) status: ActionStatus,
    /// Means something only if the status is `error`.
    #[serde(default)]
    pub(super) error: Option<ErrorText>,
}

/// An error in words.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ErrorText {
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
}

/// The body of a refusal.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: ErrorText,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Firewall {
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: Labels,
    #[serde(deserialize_with = "moment")]
    pub(super) created: Moment,
    #[serde(default)]
    pub(super) rules: Vec<Rule>,
    #[serde(default)]
    pub(super) applied_to: Vec<serde::de::IgnoredAny>,
}

/// A firewall's rule, as it is read and as it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Rule {
    pub(super) direction: String,
    pub(super) protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<String>,
    #[serde(default)]
    pub(super) source_ips: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) destination_ips: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Image {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) description: String,
    #[serde(deserialize_with = "moment")]
    pub(super) created: Moment,
    /// In Hetzner's words: compared with a type's, never asked for, so that new ones do no harm.
    pub(super) architecture: String,
    /// GB.
    pub(super) disk_size: f64,
    /// GB, compressed; null while it is being made.
    #[serde(default, rename = "image_size")]
    pub(super) packed_size: Option<f64>,
    #[serde(default)]
    pub(super) labels: Labels,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PrimaryIp {
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: Labels,
    #[serde(deserialize_with = "moment")]
    pub(super) created: Moment,
    pub(super) assignee_id: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ServerType {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) architecture: String,
    /// GB.
    pub(super) disk: f64,
    #[serde(default)]
    pub(super) locations: Vec<TypeLocation>,
}

/// Where a type can be ordered, or could be.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TypeLocation {
    pub(super) name: String,
    #[serde(default)]
    pub(super) available: bool,
    #[serde(default)]
    pub(super) deprecation: Option<Deprecation>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Deprecation {
    #[serde(deserialize_with = "moment")]
    pub(super) unavailable_after: Moment,
}

/// What `/pricing` says, as far as servers and their addresses go.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Pricing {
    pub(super) currency: String,
    #[serde(default)]
    pub(super) primary_ips: Vec<PriceTable>,
    #[serde(default)]
    pub(super) server_types: Vec<PriceTable>,
}

/// Prices by location of one thing.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PriceTable {
    /// Of a server type.
    #[serde(default)]
    pub(super) name: String,
    /// Of an address: `ipv4` or `ipv6`.
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) prices: Vec<LocalPrice>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct LocalPrice {
    pub(super) location: String,
    pub(super) price_hourly: Money,
    pub(super) price_monthly: Money,
}

/// An amount. The gross one depends on the account and is not read.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Money {
    /// A decimal number.
    pub(super) net: String,
}

/// Beside every list.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Meta {
    pub(super) pagination: Pagination,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Pagination {
    pub(super) next_page: Option<u64>,
    pub(super) total_entries: Option<u64>,
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)?;
    i64::try_from(parsed.unix_timestamp_nanos() / 1000)
        .map(Moment)
        .map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(status: &str) -> serde_json::Value {
        json!({
            "id": 9_007_199_254_740_991_u64,
            "name": "a",
            "status": status,
            "created": "2026-10-01T12:00:00+00:00",
            "public_net": {"ipv4": null, "ipv6": {"ip": "2001:db8::/64"}, "new": 1},
            "labels": {"a": ""},
            "new": {"deep": []},
        })
    }

    #[test]
    fn a_status_that_is_newer_than_this_client_is_kept_as_it_is() {
        let read: Server = serde_json::from_value(server("dreaming")).unwrap();
        assert_eq!(read.status, ServerStatus::Other("dreaming".to_owned()));
        assert_eq!(read.status.to_string(), "dreaming");
        let read: Server = serde_json::from_value(server("running")).unwrap();
        assert_eq!(read.status, ServerStatus::Running);
    }

    #[test]
    fn a_server_without_version_4_is_known_by_the_first_address_of_its_network() {
        let read: Server = serde_json::from_value(server("running")).unwrap();
        let seen = read.seen().unwrap();
        assert_eq!(seen.address.to_string(), "2001:db8::1");
        assert_eq!(seen.id, "9007199254740991");
    }

    #[test]
    fn times_are_read_in_every_form_that_hetzner_writes() {
        #[derive(Deserialize)]
        struct At(#[serde(deserialize_with = "moment")] Moment);
        for text in [
            "2026-10-01T12:00:00Z",
            "2026-10-01T12:00:00+00:00",
            "2026-10-01T12:00:00.000Z",
            "2026-10-01T14:00:00+02:00",
        ] {
            let At(at) = serde_json::from_value(json!(text)).unwrap();
            assert_eq!(at.rfc3339(), "2026-10-01T12:00:00.000Z", "{text}");
        }
    }
}
