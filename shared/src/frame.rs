//! How messages are cut out of a stream: length, kind, body.
//!
//! ```text
//! 0        4      6
//! | length | kind | body (length bytes, minicbor) |
//!   u32 BE  u16 BE
//! ```
//!
//! The header is checked against the kind's ceiling before a byte of the body is allocated. Reading
//! and writing belong to the two programs; this module only knows bytes.

mod assembly;

pub use assembly::Assembly;

/// Bytes before the body.
pub const HEADER_LEN: usize = 6;

/// The largest body of any frame that does not carry a document or a log, in bytes.
pub const MAX_CONTROL_BODY: usize = 16 * 1024;

/// The largest body of a frame that carries a desired-state document or log lines, in bytes.
pub const MAX_BULK_BODY: usize = 1024 * 1024;

/// What a frame's body is. An unknown kind is answered [`Kind::UNSUPPORTED`], never a closed
/// connection: that is what lets an old agent meet a new coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u16);

impl Kind {
    /// Agent to coordinator, first on the control stream: [`crate::message::Hello`].
    pub const HELLO: Self = Self(1);
    /// Coordinator to agent, answer to hello: [`crate::message::Welcome`].
    pub const WELCOME: Self = Self(2);
    /// Coordinator to agent: [`crate::message::Desired`].
    pub const DESIRED: Self = Self(3);
    /// Agent to coordinator, answer to a document: [`crate::message::Verdict`].
    pub const VERDICT: Self = Self(4);
    /// Agent to coordinator, whenever what it sees changed: [`crate::message::Report`].
    pub const REPORT: Self = Self(5);
    /// Coordinator to agent: [`crate::message::Ping`].
    pub const PING: Self = Self(6);
    /// Agent to coordinator, answer to a ping: [`crate::message::Pong`].
    pub const PONG: Self = Self(7);
    /// Either way: the peer sent a kind that this end does not know. [`crate::message::Unsupported`].
    pub const UNSUPPORTED: Self = Self(8);
    /// Agent to coordinator, now and then: [`crate::message::Stats`].
    pub const STATS: Self = Self(9);
    /// Coordinator to agent: [`crate::message::WantedAgent`].
    pub const WANTED_AGENT: Self = Self(10);
    /// Agent to coordinator: [`crate::message::AgentOutcome`].
    pub const AGENT_OUTCOME: Self = Self(11);
    /// Agent to coordinator on a stream of its own: [`crate::message::Renew`].
    pub const RENEW: Self = Self(16);
    /// Answer to renew, to enrol and to door: [`crate::message::Issued`].
    pub const ISSUED: Self = Self(17);
    /// Answer to them when refused: [`crate::message::Refused`].
    pub const REFUSED: Self = Self(18);
    /// Agent to coordinator on the enrolment protocol: [`crate::message::Enrol`].
    pub const ENROL: Self = Self(19);
    /// Agent to coordinator on a stream of its own: [`crate::message::Door`]. A coordinator of before does not
    /// know it, and its edges come to servers unencrypted.
    pub const DOOR: Self = Self(20);
    /// Coordinator to agent on a stream of its own: [`crate::message::LogRequest`].
    pub const LOG_REQUEST: Self = Self(32);
    /// Answer to a log request: [`crate::message::LogLines`].
    pub const LOG_LINES: Self = Self(33);
    /// Agent to coordinator on a stream of its own: [`crate::message::FetchArtefact`].
    pub const FETCH_ARTEFACT: Self = Self(34);
    /// Answer to it, before the bytes: [`crate::message::ArtefactFollows`].
    pub const ARTEFACT_FOLLOWS: Self = Self(35);

    /// The largest body this kind may have, in bytes.
    pub const fn max_body(self) -> usize {
        match self {
            Self::DESIRED | Self::LOG_LINES => MAX_BULK_BODY,
            _ => MAX_CONTROL_BODY,
        }
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of kind {} announces {announced} bytes, over its ceiling of {ceiling}", .kind.0)]
    TooLong {
        kind: Kind,
        announced: u64,
        ceiling: usize,
    },
    #[error("body of kind {} is malformed", .kind.0)]
    Malformed { kind: Kind },
}

/// A frame's header, already held against the kind's ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub body_len: usize,
}

impl Header {
    /// Reads a header and refuses one whose body would be too long.
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [length @ .., kind_high, kind_low] = bytes;
        let announced = u32::from_be_bytes(length);
        let kind = Kind(u16::from_be_bytes([kind_high, kind_low]));
        let ceiling = kind.max_body();
        match usize::try_from(announced) {
            Ok(body_len) if body_len <= ceiling => Ok(Self { kind, body_len }),
            _ => Err(FrameError::TooLong {
                kind,
                announced: announced.into(),
                ceiling,
            }),
        }
    }
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub body: Vec<u8>,
}

impl Frame {
    /// Encodes a message as a frame of its kind.
    pub fn of<M: Message>(message: &M) -> Self {
        let mut body = Vec::new();
        minicbor::encode(message, &mut body).expect("encoding into memory cannot fail");
        Self {
            kind: M::KIND,
            body,
        }
    }

    /// The bytes to put on the stream; refuses what the peer would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let ceiling = self.kind.max_body();
        let announced = self.body.len();
        let too_long = FrameError::TooLong {
            kind: self.kind,
            announced: u64::try_from(announced).unwrap_or(u64::MAX),
            ceiling,
        };
        let Ok(length) = u32::try_from(announced) else {
            return Err(too_long);
        };
        if announced > ceiling {
            return Err(too_long);
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN + announced);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.kind.0.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }

    /// Reads the body as the message that the kind promises.
    pub fn message<M: Message>(&self) -> Result<M, FrameError> {
        let malformed = FrameError::Malformed { kind: self.kind };
        if self.kind != M::KIND {
            return Err(malformed);
        }
        minicbor::decode(&self.body).map_err(|_| malformed)
    }
}

/// A message with a frame kind of its own.
pub trait Message: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> {
    const KIND: Kind;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_one_byte_too_long_is_refused_by_its_header() {
        let ceiling = Kind::PING.max_body();
        let header = |len: usize| {
            let [a, b, c, d] = u32::try_from(len).unwrap().to_be_bytes();
            Header::decode([a, b, c, d, 0, 6])
        };
        assert!(header(ceiling).is_ok());
        assert!(matches!(
            header(ceiling + 1),
            Err(FrameError::TooLong { .. })
        ));
    }

    #[test]
    fn an_oversized_body_is_not_sent() {
        let frame = Frame {
            kind: Kind::PING,
            body: vec![0; Kind::PING.max_body() + 1],
        };
        assert!(matches!(frame.encode(), Err(FrameError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(bytes: [u8; HEADER_LEN]) {
            if let Ok(header) = Header::decode(bytes) {
                prop_assert!(header.body_len <= MAX_BULK_BODY);
            }
        }

        #[test]
        fn any_body_is_read_without_panic(body: Vec<u8>) {
            use crate::message::{Desired, Hello, Report};
            drop(Frame { kind: Kind::HELLO, body: body.clone() }.message::<Hello>());
            drop(Frame { kind: Kind::DESIRED, body: body.clone() }.message::<Desired>());
            drop(Frame { kind: Kind::REPORT, body }.message::<Report>());
        }
    }
}
