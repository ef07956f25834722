//! Deliveries: which there are, how they add up, and what operators ask of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State as Given;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Visitor;
use super::actions::{by, why};
use super::asked::{Of, Params, Sent};
use super::problem::{Answer, Problem};
use super::{Inside, State};
use crate::message::FeedId;
use crate::store::deliveries::{By, Delivery, Done, Ordered};

/// Deliveries of a listing at most.
const LIST_MAX: i64 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    feed: Option<String>,
    limit: Option<i64>,
}

/// Numbers and names of the feeds of this host.
async fn feeds(inside: &Inside) -> Answer<Vec<(FeedId, String)>> {
    let overview = inside.store.overview().await?;
    Ok(overview.feeds.into_iter().map(|feed| (FeedId(feed.id), feed.feed)).collect())
}

fn form(delivery: &Delivery, feeds: &[(FeedId, String)]) -> Value {
    let tally = &delivery.tally;
    let feed = feeds.iter().find(|(id, _)| *id == delivery.feed).map(|(_, name)| name);
    let params: BTreeMap<&String, &String> = delivery.params.iter().map(|(name, value)| (name, value)).collect();
    json!({
        "number": delivery.number, "order_number": delivery.order_number, "feed": feed, "id": delivery.id, "params": params,
        "state": tally.state.as_str(), "code": tally.code, "reason": tally.reason, "expected": tally.expected(), "accepted": tally.accepted,
        "opened_ms": delivery.opened_ms, "bound_ms": delivery.bound_ms, "started_ms": tally.started_ms, "ended_ms": tally.ended_ms,
        "closed_ms": tally.closed_ms, "due_ms": tally.due_ms,
    })
}

/// Deliveries, those of each feed newest first.
pub(super) async fn list(Given(state): Given<Arc<State>>, Params(which): Params<Which>) -> Answer<Json<Value>> {
    let limit = which.limit.unwrap_or(100);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(Problem::wrong("limit", format!("must be from 1 to {LIST_MAX}")));
    }
    let inside = state.inside()?;
    let feeds = feeds(inside).await?;
    let mut items = Vec::new();
    for (id, _) in feeds.iter().filter(|(_, name)| which.feed.as_ref().is_none_or(|wanted| wanted == name)) {
        items.extend(inside.store.deliveries(*id, limit).await?.iter().map(|delivery| form(delivery, &feeds)));
    }
    Ok(Json(json!({ "items": items })))
}

/// One, with the account of its parts and what was asked of it.
pub(super) async fn one(Given(state): Given<Arc<State>>, Of(number): Of<i64>) -> Answer<Json<Value>> {
    let inside = state.inside()?;
    let Some(delivery) = inside.store.delivery(number).await? else { return Err(unknown()) };
    let account = inside.store.delivery_account(delivery.number).await?;
    let audit = inside.store.delivery_audit(delivery.number).await?;
    let feeds = feeds(inside).await?;
    Ok(Json(json!({ "delivery": form(&delivery, &feeds), "account": account, "commands": audit })))
}

fn unknown() -> Problem {
    Problem::missing("number", "there is no such delivery").next("list deliveries at /api/v1/deliveries")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    feed: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    why: String,
    by: Option<String>,
    #[serde(default)]
    force: bool,
}

/// Orders a delivery: the owner of the feed makes the call.
pub(super) async fn order(
    Given(state): Given<Arc<State>>,
    Extension(visitor): Extension<Visitor>,
    Sent(order): Sent<Order>,
) -> Answer<(StatusCode, Json<Value>)> {
    let inside = state.inside()?;
    let settings =
        inside.config.feeds.get(&order.feed).and_then(|feed| feed.delivery.as_ref()).and_then(|delivery| delivery.order.as_ref());
    let settings = settings.ok_or_else(|| {
        Problem::wrong("feed", "the config has no such feed, or it orders no deliveries").next("see feeds.NAME.delivery.order")
    })?;
    if order.params.len() != settings.params.len() || !settings.params.iter().all(|name| order.params.contains_key(name)) {
        return Err(Problem::wrong("params", format!("an order of this feed has exactly the parameters [{}]", settings.params.join(", "))));
    }
    let feeds = feeds(inside).await?;
    let feed = feeds.iter().find(|(_, name)| *name == order.feed).map(|(id, _)| *id);
    let feed = feed.ok_or_else(|| Problem::wrong("feed", "no host has run this feed yet"))?;
    let who = By { whom: by(&visitor, order.by)?, why: why(&order.why)? };
    let params: Vec<(String, String)> = order.params.into_iter().collect();
    match inside.store.order_delivery(feed, &params, &who, order.force).await? {
        Ordered::Placed(number) => Ok((StatusCode::ACCEPTED, Json(json!({ "number": number })))),
        Ordered::Open(number) => Err(Problem::conflict("params", format!("an order with these parameters is open: delivery {number}"))
            .next("wait for it, invalidate it, or send \"force\": true")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    why: String,
    by: Option<String>,
}

/// What is asked of a delivery.
#[derive(Clone, Copy)]
enum What {
    Stop,
    Invalidate,
    Rerun,
}

pub(super) async fn stop(given: Given<Arc<State>>, number: Of<i64>, visitor: Extension<Visitor>, sent: Sent<Asked>) -> Answer<Json<Value>> {
    ask(What::Stop, given, number, visitor, sent).await
}

pub(super) async fn invalidate(
    given: Given<Arc<State>>,
    number: Of<i64>,
    visitor: Extension<Visitor>,
    sent: Sent<Asked>,
) -> Answer<Json<Value>> {
    ask(What::Invalidate, given, number, visitor, sent).await
}

pub(super) async fn rerun(
    given: Given<Arc<State>>,
    number: Of<i64>,
    visitor: Extension<Visitor>,
    sent: Sent<Asked>,
) -> Answer<Json<Value>> {
    ask(What::Rerun, given, number, visitor, sent).await
}

async fn ask(
    what: What,
    Given(state): Given<Arc<State>>,
    Of(number): Of<i64>,
    Extension(visitor): Extension<Visitor>,
    Sent(asked): Sent<Asked>,
) -> Answer<Json<Value>> {
    let store = state.store()?;
    let who = By { whom: by(&visitor, asked.by)?, why: why(&asked.why)? };
    let done = match what {
        What::Stop => store.stop_delivery(number, &who).await?,
        What::Invalidate => store.invalidate_delivery(number, &who).await?,
        What::Rerun => store.rerun_delivery(number, &who).await?,
    };
    match done {
        Done::Parts(parts) => Ok(Json(json!({ "number": number, "parts": parts }))),
        Done::Refused(state) => Err(Problem::conflict("number", format!("the delivery is {}", state.as_str()))),
        Done::Unknown => Err(unknown()),
    }
}
