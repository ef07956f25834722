//! What plugins remember: entries of a collection, by key or in pages.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Given;
use serde::Deserialize;
use serde_json::{Value, json};

use super::State;
use super::asked::{Of, Params};
use super::problem::{Answer, Problem};
use crate::explain::form;
use crate::plugin::{Request, Scan};
use crate::store::Found;

/// Entries of a page at most.
const PAGE_MAX: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    prefix: String,
    index: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

/// A page in key order, or in the order of an index's values.
pub(super) async fn list(Given(state): Given<Arc<State>>, Of(collection): Of<String>, Params(page): Params<Page>) -> Answer<Json<Value>> {
    let limit = page.limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::wrong("limit", format!("must be from 1 to {PAGE_MAX}")));
    }
    let scan = Scan { collection, index: page.index, prefix: page.prefix, after: page.after, limit };
    match state.store()?.read(&[Request::Entries(scan)]).await?.found.pop() {
        Some(Found::Page { items, more }) => {
            let items: Vec<Value> = items.iter().map(|(key, value)| json!({ "key": key, "value": form::value(value) })).collect();
            Ok(Json(json!({ "items": items, "more": more })))
        }
        _ => Ok(Json(json!({ "items": [], "more": false }))),
    }
}

/// One entry.
pub(super) async fn one(Given(state): Given<Arc<State>>, Of((collection, key)): Of<(String, String)>) -> Answer<Json<Value>> {
    let request = Request::Entry { collection: collection.clone(), key: key.clone() };
    match state.store()?.read(&[request]).await?.found.pop() {
        Some(Found::Entry(Some(value))) => Ok(Json(json!({ "collection": collection, "key": key, "value": form::value(&value) }))),
        _ => Err(Problem::missing("key", format!("the collection {collection} has no entry with this key"))),
    }
}
