//! JSON objects whose values are kept as they are written: a cost is read from its digits.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The members of an object, in the order they came. A key may come twice.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<(Key<'a>, &'a RawValue)>);

#[derive(Debug, Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Object<'a> {
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(key, value)| (&*key.0, value.get()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members).map(Self)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(Key<'de>, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_spelling_and_keys_do_not() {
        let object: Object<'_> =
            serde_json::from_str(r#"{"\u0061": 2.50e-07 , "b": {"c": [1.0]}, "b": null}"#).unwrap();
        let members: Vec<_> = object.members().collect();
        assert_eq!(
            members,
            [("a", "2.50e-07"), ("b", r#"{"c": [1.0]}"#), ("b", "null")]
        );
        assert!(serde_json::from_str::<Object<'_>>("[]").is_err());
    }
}
