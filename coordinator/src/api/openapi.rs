//! The OpenAPI document, made from the handlers.

use std::sync::Arc;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use super::ApiState;

#[derive(OpenApi)]
#[openapi(
    info(title = "Tidepool", version = "1", description = "Hosted OpenClaw instances, claimed warm.", license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    security(("token" = [])),
    modifiers(&Bearer),
)]
struct Head;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// A router with the document's head and no route.
pub(super) fn empty() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::with_openapi(Head::openapi())
}

/// The document's text.
pub(super) fn render(document: &utoipa::openapi::OpenApi) -> Bytes {
    document
        .to_pretty_json()
        .expect("a derived document is JSON")
        .into()
}

pub(super) fn answer(document: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
