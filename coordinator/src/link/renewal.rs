//! Renewal: the next certificate, for the server of the session's own certificate, whatever the request says.

use std::time::Duration;

use tidepool_certs::request::CheckedRequest;
use tidepool_shared::{
    id::ServerId,
    message::{Issued, Refused},
};
use tokio::time::Instant;

use super::{
    Context,
    issuing::{issue, not_now},
    recent::Recent,
};

/// A server gets one certificate in so much time, however often it connects anew.
const PAUSE: Duration = Duration::from_mins(1);

/// More servers than this do not renew within one pause.
const REMEMBERED: usize = 65_536;

/// Whose certificate was renewed a short while ago.
pub(super) fn recent() -> Recent<ServerId> {
    Recent::new(PAUSE, REMEMBERED)
}

/// Issues the next certificate.
pub(super) async fn renew(
    context: &Context,
    server: ServerId,
    request: &CheckedRequest,
) -> Result<Issued, Refused> {
    if !context.renewed.take(server, Instant::now()) {
        return Err(not_now());
    }
    let issued = issue(context, server, request).await;
    if issued.is_err() {
        context.renewed.give_back(&server);
    }
    issued
}
