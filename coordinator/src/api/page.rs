//! Lists come in pages, oldest first, continued by an opaque cursor.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{Code, Problem};

/// Entries in a page unless the caller says otherwise.
pub const DEFAULT_LIMIT: u32 = 50;

/// The most entries of a page.
pub const MAX_LIMIT: u32 = 200;

/// How a list goes on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PageInfo {
    /// Pass it as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
    pub has_more: bool,
}

/// The page size to use.
pub(super) fn limit(wanted: Option<u32>, ceiling: u32) -> Result<u32, Problem> {
    let limit = wanted.unwrap_or(DEFAULT_LIMIT);
    if (1..=ceiling).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("`limit` is 1 to {ceiling}");
    Err(Problem::new(Code::InvalidParameter, detail))
}

/// An id as a cursor.
pub(super) fn cursor(id: &str) -> String {
    URL_SAFE_NO_PAD.encode(id)
}

/// The id in a cursor.
pub(super) fn read_cursor<I: std::str::FromStr>(cursor: &str) -> Result<I, Problem> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Problem::new(Code::InvalidParameter, "`cursor` is none of ours"))
}

/// Cuts the one entry too many that was read to know whether there are more.
pub(super) fn cut<T>(entries: &mut Vec<T>, limit: u32, id: impl Fn(&T) -> String) -> PageInfo {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    PageInfo {
        next_cursor: entries.last().filter(|_| has_more).map(id),
        has_more,
    }
}
