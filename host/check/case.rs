//! A line of a capture as a case: the message, the context it is translated in, stored answers, what is expected. Beside the fields of a
//! captured message a line may have:
//!
//! - `name`: a name for people; `id`: the message's id; `received`: milliseconds since 1970,
//! - `context`: `now` (milliseconds since 1970, or a time such as `"2024-03-01T12:00:00Z"`), `time_zone` or `utc_offset_s`, `attempt`,
//!   `waited_ms`, `cause`, `delivery`,
//! - `answers`: a list of `{"request": .., "reply": ..}`,
//! - `expected`: an outcome, and `ignore`: paths in it that are not compared.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::diff::Pattern;
use super::fields::{Fields, kind};
use super::form;
use crate::message::{FeedId, KeyHash, Message, Place};
use crate::plugin::{Answer, Cause, Context, Delivery};
use crate::source::captured::{self, Line};

/// `now` of a line that names no time at all: 2024-01-01T00:00:00Z.
const NOW_MS: i64 = 1_704_067_200_000;
/// What stands for every table in a plugin's description.
pub const ANY_TABLE: &str = "*";
/// The feed of a line that names none.
const FEED: &str = "check";
/// The fields that this module reads.
const KNOWN: [&str; 7] = ["name", "id", "received", "context", "answers", "expected", "ignore"];

/// How tables are found on lines that do not name theirs.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// The table of every line without one.
    pub table: Option<String>,
    /// A JSON pointer to the table in the payload.
    pub pointer: Option<String>,
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What people call it: its name, or table and key or position.
    pub name: String,
    /// The feed's name.
    pub feed: String,
    /// The message.
    pub message: Message,
    /// The context, without answers.
    pub context: Context,
    /// Stored answers.
    pub answers: Vec<Answer>,
    /// The outcome that is expected, in the form of `form::outcome`; `None`: nobody has said yet.
    pub expected: Option<Value>,
    /// What is not compared.
    pub ignore: Vec<Pattern>,
}

impl Case {
    /// Reads a line; `number` is the line's number in its file, from 1; `described` are the plugin's tables.
    pub fn read(line: &str, number: usize, tables: &Tables, described: &[String]) -> Result<Self, String> {
        let Line { captured, feed, table, rest } = captured::from_line(line.as_bytes())?;
        refuse_misspelt(&rest)?;
        let rest = Value::Object(rest);
        let mut fields = Fields::of(&rest, "line")?;
        let mut captured = captured;
        if captured.partition == 0 && captured.offset == 0 {
            // Lines without a position are apart all the same.
            captured.offset = number as i64 - 1;
        }
        let feed = feed.unwrap_or_else(|| FEED.to_owned());
        let table = match table.or_else(|| tables.table.clone()) {
            Some(table) => table,
            None => found_table(captured.payload.as_deref(), tables, described)?,
        };
        let received_ms = fields.integer("received")?.or(captured.timestamp_ms).unwrap_or(NOW_MS);
        let id = match fields.text("id")? {
            Some(id) => Uuid::try_parse(&id).map_err(|_| format!("line.id: \"{id}\" is no uuid"))?,
            None => Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{feed}/{}/{}", captured.partition, captured.offset).as_bytes()),
        };
        let mut answers = Vec::new();
        for (i, answer) in fields.list("answers")?.iter().enumerate() {
            answers.push(form::answer_from(answer).map_err(|error| format!("answers[{i}]: {error}"))?);
        }
        let ignore = fields.list("ignore")?.iter().map(|path| match path {
            Value::String(path) => Pattern::parse(path),
            other => Err(format!("line.ignore: must hold paths as text, holds {}", kind(other))),
        });
        let name = fields.text("name")?.unwrap_or_else(|| match captured.key.as_deref().map(String::from_utf8_lossy) {
            Some(key) => format!("{table} {}", key.chars().filter(|c| !c.is_control()).take(60).collect::<String>()),
            None => format!("{table} {}/{}", captured.partition, captured.offset),
        });
        let key_hash = KeyHash::of(&table, captured.key.as_deref().unwrap_or_default());
        let place = Place { feed: FeedId(0), lane: 0, n: number as i64 };
        Ok(Self {
            name,
            feed,
            context: context(fields.value("context"), received_ms)?,
            answers,
            expected: expected(fields.value("expected"))?,
            ignore: ignore.collect::<Result<_, _>>()?,
            message: Message { place, id, table: Arc::from(table), key_hash, captured, received_ms, prejudged: None, delivery: None },
        })
    }
}

/// A field that looks like one of ours but is not would be passed over in silence.
fn refuse_misspelt(rest: &Map<String, Value>) -> Result<(), String> {
    for name in rest.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
        if let Some(known) = KNOWN.iter().find(|known| strsim::damerau_levenshtein(known, name) <= 2) {
            return Err(format!("line: \"{name}\" is no field; is \"{known}\" meant?"));
        }
    }
    Ok(())
}

fn found_table(payload: Option<&[u8]>, tables: &Tables, described: &[String]) -> Result<String, String> {
    if let Some(pointer) = &tables.pointer {
        let payload: Option<Value> = payload.and_then(|payload| serde_json::from_slice(payload).ok());
        if let Some(table) = payload.as_ref().and_then(|payload| payload.pointer(pointer)).and_then(Value::as_str) {
            return Ok(table.to_owned());
        }
    }
    match described {
        [table] if table != ANY_TABLE => Ok(table.clone()),
        _ => Err("line: its table is unknown: add \"table\" to the line, or give --table NAME or --table-pointer /POINTER".to_owned()),
    }
}

fn context(value: Option<&Value>, received_ms: i64) -> Result<Context, String> {
    let mut context = Context { now_ms: received_ms, ..Context::default() };
    let Some(value) = value else { return Ok(context) };
    let mut fields = Fields::of(value, "context")?;
    match fields.value("now") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => {
            let time: jiff::Timestamp = text.parse().map_err(|error| format!("context.now: \"{text}\" is no time: {error}"))?;
            context.now_ms = time.as_millisecond();
        }
        Some(other) => {
            context.now_ms = other.as_i64().ok_or_else(|| format!("context.now: must be milliseconds or a text, is {}", kind(other)))?
        }
    }
    if let Some(zone) = fields.text("time_zone")? {
        let zone = jiff::tz::TimeZone::get(&zone).map_err(|error| format!("context.time_zone: {error}"))?;
        let now = jiff::Timestamp::from_millisecond(context.now_ms).map_err(|error| format!("context.now: {error}"))?;
        context.utc_offset_s = zone.to_offset(now).seconds();
    }
    if let Some(offset) = fields.integer("utc_offset_s")? {
        context.utc_offset_s = i32::try_from(offset).map_err(|_| format!("context.utc_offset_s: {offset} is no offset"))?;
    }
    let attempt = fields.number("attempt")?.unwrap_or(0);
    context.attempt = u32::try_from(attempt).map_err(|_| format!("context.attempt: {attempt} is too large"))?;
    context.waited_ms = fields.number("waited_ms")?.unwrap_or(0);
    if let Some(word) = fields.text("cause")? {
        let words = Cause::ALL.map(Cause::as_str).join(", ");
        let cause = Cause::ALL.into_iter().find(|cause| cause.as_str() == word);
        context.cause = cause.ok_or_else(|| format!("context.cause: \"{word}\" is none of {words}"))?;
    }
    if let Some(value) = fields.value("delivery").filter(|value| !value.is_null()) {
        let mut delivery = Fields::of(value, "context.delivery")?;
        context.delivery =
            Some(Delivery { id: delivery.need_text("id")?, params: delivery.pairs("params")?, expected: delivery.number("expected")? });
        delivery.finish()?;
    }
    fields.finish()?;
    Ok(context)
}

fn expected(value: Option<&Value>) -> Result<Option<Value>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(outcome) if outcome.get("outcome").is_some_and(Value::is_string) => Ok(Some(outcome.clone())),
        Some(_) => Err("line.expected: must be an object with \"outcome\", as --bless writes it".to_owned()),
    }
}

/// The cases of a file, with their line numbers, from 1; blank lines are none.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

/// The capture files that a path stands for: itself, or what ends in `.jsonl` or `.ndjson` in a folder and below it, in order.
pub fn files(path: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    if !path.is_dir() {
        // An error that names what is missing comes when the file is read.
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut entries: Vec<_> = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        let is_capture = entry.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if is_capture {
            found.push(entry);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Case, String> {
        Case::read(line, 3, &Tables::default(), &["T".to_owned()])
    }

    #[test]
    fn a_line_names_only_what_it_needs() {
        let case = read(r#"{"key": "k", "payload": {"a": 1}}"#).unwrap();
        assert_eq!((case.name.as_str(), &*case.message.table, case.message.captured.offset), ("T k", "T", 2));
        assert_eq!((case.context.now_ms, case.context.attempt, case.context.cause), (NOW_MS, 0, Cause::First));
        assert!(case.expected.is_none() && case.answers.is_empty());
    }

    #[test]
    fn a_line_may_name_everything() {
        let case = read(
            r#"{"name": "n", "feed": "f", "table": "U", "payload": null, "timestamp": 5, "position": {"partition": 2, "offset": 9},
                "id": "6fa459ea-ee8a-3ca4-894e-db77e160355e", "received": 7, "extra": 1,
                "context": {"now": "2024-07-01T12:00:00+02:00", "time_zone": "Europe/Oslo", "attempt": 2, "waited_ms": 3, "cause": "timed-out",
                            "delivery": {"id": "d", "params": {"p": "1"}, "expected": 4}},
                "answers": [{"request": {"id": {"namespace": "n", "key": "k"}}, "reply": {"id": "i"}}],
                "expected": {"outcome": "translated"}, "ignore": ["$.outputs"]}"#,
        )
        .unwrap();
        assert_eq!((case.name.as_str(), case.feed.as_str(), &*case.message.table), ("n", "f", "U"));
        assert_eq!((case.message.id.to_string().as_str(), case.message.received_ms), ("6fa459ea-ee8a-3ca4-894e-db77e160355e", 7));
        let context = &case.context;
        assert_eq!((context.now_ms, context.utc_offset_s, context.attempt, context.waited_ms), (1_719_828_000_000, 7_200, 2, 3));
        assert_eq!((context.cause, context.delivery.as_ref().unwrap().expected), (Cause::TimedOut, Some(4)));
        assert_eq!((case.answers.len(), case.ignore.len()), (1, 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, want) in [
            (r#"{"payload": null, "expcted": {}}"#, "is \"expected\" meant?"),
            (r#"{"payload": null, "expected": {}}"#, "line.expected"),
            (r#"{"payload": null, "context": {"waited": 1}}"#, "nearest known is \"waited_ms\""),
            (r#"{"payload": null, "context": {"cause": "x"}}"#, "first, retry"),
            (r#"{"payload": null, "context": {"now": "today"}}"#, "context.now"),
            (r#"{"payload": null, "answers": [{}]}"#, "answers[0]"),
            (r#"{"payload": null, "ignore": ["a["]}"#, "is no path"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn tables_are_found_by_option_or_pointer() {
        let line = r#"{"payload": {"table": "A.B"}}"#;
        let table = |tables: Tables| Case::read(line, 1, &tables, &[ANY_TABLE.to_owned()]).map(|case| case.message.table.to_string());
        assert_eq!(table(Tables { pointer: Some("/table".into()), table: None }).as_deref(), Ok("A.B"));
        assert_eq!(table(Tables { table: Some("X".into()), pointer: None }).as_deref(), Ok("X"));
        assert!(table(Tables::default()).unwrap_err().contains("--table"));
    }
}
