//! One growing integer instead of versions: what an end of the link can do.
//!
//! A change that an older peer cannot ignore raises [`CURRENT`]; dropping support for old peers
//! raises [`MINIMUM`]. Messages are otherwise extended only by new numbered fields and new frame
//! kinds, which an old peer skips or answers with [`crate::frame::Kind::UNSUPPORTED`].

/// What this build speaks.
pub const CURRENT: u32 = 1;

/// The oldest peer this build still serves.
pub const MINIMUM: u32 = 1;

/// The protocol generation of the link, negotiated as ALPN; peers must hold a client certificate.
pub const ALPN_LINK: &[u8] = b"tidepool-agent/1";

/// The protocol generation of enrolment, negotiated as ALPN; peers hold a token only.
pub const ALPN_ENROL: &[u8] = b"tidepool-enrol/1";

/// Why an end of the link closed the connection: the code of QUIC's application close. The words that
/// come with it are for logs; only the code decides how soon an agent comes back.
pub mod close {
    /// The program is stopping; come back within the spread.
    pub const GOODBYE: u32 = 0;
    /// This server may not have what it asked for: more of the same will not change that.
    pub const REFUSED: u32 = 1;
    /// A newer session of the same server took over.
    pub const SUPERSEDED: u32 = 2;
    /// The peer broke the protocol.
    pub const BROKEN: u32 = 3;
    /// The peer's program did not answer in time.
    pub const SILENT: u32 = 4;
    /// Something failed at this end that is not the peer's fault; come back within the spread.
    pub const TROUBLE: u32 = 5;
}
