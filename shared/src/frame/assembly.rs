//! Frames out of bytes that arrive in any pieces, without I/O: both ends feed it what their streams
//! yield, so that reading can be cancelled between any two pieces.

use super::{Frame, FrameError, HEADER_LEN, Header, MAX_BULK_BODY};

/// Bytes that have arrived and are not a whole frame yet.
///
/// Memory follows what has arrived, never what was announced; when nothing is pending nothing is held,
/// because ten thousand idle links each have one of these.
#[derive(Debug)]
pub struct Assembly {
    pending: Vec<u8>,
    ceiling: usize,
}

impl Default for Assembly {
    /// Takes every kind, each up to its own ceiling.
    fn default() -> Self {
        Self::up_to(MAX_BULK_BODY)
    }
}

impl Assembly {
    /// For a stream on which no body over `ceiling` is due: a kind's own ceiling does not raise it, or a
    /// peer could announce a bulk kind where none is expected and have it buffered.
    pub fn up_to(ceiling: usize) -> Self {
        Self {
            pending: Vec::new(),
            ceiling,
        }
    }

    /// Takes in what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one. After an error the stream cannot be read any further:
    /// where the next frame begins is unknown.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((header, rest)) = self.pending.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let Header { kind, body_len } = Header::decode(*header)?;
        if body_len > self.ceiling {
            return Err(FrameError::TooLong {
                kind,
                announced: u64::try_from(body_len).unwrap_or(u64::MAX),
                ceiling: self.ceiling,
            });
        }
        let Some(body) = rest.get(..body_len) else {
            return Ok(None);
        };
        let frame = Frame {
            kind,
            body: body.to_vec(),
        };
        self.pending.drain(..HEADER_LEN + body_len);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Ok(Some(frame))
    }

    /// What has arrived behind the last frame, on a stream that goes on without frames.
    pub fn into_rest(self) -> Vec<u8> {
        self.pending
    }

    /// Whether the peer stopped in the middle of a frame.
    pub fn is_mid_frame(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Bytes of memory held.
    pub fn held_bytes(&self) -> usize {
        self.pending.capacity()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        frame::{Kind, MAX_CONTROL_BODY},
        message::Ping,
    };

    proptest! {
        #[test]
        fn frames_come_out_however_they_are_cut(
            sequences in prop::collection::vec(any::<u64>(), 1..8),
            piece in 1usize..40,
        ) {
            let bytes: Vec<u8> = sequences
                .iter()
                .flat_map(|sequence| Frame::of(&Ping { sequence: *sequence }).encode().unwrap())
                .collect();
            let mut assembly = Assembly::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(piece) {
                assembly.push(piece);
                while let Some(frame) = assembly.next_frame().unwrap() {
                    read.push(frame.message::<Ping>().unwrap().sequence);
                }
            }
            prop_assert_eq!(read, sequences);
            prop_assert!(!assembly.is_mid_frame());
            prop_assert_eq!(assembly.held_bytes(), 0);
        }
    }

    #[test]
    fn a_bulk_kind_is_refused_by_its_header_where_none_is_due() {
        let bulk = Frame {
            kind: Kind::LOG_LINES,
            body: vec![0; MAX_CONTROL_BODY + 1],
        };
        let bytes = bulk.encode().unwrap();
        let mut control = Assembly::up_to(MAX_CONTROL_BODY);
        control.push(&bytes[..HEADER_LEN]);
        assert!(matches!(
            control.next_frame(),
            Err(FrameError::TooLong {
                kind: Kind::LOG_LINES,
                ceiling: MAX_CONTROL_BODY,
                ..
            })
        ));
        let mut any = Assembly::default();
        any.push(&bytes);
        assert_eq!(any.next_frame().unwrap(), Some(bulk));
    }

    #[test]
    fn an_announced_giant_is_refused_before_any_of_it_is_held() {
        let mut assembly = Assembly::default();
        assembly.push(&[0xff, 0xff, 0xff, 0xff, 0, 5]);
        assert!(matches!(
            assembly.next_frame(),
            Err(FrameError::TooLong {
                kind: Kind::REPORT,
                ..
            })
        ));
        assert!(assembly.held_bytes() < 64);
    }
}
