//! A change event of Arena: bytes, table, operation, and the row that the operation reads.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Number, Value};
use tolk_sdk::{Fault, Message, Outcome};

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `I`.
    Created,
    /// `U`.
    Modified,
    /// `D`.
    Deleted,
}

impl Operation {
    /// The word that is published and told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A change event: the operation, and its row read as `R`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<R> {
    /// What happened.
    pub operation: Operation,
    /// The row after the change, or before a deletion.
    pub row: R,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    table: Option<Cow<'a, str>>,
    op_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
}

/// The columns of a row as they came; a translator's struct of `Option<Value>` fields holds those it reads.
pub trait Columns: DeserializeOwned {}
impl<R: DeserializeOwned> Columns for R {}

impl<R: Columns> Event<R> {
    /// Reads a message that must be of `table`.
    pub fn read(message: &Message, table: &str) -> Result<Self, Fault> {
        let bytes = message.payload.as_deref().ok_or_else(|| Outcome::rejected("no-payload", "the message is a tombstone"))?;
        let bytes = strip_nul(bytes);
        let envelope: Envelope<'_> = serde_json::from_slice(&bytes).map_err(|error| bad_json(&error))?;
        let found = envelope.table.as_deref().unwrap_or("null");
        if found != table {
            return Err(
                Outcome::rejected("unknown-table", format!("Kan ikke håndtere melding fra ukjent arena tabell: {found}")).field("table")
            );
        }
        let (operation, side, name) = match envelope.op_type.as_deref() {
            Some("I") => (Operation::Created, envelope.after, "after"),
            Some("U") => (Operation::Modified, envelope.after, "after"),
            Some("D") => (Operation::Deleted, envelope.before, "before"),
            other => {
                let text = format!("Unknown arena operation {}", other.unwrap_or("null"));
                return Err(Outcome::rejected("unknown-operation", text).field("op_type"));
            }
        };
        let Some(row) = side else {
            let text = format!("Message with opType={} is missing '{name}'", operation.as_str());
            return Err(Outcome::rejected("no-row", text).field(name));
        };
        let row = serde_json::from_str(row.get()).map_err(|error| bad_json(&error).field(name))?;
        Ok(Self { operation, row })
    }
}

/// Says where JSON is wrong, without any of its values.
fn bad_json(error: &serde_json::Error) -> Fault {
    Outcome::rejected("bad-json", format!("the payload is not JSON of the expected form (line {} column {})", error.line(), error.column()))
}

/// Removes NUL, raw and as the six characters of its JSON escape.
pub fn strip_nul(bytes: &[u8]) -> Cow<'_, [u8]> {
    const ESCAPED: &[u8] = b"\\u0000";
    if !bytes.contains(&0) && !bytes.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Cow::Borrowed(bytes);
    }
    let raw: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
    let mut kept = Vec::with_capacity(raw.len());
    let mut rest = raw.as_slice();
    while let [first, others @ ..] = rest {
        rest = match rest.strip_prefix(ESCAPED) {
            Some(after) => after,
            None => {
                kept.push(*first);
                others
            }
        };
    }
    Cow::Owned(kept)
}

/// A required id: absent counts as 0.
pub fn required_id(value: Option<&Value>, field: &str) -> Result<i64, Fault> {
    optional_id(value, field).map(|id| id.unwrap_or(0))
}

/// An optional id; a number given as text is one too.
pub fn optional_id(value: Option<&Value>, field: &str) -> Result<Option<i64>, Fault> {
    let id = match value {
        None | Some(Value::Null) => return Ok(None),
        // Whole numbers may come with a fraction of zero; no double beyond 2^53 is trusted to be whole.
        Some(Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < 9_007_199_254_740_992.0).map(|whole| whole as i64)),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    id.map(Some).ok_or_else(|| Outcome::rejected("bad-number", format!("{field} is not a whole number")).field(field))
}

/// An optional number with its decimals; one given as text is one too.
pub fn optional_decimal(value: Option<Value>, field: &str) -> Result<Option<Number>, Fault> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => Some(number),
        Some(Value::String(text)) => text.trim().parse().ok().and_then(Number::from_f64),
        Some(_) => None,
    };
    number.map(Some).ok_or_else(|| Outcome::rejected("bad-number", format!("{field} is not a number")).field(field))
}

/// An optional text; numbers and truth values are taken by their text.
pub fn optional_text(value: Option<Value>, field: &str) -> Result<Option<String>, Fault> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(scalar @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(scalar.to_string())),
        Some(_) => Err(Outcome::rejected("bad-text", format!("{field} is not a text")).field(field)),
    }
}

/// A required text; empty text is one.
pub fn required_text(value: Option<Value>, field: &str) -> Result<String, Fault> {
    optional_text(value, field)?.ok_or_else(|| Outcome::rejected("missing-field", format!("{field} mangler")).field(field))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tolk_sdk::testing::message;

    use super::*;

    fn read(payload: impl Into<Vec<u8>>) -> Result<Event<Value>, Fault> {
        Event::read(&message("T", payload), "T")
    }

    #[test]
    fn each_operation_reads_its_own_side_alone() {
        let check = |op: &str, operation, row| {
            let payload = json!({ "table": "T", "op_type": op, "before": { "side": "before" }, "after": { "side": "after" } });
            assert_eq!(read(payload.to_string()), Ok(Event { operation, row: json!({ "side": row }) }));
        };
        check("I", Operation::Created, "after");
        check("U", Operation::Modified, "after");
        check("D", Operation::Deleted, "before");
        assert!(read(r#"{"table":"T","op_type":"I","before":null,"after":{}}"#).is_ok());
    }

    #[test]
    fn what_is_no_event_is_rejected_with_its_own_code() {
        let check = |payload: &str, code: &str, text: &str| {
            let fault = read(payload).unwrap_err();
            assert_eq!((fault.code.as_str(), fault.kind), (code, tolk_sdk::FaultKind::Rejected), "{payload}");
            assert!(fault.message.contains(text), "{}", fault.message);
        };
        check(r#"{"table":"T","op_type":"I","before":{}}"#, "no-row", "Message with opType=CREATED is missing 'after'");
        check(r#"{"table":"T","op_type":"U","after":null}"#, "no-row", "Message with opType=MODIFIED is missing 'after'");
        check(r#"{"table":"T","op_type":"D","after":{}}"#, "no-row", "Message with opType=DELETED is missing 'before'");
        check(r#"{"table":"T","op_type":"X","after":{}}"#, "unknown-operation", "Unknown arena operation X");
        check(r#"{"table":"X","op_type":"I","after":{}}"#, "unknown-table", "Kan ikke håndtere melding fra ukjent arena tabell: X");
        check(r#"{"table":"T","op_type":"I","after":"#, "bad-json", "line 1 column");
        check("", "bad-json", "line 1 column");
        let tombstone = Message { payload: None, ..message("T", "") };
        assert_eq!(Event::<Value>::read(&tombstone, "T").unwrap_err().code, "no-payload");
        assert_eq!(read(b"{\"table\":\"T\xff\"}".to_vec()).unwrap_err().code, "bad-json");
    }

    #[test]
    fn nul_goes_raw_and_escaped() {
        assert_eq!(&*strip_nul(b"a\0b\\u0000c\\u00001"), b"abc1");
        assert_eq!(&*strip_nul(b"\\u00\x0000x"), b"x");
        assert!(matches!(strip_nul(b"plain \\u0001"), Cow::Borrowed(_)));
        let event = read("{\"table\":\"T\",\"op_type\":\"I\",\"after\":{\"text\":\"a\0\\u0000b\"}}").unwrap();
        assert_eq!(event.row, json!({ "text": "ab" }));
    }

    #[test]
    fn values_are_taken_as_they_may_come() {
        assert_eq!(required_id(None, "F"), Ok(0));
        assert_eq!(optional_id(Some(&json!("9007199254740993")), "F"), Ok(Some(9_007_199_254_740_993)));
        assert_eq!(optional_id(Some(&json!(9_007_199_254_740_993_i64)), "F"), Ok(Some(9_007_199_254_740_993)));
        assert_eq!(optional_id(Some(&json!(7.0)), "F"), Ok(Some(7)));
        for wrong in [json!(7.5), json!("x"), json!(true), json!([])] {
            assert_eq!(optional_id(Some(&wrong), "F").unwrap_err().code, "bad-number");
        }
        assert_eq!(optional_decimal(Some(json!("2.5")), "F"), Ok(Number::from_f64(2.5)));
        assert_eq!(optional_decimal(Some(json!("x")), "F").unwrap_err().field.as_deref(), Some("F"));
        assert_eq!(required_text(Some(json!("")), "F"), Ok(String::new()));
        assert_eq!(required_text(Some(Value::Null), "F").unwrap_err().code, "missing-field");
        assert_eq!(optional_text(Some(json!(5)), "F"), Ok(Some("5".to_owned())));
        assert_eq!(optional_text(Some(json!({})), "F").unwrap_err().code, "bad-text");
    }
}
