//! Messages: which there are, how they stand, how many; one of them with everything around it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Given;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::State;
use super::asked::{Of, Params};
use super::problem::{Answer, Problem};
use crate::explain::{self, Known, form};
use crate::message::Status;
use crate::store::Filter;

/// Messages of a listing at most.
const LIST_MAX: i64 = 10_000;

/// Which messages: everything given must hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    feed: Option<String>,
    table: Option<String>,
    key: Option<String>,
    status: Option<String>,
    code: Option<String>,
    delivery: Option<String>,
    limit: Option<i64>,
    #[serde(default)]
    oldest_first: bool,
}

/// The status of a word.
pub(super) fn status(word: &str) -> Answer<Status> {
    Status::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
        Problem::wrong("status", format!("there is no status \"{word}\"{}", crate::config::nearest::advice(word, &words)))
    })
}

/// A delivery as FEED/ID.
pub(super) fn delivery(text: &str) -> Answer<(String, String)> {
    let parts = text.split_once('/').filter(|(feed, id)| !feed.is_empty() && !id.is_empty());
    let (feed, id) = parts.ok_or_else(|| Problem::wrong("delivery", "write FEED/ID").next("list deliveries at /api/v1/deliveries"))?;
    Ok((feed.to_owned(), id.to_owned()))
}

pub(super) async fn list(Given(state): Given<Arc<State>>, Params(which): Params<Which>) -> Answer<Json<Value>> {
    let limit = which.limit.unwrap_or(100);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(Problem::wrong("limit", format!("must be from 1 to {LIST_MAX}")));
    }
    let filter = Filter {
        feed: which.feed,
        table: which.table,
        key: which.key,
        status: which.status.as_deref().map(status).transpose()?,
        code: which.code,
        delivery: which.delivery.as_deref().map(delivery).transpose()?,
        limit: limit + 1,
        oldest_first: which.oldest_first,
        ..Filter::default()
    };
    let mut rows = state.store()?.messages(&filter).await?;
    let more = rows.len() as i64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(json!({ "items": rows, "more": more })))
}

pub(super) async fn one(Given(state): Given<Arc<State>>, Of(id): Of<Uuid>) -> Answer<Json<Value>> {
    detail(&state, id).await
}

pub(super) async fn one_at(Given(state): Given<Arc<State>>, Of((feed, partition, offset)): Of<(String, i32, i64)>) -> Answer<Json<Value>> {
    let filter = Filter { feed: Some(feed), at: Some((partition, offset)), limit: 1, ..Filter::default() };
    match state.store()?.messages(&filter).await?.first() {
        Some(row) => detail(&state, row.id).await,
        None => Err(missing(&state, "offset").await?),
    }
}

/// What is said of a message that is not there: it may have been, and gone with its time.
async fn missing(state: &State, place: &str) -> Answer<Problem> {
    let dropped = explain::dropped(state.store()?).await?;
    let text = dropped.map_or_else(|| "there is no such message".to_owned(), |dropped| format!("there is no such message; {dropped}"));
    Ok(Problem::missing(place, text).next("list messages at /api/v1/messages"))
}

async fn detail(state: &State, id: Uuid) -> Answer<Json<Value>> {
    let inside = state.inside()?;
    match inside.store.message(id).await? {
        Some(detail) => {
            let known = Known::read(&inside.config, &*inside.store, Some(inside.caller.states())).await?;
            let explanation = explain::explain(&known, &*inside.store, &detail).await?;
            let mut message = form::message(&detail);
            message["explanation"] = json!(explanation);
            Ok(Json(message))
        }
        None => Err(missing(state, "id").await?),
    }
}

/// Counts per feed, table and status.
pub(super) async fn counts(Given(state): Given<Arc<State>>) -> Answer<Json<Value>> {
    Ok(Json(json!({ "items": state.store()?.counts().await? })))
}
