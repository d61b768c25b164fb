//! Ids: one newtype per thing, so that a function cannot be handed the wrong one.
//!
//! An id is a UUID version 7 (sortable by creation time) written as a prefix and 26 characters of
//! Crockford's base 32 in lower case: `inst_01k…`. The text form is the only form on the wire, in
//! the store and in the API. Making one needs a clock and chance, so it takes the raw 128 bits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ENCODED_LEN: usize = 26;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form `{prefix}_` and 26 characters")]
pub struct InvalidId {
    prefix: &'static str,
}

fn encode(value: u128) -> String {
    (0..ENCODED_LEN)
        .rev()
        .map(|place| {
            let digit = usize::try_from((value >> (place * 5)) & 31).unwrap_or(0);
            char::from(ALPHABET[digit])
        })
        .collect()
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != ENCODED_LEN {
        return None;
    }
    text.bytes()
        .enumerate()
        .try_fold(0u128, |value, (place, byte)| {
            let digit = ALPHABET.iter().position(|known| *known == byte)?;
            // 26 digits hold 130 bits: the first may only use three of its five.
            if place == 0 && digit > 7 {
                return None;
            }
            Some((value << 5) | u128::try_from(digit).ok()?)
        })
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// What every id of this kind begins with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Wraps a UUID made by the caller's clock and chance.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, encode(self.0.as_u128()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .map(|value| Self(Uuid::from_u128(value)))
                    .ok_or(InvalidId { prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A customer's OpenClaw; outlives the servers that it runs on.
    InstanceId = "inst";
    /// A server in the cloud, from the intent to create it until it is gone; also its agent's name.
    ServerId = "srv";
    /// One piece of work on an instance that a person can watch.
    OperationId = "op";
    /// An entry of the event log.
    EventId = "evt";
    /// The trial of an image.
    VerificationId = "vrf";
    /// An API token (the public part of it).
    TokenId = "tok";
    /// A running coordinator; each start is another.
    CoordinatorId = "coord";
    /// A version of OpenClaw on its way to the instances of a tier.
    RolloutId = "roll";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_id_reads_back(value: u128) {
            let id = InstanceId::new(Uuid::from_u128(value));
            prop_assert_eq!(id.to_string().parse::<InstanceId>(), Ok(id));
        }

        #[test]
        fn text_order_is_creation_order(a: u128, b: u128) {
            let text = |value| ServerId::new(Uuid::from_u128(value)).to_string();
            prop_assert_eq!(text(a).cmp(&text(b)), a.cmp(&b));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            drop(text.parse::<EventId>());
        }
    }

    #[test]
    fn another_kinds_id_is_refused() {
        let server = ServerId::new(Uuid::from_u128(7)).to_string();
        assert_eq!(
            server.parse::<InstanceId>(),
            Err(InvalidId { prefix: "inst" })
        );
    }

    #[test]
    fn a_value_over_128_bits_is_refused() {
        assert!(
            format!("inst_8{}", "0".repeat(25))
                .parse::<InstanceId>()
                .is_err()
        );
    }
}
