//! The JSON Lines form of a captured message: one object a line, which a person can read and write, and which loses no byte.
//! `{"key": "1", "payload": "{\"a\":1}", "headers": [["h", null]], "timestamp": 1700000000000, "position": {"partition": 0, "offset": 7}}`:
//! text where the bytes are UTF-8, `{"base64": "..."}` where they are not, `null` for a null key, a null header or a tombstone. `feed` and
//! `table` may stand beside them; what else stands there (expectations, answers) is kept for whoever asks.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::message::{Captured, Headers};

/// A line of a file of captured messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// The message; partition and offset are 0 where the line has no `position`.
    pub captured: Captured,
    /// The feed it was captured from.
    pub feed: Option<String>,
    /// The table it was captured as.
    pub table: Option<String>,
    /// Every other field, in the line's order.
    pub rest: Map<String, Value>,
}

/// Reads a line. It must be an object with a `payload`; anything else is an error that says what is wrong.
pub fn from_line(line: &[u8]) -> Result<Line, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// Writes a line, without its newline.
pub fn to_line(line: &Line) -> String {
    let captured = &line.captured;
    let mut fields = Map::new();
    for (name, value) in [("feed", &line.feed), ("table", &line.table)] {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value.as_str().into());
        }
    }
    let position = Place { partition: captured.partition, offset: captured.offset };
    fields.insert("position".to_owned(), serde_json::to_value(position).expect("numbers are JSON"));
    if let Some(timestamp) = captured.timestamp_ms {
        fields.insert("timestamp".to_owned(), timestamp.into());
    }
    fields.insert("key".to_owned(), text(captured.key.as_ref()));
    if !captured.headers.is_empty() {
        fields.insert("headers".to_owned(), headers(&captured.headers));
    }
    fields.insert("payload".to_owned(), text(captured.payload.as_ref()));
    fields.extend(line.rest.iter().map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(fields).to_string()
}

/// Bytes as JSON: text, `{"base64": ...}` or null.
pub fn text(bytes: Option<&Bytes>) -> Value {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(bytes)) => Value::Object(Map::from_iter([("base64".to_owned(), STANDARD.encode(bytes).into())])),
    }
}

/// Headers as JSON: a list of pairs, since names repeat and their order counts.
pub fn headers(headers: &Headers) -> Value {
    headers.iter().map(|(name, value)| Value::Array(vec![name.as_str().into(), text(value.as_ref())])).collect()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    partition: i32,
    offset: i64,
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LineVisitor)
    }
}

// By hand, because serde's `flatten` buffers every field first, and this is what every benchmark reads through.
struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a captured message: an object with `payload` and perhaps `key`, `headers`, `timestamp`, `position`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
        let mut line = Line::default();
        let mut has_payload = false;
        while let Some(field) = map.next_key_seed(FieldName)? {
            match field {
                Field::Key => line.captured.key = map.next_value::<Text>()?.0,
                Field::Payload => {
                    line.captured.payload = map.next_value::<Text>()?.0;
                    has_payload = true;
                }
                Field::Headers => {
                    let headers: Option<Vec<(String, Text)>> = map.next_value()?;
                    line.captured.headers = headers.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect();
                }
                Field::Timestamp => line.captured.timestamp_ms = map.next_value()?,
                Field::Position => {
                    let position: Place = map.next_value()?;
                    line.captured.partition = position.partition;
                    line.captured.offset = position.offset;
                }
                Field::Feed => line.feed = map.next_value()?,
                Field::Table => line.table = map.next_value()?,
                Field::Other(name) => {
                    line.rest.insert(name, map.next_value()?);
                }
            }
        }
        if has_payload { Ok(line) } else { Err(de::Error::missing_field("payload")) }
    }
}

enum Field {
    Key,
    Payload,
    Headers,
    Timestamp,
    Position,
    Feed,
    Table,
    Other(String),
}

struct FieldName;

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Field, E> {
        Ok(match name {
            "key" => Field::Key,
            "payload" => Field::Payload,
            "headers" => Field::Headers,
            "timestamp" => Field::Timestamp,
            "position" => Field::Position,
            "feed" => Field::Feed,
            "table" => Field::Table,
            other => Field::Other(other.to_owned()),
        })
    }
}

/// Bytes in a line. Written by hand they may also be any JSON value: then its compact text.
struct Text(Option<Bytes>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, an object with `base64`, or null")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Some(Bytes::copy_from_slice(text.as_bytes()))))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
        Ok(json(&value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
        Ok(json(&value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
        Ok(json(&value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
        Ok(json(&value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(json(&Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let mut fields = Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            fields.insert(name, value);
        }
        match fields.get("base64") {
            Some(Value::String(encoded)) if fields.len() == 1 => {
                let bytes = STANDARD.decode(encoded).map_err(|error| de::Error::custom(format!("base64: {error}")))?;
                Ok(Text(Some(bytes.into())))
            }
            _ => Ok(json(&Value::Object(fields))),
        }
    }
}

fn json(value: &Value) -> Text {
    Text(Some(value.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(captured: Captured) {
        let line = Line { captured, feed: Some("orders".to_owned()), table: None, rest: Map::new() };
        let written = to_line(&line);
        assert!(!written.contains('\n'));
        assert_eq!(from_line(written.as_bytes()).unwrap(), line, "{written}");
    }

    #[test]
    fn every_odd_message_survives() {
        let bytes = |text: &'static [u8]| Some(Bytes::from_static(text));
        check(Captured::default());
        check(Captured { key: bytes(b""), payload: bytes(b""), ..Captured::default() });
        check(Captured { key: bytes(b"\xff\x00"), payload: bytes(b"{\"a\":\n\"\\u0000\"}"), ..Captured::default() });
        check(Captured {
            payload: bytes(b"{\"base64\":\"AA==\"}"),
            timestamp_ms: Some(-5),
            partition: 3,
            offset: 1 << 60,
            ..Captured::default()
        });
        let headers =
            vec![("a".to_owned(), None), ("a".to_owned(), bytes(b"")), (String::new(), bytes(b"\xfe")), ("z".to_owned(), bytes(b"1"))];
        check(Captured { headers, ..Captured::default() });
    }

    #[test]
    fn other_fields_are_kept_in_order() {
        let line = from_line(br#"{"zeta": 1, "payload": null, "expected": {"status": "handled"}, "table": "T"}"#).unwrap();
        assert_eq!(line.rest.keys().collect::<Vec<_>>(), ["zeta", "expected"]);
        assert_eq!(line.table.as_deref(), Some("T"));
        assert_eq!(line.captured.payload, None);
        assert_eq!(from_line(to_line(&line).as_bytes()).unwrap(), line);
    }

    #[test]
    fn a_payload_written_as_json_is_its_compact_text() {
        let line = from_line(br#"{"key": 12, "payload": {"b": [1, 2.5, true], "a": null}}"#).unwrap();
        assert_eq!(line.captured.payload.as_deref(), Some(&br#"{"b":[1,2.5,true],"a":null}"#[..]));
        assert_eq!(line.captured.key.as_deref(), Some(&b"12"[..]));
    }

    #[test]
    fn what_is_no_captured_message_is_an_error() {
        for line in
            [&b""[..], b"{", b"[]", b"7", br#"{"table": "T"}"#, br#"{"payload": {"base64": "?"}, "x": 1}"#, b"{\"payload\": \"\xff\"}"]
        {
            assert!(from_line(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
