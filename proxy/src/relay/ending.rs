//! What a client is told when its provider broke off: an event that its SDK raises as an error.

use bytes::Bytes;

use crate::dialect::Dialect;

/// One whole event, in the dialect of the endpoint; behind a cut one, the cut one is ended first.
pub(super) fn broken(dialect: Dialect, is_cut: bool) -> Bytes {
    let event: &'static str = match dialect {
        Dialect::Chat | Dialect::Embeddings => {
            "data: {\"error\":{\"message\":\"the provider broke off\",\"type\":\"server_error\",\"param\":null,\"code\":\"upstream_broke_off\"}}\n\n"
        }
        Dialect::Responses => {
            "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"the provider broke off\",\"param\":null,\"sequence_number\":0}\n\n"
        }
        Dialect::Messages => {
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"the provider broke off\"}}\n\n"
        }
        Dialect::Gemini => {
            "data: {\"error\":{\"code\":503,\"message\":\"the provider broke off\",\"status\":\"UNAVAILABLE\"}}\r\n\r\n"
        }
    };
    if is_cut {
        Bytes::from(format!("\n\n{event}"))
    } else {
        Bytes::from_static(event.as_bytes())
    }
}
