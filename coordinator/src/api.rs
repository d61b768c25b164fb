//! The HTTP API: what the web app, the console and the command line drive Tidepool with.
//!
//! A handler parses, asks the store for one transaction, rings the doorbell and shows the outcome; it
//! holds no state of its own, so that any coordinator may take any call. Every route but three needs
//! a token, and that is decided by one layer over all of them, not by the handlers. Every refusal is
//! a [`problem::Problem`]; the middleware in [`request_id`] gives it its request id and is the one
//! place where an internal error is logged.
//!
//! The OpenAPI document is made from the handlers, and the tests hold every answer against it.

pub mod agents;
pub mod auth;
pub mod body;
pub mod console;
pub mod costs;
pub mod events;
pub mod idempotency;
pub mod images;
pub mod instances;
pub mod key_trial;
pub mod limits;
pub mod logs;
pub mod models;
pub mod neighbours;
pub mod openapi;
pub mod operations;
pub mod page;
pub mod params;
pub mod pool;
pub mod probe;
pub mod problem;
pub mod providers;
pub mod request_id;
pub mod rollouts;
pub mod servers;
pub mod serving;
pub mod state;
pub mod tokens;
pub mod usage;
pub mod waiting;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{
    costs::Prices,
    key_trial::KeyTrial,
    logs::{GatewayLogs, LogsUnavailable},
    neighbours::Neighbours,
    serving::serve,
    state::{ApiState, PoolOutlook},
};

/// The whole API, ready to be served.
pub fn router(state: ApiState) -> Router {
    let state = Arc::new(state);
    let (routes, document) = routes(&state).split_for_parts();
    let document = openapi::render(&document);
    routes
        .route(
            "/v1/openapi.json",
            get(async move || openapi::answer(document)),
        )
        .route("/", get(console::page))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn_with_state(
            state.clone(),
            request_id::carry,
        ))
        .with_state(state)
}

/// Every documented route with its protections.
fn routes(state: &Arc<ApiState>) -> OpenApiRouter<Arc<ApiState>> {
    // Answers of these are kept for replay. Answers that hold a secret never are.
    let replayed = OpenApiRouter::new()
        .routes(routes!(instances::create::create))
        .routes(routes!(instances::restart::restart))
        .routes(routes!(instances::rename::rename))
        .routes(routes!(instances::stop::stop))
        .routes(routes!(instances::stop::start))
        .routes(routes!(instances::suspend::suspend))
        .routes(routes!(instances::suspend::unsuspend))
        .routes(routes!(instances::openclaw::upgrade))
        .routes(routes!(instances::undelete::undelete))
        .routes(routes!(instances::undelete::purge))
        .routes(routes!(rollouts::start))
        .route_layer(middleware::from_fn_with_state(
            state.clone(),
            idempotency::replay,
        ));
    let secret = OpenApiRouter::new()
        .routes(routes!(instances::login_links::create))
        .routes(routes!(tokens::create))
        .route_layer(middleware::from_fn(idempotency::refuse_key));
    let other = OpenApiRouter::new()
        .routes(routes!(instances::read::list))
        .routes(routes!(instances::read::show, instances::delete::delete))
        .routes(routes!(instances::wait::wait))
        .routes(routes!(instances::config::show, instances::config::patch))
        .routes(routes!(
            instances::basic_auth::set,
            instances::basic_auth::remove
        ))
        .routes(routes!(
            instances::edge_limits::show,
            instances::edge_limits::put,
            instances::edge_limits::delete
        ))
        .routes(routes!(instances::domains::list, instances::domains::add))
        .routes(routes!(
            instances::domains::show,
            instances::domains::remove
        ))
        .routes(routes!(instances::domains::check))
        .routes(routes!(
            instances::openclaw::pin,
            instances::openclaw::unpin
        ))
        .routes(routes!(instances::networks::put))
        .routes(routes!(instances::sessions::end))
        .routes(routes!(instances::logs::tail))
        .routes(routes!(operations::show))
        .routes(routes!(events::list))
        .routes(routes!(events::stream::stream))
        .routes(routes!(costs::show))
        .routes(routes!(providers::list))
        .routes(routes!(providers::put, providers::delete))
        .routes(routes!(models::list))
        .routes(routes!(models::put, models::delete))
        .routes(routes!(instances::keys::list))
        .routes(routes!(instances::keys::put, instances::keys::delete))
        .routes(routes!(limits::list))
        .routes(routes!(limits::put_of_tier, limits::delete_of_tier))
        .routes(routes!(
            instances::limits::show,
            instances::limits::put,
            instances::limits::delete
        ))
        .routes(routes!(usage::show))
        .routes(routes!(usage::records))
        .routes(routes!(pool::show))
        .routes(routes!(pool::pause))
        .routes(routes!(pool::resume))
        .routes(routes!(agents::list))
        .routes(routes!(agents::begin))
        .routes(routes!(agents::halt))
        .routes(routes!(images::list))
        .routes(routes!(images::verify))
        .routes(routes!(images::promote))
        .routes(routes!(images::verification))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::halt))
        .routes(routes!(rollouts::resume))
        .routes(routes!(servers::steps))
        .routes(routes!(servers::revoke))
        .routes(routes!(tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::whoami));
    let guarded = replayed
        .merge(secret)
        .merge(other)
        .route_layer(middleware::from_fn_with_state(state.clone(), auth::require));
    openapi::empty()
        .merge(guarded)
        .routes(routes!(probe::healthz))
}
