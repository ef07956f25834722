//! Who owns what, and how far it is: hosts, feeds, lanes, targets.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Given;
use serde::Deserialize;
use serde_json::{Value, json};

use super::State;
use super::asked::Params;
use super::problem::Answer;

pub(super) async fn hosts(Given(state): Given<Arc<State>>) -> Answer<Json<Value>> {
    let overview = state.store()?.overview().await?;
    Ok(Json(json!({ "now_ms": overview.now_ms, "items": overview.hosts })))
}

pub(super) async fn feeds(Given(state): Given<Arc<State>>) -> Answer<Json<Value>> {
    let overview = state.store()?.overview().await?;
    let items = overview.feeds.iter().map(|feed| {
        let lanes = overview.lanes.iter().filter(|lane| lane.feed == feed.feed);
        let (rows, passed) = lanes.fold((0, 0), |(rows, passed), lane| (rows + lane.tail, passed + lane.cursor));
        let work: serde_json::Map<String, Value> =
            overview.work.iter().filter(|work| work.feed == feed.feed).map(|work| (work.status.clone(), work.count.into())).collect();
        let positions = feed.positions.iter().map(|(partition, next)| json!({ "partition": partition, "next_offset": next }));
        json!({
            "feed": feed.feed, "lanes": feed.lanes, "owner": feed.owner, "epoch": feed.epoch, "positions": positions.collect::<Vec<_>>(),
            "rows": rows, "passed": passed, "work": work,
        })
    });
    Ok(Json(json!({ "items": items.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    feed: Option<String>,
}

pub(super) async fn lanes(Given(state): Given<Arc<State>>, Params(of): Params<Of>) -> Answer<Json<Value>> {
    let mut overview = state.store()?.overview().await?;
    overview.lanes.retain(|lane| of.feed.as_ref().is_none_or(|feed| lane.feed == *feed));
    Ok(Json(json!({ "items": overview.lanes })))
}

pub(super) async fn targets(Given(state): Given<Arc<State>>) -> Answer<Json<Value>> {
    let store = state.store()?;
    let (overview, unpublished) = (store.overview().await?, store.unpublished().await?);
    let items = overview.targets.iter().map(|target| {
        let backlog = unpublished.iter().find(|(name, _)| *name == target.target).map_or(0, |(_, count)| *count);
        let mut item = json!(target);
        item["unpublished"] = backlog.into();
        item
    });
    Ok(Json(json!({ "settlement": overview.settlement, "items": items.collect::<Vec<_>>() })))
}
