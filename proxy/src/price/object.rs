//! JSON objects whose values are kept as they are written.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The members of an object of at most `MOST`, in the file's order.
#[derive(Debug)]
pub(super) struct Object<'a, const MOST: usize>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a, const MOST: usize> Deserialize<'de> for Object<'a, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members::<MOST>).map(Self)
    }
}

struct Members<const MOST: usize>;

impl<'de, const MOST: usize> Visitor<'de> for Members<MOST> {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an object of at most {MOST} members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            if members.len() >= MOST {
                return Err(A::Error::custom(format_args!("more than {MOST} members")));
            }
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_spelling() {
        let object: Object<'_, 2> =
            serde_json::from_str(r#"{"a": 2.50e-07 , "b": {"c": [1.0]}}"#).unwrap();
        let texts: Vec<_> = object.0.iter().map(|(_, value)| value.get()).collect();
        assert_eq!(texts, ["2.50e-07", r#"{"c": [1.0]}"#]);
    }

    #[test]
    fn more_members_than_agreed_are_refused() {
        assert!(serde_json::from_str::<Object<'_, 1>>(r#"{"a": 1, "b": 2}"#).is_err());
        assert!(serde_json::from_str::<Object<'_, 1>>("[]").is_err());
    }
}
