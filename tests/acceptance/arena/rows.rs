//! Arena's view of the inbox: rows by (table, operation, pos), in the system's own words.

use std::collections::HashMap;

use serde_json::{Value, json};
use tolk::ingest::pointers::strip_nul;
use tolk::message::{Message, Place};
use tolk::store::MessageStatus;
use uuid::Uuid;

use super::{ACTIVITY, PARTICIPANT, RUNS_MAX, TABLES};
use crate::world::World;

/// A message as the system would show it.
pub struct Row {
    /// The message.
    pub message: Message,
    /// What the host says of it.
    pub status: MessageStatus,
    /// The record, without NUL, if it is JSON.
    pub record: Option<Value>,
    /// The triple that names it there.
    pub name: Name,
    /// Its own Arena id.
    pub arena_id: Option<String>,
    /// What the system says of it; `None`: it would keep no row.
    pub word: Option<&'static str>,
    /// The system's note.
    pub note: Option<String>,
    /// Failed retry runs.
    pub attempts: i64,
}

/// What names a row: the same triple again is a redelivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The table.
    pub table: String,
    /// CREATED, MODIFIED, DELETED, or what stands in `op_type`.
    pub operation: Option<String>,
    /// The position, as text.
    pub pos: Option<String>,
}

impl Row {
    /// The number that orders rows of a table.
    pub fn order(&self) -> (usize, u128) {
        let table = TABLES.iter().position(|table| table.name == self.name.table).unwrap_or(TABLES.len());
        (table, self.name.pos.as_deref().and_then(|pos| pos.parse().ok()).unwrap_or(0))
    }

    /// Whether the message is done, by the host's own word.
    pub fn is_done(&self) -> bool {
        matches!(self.status.status.as_str(), "handled" | "ignored" | "invalid" | "finished")
    }

    /// Whether the same message was taken in before.
    pub fn is_redelivery(&self) -> bool {
        is_redelivery(&self.message)
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.message.place
    }

    /// The fields that a case may compare.
    pub fn fields(&self) -> Value {
        json!({
            "table": self.name.table, "operation": self.name.operation, "pos": self.name.pos, "status": self.word, "note": self.note,
            "ingest_attempts": self.attempts, "arena_id": self.arena_id,
        })
    }
}

/// What the runner remembers of messages between steps.
#[derive(Default)]
pub struct Memory {
    known: HashMap<Uuid, Known>,
}

#[derive(Default)]
struct Known {
    attempts: i64,
    was_waiting: bool,
}

impl Memory {
    /// The rows as they are now. A message that was WAITING and is woken starts its attempts anew.
    pub async fn rows(&mut self, world: &World) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (message, status) in world.rows().await? {
            let known = self.known.entry(message.id).or_default();
            if known.was_waiting && status.status == "pending" {
                known.attempts = 0;
            }
            let row = row(message, status, known.attempts);
            known.was_waiting = row.word == Some("WAITING");
            rows.push(row);
        }
        Ok(rows)
    }

    /// A retry run in which a message did not end.
    pub fn failed_run(&mut self, id: Uuid) {
        self.known.entry(id).or_default().attempts += 1;
    }

    /// A message that had so many failed runs before the case began.
    pub fn seeded(&mut self, id: Uuid, attempts: i64) {
        self.known.entry(id).or_default().attempts = attempts;
    }
}

fn row(message: Message, status: MessageStatus, attempts: i64) -> Row {
    let record = message.captured.payload.as_ref().and_then(|payload| decoded(payload));
    let text = |field: &str| record.as_ref().and_then(|record| plain(&record[field]));
    let operation = text("op_type").map(|op| operation(&op).to_owned());
    let table = text("table").unwrap_or_default();
    let arena_id = record.as_ref().and_then(|record| arena_id(&table, operation.as_deref(), record));
    let name = Name { table, operation, pos: text("pos") };
    let word = if is_redelivery(&message) { None } else { word(&name.table, &status, attempts) };
    let note = note(&name.table, arena_id.as_deref(), &status);
    Row { message, status, record, name, arena_id, word, note, attempts }
}

/// Ingest knows it; while an earlier message of the key is not done, the redelivery stands behind it like any other.
fn is_redelivery(message: &Message) -> bool {
    message.prejudged.as_ref().is_some_and(|prejudged| prejudged.code == "duplicate")
}

/// The record of a payload, without NUL.
pub fn decoded(payload: &[u8]) -> Option<Value> {
    serde_json::from_slice(&strip_nul(payload).ok()?).ok()
}

/// The system's word for an operation.
pub fn operation(op_type: &str) -> &str {
    match op_type {
        "I" => "CREATED",
        "U" => "MODIFIED",
        "D" => "DELETED",
        other => other,
    }
}

/// Text, or a number's text.
pub fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn arena_id(table: &str, operation: Option<&str>, record: &Value) -> Option<String> {
    let side = if operation == Some("DELETED") { "before" } else { "after" };
    let ids = TABLES.iter().find(|known| known.name == table)?.ids;
    ids.iter().find_map(|id| plain(&record[side][*id]))
}

fn word(table: &str, status: &MessageStatus, attempts: i64) -> Option<&'static str> {
    let code = status.code.as_deref().unwrap_or_default();
    Some(match (status.status.as_str(), code) {
        ("handled", _) => "HANDLED",
        ("ignored", "unsupported-activity") if table == ACTIVITY => return None,
        ("ignored", "external-id" | "external-type") => "EXTERNAL_SOURCE",
        ("ignored", _) => "IGNORED",
        // Nobody has judged it: no word of the system's.
        (_, "no-translator") => "-",
        ("waiting", "activity-invalid") => "WAITING",
        ("invalid", _) => "INVALID",
        ("failed", _) => "FAILED",
        ("retry" | "behind" | "pending" | "waiting", _) if attempts >= RUNS_MAX => "FAILED",
        ("retry" | "behind" | "pending" | "waiting", _) => "RETRY",
        // An operator's and a delivery's statuses have no word there.
        _ => "-",
    })
}

/// The host's reason is the plugin's text, with the field at fault behind it. That a message is behind another one is the host's to say.
fn note(table: &str, arena_id: Option<&str>, status: &MessageStatus) -> Option<String> {
    if status.code.as_deref() == Some("behind") && matches!(status.status.as_str(), "behind" | "pending") && table == PARTICIPANT {
        return Some(format!("Forrige melding på deltaker med id={} er ikke håndtert enda", arena_id.unwrap_or_default()));
    }
    let reason = status.reason.as_deref().filter(|reason| !reason.is_empty())?;
    let bare = reason.strip_suffix(')').and_then(|text| text.rsplit_once(" (field ")).map_or(reason, |(text, _)| text);
    Some(bare.to_owned())
}
