//! The id of an attempt, in the form of the house: `att_` and 26 characters of base 32.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use uuid::Uuid;

/// Crockford's, in lower case, as `tidepool_shared::id` has it.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const DIGITS: u32 = 26;

/// One attempt. Sortable by when it began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(Uuid);

impl AttemptId {
    /// What every id of this kind begins with, before the underscore.
    pub const PREFIX: &'static str = "att";

    /// Wraps a UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// A new one, from the moment and 74 bits of chance: what is written under an id that is already
    /// there is taken for the same row, so no two may meet.
    pub(super) fn made(at: SystemTime) -> Self {
        let millis = at
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let chance: [u8; 10] = rand::random();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &chance).into_uuid())
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0.as_u128();
        let digits = (0..DIGITS).rev().map(|place| {
            let digit = usize::try_from((value >> (place * 5)) & 31).unwrap_or(0);
            char::from(ALPHABET[digit])
        });
        write!(f, "{}_{}", Self::PREFIX, digits.collect::<String>())
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidepool_shared::id::EventId;

    use super::*;

    #[test]
    fn an_attempts_id_reads_like_every_other_id() {
        let uuid = Uuid::from_u128(u128::MAX / 7);
        let event = EventId::new(uuid).to_string();
        assert_eq!(
            AttemptId::new(uuid).to_string(),
            event.replace("evt_", "att_")
        );
    }

    #[test]
    fn ids_sort_by_when_they_were_made() {
        let earlier = UNIX_EPOCH + Duration::from_hours(500_000);
        let later = earlier + Duration::from_millis(1);
        assert!(AttemptId::made(earlier) < AttemptId::made(later));
        assert_ne!(AttemptId::made(earlier), AttemptId::made(earlier));
    }
}
