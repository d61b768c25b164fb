//! Where the body of an answer ends (RFC 9112 §6 and §7). No I/O.

use http::{HeaderMap, StatusCode, header};

/// Of a chunk's extensions, and of all trailers together. Nobody reads them.
const IGNORED_MAX_BYTES: u16 = 8 * 1024;
/// As many as 64 bits have.
const SIZE_MAX_DIGITS: u8 = 16;

/// Why bytes are no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("its head is none")]
    Head,
    #[error("its head is too long")]
    LongHead,
    #[error("its length is said in two ways")]
    Lengths,
    #[error("it has a transfer coding that nobody asked for")]
    Coding,
    #[error("a chunk has no size")]
    ChunkSize,
    #[error("a chunk does not end where it should")]
    ChunkEnd,
    #[error("too much beside the body")]
    Ignored,
}

/// What came of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decoded {
    /// So many bytes of the body are at the front now.
    pub(super) payload: usize,
    /// So many bytes were read; those behind them are not the body's.
    pub(super) consumed: usize,
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// What comes next of a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Size { size: u64, digits: u8 },
    Extension { size: u64, ignored: u16 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart { ignored: u16 },
    Trailer { ignored: u16 },
    TrailerLf { ignored: u16 },
    LastLf,
    Ended,
}

impl Framing {
    /// Of an answer to POST.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Result<Self, Malformed> {
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self::Length(0));
        }
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            let coding = coding.as_bytes().trim_ascii();
            // Another one would have to be undone, and nobody was asked for one.
            return if coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() {
                Ok(Self::Chunked(Chunk::START))
            } else {
                Err(Malformed::Coding)
            };
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let Some(first) = lengths.next() else {
            return Ok(Self::UntilClose);
        };
        if lengths.any(|other| other != first) {
            return Err(Malformed::Lengths);
        }
        length(first.as_bytes()).map(Self::Length)
    }

    /// Whether all of the body has been read.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Ended))
    }

    /// Whether the body may end with the connection.
    pub(super) fn may_close(&self) -> bool {
        matches!(self, Self::UntilClose) || self.is_ended()
    }

    /// Reads on, and moves what is of the body to the front.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Malformed> {
        match self {
            Self::UntilClose => Ok(Decoded {
                payload: bytes.len(),
                consumed: bytes.len(),
            }),
            Self::Length(left) => {
                let taken = take(left, bytes.len());
                Ok(Decoded {
                    payload: taken,
                    consumed: taken,
                })
            }
            Self::Chunked(chunk) => chunk.decode(bytes),
        }
    }
}

impl Chunk {
    const START: Self = Self::Size { size: 0, digits: 0 };

    fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Malformed> {
        let (mut payload, mut consumed) = (0, 0);
        while *self != Self::Ended
            && let Some(&byte) = bytes.get(consumed)
        {
            if let Self::Data { left } = self {
                let taken = take(left, bytes.len() - consumed);
                bytes.copy_within(consumed..consumed + taken, payload);
                (payload, consumed) = (payload + taken, consumed + taken);
                if *left == 0 {
                    *self = Self::DataCr;
                }
            } else {
                *self = self.after(byte)?;
                consumed += 1;
            }
        }
        Ok(Decoded { payload, consumed })
    }

    /// What comes after a byte that is not of the body.
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::Size { size, digits: 1.. } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeLf { size }
            }
            (Self::Size { size, digits: 1.. }, b';' | b' ' | b'\t') => {
                Self::Extension { size, ignored: 0 }
            }
            (Self::Size { size, digits }, _) => {
                let digit = hex(byte).filter(|_| digits < SIZE_MAX_DIGITS);
                Self::Size {
                    size: size << 4 | digit.ok_or(Malformed::ChunkSize)?,
                    digits: digits + 1,
                }
            }
            // A line that ends without CR is where parsers differ.
            (Self::Extension { .. }, b'\n') => return Err(Malformed::ChunkSize),
            (Self::Extension { size, ignored }, _) => Self::Extension {
                size,
                ignored: one_more(ignored)?,
            },
            (Self::SizeLf { size: 0 }, b'\n') => Self::TrailerStart { ignored: 0 },
            (Self::SizeLf { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::START,
            (Self::TrailerStart { .. }, b'\r') => Self::LastLf,
            (Self::Trailer { ignored }, b'\r') => Self::TrailerLf { ignored },
            (Self::TrailerStart { .. } | Self::Trailer { .. }, b'\n') => {
                return Err(Malformed::ChunkEnd);
            }
            (Self::TrailerStart { ignored } | Self::Trailer { ignored }, _) => Self::Trailer {
                ignored: one_more(ignored)?,
            },
            (Self::TrailerLf { ignored }, b'\n') => Self::TrailerStart { ignored },
            (Self::LastLf, b'\n') => Self::Ended,
            (Self::SizeLf { .. }, _) => return Err(Malformed::ChunkSize),
            (
                Self::Data { .. }
                | Self::DataCr
                | Self::DataLf
                | Self::TrailerLf { .. }
                | Self::LastLf
                | Self::Ended,
                _,
            ) => return Err(Malformed::ChunkEnd),
        })
    }
}

/// Takes as many as there are of those that are left.
fn take(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).map_or(available, |left| left.min(available));
    *left -= taken as u64;
    taken
}

fn one_more(ignored: u16) -> Result<u16, Malformed> {
    if ignored < IGNORED_MAX_BYTES {
        Ok(ignored + 1)
    } else {
        Err(Malformed::Ignored)
    }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// Digits only: no sign, which a parser of numbers would take.
fn length(value: &[u8]) -> Result<u64, Malformed> {
    let digits = value.trim_ascii();
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Lengths);
    }
    let digits = std::str::from_utf8(digits).ok();
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or(Malformed::Lengths)
}

#[cfg(test)]
mod tests;
