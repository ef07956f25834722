//! What operators order of messages, and what became of it. The name in the audit trail is that of the token; only where nobody is asked who
//! they are may a request name somebody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State as Given;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::State;
use super::access::Visitor;
use super::asked::{Of, Params, Sent};
use super::messages::{delivery, status};
use super::problem::{Answer, Problem};
use crate::store::{ActionKind, ActionState, Command, Filter, Pick, Selection, Store};

/// Messages of one request by id.
const IDS_MAX: usize = 10_000;
/// Actions told one by one.
const TOLD_MAX: i64 = 10_000;
/// The longest wait for what was ordered.
const WAIT_MS_MAX: u64 = 50_000;
/// How often the store is asked meanwhile.
const POLL: Duration = Duration::from_millis(100);

/// An order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    kind: String,
    why: String,
    #[serde(default)]
    messages: Vec<Uuid>,
    filter: Option<Which>,
    #[serde(default)]
    all: bool,
    by: Option<String>,
    #[serde(default)]
    wait_ms: u64,
    #[serde(default)]
    pick: Option<String>,
    #[serde(default)]
    force: bool,
    per_second: Option<u32>,
    plugin: Option<String>,
}

/// The messages of an order: everything given must hold.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Which {
    feed: Option<String>,
    table: Option<String>,
    key: Option<String>,
    keys: Vec<String>,
    status: Option<String>,
    code: Option<String>,
    contains: Option<String>,
    delivery: Option<String>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
}

/// Who an order is by.
pub(super) fn by(visitor: &Visitor, named: Option<String>) -> Answer<String> {
    match (visitor.proven, named) {
        (false, Some(name)) if !name.trim().is_empty() => Ok(name),
        (true, Some(name)) if name != visitor.name => {
            Err(Problem::wrong("by", format!("the token is {}'s; nobody orders in another name", visitor.name)))
        }
        _ => Ok(visitor.name.clone()),
    }
}

/// A reason that says something.
pub(super) fn why(text: &str) -> Answer<String> {
    if text.trim().is_empty() {
        return Err(Problem::wrong("why", "an order needs a reason: it stands in the audit trail"));
    }
    Ok(text.to_owned())
}

/// Orders; answers with what became of it so far.
pub(super) async fn order(
    Given(state): Given<Arc<State>>,
    Extension(visitor): Extension<Visitor>,
    Sent(order): Sent<Order>,
) -> Answer<(StatusCode, Json<Value>)> {
    let kind = ActionKind::from_word(&order.kind).filter(|kind| *kind != ActionKind::Revisit);
    let kind = kind.ok_or_else(|| Problem::wrong("kind", "must be retry, restart, ignore, stop, finish or replay"))?;
    if order.wait_ms > WAIT_MS_MAX {
        return Err(Problem::wrong("wait_ms", format!("must be at most {WAIT_MS_MAX}")));
    }
    let (selection, object) = selection(&order)?;
    let pick = match order.pick.as_deref() {
        None | Some("each") => Pick::Each,
        Some("newest") => Pick::NewestOfKey,
        Some("all") => Pick::AllOfKey,
        Some(_) => return Err(Problem::wrong("pick", "must be each, newest or all")),
    };
    let store = state.store()?;
    let command = Command {
        id: Uuid::new_v4(),
        kind,
        by: by(&visitor, order.by.clone())?,
        why: why(&order.why)?,
        object,
        force: order.force,
        pinned: pinned(store, kind, &order).await?,
        per_second: order.per_second,
        pick,
    };
    let messages = store.command(&command, &selection).await?;
    let actions = settled(store, command.id, Duration::from_millis(order.wait_ms)).await?;
    let missing: Vec<&Uuid> = match &selection {
        Selection::Ids(ids) => ids.iter().filter(|id| actions.iter().all(|action| action.message != **id)).collect(),
        Selection::Filter(_) => Vec::new(),
    };
    let body = json!({ "command": command.id, "messages": messages, "actions": actions, "missing": missing });
    Ok((StatusCode::ACCEPTED, Json(body)))
}

/// The activation that a replay is told to run with.
async fn pinned(store: &dyn Store, kind: ActionKind, order: &Order) -> Answer<Option<i64>> {
    let Some(plugin) = &order.plugin else { return Ok(None) };
    let wrong = |text: &str| Problem::wrong("plugin", text);
    if kind != ActionKind::Replay {
        return Err(wrong("only a replay runs with a chosen plugin"));
    }
    let digest = plugin.parse().map_err(|reason: String| wrong(&reason).next("list plugins at /api/v1/plugins"))?;
    let of = order.filter.as_ref().and_then(|which| which.feed.as_ref().zip(which.table.as_ref()));
    let (feed, table) = of.ok_or_else(|| wrong("name `feed` and `table` in the filter: a plugin runs for one of them with its config"))?;
    let missing =
        || wrong(&format!("it was never active for {feed}/{table}")).next("a plugin that was never active has no config to run with");
    Ok(Some(crate::replay::activation_of(store, feed, table, digest).await?.ok_or_else(missing)?))
}

fn selection(order: &Order) -> Answer<(Selection, String)> {
    match (&order.filter, order.messages.len(), order.all) {
        (None, 1..=IDS_MAX, false) => {
            let names: Vec<String> = order.messages.iter().take(5).map(Uuid::to_string).collect();
            let more = if order.messages.len() > 5 { format!(" and {} more", order.messages.len() - 5) } else { String::new() };
            Ok((Selection::Ids(order.messages.clone()), names.join(", ") + &more))
        }
        (Some(which), 0, all) => {
            let filter = which.filter()?;
            let object = crate::explain::form::filter(&filter);
            if object.is_empty() && !all {
                return Err(
                    Problem::wrong("filter", "it names nothing").next("name something in it, or send \"all\": true for every message")
                );
            }
            Ok((Selection::Filter(Box::new(filter)), if object.is_empty() { "every message".to_owned() } else { object }))
        }
        (None, 0, true) => Ok((Selection::Filter(Box::default()), "every message".to_owned())),
        _ => Err(Problem::wrong("messages", format!("send either 1 to {IDS_MAX} ids in `messages`, or a `filter`"))),
    }
}

impl Which {
    fn filter(&self) -> Answer<Filter> {
        Ok(Filter {
            feed: self.feed.clone(),
            table: self.table.clone(),
            key: self.key.clone(),
            keys: self.keys.clone(),
            status: self.status.as_deref().map(status).transpose()?,
            code: self.code.clone(),
            reason: self.contains.clone(),
            delivery: self.delivery.as_deref().map(delivery).transpose()?,
            since_ms: self.since_ms,
            until_ms: self.until_ms,
            oldest_first: true,
            ..Filter::default()
        })
    }
}

/// The actions of a command, in the order in which they were written, once all are applied or the time is up.
async fn settled(store: &dyn Store, command: Uuid, limit: Duration) -> Answer<Vec<ActionState>> {
    let began = Instant::now();
    loop {
        let mut actions = store.actions(Some(command), None, TOLD_MAX).await?;
        if actions.iter().all(|action| action.result.is_some()) || began.elapsed() >= limit {
            actions.reverse();
            return Ok(actions);
        }
        tokio::time::sleep(POLL).await;
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trail {
    message: Option<Uuid>,
    limit: Option<i64>,
}

/// The audit trail, newest first.
pub(super) async fn commands(Given(state): Given<Arc<State>>, Params(trail): Params<Trail>) -> Answer<Json<Value>> {
    let limit = trail.limit.unwrap_or(100);
    if !(1..=TOLD_MAX).contains(&limit) {
        return Err(Problem::wrong("limit", format!("must be from 1 to {TOLD_MAX}")));
    }
    Ok(Json(json!({ "items": state.store()?.audit(None, trail.message, limit).await? })))
}

/// One order, with what became of each message.
pub(super) async fn command(Given(state): Given<Arc<State>>, Of(id): Of<Uuid>) -> Answer<Json<Value>> {
    let store = state.store()?;
    let Some(command) = store.audit(Some(id), None, 1).await?.pop() else {
        return Err(Problem::missing("id", "there is no such order").next("list orders at /api/v1/commands"));
    };
    let mut actions = store.actions(Some(id), None, TOLD_MAX).await?;
    actions.reverse();
    Ok(Json(json!({ "command": command, "actions": actions })))
}
