//! Endpoints as this host sees them: breakers, failures in a row, calls under way.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Given;
use serde_json::{Value, json};

use super::State;
use super::problem::Answer;

pub(super) async fn all(Given(state): Given<Arc<State>>) -> Answer<Json<Value>> {
    Ok(Json(json!({ "items": state.inside()?.caller.states() })))
}
