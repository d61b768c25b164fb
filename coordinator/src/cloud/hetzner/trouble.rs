//! Why the client did not do what it was asked, and what the pool is to do about it.

use super::{
    super::{CloudError, Fault},
    call::CallFailed,
    code::Meaning,
    labels::BadLabel,
    wire::{Action, ErrorText},
};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Call(#[from] CallFailed),
    #[error(transparent)]
    Label(#[from] BadLabel),
    #[error("the name is taken, but nothing of this name is found")]
    InDoubt(#[source] CallFailed),
    #[error("`{0}` exists and does not bear our labels: a person must look at it")]
    NotOurs(String),
    #[error("too little of the request budget is left to make servers: {0}")]
    HeldBack(u64),
    #[error("server type `{0}` does not exist")]
    NoSuchType(String),
    #[error("no snapshot `{selector}` is available for {architecture} and {disk} GB of disk")]
    NoImage {
        selector: String,
        architecture: String,
        disk: f64,
    },
    #[error(
        "`image_selector` is `{0}`: what has no `promoted=true` in it is not moved by a promotion"
    )]
    Selector(String),
    #[error("user data of {0} bytes is more than Hetzner takes")]
    UserData(usize),
    #[error("write the user data")]
    UserDataJson(#[source] serde_json::Error),
    #[error("it has no public address")]
    NoAddress,
    #[error("action `{command}` ended in error `{code}`: {message}")]
    ActionFailed {
        command: String,
        code: String,
        message: String,
    },
    #[error("it does not exist")]
    Absent,
    #[error("it does not run, and nothing is under way that would make it: status `{0}`")]
    NeverRuns(String),
    #[error("it does not run after {0} seconds, and is given up")]
    TooLate(u32),
    #[error("it is not done after {0} seconds")]
    Unfinished(u32),
    #[error("`{0}` is not an id of Hetzner's")]
    BadId(String),
    #[error("`{0}` is not an amount of money")]
    BadMoney(String),
}

impl Trouble {
    /// Of an action whose status is `error`.
    pub(super) fn of_action(action: &Action) -> Self {
        let ErrorText { code, message } = action.error.clone().unwrap_or_default();
        Self::ActionFailed {
            command: action.command.clone(),
            code,
            message,
        }
    }

    pub(super) fn means(&self, meaning: Meaning) -> bool {
        matches!(self, Self::Call(error) if error.means(meaning))
    }

    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Call(error) => error.fault(),
            Self::InDoubt(_) => Fault::Unknown,
            Self::HeldBack(_) | Self::Unfinished(_) => Fault::Busy,
            // Placement may turn out to be impossible after the order was accepted.
            Self::ActionFailed { code, .. } if is_capacity(code) => Fault::NoCapacity,
            Self::ActionFailed { .. }
            | Self::Label(_)
            | Self::NotOurs(_)
            | Self::NoSuchType(_)
            | Self::NoImage { .. }
            | Self::Selector(_)
            | Self::UserData(_)
            | Self::UserDataJson(_)
            | Self::NoAddress
            | Self::Absent
            | Self::NeverRuns(_)
            | Self::TooLate(_)
            | Self::BadId(_)
            | Self::BadMoney(_) => Fault::Invalid,
        }
    }

    pub(super) fn during(self, doing: &'static str, object: &str) -> CloudError {
        CloudError {
            doing,
            object: object.to_owned(),
            fault: self.fault(),
            source: self.into(),
        }
    }
}

fn is_capacity(code: &str) -> bool {
    matches!(code, "resource_unavailable" | "placement_error")
}
