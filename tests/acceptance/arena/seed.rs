//! What a case says was there before its first step: Arena's four stores as entries and bindings, earlier messages as settled rows.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use tolk::message::{Message, Status};
use tolk::plugin::{Binding, Cause, Request, Scan, Write};
use tolk::store::{End, WorkRow};
use uuid::Uuid;

use super::rows::{Memory, Name, operation, plain};
use super::{PARTICIPANT, TABLES};
use crate::world::World;

/// The collections, their index and the id namespaces: what the translators call the four stores.
const ACTIVITIES: &str = "gjennomforing";
const PARTICIPANTS: &str = "deltaker";
const BY_PERSON_AND_ACTIVITY: &str = "person-activity";
const PARTICIPANT_IDS: &str = "deltaker";
const HIST_IDS: &str = "hist-deltaker";

/// The codes that the system supports: `is_supported` is no column of ours.
const SUPPORTED: &str = "INDOPPFAG ARBFORB AVKLARAG VASV ARBRRHDAG DIGIOPPARB JOBBK GRUPPEAMO GRUFAGYRKE ENKELAMO ENKFAGYRKE HOYEREUTD";

/// The columns of a participant's entry; `arena_id` is its key.
const PARTICIPANT_COLUMNS: [&str; 8] =
    ["person_id", "gjennomforing_id", "dato_fra", "dato_til", "reg_dato", "status", "dato_statusendring", "ekstern_id"];

/// Puts the rows of `given.state` into the store.
pub async fn state(world: &World, rows: &Value) -> anyhow::Result<()> {
    let (mut writes, mut bindings) = (Vec::new(), Vec::new());
    for row in rows.as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = |column: &str| plain(&row[column]).with_context(|| format!("given.state: {row} needs `{column}`"));
        match row["table"].as_str().unwrap_or_default() {
            "gjennomforing" => {
                let state = json!({
                    "tiltak_kode": row["tiltak_kode"].as_str().unwrap_or("INDOPPFAG"),
                    "is_valid": row["is_valid"].as_bool().unwrap_or(true),
                    "id": row["id"],
                });
                writes.push(write(ACTIVITIES, text("arena_id")?, &state, Vec::new()));
            }
            "deltaker" if source_table(row) == PARTICIPANT => {
                let index = format!("{}/{}/", text("person_id")?, text("gjennomforing_id")?);
                let columns = PARTICIPANT_COLUMNS.iter().map(|column| ((*column).to_owned(), column_value(column, &row[*column])));
                let state = Value::Object(columns.collect::<Map<String, Value>>());
                writes.push(write(PARTICIPANTS, text("arena_id")?, &state, vec![(BY_PERSON_AND_ACTIVITY.to_owned(), index)]));
            }
            // Participants of the other source table are read by no rule, so that no translator keeps them.
            "deltaker" => {}
            "arena_data_id_translation" if source_table(row) == PARTICIPANT => {
                bindings.push(Binding { namespace: PARTICIPANT_IDS.to_owned(), key: text("arena_id")?, id: text("amt_id")? });
            }
            "arena_data_id_translation" => {}
            "arena_data_hist_id_translation" => {
                bindings.push(Binding { namespace: HIST_IDS.to_owned(), key: text("arena_hist_id")?, id: text("amt_id")? });
            }
            other => bail!("given.state: there is no store \"{other}\""),
        }
    }
    if !(writes.is_empty() && bindings.is_empty()) {
        world.store.put_entries(&writes, &bindings).await?;
    }
    Ok(())
}

fn source_table(row: &Value) -> &str {
    row["arena_table_name"].as_str().or_else(|| row["arena_source_table"].as_str()).unwrap_or(PARTICIPANT)
}

/// Ids are numbers, days have no time, and a status is always there.
fn column_value(column: &str, value: &Value) -> Value {
    match (column, value) {
        ("person_id" | "gjennomforing_id", Value::String(text)) => text.parse::<i64>().map_or(Value::Null, Value::from),
        ("dato_fra" | "dato_til", Value::String(text)) => text.get(..10).map_or(Value::Null, Value::from),
        ("reg_dato" | "dato_statusendring", Value::String(text)) => Value::from(text.replacen(' ', "T", 1)),
        ("status", Value::Null) => Value::from(""),
        _ => value.clone(),
    }
}

fn write(collection: &str, key: String, state: &Value, indexes: Vec<(String, String)>) -> Write {
    Write { collection: collection.to_owned(), key, value: Some(state.to_string().into()), indexes }
}

/// The rows of one of the four stores, as cases write them.
pub async fn stored(world: &World, store: &str) -> anyhow::Result<Vec<Value>> {
    let entries = async |collection: &str| -> anyhow::Result<Vec<(String, Value)>> {
        let scan = Scan { collection: collection.to_owned(), index: None, prefix: String::new(), after: None, limit: 10_000 };
        let found = world.store.entries(&scan).await?;
        found.into_iter().map(|(key, value)| Ok((key, serde_json::from_slice(&value)?))).collect()
    };
    let named = |namespace: &'static str| world.store.bindings(namespace);
    Ok(match store {
        "gjennomforing" => {
            let supported = |state: &Value| state["tiltak_kode"].as_str().is_some_and(|code| SUPPORTED.split(' ').any(|it| it == code));
            let rows = entries(ACTIVITIES).await?.into_iter().map(|(key, mut state)| {
                state["is_supported"] = supported(&state).into();
                state["arena_id"] = key.into();
                state
            });
            rows.collect()
        }
        "deltaker" => {
            let rows = entries(PARTICIPANTS).await?.into_iter().map(|(key, mut state)| {
                state["arena_id"] = key.into();
                state["arena_source_table"] = PARTICIPANT.into();
                state
            });
            rows.collect()
        }
        "arena_data_id_translation" => {
            let row = |(key, id): (String, Uuid)| json!({ "arena_id": key, "amt_id": id.to_string(), "arena_table_name": PARTICIPANT });
            named(PARTICIPANT_IDS).await?.into_iter().map(row).collect()
        }
        "arena_data_hist_id_translation" => {
            let participants = named(PARTICIPANT_IDS).await?;
            let row = |(key, id): (String, Uuid)| {
                let participant = participants.iter().find(|(_, known)| *known == id).map(|(key, _)| key);
                json!({ "arena_hist_id": key, "amt_id": id.to_string(), "arena_id": participant })
            };
            named(HIST_IDS).await?.into_iter().map(row).collect()
        }
        other => bail!("expect.state: there is no store \"{other}\""),
    })
}

/// Puts the rows of `given.messages` into the inbox. Their records are those that the steps consume later, where they do; else as little
/// as names them.
pub async fn messages(world: &mut World, memory: &mut Memory, rows: &Value, steps: &[Value]) -> anyhow::Result<()> {
    for row in rows.as_array().map(Vec::as_slice).unwrap_or_default() {
        let earlier = Earlier::read(row, world.zone())?;
        let (key, record) = earlier.record(steps)?;
        let place = world.append(key, Some(record)).await?;
        let taken_in = world.rows().await?;
        let message = taken_in.into_iter().map(|(message, _)| message).find(|message| message.place == place).context("it is there")?;
        let now = world.now_ms();
        world.set_now_ms(earlier.handled_ms.unwrap_or(now));
        let (work, end) = earlier.settled(&message, world.now_ms())?;
        world.settle(&message, work, end).await?;
        world.set_now_ms(now);
        memory.seeded(message.id, earlier.attempts);
    }
    Ok(())
}

/// A row of `given.messages`.
struct Earlier {
    name: Name,
    status: String,
    arena_id: Option<String>,
    attempts: i64,
    handled_ms: Option<i64>,
    note: String,
}

impl Earlier {
    fn read(row: &Value, zone: &jiff::tz::TimeZone) -> anyhow::Result<Self> {
        let first = |names: &[&str]| names.iter().find_map(|name| plain(&row[*name]));
        let table = first(&["table", "arena_table_name"]).with_context(|| format!("given.messages: {row} needs `table`"))?;
        let op = first(&["operation", "operation_type", "op_type"]).unwrap_or_else(|| "CREATED".to_owned());
        let time = first(&["ingested_timestamp", "ingested_at", "handled_at", "handled", "time_handled"]);
        let handled_ms = time.map(|time| super::play::local_ms(&time, zone)).transpose()?;
        Ok(Self {
            name: Name { table, operation: Some(operation(&op).to_owned()), pos: first(&["pos", "operation_pos"]) },
            status: first(&["status", "ingest_status"]).unwrap_or_else(|| "HANDLED".to_owned()),
            arena_id: first(&["arena_id"]),
            attempts: first(&["attempts", "ingest_attempts"]).and_then(|number| number.parse().ok()).unwrap_or(0),
            handled_ms,
            note: first(&["note"]).unwrap_or_default(),
        })
    }

    /// The record, with its key.
    fn record(&self, steps: &[Value]) -> anyhow::Result<(Option<String>, String)> {
        let later = steps.iter().map(|step| &step["consume"]).find(|consume| {
            let value = &consume["value"];
            let op = plain(&value["op_type"]).map(|op| operation(&op).to_owned());
            value["table"] == self.name.table.as_str() && op == self.name.operation && plain(&value["pos"]) == self.name.pos
        });
        if let Some(consume) = later {
            return Ok((plain(&consume["key"]), consume["value"].to_string()));
        }
        let ids = TABLES.iter().find(|table| table.name == self.name.table).context("given.messages: the table is unknown")?.ids;
        let id = self.arena_id.as_deref().unwrap_or("0");
        let row = json!({ ids[0]: id.parse::<i64>().map_or_else(|_| Value::from(id), Value::from) });
        let (op, side) = match self.name.operation.as_deref() {
            Some("MODIFIED") => ("U", "after"),
            Some("DELETED") => ("D", "before"),
            _ => ("I", "after"),
        };
        let record = json!({ "table": self.name.table, "op_type": op, "pos": self.name.pos, side: row });
        Ok((Some(id.to_owned()), record.to_string()))
    }

    /// How it was settled. One more try than failed runs: the first consumption failed too.
    fn settled(&self, message: &Message, now_ms: i64) -> anyhow::Result<(Option<WorkRow>, Option<End>)> {
        let tries = i32::try_from(self.attempts + 1)?;
        let end = |status, code: &str| End {
            status,
            code: code.to_owned(),
            reason: self.note.clone(),
            attempts: i32::try_from(self.attempts).unwrap_or(0),
            activation: None,
            now_ms,
        };
        let work = |status, code: &str, due_ms, waits| WorkRow {
            place: message.place,
            run: 0,
            key_hash: message.key_hash,
            status,
            blocks: true,
            attempts: tries,
            due_ms,
            cause: Cause::Retry,
            waiting_since_ms: None,
            code: code.to_owned(),
            reason: self.note.clone(),
            activation: None,
            pinned: None,
            waits,
        };
        Ok(match self.status.as_str() {
            "HANDLED" => (None, Some(end(Status::Handled, ""))),
            "IGNORED" => (None, Some(end(Status::Ignored, "earlier"))),
            "EXTERNAL_SOURCE" => (None, Some(end(Status::Ignored, "external-id"))),
            "INVALID" => (None, Some(end(Status::Invalid, "earlier"))),
            "RETRY" => (Some(work(Status::Retry, "earlier", Some(now_ms), Vec::new())), None),
            "FAILED" => (Some(work(Status::Failed, "earlier", None, Vec::new())), None),
            "WAITING" => {
                let record: Value = serde_json::from_slice(message.captured.payload.as_deref().unwrap_or_default())?;
                let activity = ["after", "before"].iter().find_map(|side| plain(&record[*side]["TILTAKGJENNOMFORING_ID"]));
                let on = activity.map(|key| Request::Entry { collection: ACTIVITIES.to_owned(), key });
                let row = work(Status::Waiting, "activity-invalid", Some(i64::MAX), on.into_iter().collect());
                // Its wait is not over: it is not a try.
                (Some(WorkRow { attempts: tries - 1, waiting_since_ms: Some(now_ms), ..row }), None)
            }
            other => bail!("given.messages: there is no status \"{other}\""),
        })
    }
}

/// Gives every id of the four stores that is no uuid one: the same wherever it stands.
pub fn with_uuids(case: &Value) -> Value {
    let mut opaque: Vec<String> = Vec::new();
    for state in [&case["given"]["state"], &case["expect"]["state"]] {
        for row in state.as_array().map(Vec::as_slice).unwrap_or_default() {
            let ids = [&row["amt_id"], &row["id"]];
            let ids = ids.into_iter().filter_map(Value::as_str).filter(|id| !crate::diff::is_placeholder(id));
            opaque.extend(ids.filter(|id| Uuid::try_parse(id).is_err()).map(str::to_owned));
        }
    }
    replaced(case, &opaque)
}

fn replaced(value: &Value, opaque: &[String]) -> Value {
    let uuid = |text: &str| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).to_string();
    match value {
        Value::String(text) if opaque.contains(text) => uuid(text).into(),
        Value::String(text) if text.starts_with('/') => {
            let segment = |segment: &str| if opaque.iter().any(|it| it == segment) { uuid(segment) } else { segment.to_owned() };
            text.split('/').map(segment).collect::<Vec<_>>().join("/").into()
        }
        Value::Array(items) => items.iter().map(|item| replaced(item, opaque)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), replaced(field, opaque))).collect::<Map<_, _>>().into(),
        other => other.clone(),
    }
}
