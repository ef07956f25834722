//! Every path of the door, what it needs, and who answers it: one table, which the OpenAPI document is held against.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};

use super::access::{self, Needs};
use super::problem::Problem;
use super::{State, actions, deliveries, endpoints, entries, health, ids, messages, metrics, openapi, overview, pauses, plugins};
use crate::config::admin::Role;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// One path and method.
pub struct Route {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path, as the OpenAPI document writes it.
    pub path: &'static str,
    /// What it asks of a visitor.
    pub needs: Needs,
    to: fn() -> MethodRouter<Arc<State>>,
}

const fn open(path: &'static str, to: fn() -> MethodRouter<Arc<State>>) -> Route {
    Route { method: "GET", path, needs: Needs::Nobody, to }
}

const fn read(path: &'static str, to: fn() -> MethodRouter<Arc<State>>) -> Route {
    Route { method: "GET", path, needs: Needs::Role(Role::Reader), to }
}

const fn act(path: &'static str, to: fn() -> MethodRouter<Arc<State>>) -> Route {
    Route { method: "POST", path, needs: Needs::Role(Role::Operator), to }
}

/// All routes.
pub static ROUTES: &[Route] = &[
    open("/livez", || get(health::livez)),
    open("/readyz", || get(health::readyz)),
    open("/metrics", || get(metrics::show)),
    open("/api/v1/openapi.json", || get(openapi::show)),
    read("/api/v1/messages", || get(messages::list)),
    read("/api/v1/messages/{id}", || get(messages::one)),
    read("/api/v1/messages/{feed}/{partition}/{offset}", || get(messages::one_at)),
    read("/api/v1/counts", || get(messages::counts)),
    read("/api/v1/plugins", || get(plugins::all)),
    read("/api/v1/plugins/active", || get(plugins::active)),
    read("/api/v1/plugins/history", || get(plugins::history)),
    read("/api/v1/endpoints", || get(endpoints::all)),
    read("/api/v1/hosts", || get(overview::hosts)),
    read("/api/v1/feeds", || get(overview::feeds)),
    read("/api/v1/lanes", || get(overview::lanes)),
    read("/api/v1/targets", || get(overview::targets)),
    read("/api/v1/ids/{namespace}/{key}", || get(ids::id)),
    read("/api/v1/keys/{namespace}/{id}", || get(ids::key)),
    read("/api/v1/entries/{collection}", || get(entries::list)),
    read("/api/v1/entries/{collection}/{key}", || get(entries::one)),
    act("/api/v1/actions", || post(actions::order)),
    read("/api/v1/commands", || get(actions::commands)),
    read("/api/v1/commands/{id}", || get(actions::command)),
    read("/api/v1/pauses", || get(pauses::all)),
    act("/api/v1/pause", || post(pauses::pause)),
    read("/api/v1/deliveries", || get(deliveries::list)),
    act("/api/v1/deliveries", || post(deliveries::order)),
    read("/api/v1/deliveries/{number}", || get(deliveries::one)),
    act("/api/v1/deliveries/{number}/stop", || post(deliveries::stop)),
    act("/api/v1/deliveries/{number}/invalidate", || post(deliveries::invalidate)),
    act("/api/v1/deliveries/{number}/rerun", || post(deliveries::rerun)),
    act("/api/v1/resume", || post(pauses::resume)),
];

/// The OpenAPI document.
pub fn document() -> &'static str {
    openapi::DOCUMENT
}

/// The router over all routes.
pub(super) fn router(state: Arc<State>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let guard = from_fn_with_state((state.clone(), route.needs), access::check);
        router = router.route(route.path, (route.to)().layer(guard));
    }
    router
        .method_not_allowed_fallback(async |request: Request| {
            Problem::method(format!("{} is not for {}", request.uri().path(), request.method())).next("see /api/v1/openapi.json")
        })
        .fallback(async |request: Request| {
            Problem::missing(request.uri().path(), "there is nothing at this path").next("see /api/v1/openapi.json")
        })
        .layer(from_fn(in_time))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::slow(format!("it took more than {} s", REQUEST_MAX.as_secs())).next("ask for less").into_response(),
    }
}
