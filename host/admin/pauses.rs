//! What is paused; pausing and resuming of feeds, tables and endpoints.

use std::sync::Arc;

use axum::extract::State as Given;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Visitor;
use super::actions::{by, why};
use super::asked::Sent;
use super::problem::{Answer, Problem};
use super::{Inside, State};
use crate::store::Pausable;

/// What to pause or resume: a feed, a table of a feed, or an endpoint.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    feed: Option<String>,
    table: Option<String>,
    endpoint: Option<String>,
    #[serde(default)]
    why: String,
    by: Option<String>,
}

impl Order {
    fn of(&self, inside: &Inside) -> Answer<Pausable> {
        let known = |name: &str, there: bool| {
            if there { Ok(()) } else { Err(Problem::wrong(name, format!("the config has no such {name}"))) }
        };
        match (self.feed.clone(), self.table.clone(), self.endpoint.clone()) {
            (Some(feed), None, None) => {
                known("feed", inside.config.feeds.contains_key(&feed))?;
                Ok(Pausable::Feed { feed })
            }
            (Some(feed), Some(table), None) => {
                known("feed", inside.config.feeds.contains_key(&feed))?;
                Ok(Pausable::Table { feed, table })
            }
            (None, None, Some(endpoint)) => {
                known("endpoint", inside.config.endpoints.contains_key(&endpoint))?;
                Ok(Pausable::Endpoint { endpoint })
            }
            _ => Err(Problem::wrong("body", "name a feed, a feed and a table, or an endpoint")),
        }
    }
}

/// What is paused now.
pub(super) async fn all(Given(state): Given<Arc<State>>) -> Answer<Json<Value>> {
    Ok(Json(json!({ "items": state.store()?.pauses().await? })))
}

pub(super) async fn pause(
    Given(state): Given<Arc<State>>,
    Extension(visitor): Extension<Visitor>,
    Sent(order): Sent<Order>,
) -> Answer<Json<Value>> {
    let inside = state.inside()?;
    let of = order.of(inside)?;
    let changed = inside.store.pause(&of, &by(&visitor, order.by)?, &why(&order.why)?).await?;
    Ok(Json(json!({ "paused": of, "changed": changed })))
}

pub(super) async fn resume(
    Given(state): Given<Arc<State>>,
    Extension(visitor): Extension<Visitor>,
    Sent(order): Sent<Order>,
) -> Answer<Json<Value>> {
    let inside = state.inside()?;
    let of = order.of(inside)?;
    let changed = inside.store.resume_paused(&of, &by(&visitor, order.by)?, &order.why).await?;
    Ok(Json(json!({ "resumed": of, "changed": changed })))
}
