//! What an image was found to be when a server of it was tried.

use serde::{Deserialize, Serialize};
use tidepool_shared::{
    id::{ServerId, VerificationId},
    manifest::ImageManifest,
};

use super::VerificationState;
use crate::ambient::Moment;

/// What was measured on a server of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Figures {
    /// From asking the cloud for the server until its agent had a certificate.
    pub boot_to_enrolled_ms: u64,
    /// From asking the cloud for the server until it might have been given to a customer.
    pub boot_to_warm_ms: u64,
    /// From the start of the gateway until it took traffic.
    pub gateway_start_ms: u64,
    /// Its first turn.
    pub first_turn_ms: u64,
    /// Memory of the gateway; absent if the agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mib: Option<u64>,
    /// Memory of everything else on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest_mib: Option<u64>,
}

/// The figures of the image that servers were made from at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Baseline {
    pub image: String,
    pub figures: Figures,
}

/// The trial of an image on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub id: VerificationId,
    /// The cloud's id of it.
    pub image: String,
    pub state: VerificationState,
    pub server: Option<ServerId>,
    /// What the agent on it said that is in the image.
    pub manifest: Option<ImageManifest>,
    pub figures: Option<Figures>,
    /// What they were compared with; nothing where no promoted image had figures.
    pub baseline: Option<Baseline>,
    /// Why it was refused, for people.
    pub problems: Vec<String>,
    pub created_at: Moment,
    /// Until then it has ended one way or the other, and its server goes.
    pub expires_at: Moment,
    pub finished_at: Option<Moment>,
}

/// A wish to have an image tried.
#[derive(Debug, Clone)]
pub struct NewVerification {
    pub id: VerificationId,
    pub image: String,
    pub expires_at: Moment,
}

/// How a trial ended: refused if there are problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    pub figures: Option<Figures>,
    pub baseline: Option<Baseline>,
    pub problems: Vec<String>,
}
