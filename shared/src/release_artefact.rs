//! What is in the artefact that brings a version of OpenClaw: a tar of these members, in this order, and nothing
//! else. It is read by who does not yet know it, so each has one name and a most.

use crate::artefact::Kind;

/// A member of the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// The [`Release`](crate::manifest::Release), whose paths are the names of the others.
    Record,
    /// JSON Schema of the version's configuration.
    Schema,
    /// What `docker save` wrote; empty where gateways are processes.
    Image,
}

impl Member {
    /// In their order.
    pub const ALL: [Self; 3] = [Self::Record, Self::Schema, Self::Image];

    /// Its name in the tar, and on a server's disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "release.json",
            Self::Schema => "config-schema.json",
            Self::Image => "image.tar",
        }
    }

    /// The most bytes that it may have.
    pub const fn max_size(self) -> u64 {
        match self {
            Self::Record => 64 * 1024,
            Self::Schema => 16 * 1024 * 1024,
            Self::Image => Kind::OpenclawImage.max_size(),
        }
    }
}
