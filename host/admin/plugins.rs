//! Stored plugins, what is active where, and what was.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Given;
use serde::Deserialize;
use serde_json::{Value, json};

use super::State;
use super::asked::Params;
use super::problem::Answer;
use crate::explain::form;

/// Components, newest first.
pub(super) async fn all(Given(state): Given<Arc<State>>) -> Answer<Json<Value>> {
    let components = state.store()?.components().await?;
    let items = components.iter().map(|component| {
        json!({
            "digest": component.digest.to_string(), "size": component.size, "description": component.description,
            "imports": component.imports, "pushed_ms": component.pushed_ms, "pushed_by": component.pushed_by,
        })
    });
    Ok(Json(json!({ "items": items.collect::<Vec<_>>() })))
}

/// What is active, and whether this host could load it.
pub(super) async fn active(Given(state): Given<Arc<State>>) -> Answer<Json<Value>> {
    let inside = state.inside()?;
    let (revision, active) = inside.store.active().await?;
    let snapshot = inside.registry.snapshot();
    let items = active.iter().map(|activation| {
        let broken = snapshot.broken().iter().find(|(broken, _)| broken.id == activation.id).map(|(_, reason)| reason);
        let mut item = form::activation(activation);
        item["broken_here"] = json!(broken);
        item
    });
    Ok(Json(json!({ "revision": revision, "loaded_here": snapshot.revision, "items": items.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Where {
    feed: Option<String>,
    table: Option<String>,
}

/// Past and present activations, newest first.
pub(super) async fn history(Given(state): Given<Arc<State>>, Params(of): Params<Where>) -> Answer<Json<Value>> {
    let activations = state.store()?.activations(of.feed.as_deref(), of.table.as_deref()).await?;
    Ok(Json(json!({ "items": activations.iter().map(form::activation).collect::<Vec<_>>() })))
}
