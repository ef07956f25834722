//! What a barnetrygd case expects at its end, compared with what there is.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tolk::store::Delivery;
use uuid::Uuid;

use super::play::Scenario;
use super::{deliveries, form, outputs, recipients};
use crate::diff::{difference, short};
use crate::stub::Request;

/// What `expect` holds that only the original does, or that the harness does to the host rather than the host.
const NOT_THE_HOSTS: [&str; 4] = ["original", "failed_deliveries", "deliveries_failed", "maxAntallForsøk"];

/// Compares everything that `expect` names; what is wanted counts where the original is wrong.
pub async fn check(scenario: &mut Scenario<'_>, expect: &Value) -> anyhow::Result<()> {
    let wanted = expect.get("wanted").unwrap_or(expect);
    match wanted {
        Value::Object(fields) => {
            for (key, expected) in fields {
                one(scenario, key, expected).await.with_context(|| format!("expect.{key}"))?;
            }
        }
        other => bail!("expect.wanted is no object: {other}"),
    }
    refused_without_being_expected(scenario, wanted);
    Ok(())
}

async fn one(scenario: &mut Scenario<'_>, key: &str, expected: &Value) -> anyhow::Result<()> {
    if Uuid::try_parse(key).is_ok() {
        let got = scenario.state(key).await?;
        return told(scenario, key, expected, got.as_ref()).await;
    }
    match key {
        key if NOT_THE_HOSTS.contains(&key) => Ok(()),
        "error" => same(scenario, key, expected, scenario.error.clone().into()),
        "error_contains" => {
            let text = match scenario.error.clone() {
                Some(text) => Some(text),
                None => scenario.look().await?.first().and_then(|status| status.reason.clone()),
            };
            contains(expected, text.as_deref(), &mut scenario.found)
        }
        "delivery" | "delivery_state" | "rows" | "rows_inserted" if !expected.is_object() || key == "delivery" => {
            let delivery = the_delivery(scenario, expected).await?;
            match key {
                "rows" | "rows_inserted" => rows(scenario, key, expected, delivery.as_ref()),
                _ => told(scenario, key, expected, delivery.as_ref()).await,
            }
        }
        "delivery_states" | "rows" | "rows_inserted" => {
            for (name, expected) in expected.as_object().context("it names deliveries")? {
                let delivery = scenario.state(&deliveries::id_of(name)).await?;
                let at = format!("{key}[{name}]");
                match key {
                    "delivery_states" => told(scenario, &at, expected, delivery.as_ref()).await?,
                    _ => rows(scenario, &at, expected, delivery.as_ref())?,
                }
            }
            Ok(())
        }
        "deliveries" => {
            let count = scenario.deliveries().await?.len();
            same(scenario, key, expected, count.into())
        }
        "parked" => {
            let count = scenario.world.rows().await?.iter().filter(|(_, status)| status.status == "invalid").count();
            same(scenario, key, expected, count.into())
        }
        "recovered" => {
            let (read, next) = scenario.world.position().await?;
            same(scenario, key, expected, u64::from(read == next).into())
        }
        "retries" => {
            let attempts: i32 = scenario.world.rows().await?.iter().map(|(_, status)| status.attempts).sum();
            same(scenario, key, expected, attempts.into())
        }
        key => of_recipients(scenario, key, expected).await,
    }
}

/// What the recipients came to, and what operators asked of them.
async fn of_recipients(scenario: &mut Scenario<'_>, key: &str, expected: &Value) -> anyhow::Result<()> {
    match key {
        "states" => states(scenario, expected).await,
        "attempt" => {
            let attempts = scenario.recipients.first().map(|first| first.attempts);
            same(scenario, key, expected, attempts.into())
        }
        key if key.starts_with("retry_") => {
            let nth: usize = key["retry_".len()..].parse()?;
            let attempts = scenario.passes.get(nth - 1).map(|(_, attempts)| *attempts);
            let max = scenario.world.attempts_max() - 1;
            let got = if expected.is_object() { json!({ "antallForsøk": attempts, "maxAntallForsøk": max }) } else { attempts.into() };
            same(scenario, key, expected, got)
        }
        "updated" => same(scenario, key, expected, scenario.updated.into()),
        key if key.starts_with("history_of_") => history(scenario, key, expected),
        "result" => {
            let got = match expected {
                Value::Array(_) => json!(scenario.results),
                _ => scenario.results.last().copied().into(),
            };
            same(scenario, key, expected, got)
        }
        "state" => {
            let words: Vec<Option<&str>> = scenario.look().await?.iter().map(recipients::word).collect();
            let got = if expected.is_array() { json!(words) } else { words.first().copied().flatten().into() };
            same(scenario, key, expected, got)
        }
        "reason_stored" => {
            let reason = scenario.look().await?.first().and_then(|status| status.reason.clone()).unwrap_or_default();
            let given = scenario.reason.clone().unwrap_or_default();
            same(scenario, key, expected, (!given.is_empty() && reason == given).into())
        }
        "app_status" | "text" => {
            let (status, text) = scenario.alarm().await?;
            same(scenario, key, expected, if key == "text" { text } else { status }.into())
        }
        key => of_exchanges(scenario, key, expected).await,
    }
}

/// What went to other systems and came from them, and the form of what was published.
async fn of_exchanges(scenario: &mut Scenario<'_>, key: &str, expected: &Value) -> anyhow::Result<()> {
    match key {
        "info_status" => info_status(scenario, expected).await,
        "status" => same(scenario, key, expected, scenario.answers.last().map(|(status, _)| *status).into()),
        "body" => {
            // What stands in brackets is a remark.
            let expected = expected.as_str().map(|text| text.split('(').next().unwrap_or_default().trim().to_owned());
            let got = scenario.answers.last().map(|(_, body)| body.clone());
            same(scenario, key, &expected.into(), got.into())
        }
        "http_calls" => {
            let count = scenario.bench.remote.count() - scenario.requests_before;
            same(scenario, key, expected, count.into())
        }
        "headers" => {
            let requests = scenario.bench.remote.requests(scenario.requests_before);
            let request = requests.iter().find(|request| request.path == super::remote::GRAPHQL).context("there was a look-up")?;
            headers(expected, request, super::TOKEN, &mut scenario.found)
        }
        "outputs" => {
            let sent = scenario.sent().await?;
            outputs::compare(expected, &sent, &mut scenario.found)
        }
        key => {
            let form = scenario.form().await?;
            if !form::compare(&form, key, expected, &mut scenario.found)? {
                form::unknown(key)?;
            }
            Ok(())
        }
    }
}

fn same(scenario: &mut Scenario<'_>, key: &str, expected: &Value, got: Value) -> anyhow::Result<()> {
    let equal = match (expected.as_f64(), got.as_f64()) {
        (Some(expected), Some(got)) => expected == got,
        _ => *expected == got,
    };
    if !equal {
        scenario.found.push(difference(key, &short(expected), &short(&got)));
    }
    Ok(())
}

// ---------------------------------------------------------------- deliveries

/// The delivery that an expectation is about: by its id, or the only one.
async fn the_delivery(scenario: &Scenario<'_>, expected: &Value) -> anyhow::Result<Option<Delivery>> {
    match expected["id"].as_str() {
        Some(id) => scenario.state(id).await,
        None => Ok(scenario.world.store.deliveries(scenario.world.feed_id(), 1).await?.pop()),
    }
}

/// Compares a delivery with a word, a sentence, or fields.
async fn told(scenario: &mut Scenario<'_>, path: &str, expected: &Value, got: Option<&Delivery>) -> anyhow::Result<()> {
    let state = got.and_then(|delivery| deliveries::word(delivery.tally.state));
    let Some(fields) = expected.as_object() else {
        let text = expected.as_str().context("a delivery is a word or fields")?;
        let wants_none = ["invalidated", "deleted", "gone"].iter().any(|word| text.contains(word)) && !text.contains("not ");
        let word = ["Bestilt", "Startet", "Ferdig"].into_iter().find(|word| text.contains(word));
        let differs = match (wants_none, word) {
            (true, _) => state.is_some(),
            (false, Some(word)) => state != Some(word),
            (false, None) => state.is_none(),
        };
        if differs {
            scenario.found.push(difference(path, text, state.unwrap_or("no such delivery")));
        }
        // `1 row stored`.
        let count = text.split_whitespace().collect::<Vec<_>>().windows(2).find_map(|pair| {
            let rows = pair[1].trim_end_matches(',').starts_with("row");
            pair[0].parse::<u64>().ok().filter(|_| rows)
        });
        return count.map_or(Ok(()), |count| rows(scenario, path, &count.into(), got));
    };
    for (name, expected) in fields {
        let path = format!("{path}.{name}");
        let year = got.and_then(|it| it.params.iter().find(|(name, _)| name == "year")).and_then(|(_, year)| year.parse::<i64>().ok());
        let value: Value = match name.as_str() {
            "id" => got.and_then(|it| it.id.clone()).into(),
            "state" => state.into(),
            "year" | "år" => year.into(),
            "forespurtTidspunkt" => got.map(|it| it.opened_ms).into(),
            "startTidspunkt" => got.and_then(|it| it.tally.started_ms).into(),
            "ferdigTidspunkt" => got.filter(|_| state == Some("Ferdig")).and_then(|it| it.tally.closed_ms).into(),
            other => bail!("the field `{other}` is not compared"),
        };
        let differs = match expected.as_str() {
            Some("set") => value.is_null(),
            Some("null" | "not set" | "unset") => !value.is_null(),
            _ => *expected != value,
        };
        if differs {
            scenario.found.push(difference(&path, &short(expected), &short(&value)));
        }
    }
    Ok(())
}

/// Recipients that a delivery has through the case's steps; one that was invalidated has none.
fn rows(scenario: &mut Scenario<'_>, path: &str, expected: &Value, got: Option<&Delivery>) -> anyhow::Result<()> {
    let there = got.filter(|delivery| deliveries::word(delivery.tally.state).is_some());
    let before = there.and_then(|it| scenario.accepted_before.get(it.id.as_deref().unwrap_or_default())).copied().unwrap_or(0);
    let count = there.map_or(0, |delivery| delivery.tally.accepted) - before;
    same(scenario, path, expected, count.into())
}

/// A refusal that the case says nothing about is a difference, unless it says what became of the delivery or of single records.
fn refused_without_being_expected(scenario: &mut Scenario<'_>, wanted: &Value) {
    let told = ["error", "error_contains", "delivery", "delivery_states", "parked", "status", "original"];
    let tells = told.iter().any(|key| wanted.get(key).is_some())
        || wanted.as_object().is_some_and(|it| it.keys().any(|key| Uuid::try_parse(key).is_ok()));
    if let (Some(error), false) = (&scenario.error, tells) {
        scenario.found.push(difference("error", "none", error));
    }
}

// ---------------------------------------------------------------- recipients

async fn states(scenario: &mut Scenario<'_>, expected: &Value) -> anyhow::Result<()> {
    match expected {
        Value::Array(list) => {
            let passes: Vec<&str> = scenario.passes.iter().map(|(state, _)| *state).collect();
            let history = scenario.recipients.first().map(|first| first.history.clone()).unwrap_or_default();
            // Of events the history is told, from its first entry; of passes the state after each.
            let got = if list.first().is_some_and(|first| first == "Klar") { history } else { passes };
            same(scenario, "states", expected, json!(got))
        }
        Value::Object(by_ident) => {
            for (ident, expected) in by_ident {
                let statuses = scenario.look().await?;
                let at = scenario.recipients.iter().position(|recipient| recipient.ident == *ident);
                let got = at.and_then(|at| recipients::word(&statuses[at]));
                same(scenario, &format!("states[{ident}]"), expected, got.into())?;
            }
            Ok(())
        }
        other => bail!("{other} is neither a list nor an object"),
    }
}

/// `history_of_X1`, `history_of_X1_length`: the first recipient of the delivery X.
fn history(scenario: &mut Scenario<'_>, key: &str, expected: &Value) -> anyhow::Result<()> {
    let name = key.trim_start_matches("history_of_").trim_end_matches("_length");
    let (delivery, nth) = name.split_at(name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len()));
    let nth: usize = nth.parse().unwrap_or(1);
    let id = deliveries::id_of(delivery.trim_end_matches('_'));
    let recipient = scenario.recipients.iter().filter(|recipient| recipient.delivery == id).nth(nth - 1);
    let history = recipient.with_context(|| format!("the delivery {delivery} has no recipient {nth}"))?.history.clone();
    let got = if key.ends_with("_length") { history.len().into() } else { json!(history) };
    same(scenario, key, expected, got)
}

/// The outgoing row: one that is kept and not sent, or one that was sent.
async fn info_status(scenario: &mut Scenario<'_>, expected: &Value) -> anyhow::Result<()> {
    let kept = scenario.kept().await?.len();
    let notes = scenario.look().await?.iter().filter(|status| status.reason.as_deref() == Some("IKKE_SEND")).count();
    let got = match (kept, notes, scenario.sent().await?.len()) {
        (0, 0, 0) => None,
        (0, 0, _) => Some("SENDT"),
        (kept, notes, 0) if kept == notes => Some("IKKE_SEND"),
        other => bail!("entries kept, notes and messages do not fit: {other:?}"),
    };
    same(scenario, "info_status", expected, got.into())
}

/// Texts that an error must hold.
pub fn contains(expected: &Value, text: Option<&str>, found: &mut Vec<String>) -> anyhow::Result<()> {
    let parts: Vec<&str> = match expected {
        Value::String(part) => vec![part],
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect(),
        _ => bail!("expect.error_contains is no text"),
    };
    for part in parts {
        if !text.is_some_and(|text| text.contains(part)) {
            found.push(difference("error_contains", part, text.unwrap_or("no error")));
        }
    }
    Ok(())
}

/// Headers of a request: equal, or any uuid where it says so; `<token>` is the configured token.
pub fn headers(expected: &Value, request: &Request, token: &str, found: &mut Vec<String>) -> anyhow::Result<()> {
    for (name, value) in expected.as_object().context("expect.headers is an object")? {
        let value = value.as_str().context("a header is a text")?.replace("<token>", token);
        let got = request.header(&name.to_ascii_lowercase());
        let is_uuid = matches!(value.trim_matches(['<', '>']), "uuid") && got.is_some_and(|got| Uuid::try_parse(got).is_ok());
        if !is_uuid && got != Some(value.as_str()) {
            found.push(difference(&format!("headers.{name}"), &value, got.unwrap_or("none")));
        }
    }
    Ok(())
}
