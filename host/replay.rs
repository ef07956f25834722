//! What a replay would do, tried without doing it: the chosen messages run on the plugins of today against the entries of today; nothing is
//! written or published, and only endpoints that are `safe` are called. What would come out is compared with what came out last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::check::attempt::Guest;
use crate::check::component::Component;
use crate::check::diff::{self, Difference};
use crate::check::form;
use crate::delivery::State;
use crate::endpoint::{Called, Caller};
use crate::message::{KeyHash, Message, Place, Status};
use crate::plugin::{Answer, Call, Cause, Context, Delivery, Digest, Limits, Outcome, Output, Reply, Request};
use crate::runtime::Runtime;
use crate::store::{self, Activation, Filter, MessageDetail, MessageStatus, Pick, Store};
use crate::translate::{answers, ids};

/// What is needed to try messages.
pub struct Stage<'s> {
    /// The store.
    pub store: &'s dyn Store,
    /// The engine.
    pub runtime: Arc<Runtime>,
    /// Who answers calls.
    pub caller: &'s dyn Caller,
    /// Whether an endpoint may be called without changing anything.
    pub is_safe: &'s (dyn Fn(&str) -> bool + Send + Sync),
    /// Limits of a plugin by name.
    pub limits_of: &'s (dyn Fn(&str) -> Limits + Send + Sync),
    /// The offset of a feed's time zone at a time, in seconds east of UTC.
    pub utc_offset_s: &'s (dyn Fn(&str, i64) -> i32 + Send + Sync),
}

/// How messages are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Which of the chosen ones run.
    pub pick: Pick,
    /// Whether a newer handled message of the key does not matter.
    pub force: bool,
    /// The activation to run with.
    pub pinned: Option<i64>,
}

/// What a replay would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rehearsal {
    /// Messages that would run.
    pub messages: usize,
    /// Messages that a newer handled one of their key follows: they would be ignored.
    pub superseded: usize,
    /// Those that would come out as they did.
    pub same: usize,
    /// Those that would put out something else.
    pub changed: usize,
    /// Those that would not be handled: how many by outcome and code.
    pub unhandled: BTreeMap<String, usize>,
    /// Those that could not be tried: how many by reason.
    pub untried: BTreeMap<String, usize>,
    /// What would differ, by path.
    pub differences: Vec<Differing>,
}

/// A path at which outputs would differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differing {
    /// Where, with `[*]` for any index.
    pub path: String,
    /// In how many places.
    pub count: usize,
    /// A message that it was seen in: FEED/PARTITION/OFFSET.
    pub message: String,
    /// What came out last.
    pub before: Option<Value>,
    /// What would come out.
    pub after: Option<Value>,
}

impl Rehearsal {
    /// Adds another one's counts.
    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.superseded += other.superseded;
        self.same += other.same;
        self.changed += other.changed;
        for (mine, theirs) in [(&mut self.unhandled, other.unhandled), (&mut self.untried, other.untried)] {
            theirs.into_iter().for_each(|(word, count)| *mine.entry(word).or_default() += count);
        }
        for differing in other.differences {
            match self.differences.iter_mut().find(|known| known.path == differing.path) {
                Some(known) => known.count += differing.count,
                None => self.differences.push(differing),
            }
        }
    }
}

/// The newest activation of a plugin for a table of a feed, its own or the feed's for every table: what a replay with that plugin runs with.
pub async fn activation_of(store: &dyn Store, feed: &str, table: &str, digest: Digest) -> store::Result<Option<i64>> {
    for table in [table, "*"] {
        let all = store.activations(Some(feed), Some(table)).await?;
        if let Some(found) = all.iter().find(|activation| activation.digest == digest) {
            return Ok(Some(found.id));
        }
    }
    Ok(None)
}

/// Tries the messages of a filter; at most `filter.limit` of them, oldest first.
pub async fn rehearse(stage: &Stage<'_>, filter: &Filter, choice: Choice) -> anyhow::Result<Rehearsal> {
    let found = stage.store.captured(filter).await?;
    let (chosen, superseded) = choose(stage.store, found, choice).await?;
    let mut troupe = Troupe {
        active: stage.store.active().await?.1,
        pinned: pinned(stage.store, choice.pinned).await?,
        secret: stage.store.secret().await?,
        now_ms: stage.store.now_ms().await?,
        loaded: HashMap::new(),
    };
    let mut rehearsal = Rehearsal { messages: chosen.len(), superseded, ..Rehearsal::default() };
    let mut paths: BTreeMap<String, Differing> = BTreeMap::new();
    for (message, status) in &chosen {
        let name = format!("{}/{}/{}", status.feed, status.partition, status.offset);
        match troupe.play(stage, message, status).await? {
            Played::Untried(reason) => *rehearsal.untried.entry(reason).or_default() += 1,
            Played::Unhandled(word) => *rehearsal.unhandled.entry(word).or_default() += 1,
            Played::Handled(outputs) => {
                let before = last_outputs(stage.store.message_at(message.place).await?.as_ref());
                let outputs = json!({ "outputs": outputs.iter().map(form::output).collect::<Vec<_>>() });
                let differences = diff::differences(&before, &outputs, &[]);
                if differences.is_empty() {
                    rehearsal.same += 1;
                } else {
                    rehearsal.changed += 1;
                }
                differences.into_iter().for_each(|difference| note(&mut paths, difference, &name));
            }
        }
    }
    rehearsal.differences = paths.into_values().collect();
    rehearsal.differences.sort_by_key(|differing| std::cmp::Reverse(differing.count));
    Ok(rehearsal)
}

fn note(paths: &mut BTreeMap<String, Differing>, difference: Difference, message: &str) {
    let path = any_index(&difference.path);
    let known = paths.entry(path.clone()).or_insert_with(|| Differing {
        path,
        count: 0,
        message: message.to_owned(),
        before: difference.expected,
        after: difference.actual,
    });
    known.count += 1;
}

/// `outputs[3].payload` as `outputs[*].payload`.
fn any_index(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some(open) = rest.find('[') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let digits = from[1..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && from[1 + digits..].starts_with(']') {
            out.push_str("[*]");
            rest = &from[digits + 2..];
        } else {
            out.push('[');
            rest = &from[1..];
        }
    }
    out + rest
}

type Row = (Message, MessageStatus);

/// The messages that would run, and how many would not because a newer one of their key was handled.
async fn choose(store: &dyn Store, found: Vec<Row>, choice: Choice) -> store::Result<(Vec<Row>, usize)> {
    let mut keys: BTreeMap<KeyHash, (Place, String, String, Option<String>)> = BTreeMap::new();
    for (message, status) in &found {
        let first = (message.place, status.feed.clone(), status.table.clone(), status.key.clone());
        let known = keys.entry(message.key_hash).or_insert_with(|| first.clone());
        if message.place < known.0 {
            *known = first;
        }
    }
    let newest =
        |rows: &[Row], key: KeyHash| rows.iter().filter(|(message, _)| message.key_hash == key).map(|(message, _)| message.place).max();
    let mut chosen = match choice.pick {
        Pick::Each | Pick::AllOfKey => found,
        Pick::NewestOfKey => {
            let of_key: Vec<Option<Place>> = found.iter().map(|(message, _)| newest(&found, message.key_hash)).collect();
            found.into_iter().zip(of_key).filter(|((message, _), newest)| Some(message.place) == *newest).map(|(row, _)| row).collect()
        }
    };
    let mut superseded = Vec::new();
    for (key_hash, (first, feed, table, key)) in &keys {
        // An unordered message has no key, and nothing comes after it.
        let Some(key) = key else { continue };
        let filter =
            Filter { feed: Some(feed.clone()), table: Some(table.clone()), key: Some(key.clone()), limit: 10_000, ..Filter::default() };
        let of_key: Vec<Row> = store.captured(&filter).await?.into_iter().filter(|(message, _)| message.key_hash == *key_hash).collect();
        if choice.pick == Pick::AllOfKey {
            let known: Vec<Place> = chosen.iter().map(|(message, _)| message.place).collect();
            chosen.extend(of_key.into_iter().filter(|(message, _)| message.place > *first && !known.contains(&message.place)));
            continue;
        }
        let handled = |status: &MessageStatus| status.status == Status::Handled.as_str();
        let last = of_key.iter().filter(|(_, status)| handled(status)).map(|(message, _)| message.place).max();
        let older = |(message, _): &&Row| message.key_hash == *key_hash && last.is_some_and(|last| message.place < last);
        superseded.extend(chosen.iter().filter(older).map(|(message, _)| message.place));
    }
    if !choice.force {
        chosen.retain(|(message, _)| !superseded.contains(&message.place));
    }
    chosen.sort_by_key(|(message, _)| message.place);
    let count = if choice.force { 0 } else { superseded.len() };
    Ok((chosen, count))
}

async fn pinned(store: &dyn Store, number: Option<i64>) -> anyhow::Result<Option<Activation>> {
    let Some(number) = number else { return Ok(None) };
    let found = store.activations(None, None).await?.into_iter().find(|activation| activation.id == number);
    Ok(Some(found.ok_or_else(|| anyhow::anyhow!("find activation {number}"))?))
}

/// What the last run of a message put out, as the form of checks.
fn last_outputs(detail: Option<&MessageDetail>) -> Value {
    let rows = detail.map(|detail| detail.outputs.as_slice()).unwrap_or_default();
    let last = rows.iter().map(|(_, row, ..)| row.cursor.settlement).max();
    let outputs = rows.iter().filter(|(_, row, ..)| Some(row.cursor.settlement) == last).map(|(target, row, ..)| {
        form::output(&Output {
            target: target.clone(),
            action: row.action,
            key: row.key.clone(),
            payload: row.payload.clone(),
            headers: row.headers.clone(),
            version: row.version,
            fingerprint: None,
        })
    });
    json!({ "outputs": outputs.collect::<Vec<_>>() })
}

/// How one message went.
enum Played {
    Handled(Vec<Output>),
    /// An outcome's word and code.
    Unhandled(String),
    /// Why it could not be tried.
    Untried(String),
}

/// The plugins on stage.
struct Troupe {
    active: Vec<Activation>,
    pinned: Option<Activation>,
    secret: [u8; 32],
    now_ms: i64,
    loaded: HashMap<(Digest, String), Result<Component, String>>,
}

impl Troupe {
    async fn play(&mut self, stage: &Stage<'_>, message: &Message, status: &MessageStatus) -> store::Result<Played> {
        if let Some(prejudged) = &message.prejudged {
            return Ok(Played::Unhandled(format!("{}: {}", prejudged.status.as_str(), prejudged.code)));
        }
        let of = |table: &str| self.active.iter().find(|activation| activation.feed == status.feed && activation.table == table);
        let Some(activation) = self.pinned.clone().or_else(|| of(&status.table).or_else(|| of("*")).cloned()) else {
            return Ok(Played::Untried("no plugin is active for its table".to_owned()));
        };
        let which = (activation.digest, activation.config.clone());
        if !self.loaded.contains_key(&which) {
            let component = load(stage, &activation).await?;
            self.loaded.insert(which.clone(), component);
        }
        let utc_offset_s = (stage.utc_offset_s)(&status.feed, self.now_ms);
        let (secret, now_ms) = (self.secret, self.now_ms);
        let component = match self.loaded.get_mut(&which) {
            Some(Ok(component)) => component,
            Some(Err(reason)) => return Ok(Played::Untried(reason.clone())),
            None => return Ok(Played::Untried("its plugin is not loaded".to_owned())),
        };
        let kept = stage.store.message_at(message.place).await?.and_then(|detail| detail.answers);
        let kept = kept.and_then(|kept| answers::unpack(&kept).ok()).unwrap_or_default();
        let delivery = match whole(stage.store, message).await? {
            Ok(delivery) => delivery,
            Err(word) => return Ok(Played::Unhandled(word)),
        };
        let mut context = Context { now_ms, utc_offset_s, cause: Cause::Replay, delivery, ..Context::default() };
        for _ in 0..=component.limits().rounds_max {
            let verdict = match component.translate(message, &status.feed, &context) {
                Ok(verdict) => verdict,
                Err(trouble) => return Ok(Played::Unhandled(format!("failed: {}", trouble.code))),
            };
            let requests = match verdict.outcome {
                Outcome::Needs(requests) => requests,
                outcome => return Ok(ended(outcome)),
            };
            let fresh: Vec<Request> =
                requests.into_iter().filter(|request| context.answers.iter().all(|answer| answer.request != *request)).collect();
            if fresh.is_empty() {
                return Ok(Played::Unhandled("failed: no-progress".to_owned()));
            }
            for request in fresh {
                match answer(stage, message, &request, &kept, &secret).await? {
                    Ok(reply) => context.answers.push(Answer { request, reply }),
                    Err(reason) => return Ok(Played::Untried(reason)),
                }
            }
        }
        Ok(Played::Unhandled("failed: rounds-limit".to_owned()))
    }
}

/// The delivery of a part, once it is complete; else what becomes of the part.
async fn whole(store: &dyn Store, message: &Message) -> store::Result<Result<Option<Delivery>, String>> {
    let Some(number) = message.delivery else { return Ok(Ok(None)) };
    let found = store.delivery(number).await?;
    Ok(match found.map(|found| (found.tally.state, found)) {
        Some((State::Complete, found)) => {
            let expected = found.tally.expected().and_then(|expected| u64::try_from(expected).ok());
            Ok(Some(Delivery { id: found.id.unwrap_or_default(), params: found.params, expected }))
        }
        Some((State::Invalid, found)) => Err(format!("ignored: {}", found.tally.code)),
        _ => Err("held".to_owned()),
    })
}

fn ended(outcome: Outcome) -> Played {
    let word = form::word(&outcome);
    match outcome {
        Outcome::Translated(translation) => Played::Handled(translation.outputs),
        Outcome::Ignored(dismissal) => Played::Unhandled(format!("{word}: {}", dismissal.code)),
        Outcome::Waiting(wait) => Played::Unhandled(format!("{word}: {}", wait.code)),
        Outcome::Retry(fault) | Outcome::Rejected(fault) | Outcome::Failed(fault) => Played::Unhandled(format!("{word}: {}", fault.code)),
        Outcome::Needs(_) => Played::Unhandled(word.to_owned()),
    }
}

async fn load(stage: &Stage<'_>, activation: &Activation) -> store::Result<Result<Component, String>> {
    let short = activation.digest.short();
    let Some(bytes) = stage.store.component_bytes(activation.digest).await? else {
        return Ok(Err(format!("plugin {short} is not in the store any more")));
    };
    let components = stage.store.components().await?;
    let name =
        components.iter().find(|component| component.digest == activation.digest).map(|component| component.description.name.clone());
    let limits = (stage.limits_of)(&name.unwrap_or_default());
    let (runtime, config) = (stage.runtime.clone(), activation.config.clone());
    let loaded = tokio::task::spawn_blocking(move || Component::load(runtime, &bytes, limits, &config, false)).await;
    Ok(match loaded {
        Ok(Ok(component)) => Ok(component),
        Ok(Err(error)) => Err(format!("plugin {short} cannot be loaded: {error}")),
        Err(_) => Err(format!("plugin {short} cannot be loaded: loading it broke off")),
    })
}

/// The reply of today, or why there is none.
async fn answer(
    stage: &Stage<'_>,
    message: &Message,
    request: &Request,
    kept: &[Answer],
    secret: &[u8; 32],
) -> store::Result<Result<Reply, String>> {
    if let Request::Call(call) = request {
        return Ok(called(stage, message, call, request, kept).await);
    }
    // Looking must not make an id.
    let asked = match request {
        Request::Id { namespace, key } => Request::KnownId { namespace: namespace.clone(), key: key.clone() },
        other => other.clone(),
    };
    let found = stage.store.read(&[asked]).await?.found.pop();
    Ok(match (request, found) {
        (Request::Id { namespace, key }, Some(store::Found::Id(id))) => {
            Ok(Reply::Id(id.unwrap_or_else(|| ids::derive(secret, namespace, key)).to_string()))
        }
        (_, Some(store::Found::Id(id))) => Ok(Reply::KnownId(id.map(|id| id.to_string()))),
        (_, Some(store::Found::Entry(value))) => Ok(Reply::Entry(value)),
        (_, Some(store::Found::Page { items, more })) => Ok(Reply::Entries { items, more }),
        (_, Some(store::Found::Key(key))) => Ok(Reply::KeyOf(key)),
        (_, None) => Err("the store did not answer".to_owned()),
    })
}

async fn called(stage: &Stage<'_>, message: &Message, call: &Call, request: &Request, kept: &[Answer]) -> Result<Reply, String> {
    if (stage.is_safe)(&call.endpoint) {
        return match stage.caller.call(call, message.id).await {
            Called::Response(response) => Ok(Reply::Response(response)),
            Called::Failed { code, .. } => Err(format!("endpoint {}: {code}", call.endpoint)),
            Called::Away { reason, .. } if call.lenient => Ok(Reply::Unreachable(reason)),
            Called::Away { .. } => Err(format!("endpoint {} is away", call.endpoint)),
            Called::Wrong { reason } => Err(format!("endpoint {}: {reason}", call.endpoint)),
        };
    }
    let kept = kept.iter().find(|answer| answer.request == *request).map(|answer| answer.reply.clone());
    kept.ok_or_else(|| format!("endpoint {} is not `safe`, and its answer was not kept", call.endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_do_not_tell_paths_apart() {
        assert_eq!(any_index("outputs[12].payload.list[0][\"a[1\"].b"), "outputs[*].payload.list[*][\"a[1\"].b");
        assert_eq!(any_index("outputs"), "outputs");
    }
}
