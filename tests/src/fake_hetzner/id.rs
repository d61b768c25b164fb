//! The ids of the API's objects: numbers from one sequence, one type a kind.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

ids! {
    /// Of a server.
    ServerId,
    /// Of an action.
    ActionId,
    /// Of a firewall.
    FirewallId,
    /// Of an image.
    ImageId,
    /// Of a primary IP.
    PrimaryIpId,
    /// Of an SSH key.
    SshKeyId,
}
