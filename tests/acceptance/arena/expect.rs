//! What an Arena case expects at its end, compared with what there is.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::TABLES;
use super::play::{Scenario, count_difference, local_ms, named};
use super::rows::{Row, plain};
use super::seed;
use crate::diff::{Placeholders, difference, is_placeholder, short};
use crate::world::{Sent, World};

/// Compares everything that `expect` names. Where a case holds the system's own misbehaviour beside what is wanted, the wanted counts.
pub async fn check(scenario: &mut Scenario<'_>, expect: &Value) -> anyhow::Result<()> {
    let wanted = expect.get("wanted").filter(|wanted| wanted.is_object()).unwrap_or(expect);
    for (key, value) in wanted.as_object().context("expect is an object")? {
        match key.as_str() {
            "rows" => {
                let rows = scenario.rows().await?;
                self::rows(&rows, value, "rows", &scenario.world, &mut scenario.found)?;
            }
            "no_row" => no_row(scenario, value).await?,
            "row_count" => {
                let count = scenario.rows().await?.iter().filter(|row| row.word.is_some()).count();
                if value.as_u64() != Some(count as u64) {
                    scenario.found.push(count_difference("row_count", value, count));
                }
            }
            "state" => state(scenario, value).await?,
            "outputs" => outputs(scenario, value).await?,
            "outputs_count" => outputs_count(scenario, value).await?,
            "decoded" => decoded(scenario, value).await?,
            "routed_to" => routed_to(scenario, value, &wanted["times"]).await?,
            "wanted" => parked(scenario).await?,
            // `times` belongs to `routed_to`, `original` beside `wanted` tells what is not wanted.
            "times" if wanted.get("routed_to").is_some() => {}
            "original" if expect.get("wanted").is_some() => {}
            other => bail!("expect.{other} is not compared"),
        }
    }
    Ok(())
}

/// Rows that must exist; only the fields named are compared.
pub fn rows(rows: &[Row], expected: &Value, path: &str, world: &World, found: &mut Vec<String>) -> anyhow::Result<()> {
    for expected in each(expected) {
        let name = named(expected);
        let at = format!("{path}[{} {} {}]", name.table, name.operation.as_deref().unwrap_or("*"), name.pos.as_deref().unwrap_or("*"));
        let Some(row) = rows.iter().find(|row| row.word.is_some() && fits(row, expected)) else {
            found.push(difference(&at, "a row", "none"));
            continue;
        };
        for (field, value) in expected.as_object().into_iter().flatten() {
            let (wanted, got) = match field.as_str() {
                "table" | "operation" | "pos" => continue,
                "status" if value == "*" => continue,
                "attempts" => (value.clone(), row.fields()["ingest_attempts"].clone()),
                "arena_id" => (plain(value).into(), row.fields()["arena_id"].clone()),
                "status" | "note" | "ingest_attempts" => (value.clone(), row.fields()[field].clone()),
                "ingested_timestamp_after" => {
                    let after = local_ms(value.as_str().unwrap_or_default(), world.zone())?;
                    if row.status.settled_ms.is_none_or(|at| at < after) {
                        found.push(difference(&format!("{at}.handled"), &short(value), &format!("{:?} ms", row.status.settled_ms)));
                    }
                    continue;
                }
                other => bail!("{path}: the field `{other}` is not compared"),
            };
            if wanted != got {
                let because = row.status.reason.as_deref().filter(|_| field == "status").map(|reason| format!(" ({reason})"));
                found.push(difference(&format!("{at}.{field}"), &short(&wanted), &(short(&got) + &because.unwrap_or_default())));
            }
        }
    }
    Ok(())
}

fn each(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// Whether a row has the name that a case gives, as far as it gives one.
fn fits(row: &Row, expected: &Value) -> bool {
    let name = named(expected);
    let same = |wanted: &Option<String>, got: &Option<String>| wanted.is_none() || wanted == got;
    (name.table.is_empty() || name.table == row.name.table) && same(&name.operation, &row.name.operation) && same(&name.pos, &row.name.pos)
}

async fn no_row(scenario: &mut Scenario<'_>, expected: &Value) -> anyhow::Result<()> {
    let rows = scenario.rows().await?;
    for expected in each(expected).iter().filter(|expected| expected.is_object()) {
        if let Some(row) = rows.iter().find(|row| row.word.is_some() && fits(row, expected)) {
            scenario.found.push(difference("no_row", &short(expected), row.word.unwrap_or_default()));
        }
    }
    // `true` stands for no row at all.
    if expected == true && rows.iter().any(|row| row.word.is_some()) {
        scenario.found.push(difference("no_row", "no row", &format!("{} rows", rows.len())));
    }
    Ok(())
}

async fn state(scenario: &mut Scenario<'_>, expected: &Value) -> anyhow::Result<()> {
    let mut placeholders = Placeholders::default();
    for expected in each(expected) {
        let store = expected["table"].as_str().unwrap_or_default();
        let stored = seed::stored(&scenario.world, store).await?;
        let keys: &[&str] = match store {
            "arena_data_hist_id_translation" => &["arena_hist_id", "amt_id"],
            "arena_data_id_translation" => &["arena_id", "amt_id"],
            _ => &["arena_id"],
        };
        // The row that has the first key that the case names; else any that fits.
        let key = keys.iter().find(|key| plain(&expected[**key]).is_some_and(|key| !is_placeholder(&key)));
        let row = match key {
            Some(key) => stored.iter().find(|row| plain(&row[*key]) == plain(&expected[*key])),
            None => stored.first(),
        };
        let at = format!("state[{store} {}]", key.and_then(|key| plain(&expected[*key])).unwrap_or_default());
        let Some(row) = row else {
            scenario.found.push(difference(&at, "a row", "none"));
            continue;
        };
        for (column, value) in expected.as_object().into_iter().flatten().filter(|(column, _)| *column != "table") {
            let got = row.get(column).cloned().unwrap_or(Value::Null);
            // Ids are numbers in some places and texts in others.
            let same_id = column.ends_with("_id") && plain(value).is_some() && plain(value) == plain(&got);
            if !same_id {
                placeholders.compare("", &format!("{at}.{column}"), value, Some(&got), &mut scenario.found);
            }
        }
    }
    Ok(())
}

async fn outputs(scenario: &mut Scenario<'_>, expected: &Value) -> anyhow::Result<()> {
    let (sent, rows) = (scenario.world.sent().await?, scenario.rows().await?);
    let expected = expected.as_array().context("expect.outputs is a list")?;
    if expected.len() != sent.len() {
        let topics: Vec<&str> = sent.iter().map(|sent| sent.topic.as_str()).collect();
        scenario.found.push(difference("outputs", &format!("{} in all", expected.len()), &format!("{}: {topics:?}", sent.len())));
    }
    let mut placeholders = Placeholders::default();
    for (number, (expected, sent)) in expected.iter().zip(&sent).enumerate() {
        let at = format!("outputs[{number}]");
        if let Some(key) = expected.as_object().and_then(|it| it.keys().find(|key| !["topic", "key", "value"].contains(&key.as_str()))) {
            bail!("{at}: the field `{key}` is not compared");
        }
        let whose = rows.iter().find(|row| row.place() == sent.row.place).and_then(|row| row.arena_id.clone()).unwrap_or_default();
        let got = output(sent);
        placeholders.compare(&whose, &at, expected, Some(&got), &mut scenario.found);
        // The record's key is the participant's uuid, which stands in the payload too.
        let value = &got["value"];
        let id = value["payload"].get("id").or_else(|| value.get("id"));
        if id.is_some_and(|id| *id != got["key"]) {
            scenario.found.push(difference(&format!("{at}.key"), &short(id.unwrap_or(&Value::Null)), &short(&got["key"])));
        }
    }
    Ok(())
}

fn output(sent: &Sent) -> Value {
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    let json = |payload: &bytes::Bytes| serde_json::from_slice::<Value>(payload).unwrap_or_else(|_| text(payload).into());
    let value = sent.row.payload.as_ref().map(json);
    json!({ "topic": sent.topic, "key": sent.row.key.as_ref().map(text), "value": value })
}

async fn outputs_count(scenario: &mut Scenario<'_>, expected: &Value) -> anyhow::Result<()> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for sent in scenario.world.sent().await? {
        *counts.entry(sent.topic).or_default() += 1;
    }
    for (topic, expected) in expected.as_object().context("expect.outputs_count names topics")? {
        let count = counts.get(topic).copied().unwrap_or(0);
        if expected.as_u64() != Some(count as u64) {
            scenario.found.push(count_difference(&format!("outputs_count[{topic}]"), expected, count));
        }
    }
    Ok(())
}

/// The consumed record as translators read it: without NUL.
async fn decoded(scenario: &mut Scenario<'_>, expected: &Value) -> anyhow::Result<()> {
    let rows = scenario.rows().await?;
    let row = rows.last().context("expect.decoded needs a consumed record")?;
    if row.status.status == "invalid" {
        let reason = row.status.reason.clone().unwrap_or_default();
        scenario.found.push(difference("decoded", "a record that can be read", &reason));
    }
    for (path, value) in expected.as_object().context("expect.decoded names paths")? {
        let found = path.split('.').try_fold(row.record.as_ref().unwrap_or(&Value::Null), |at, name| at.get(name));
        Placeholders::default().compare("", &format!("decoded.{path}"), value, found, &mut scenario.found);
    }
    Ok(())
}

/// Which table's translator judged the messages, and how many of them. What it made of them is free.
async fn routed_to(scenario: &mut Scenario<'_>, table: &Value, times: &Value) -> anyhow::Result<()> {
    let active = scenario.world.store.active().await?.1;
    let rows = scenario.rows().await?;
    for known in TABLES {
        let digest = active.iter().find(|activation| activation.table == known.name).map(|activation| activation.digest.to_string());
        let count = rows.iter().filter(|row| row.status.digest.is_some() && row.status.digest == digest).count();
        let expected = if table == known.name { times.as_u64().unwrap_or(1) } else { 0 };
        if expected != count as u64 {
            scenario.found.push(count_difference(&format!("routed_to[{}]", known.name), &expected.into(), count));
        }
    }
    Ok(())
}

/// Where the system's partition stands still: each record is a row with its bytes, a status and a reason, and the next goes on.
async fn parked(scenario: &mut Scenario<'_>) -> anyhow::Result<()> {
    let rows = scenario.rows().await?;
    for (number, (place, payload)) in std::mem::take(&mut scenario.consumed).into_iter().enumerate() {
        let at = format!("wanted[{number}]");
        let Some(row) = rows.iter().find(|row| row.place() == place) else {
            scenario.found.push(difference(&at, "a row", "none"));
            continue;
        };
        if row.message.captured.payload.as_deref() != payload.as_deref().map(str::as_bytes) {
            scenario.found.push(difference(&at, "its bytes", "others"));
        }
        let status = row.status.status.as_str();
        if matches!(status, "pending" | "behind") {
            scenario.found.push(difference(&at, "a status of its own", status));
        }
        if status != "handled" && row.status.reason.as_deref().is_none_or(str::is_empty) {
            scenario.found.push(difference(&at, "a reason", "none"));
        }
    }
    Ok(())
}
