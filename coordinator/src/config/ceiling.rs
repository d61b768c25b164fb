//! How large and how deep a configuration may be.

use serde_json::Value;

use super::Finding;

/// The largest configuration, in bytes of compact JSON. A document must also fit its frame.
pub const MAX_BYTES: usize = 256 * 1024;

/// The deepest nesting; OpenClaw's own schema needs 12.
pub const MAX_DEPTH: usize = 32;

/// Refuses what is over a ceiling.
pub(super) fn check(config: &Value) -> Result<(), Finding> {
    if too_deep(config, MAX_DEPTH) {
        let detail = format!("nested deeper than {MAX_DEPTH} levels");
        return Err(Finding::new("", "too_deep", detail));
    }
    let size_bytes = serde_json::to_vec(config).map_or(usize::MAX, |bytes| bytes.len());
    if size_bytes > MAX_BYTES {
        let detail = format!("larger than {} KiB", MAX_BYTES / 1024);
        return Err(Finding::new("", "too_large", detail));
    }
    Ok(())
}

/// Looks no deeper than `allowed`, so that its own recursion is bounded.
fn too_deep(value: &Value, allowed: usize) -> bool {
    let Some(below) = allowed.checked_sub(1) else {
        return true;
    };
    match value {
        Value::Object(fields) => fields.values().any(|field| too_deep(field, below)),
        Value::Array(items) => items.iter().any(|item| too_deep(item, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Value {
        (1..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }

    #[test]
    fn one_level_too_many_is_refused() {
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1)).unwrap_err().code, "too_deep");
    }

    #[test]
    fn one_byte_too_many_is_refused() {
        let text = |len: usize| Value::String("x".repeat(len - 2));
        assert_eq!(check(&text(MAX_BYTES)), Ok(()));
        assert_eq!(check(&text(MAX_BYTES + 1)).unwrap_err().code, "too_large");
    }
}
