//! What Hetzner's errors mean: one table, by `error.code`, and by the status where there is no code
//! or one that is newer than this client.

use http::StatusCode;

use super::super::Fault;

/// What an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The token is wrong, or may not do this.
    Forbidden,
    /// The Project's own limit.
    LimitReached,
    NotFound,
    /// The name is in use. It may be by the very thing that was asked for.
    Taken,
    /// Something else changed it at the same time.
    Conflict,
    /// No room for this placement.
    NoCapacity,
    /// An action runs on it.
    Locked,
    /// Against deletion.
    Protected,
    RateLimited,
    /// Hetzner's own fault, and it may or may not have happened.
    Outage,
    /// Hetzner's own fault, and it did not happen.
    Hiccup,
    /// For minutes.
    Maintenance,
    /// Something else has to go first.
    InUse,
    /// The request is wrong.
    Invalid,
}

impl Meaning {
    pub(super) fn of(status: StatusCode, code: &str) -> Self {
        match code {
            "unauthorized" | "forbidden" | "token_readonly" => Self::Forbidden,
            "resource_limit_exceeded" => Self::LimitReached,
            "not_found" => Self::NotFound,
            "uniqueness_error" => Self::Taken,
            "conflict" => Self::Conflict,
            "resource_unavailable" | "placement_error" => Self::NoCapacity,
            "locked" => Self::Locked,
            "protected" => Self::Protected,
            "rate_limit_exceeded" => Self::RateLimited,
            "server_error" | "unavailable" | "bad_gateway" | "timeout" => Self::Outage,
            "service_error" => Self::Hiccup,
            "maintenance" => Self::Maintenance,
            "resource_in_use" | "must_be_unassigned" | "primary_ip_assigned" => Self::InUse,
            "json_error"
            | "invalid_input"
            | "invalid_server_type"
            | "server_not_stopped"
            | "unsupported_error"
            | "method_not_allowed"
            | "deprecated_api_endpoint"
            | "primary_ip_version_mismatch" => Self::Invalid,
            _ => Self::of_status(status),
        }
    }

    fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 | 403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            412 => Self::NoCapacity,
            423 => Self::Locked,
            429 => Self::RateLimited,
            500.. => Self::Outage,
            _ => Self::Invalid,
        }
    }

    /// What the pool is to do about it.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Forbidden => Fault::Unauthorized,
            Self::LimitReached => Fault::LimitReached,
            Self::NoCapacity => Fault::NoCapacity,
            Self::Outage => Fault::Unknown,
            Self::Conflict
            | Self::Locked
            | Self::RateLimited
            | Self::Hiccup
            | Self::Maintenance
            | Self::InUse => Fault::Busy,
            Self::NotFound | Self::Taken | Self::Protected | Self::Invalid => Fault::Invalid,
        }
    }

    /// How many times a request is sent again that can do no harm twice.
    pub(super) fn resends(self) -> u32 {
        match self {
            // Nothing happened, and the limiter holds everything back meanwhile.
            Self::RateLimited => 20,
            Self::Conflict | Self::Outage => 5,
            Self::Hiccup => 2,
            Self::Forbidden
            | Self::LimitReached
            | Self::NotFound
            | Self::Taken
            | Self::NoCapacity
            | Self::Locked
            | Self::Protected
            | Self::Maintenance
            | Self::InUse
            | Self::Invalid => 0,
        }
    }

    /// Whether Hetzner said that it did nothing, and may do it the next time.
    pub(super) fn did_nothing_yet(self) -> bool {
        matches!(self, Self::RateLimited | Self::Conflict | Self::Hiccup)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::cloud::hetzner::wire::ErrorBody;

    #[derive(Deserialize)]
    struct Example {
        status: u16,
        body: ErrorBody,
    }

    fn intended(code: &str) -> Fault {
        match code {
            "unauthorized" | "forbidden" | "token_readonly" => Fault::Unauthorized,
            "resource_limit_exceeded" => Fault::LimitReached,
            "resource_unavailable" | "placement_error" => Fault::NoCapacity,
            "server_error" | "bad_gateway" | "unavailable" | "timeout" => Fault::Unknown,
            "maintenance"
            | "conflict"
            | "locked"
            | "rate_limit_exceeded"
            | "service_error"
            | "resource_in_use"
            | "must_be_unassigned" => Fault::Busy,
            "json_error"
            | "not_found"
            | "method_not_allowed"
            | "uniqueness_error"
            | "deprecated_api_endpoint"
            | "invalid_input"
            | "invalid_server_type"
            | "server_not_stopped"
            | "unsupported_error"
            | "protected" => Fault::Invalid,
            unlisted => panic!("`{unlisted}` is not in the list of this test"),
        }
    }

    #[test]
    fn every_known_error_has_the_fault_that_is_intended() {
        let text = include_str!("../../../../tests/data/hetzner/errors.json");
        let examples: Vec<Example> = serde_json::from_str(text).unwrap();
        assert!(examples.len() > 30);
        for Example { status, body } in examples {
            let code = body.error.code;
            let meaning = Meaning::of(StatusCode::from_u16(status).unwrap(), &code);
            assert_eq!(meaning.fault(), intended(&code), "{status} {code}");
        }
    }

    #[test]
    fn a_code_that_is_newer_than_this_client_is_judged_by_its_status() {
        for (status, fault) in [
            (401, Fault::Unauthorized),
            (403, Fault::Unauthorized),
            (404, Fault::Invalid),
            (409, Fault::Busy),
            (412, Fault::NoCapacity),
            (418, Fault::Invalid),
            (422, Fault::Invalid),
            (423, Fault::Busy),
            (429, Fault::Busy),
            (502, Fault::Unknown),
            (599, Fault::Unknown),
        ] {
            let meaning = Meaning::of(StatusCode::from_u16(status).unwrap(), "brand_new");
            assert_eq!(meaning.fault(), fault, "{status}");
        }
    }
}
