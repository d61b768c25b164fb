//! The copy of the value under way.

use super::{Found, Name};

/// Of an object of usage; real ones have less than a tenth.
pub(super) const USAGE_MAX_BYTES: usize = 8 * 1024;
/// Of a name with its escapes; what is kept of it later is much less.
const NAME_MAX_BYTES: usize = 1024;

/// The copy of one value, up to a limit.
#[derive(Debug, Default)]
pub(super) struct Copy {
    of: Option<Of>,
    bytes: Vec<u8>,
    is_too_large: bool,
    is_ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum Of {
    Usage,
    Name(Name),
}

impl Copy {
    pub(super) fn begin_usage(&mut self) {
        self.begin(Of::Usage);
    }

    pub(super) fn begin_name(&mut self, name: Name) {
        self.begin(Of::Name(name));
    }

    fn begin(&mut self, of: Of) {
        self.forget();
        self.of = Some(of);
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.of.is_some()
    }

    /// The value ends with the bytes that are added next.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
    }

    pub(super) fn forget(&mut self) {
        self.of = None;
        self.bytes.clear();
        self.is_too_large = false;
        self.is_ended = false;
    }

    pub(super) fn add(&mut self, more: &[u8]) {
        let limit = match self.of {
            None => return,
            Some(Of::Usage) => USAGE_MAX_BYTES,
            Some(Of::Name(_)) => NAME_MAX_BYTES,
        };
        if self.bytes.len() + more.len() > limit {
            self.is_too_large = true;
        } else {
            self.bytes.extend_from_slice(more);
        }
    }

    /// Tells of the value once it has ended.
    pub(super) fn deliver(&mut self, found: &mut impl FnMut(Found<'_>)) {
        if !std::mem::take(&mut self.is_ended) {
            return;
        }
        match (self.of.take(), self.is_too_large) {
            (Some(Of::Usage), false) => found(Found::Usage(&self.bytes)),
            (Some(Of::Usage), true) => found(Found::UsageTooLarge),
            (Some(Of::Name(name)), false) => found(Found::Name(name, &self.bytes)),
            (Some(Of::Name(_)), true) | (None, _) => {}
        }
    }
}
