//! Where bytes of a connection arrive.

use std::cell::RefCell;

/// What is read at a time.
const BYTES: usize = 32 * 1024;

thread_local! {
    /// One for all connections of a thread: what is in it is used before anything else is read.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BYTES].into());
}

/// Lends it. Not to be called again from within.
pub(crate) fn with<T>(use_of: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| use_of(buffer))
}
