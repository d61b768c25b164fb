//! Labels: their syntax, which Hetzner refuses late and vaguely, and the two that make a thing ours.

use super::super::Labels;

/// Says whose a thing is.
const MANAGED_BY: &str = "managed-by";

/// The value of `managed-by` on everything of Tidepool's.
const TIDEPOOL: &str = "tidepool";

/// Says which deployment's a thing is.
const ENV: &str = "env";

/// Keys with this prefix are Hetzner's own.
const RESERVED: &str = "hetzner.cloud/";

const NAME_MAX: usize = 63;

const PREFIX_MAX: usize = 253;

/// Why a label was not sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadLabel {
    #[error("label key `{0}` is not in Hetzner's syntax or reserved")]
    Key(String),
    #[error("label value `{0}` is not in Hetzner's syntax")]
    Value(String),
    #[error("label `{0}` marks what is ours and cannot be chosen")]
    Ours(String),
}

/// The mark by which a deployment knows its own.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    env: String,
}

impl Mark {
    /// Of an `env` that [`check_value`] let through.
    pub(super) fn new(env: &str) -> Self {
        Self {
            env: env.to_owned(),
        }
    }

    /// Nothing without both labels is ever touched.
    pub(super) fn is_on(&self, labels: &Labels) -> bool {
        labels.get(MANAGED_BY).is_some_and(|by| by == TIDEPOOL)
            && labels.get(ENV).is_some_and(|env| *env == self.env)
    }

    pub(super) fn selector(&self) -> String {
        format!("{MANAGED_BY}={TIDEPOOL},{ENV}={}", self.env)
    }

    /// The whole map for a thing of ours.
    pub(super) fn with(&self, labels: &Labels) -> Result<Labels, BadLabel> {
        let mut all = Labels::new();
        for (key, value) in labels {
            if key == MANAGED_BY || key == ENV {
                return Err(BadLabel::Ours(key.clone()));
            }
            check_key(key)?;
            check_value(value)?;
            all.insert(key.clone(), value.clone());
        }
        all.insert(MANAGED_BY.to_owned(), TIDEPOOL.to_owned());
        all.insert(ENV.to_owned(), self.env.clone());
        Ok(all)
    }
}

fn check_key(key: &str) -> Result<(), BadLabel> {
    let good = match key.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_name(name) && !key.starts_with(RESERVED),
        None => is_name(key),
    };
    if good {
        Ok(())
    } else {
        Err(BadLabel::Key(key.to_owned()))
    }
}

/// Empty is a value.
pub(super) fn check_value(value: &str) -> Result<(), BadLabel> {
    if value.is_empty() || is_name(value) {
        Ok(())
    } else {
        Err(BadLabel::Value(value.to_owned()))
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_dns_name(text: &str) -> bool {
    text.len() <= PREFIX_MAX
        && text.split('.').all(|part| {
            is_name(part)
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_hetzner_accepts_is_sent() {
        let longest = "a".repeat(63);
        for key in ["role", "a", "a-b_c.d", "example.org/role", &longest] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for value in ["", "pool", "01J9", "a.b_c-d", &longest] {
            assert_eq!(check_value(value), Ok(()), "{value}");
        }
    }

    #[test]
    fn what_hetzner_refuses_is_not_sent() {
        let too_long = "a".repeat(64);
        for key in [
            "",
            "-a",
            "a-",
            "a b",
            "ä",
            "/a",
            "a/",
            "a_b/c",
            "hetzner.cloud/a",
            &too_long,
        ] {
            assert!(check_key(key).is_err(), "{key}");
        }
        for value in [".a", "a_", "a/b", "a b", &too_long] {
            assert!(check_value(value).is_err(), "{value}");
        }
    }

    #[test]
    fn only_both_labels_make_a_thing_ours() {
        let mark = Mark::new("prod");
        let whole = mark.with(&labels(&[("role", "pool")])).unwrap();
        assert!(mark.is_on(&whole));
        assert_eq!(whole.len(), 3);
        for foreign in [
            labels(&[]),
            labels(&[("managed-by", "tidepool")]),
            labels(&[("env", "prod")]),
            labels(&[("managed-by", "tidepool"), ("env", "stage")]),
            labels(&[("managed-by", "terraform"), ("env", "prod")]),
        ] {
            assert!(!mark.is_on(&foreign), "{foreign:?}");
        }
    }

    #[test]
    fn nobody_chooses_whose_a_thing_is() {
        let mark = Mark::new("prod");
        for key in ["managed-by", "env"] {
            let refused = mark.with(&labels(&[(key, "x")]));
            assert_eq!(refused, Err(BadLabel::Ours(key.to_owned())));
        }
    }
}
