//! Days and months, UTC, as the store names them.

use std::time::SystemTime;

use time::OffsetDateTime;

/// `2026-11-27`.
pub(crate) fn day_of(at: SystemTime) -> String {
    let date = OffsetDateTime::from(at).date();
    format!("{}-{:02}", month_of(at), date.day())
}

/// `2026-11`.
pub(crate) fn month_of(at: SystemTime) -> String {
    let date = OffsetDateTime::from(at).date();
    format!("{:04}-{:02}", date.year(), u8::from(date.month()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(day_of(at(1_772_323_199)), "2026-02-28");
        assert_eq!(day_of(at(1_772_323_200)), "2026-03-01");
        assert_eq!(month_of(at(1_772_323_200)), "2026-03");
    }
}
