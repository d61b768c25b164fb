//! The key under way.

/// Longer than any key that matters.
const MAX_BYTES: usize = 24;

/// A key of an object, kept as long as it may matter.
#[derive(Debug, Default)]
pub(super) struct Key {
    bytes: [u8; MAX_BYTES],
    length: usize,
    /// It is a key, and all of it is there.
    is_whole: bool,
}

impl Key {
    pub(super) fn begin(&mut self) {
        self.length = 0;
        self.is_whole = true;
    }

    pub(super) fn add(&mut self, more: &[u8]) {
        let length = self.length + more.len();
        match self.bytes.get_mut(self.length..length) {
            Some(room) if self.is_whole => {
                room.copy_from_slice(more);
                self.length = length;
            }
            _ => self.is_whole = false,
        }
    }

    /// It has an escape. No provider writes a key that matters with one, and none is read into it.
    pub(super) fn spoil(&mut self) {
        self.is_whole = false;
    }

    /// The key, once, unless it is too long or spoilt.
    pub(super) fn take(&mut self) -> Option<&[u8]> {
        let is_whole = std::mem::take(&mut self.is_whole);
        self.bytes.get(..self.length).filter(|_| is_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_once_and_only_if_it_is_whole() {
        let mut key = Key::default();
        assert_eq!(key.take(), None);
        key.begin();
        key.add(b"us");
        key.add(b"age");
        assert_eq!(key.take(), Some(&b"usage"[..]));
        assert_eq!(key.take(), None);
        key.begin();
        key.add(b"usage");
        key.add(&[b'e'; MAX_BYTES]);
        key.add(b"");
        assert_eq!(key.take(), None);
        key.begin();
        key.spoil();
        key.add(b"usage");
        assert_eq!(key.take(), None);
    }
}
