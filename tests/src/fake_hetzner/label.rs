//! Labels: their syntax, and the selectors over them.

use std::collections::BTreeMap;

use super::refusal::Refusal;

/// Key to value.
pub(super) type Labels = BTreeMap<String, String>;

/// The longest name and the longest value, in bytes.
const MAX_NAME: usize = 63;

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 253;

/// The prefix that is Hetzner's own.
const RESERVED: &str = "hetzner.cloud";

/// Whether the labels may be given to an object.
pub(super) fn check(labels: &Labels) -> Result<(), Refusal> {
    let well =
        |(key, value): (&String, &String)| is_key(key) && !is_reserved(key) && is_value(value);
    if labels.iter().all(well) {
        Ok(())
    } else {
        Err(Refusal::field("labels", "is not a valid set of labels"))
    }
}

fn is_reserved(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(prefix, _)| prefix.eq_ignore_ascii_case(RESERVED))
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

/// Letters and digits at both ends, `-_.` as well between them.
fn is_name(name: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= MAX_NAME
        && ends(name.chars().next())
        && ends(name.chars().next_back())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Letters, digits and hyphens, in parts between dots.
fn is_dns(prefix: &str) -> bool {
    prefix.len() <= MAX_PREFIX
        && prefix.split('.').all(|part| {
            is_name(part) && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

/// A parsed selector: every term must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Present(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        terms(text)
            .map(|term| parse_term(term.trim()))
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| Refusal::field("label_selector", "is not a valid label selector"))
    }

    /// As Kubernetes has it, and so this API: an absent key is also not equal to anything.
    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term {
            Term::Present(key) => labels.contains_key(key),
            Term::Absent(key) => !labels.contains_key(key),
            Term::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
        })
    }
}

/// Splits at the commas that are not between parentheses.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn parse_term(term: &str) -> Option<Term> {
    let one = |key: &str, value: &str| {
        let (key, value) = (key.trim(), value.trim());
        (is_key(key) && is_value(value)).then(|| (key.to_owned(), vec![value.to_owned()]))
    };
    if let Some((key, value)) = term.split_once("!=") {
        return one(key, value).map(|(key, values)| Term::NotIn(key, values));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return one(key, value).map(|(key, values)| Term::In(key, values));
    }
    if let Some(key) = term.strip_prefix('!') {
        let key = key.trim();
        return is_key(key).then(|| Term::Absent(key.to_owned()));
    }
    let Some((head, list)) = term.split_once('(') else {
        return is_key(term).then(|| Term::Present(term.to_owned()));
    };
    let (key, operator) = head.trim_end().rsplit_once(char::is_whitespace)?;
    let key = key.trim();
    let values: Vec<_> = list
        .strip_suffix(')')?
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    if !is_key(key) || !values.iter().all(|value| is_value(value)) {
        return None;
    }
    match operator {
        "in" => Some(Term::In(key.to_owned(), values)),
        "notin" => Some(Term::NotIn(key.to_owned(), values)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn selects(selector: &str, pairs: &[(&str, &str)]) -> bool {
        Selector::parse(selector).unwrap().matches(&labels(pairs))
    }

    #[test]
    fn every_operator_selects_what_it_says() {
        let pool = [("role", "pool"), ("env", "a")];
        for (selector, selected) in [
            ("role=pool", true),
            ("role==pool", true),
            ("role=claimed", false),
            ("role!=pool", false),
            ("absent!=x", true),
            ("role", true),
            ("absent", false),
            ("!absent", true),
            ("!role", false),
            ("role in (pool,claimed)", true),
            ("role in (claimed)", false),
            ("role notin (claimed, gone)", true),
            ("role notin (pool)", false),
            ("absent notin (pool)", true),
            ("role in (pool, claimed),env=a", true),
            ("role=pool,env=b", false),
        ] {
            assert_eq!(selects(selector, &pool), selected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for wrong in [
            "",
            "role=",
            "=x",
            "a b",
            "role in pool",
            "role in (a",
            "role of (a)",
            "a,,b",
        ] {
            let accepted = Selector::parse(wrong).is_ok();
            // An empty value is a value.
            assert_eq!(accepted, wrong == "role=", "{wrong}");
        }
    }

    #[test]
    fn the_reserved_prefix_and_bad_ends_are_refused() {
        for key in [
            "hetzner.cloud/x",
            "a_b/x",
            "-a",
            "a-",
            "",
            "a/",
            "/a",
            "a..b/x",
            "a/b/c",
        ] {
            assert!(check(&labels(&[(key, "v")])).is_err(), "{key}");
        }
        for key in ["a", "example.com/a", "A_b-c.9", &"k".repeat(63)] {
            assert!(check(&labels(&[(key, "")])).is_ok(), "{key}");
        }
        assert!(check(&labels(&[(&"k".repeat(64), "")])).is_err());
        assert!(check(&labels(&[("k", &"v".repeat(64))])).is_err());
    }

    proptest! {
        #[test]
        fn what_may_be_a_label_can_be_selected(
            key in "([a-z]{1,9}\\.[a-z]{2,5}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?",
            value in "([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?",
        ) {
            let own = labels(&[(&key, &value)]);
            prop_assert!(check(&own).is_ok());
            for selector in [
                format!("{key}={value}"), key.clone(), format!("{key} in ({value})"),
            ] {
                prop_assert!(Selector::parse(&selector).unwrap().matches(&own), "{selector}");
            }
            for selector in [
                format!("{key}!={value}"), format!("!{key}"), format!("{key} notin ({value})"),
            ] {
                prop_assert!(!Selector::parse(&selector).unwrap().matches(&own), "{selector}");
            }
        }

        #[test]
        fn nothing_makes_the_parser_fall(text in "\\PC{0,40}") {
            drop(Selector::parse(&text));
            drop(check(&labels(&[(&text, &text)])));
        }
    }
}
