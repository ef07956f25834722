//! Whether the process lives (`/livez`, which never asks the database: restarting a host does not mend one), and whether it does its work.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Given;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::State;

/// How long the store may take to answer.
const STORE_MAX: Duration = Duration::from_secs(2);

pub(super) async fn livez() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

/// Ready: the store answers, and everything that is active is loaded here.
pub(super) async fn readyz(Given(state): Given<Arc<State>>) -> Response {
    let (mut store, mut plugins) = (Err("the host is still starting".to_owned()), Err("the host is still starting".to_owned()));
    if let Ok(inside) = state.inside() {
        store = match tokio::time::timeout(STORE_MAX, inside.store.revision()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the store cannot be reached".to_owned()),
            Err(_) => Err(format!("the store did not answer within {} s", STORE_MAX.as_secs())),
        };
        plugins = match inside.registry.snapshot().broken().len() {
            0 => Ok(()),
            count => Err(format!("{count} active plugins cannot be loaded here")),
        };
    }
    let ready = store.is_ok() && plugins.is_ok();
    let word = |state: &Result<(), String>| state.as_ref().err().cloned().unwrap_or_else(|| "ok".to_owned());
    let body = json!({ "status": if ready { "ok" } else { "not ready" }, "store": word(&store), "plugins": word(&plugins) });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
