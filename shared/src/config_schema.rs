//! What has to be mended in the JSON Schema that OpenClaw prints of its configuration, before any
//! program but OpenClaw can compile it.

use serde_json::Value;

/// Mends the schema in place. `is_readable` says whether a regular expression compiles.
pub fn repair(schema: &mut Value, is_readable: impl Fn(&str) -> bool) {
    respell_patterns(schema, &is_readable);
    rebase_references(schema, "", "");
    let_out_defaults(schema);
}

/// Lets whatever has a default be left out. OpenClaw's channels describe a configuration as it is once their
/// defaults are filled in, and take one without: a bot token is all that Telegram needs.
fn let_out_defaults(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let has_default = |name: &Value, properties: &Value| {
                let property = name.as_str().and_then(|name| properties.get(name));
                property.is_some_and(|property| property.get("default").is_some())
            };
            // A property may have that name, too, and is no list.
            if let Some(Value::Array(required)) = members.get("required") {
                let properties = members.get("properties").unwrap_or(&Value::Null);
                let mut left = required.clone();
                left.retain(|name| !has_default(name, properties));
                members.insert("required".to_owned(), left.into());
            }
            members.values_mut().for_each(let_out_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(let_out_defaults),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Makes the schema's regular expressions, which are JavaScript's, ones that compile here. One that
/// still does not is left out: the gateway checks it again, and the other keys stay checked.
fn respell_patterns(schema: &mut Value, is_readable: &impl Fn(&str) -> bool) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(pattern)) = members.get_mut("pattern") {
                *pattern = respell(pattern);
                if !is_readable(pattern) {
                    members.remove("pattern");
                }
            }
            for member in members.values_mut() {
                respell_patterns(member, is_readable);
            }
        }
        Value::Array(items) => {
            for item in items {
                respell_patterns(item, is_readable);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Points references at the definitions that they mean.
///
/// OpenClaw puts the schemas of its channels into its own as they are: a `#/$defs/…` in one of them
/// means the nearest `$defs` above it, not the root's.
fn rebase_references(schema: &mut Value, at: &str, base: &str) {
    match schema {
        Value::Object(members) => {
            let base = if members.contains_key("$defs") {
                at
            } else {
                base
            };
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#{base}/$defs/{name}");
            }
            for (key, member) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                rebase_references(member, &format!("{at}/{key}"), base);
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                rebase_references(item, &format!("{at}/{place}"), base);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `\0` is the null character; `\p{Cs}` are surrogates, which our strings cannot hold.
fn respell(pattern: &str) -> String {
    pattern
        .replace(r"\0", r"\x00")
        .replace(r"[^\p{Cs}]", r"[\s\S]")
        .replace(r"\p{Cs}", "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_are_respelt_and_unreadable_ones_left_out() {
        let mut schema = json!({"a": {"pattern": r"[^\0]"}, "b": [{"pattern": "?"}]});
        repair(&mut schema, |pattern| pattern != "?");
        assert_eq!(schema, json!({"a": {"pattern": r"[^\x00]"}, "b": [{}]}));
    }

    #[test]
    fn what_has_a_default_may_be_left_out() {
        let mut schema = json!({"channels": {"anyOf": [{
            "properties": {"policy": {"default": "pairing"}, "token": {}, "required": {"default": 1}},
            "required": ["policy", "token", "undescribed"],
        }]}});
        repair(&mut schema, |_| true);
        let mended = &schema["channels"]["anyOf"][0];
        assert_eq!(mended["required"], json!(["token", "undescribed"]));
        assert_eq!(mended["properties"]["required"], json!({"default": 1}));
    }

    #[test]
    fn a_reference_means_the_nearest_definitions() {
        let mut schema = json!({"x": {"$defs": {"D": {}}, "y": {"$ref": "#/$defs/D"}}});
        repair(&mut schema, |_| true);
        assert_eq!(schema["x"]["y"]["$ref"], "#/x/$defs/D");
    }
}
