//! The id map, both ways. Reading never makes an id.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Given;
use serde_json::{Value, json};
use uuid::Uuid;

use super::State;
use super::asked::Of;
use super::problem::{Answer, Problem};
use crate::plugin::Request;
use crate::store::Found;

/// The id of a source key.
pub(super) async fn id(Given(state): Given<Arc<State>>, Of((namespace, key)): Of<(String, String)>) -> Answer<Json<Value>> {
    let request = Request::KnownId { namespace: namespace.clone(), key: key.clone() };
    match state.store()?.read(&[request]).await?.found.pop() {
        Some(Found::Id(Some(id))) => Ok(Json(json!({ "namespace": namespace, "key": key, "id": id }))),
        _ => Err(Problem::missing("key", format!("the namespace {namespace} has no id for this key"))),
    }
}

/// The source key of an id.
pub(super) async fn key(Given(state): Given<Arc<State>>, Of((namespace, id)): Of<(String, Uuid)>) -> Answer<Json<Value>> {
    let request = Request::KeyOf { namespace: namespace.clone(), id: id.to_string() };
    match state.store()?.read(&[request]).await?.found.pop() {
        Some(Found::Key(Some(key))) => Ok(Json(json!({ "namespace": namespace, "key": key, "id": id }))),
        _ => Err(Problem::missing("id", format!("the namespace {namespace} has no key for this id"))),
    }
}
