//! WebSockets: once both sides have switched, bytes pass as they are until access ends.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tidepool_shared::{id::InstanceId, quota::Place};

use super::{
    Inner,
    access::Grant,
    body::{Body, whole},
    handle::Connection,
    headers,
    table::Entry,
};

/// The visitor's side, to be had once the answer 101 is written, and its place at the instance.
pub(super) struct Wanted {
    visitor: OnUpgrade,
    place: Place<InstanceId>,
}

/// The instance has as many WebSockets as it may.
pub(super) struct TooMany;

/// Between the answer 101 and both sides being there.
const SWITCH_DEADLINE: Duration = Duration::from_secs(10);

/// Whether the request asks for a WebSocket. Any other upgrade is dropped with the hop-by-hop
/// headers: `h2c` would carry requests past this edge unseen.
pub(super) fn wanted(
    inner: &Inner,
    instance: InstanceId,
    request: &mut Request<Incoming>,
) -> Result<Option<Wanted>, TooMany> {
    let wanted = *request.method() == Method::GET
        && headers::lists(request.headers(), header::UPGRADE, "websocket")
        && headers::lists(request.headers(), header::CONNECTION, "upgrade");
    if !wanted {
        return Ok(None);
    }
    let place = inner.websockets_of_one.take(instance).ok_or(TooMany)?;
    Ok(Some(Wanted {
        visitor: hyper::upgrade::on(request),
        place,
    }))
}

/// Passes the 101 on and joins the two sides in a task of their own.
pub(super) fn join(
    inner: &Arc<Inner>,
    connection: &Connection,
    entry: &Arc<Entry>,
    grant: Grant,
    visitor: Wanted,
    mut response: Response<Incoming>,
) -> Response<Body> {
    let server = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    headers::clean_response(&mut head.headers);
    head.headers
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers
        .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    head.extensions.clear();
    let (task, entry, place) = (
        Arc::clone(inner),
        Arc::clone(entry),
        Arc::clone(&connection.place),
    );
    inner.tasks.spawn(async move {
        let Wanted {
            visitor,
            place: instances,
        } = visitor;
        let both = async { tokio::try_join!(visitor, server) };
        if let Ok(Ok((visitor, server))) = tokio::time::timeout(SWITCH_DEADLINE, both).await {
            splice(&task, &entry, grant, visitor, server).await;
        }
        drop((place, instances));
    });
    Response::from_parts(head, whole(""))
}

/// Copies until one side closes, access ends or the edge stops.
async fn splice(inner: &Inner, entry: &Entry, grant: Grant, visitor: Upgraded, server: Upgraded) {
    let (mut visitor, mut server) = (TokioIo::new(visitor), TokioIo::new(server));
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut visitor, &mut server) => {
            if let Err(error) = copied {
                tracing::debug!(instance.id = %entry.route.instance, %error, "websocket broke off");
            }
        }
        () = entry.live.cancelled() => {}
        () = inner.stopping.cancelled() => {}
        () = inner.gate.until_void(grant, entry.route.instance) => {}
    }
}
