//! Everything that the edge has to say.

use http::StatusCode;

use super::{Answer, Challenge, Retry};

pub(in super::super) const BAD_REQUEST: Answer = Answer {
    status: StatusCode::BAD_REQUEST,
    slug: "bad-request",
    title: "This request makes no sense",
    detail: "It names no host, names two, or cannot be passed on.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const UNKNOWN_HOST: Answer = Answer {
    status: StatusCode::NOT_FOUND,
    slug: "unknown-host",
    title: "Nothing lives here",
    detail: "There is no agent at this address (any more). Check the spelling of the address.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const MISDIRECTED: Answer = Answer {
    status: StatusCode::MISDIRECTED_REQUEST,
    slug: "misdirected",
    title: "Not by this connection",
    detail: "This connection is for another name than the request.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

/// For `tidepool doctor`.
pub(in super::super) const SIGN_IN_WORKS: Answer = Answer {
    status: StatusCode::NOT_FOUND,
    slug: "sign-in-works",
    title: "No such page",
    detail: "What is in front of this service asks it who may pass.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const UNKNOWN_HOP: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "unknown-hop",
    title: "This service is not set up right",
    detail: "Whoever runs it has been told. Try again later.",
    retry: Retry::Later,
    challenge: Challenge::None,
};

pub(in super::super) const NO_SUCH_PAGE: Answer = Answer {
    status: StatusCode::NOT_FOUND,
    slug: "no-such-page",
    title: "No such page",
    detail: "This address is reserved, and there is nothing at it.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const SIGN_IN: Answer = Answer {
    status: StatusCode::UNAUTHORIZED,
    slug: "sign-in",
    title: "Please sign in",
    detail: "This agent is private. Open it from the place where you created it: that gives you a \
             sign-in link.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const SIGN_IN_OR_PASSWORD: Answer = Answer {
    status: StatusCode::UNAUTHORIZED,
    slug: "sign-in",
    title: "Please sign in",
    detail: "This agent is private. Reload this page and enter its user name and password, or open \
             it by a sign-in link.",
    retry: Retry::Never,
    challenge: Challenge::Password,
};

pub(in super::super) const SIGNED_OUT: Answer = Answer {
    status: StatusCode::OK,
    slug: "signed-out",
    title: "You are signed out",
    detail: "To come back, open your agent from the place where you created it.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const LINK_REFUSED: Answer = Answer {
    status: StatusCode::UNAUTHORIZED,
    slug: "link-refused",
    title: "This sign-in link does not work any more",
    detail: "A link works once and for a short time. Go back to where you got it and ask for a new \
             one.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const TOO_MANY_GUESSES: Answer = Answer {
    status: StatusCode::TOO_MANY_REQUESTS,
    slug: "too-many-guesses",
    title: "Too many wrong passwords",
    detail: "Wait a moment, then try again.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const TOO_MANY_LOOKUPS: Answer = Answer {
    status: StatusCode::TOO_MANY_REQUESTS,
    slug: "too-many-lookups",
    title: "Too many tries",
    detail: "Too much that is not there was asked for from your address. Wait a moment, then try again.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const TOO_MANY_REQUESTS: Answer = Answer {
    status: StatusCode::TOO_MANY_REQUESTS,
    slug: "too-many-requests",
    title: "Too many requests",
    detail: "This agent takes only so many requests in a second. Wait a moment, then try again.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const TOO_LARGE: Answer = Answer {
    status: StatusCode::PAYLOAD_TOO_LARGE,
    slug: "too-large",
    title: "Too large",
    detail: "The body of this request is larger than this agent takes.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const TOO_MANY_WEBSOCKETS: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "too-many-websockets",
    title: "Too many open pages",
    detail: "This agent has as many open connections as it may. Close some, then try again.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const TOO_MANY_AT_ONCE: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "too-many-at-once",
    title: "Too many requests at the same time",
    detail: "This agent has as many requests to answer as it may. Wait a moment, then try again.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const FULL: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "full",
    title: "Too many visitors",
    detail: "This service has as many visitors as it can take. Wait a moment, then try again.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const FOREIGN_ORIGIN: Answer = Answer {
    status: StatusCode::FORBIDDEN,
    slug: "foreign-origin",
    title: "Not from another site",
    detail: "This request was sent by a page of another site, so it was not passed on.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const PENDING: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "pending",
    title: "Your agent waits for a server",
    detail: "One is being prepared. This page opens your agent as soon as it is there.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const STARTING: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "starting",
    title: "Your agent is starting",
    detail: "This takes a few seconds. This page opens it as soon as it is ready.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const CHANGED: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "changed",
    title: "Access has just changed",
    detail: "Who may come in was changed while this was asked for. Try again.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};

pub(in super::super) const FAILED: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "failed",
    title: "Your agent could not be started",
    detail: "This needs a person to look at it. Please contact whoever runs this service.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const STOPPED: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "stopped",
    title: "This agent is switched off",
    detail: "Whoever it belongs to can start it again from the place where it was created.",
    retry: Retry::Later,
    challenge: Challenge::None,
};

pub(in super::super) const SUSPENDED: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "suspended",
    title: "This agent is suspended",
    detail: "Please contact whoever runs this service. Nothing of it is lost meanwhile.",
    retry: Retry::Later,
    challenge: Challenge::None,
};

pub(in super::super) const UNREACHABLE: Answer = Answer {
    status: StatusCode::BAD_GATEWAY,
    slug: "unreachable",
    title: "Your agent cannot be reached",
    detail: "Its server does not answer at the moment. Nothing is lost; try again soon.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const TOO_SLOW: Answer = Answer {
    status: StatusCode::GATEWAY_TIMEOUT,
    slug: "too-slow",
    title: "Your agent did not answer in time",
    detail: "Its server is there but was too slow. Try again soon.",
    retry: Retry::Never,
    challenge: Challenge::None,
};

pub(in super::super) const STORE_DOWN: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    slug: "unavailable",
    title: "Sign-in cannot be checked right now",
    detail: "Your agent goes on working meanwhile. Try again in a moment.",
    retry: Retry::Soon,
    challenge: Challenge::None,
};
