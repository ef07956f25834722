//! Compares what a case expects with what there is: only the fields that the expectation names, numbers by value, placeholders by
//! consistency. Differences are told as `path: expected -> got`.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

/// What placeholders such as `<amt uuid for deltaker>` stood for so far: the same for the same thing.
#[derive(Default)]
pub struct Placeholders {
    known: HashMap<(String, String), String>,
}

impl Placeholders {
    /// Every difference; `whose` names the thing that placeholders are the same for.
    pub fn compare(&mut self, whose: &str, path: &str, expected: &Value, got: Option<&Value>, found: &mut Vec<String>) {
        let differ = |found: &mut Vec<String>| found.push(difference(path, &short(expected), &got.map_or("nothing".to_owned(), short)));
        match (expected, got) {
            (Value::Object(fields), Some(Value::Object(there))) => {
                for (name, field) in fields {
                    self.compare(whose, &format!("{path}.{name}"), field, there.get(name), found);
                }
            }
            (Value::Array(items), Some(Value::Array(there))) if items.len() == there.len() => {
                for (at, (item, got)) in items.iter().zip(there).enumerate() {
                    self.compare(whose, &format!("{path}[{at}]"), item, Some(got), found);
                }
            }
            (Value::String(text), got) if is_placeholder(text) => {
                let got = got.and_then(Value::as_str);
                if !got.is_some_and(|got| self.stands_for(whose, text, got)) {
                    differ(found);
                }
            }
            (Value::Number(number), Some(Value::Number(there))) if number.as_f64() == there.as_f64() => {}
            (expected, Some(got)) if expected == got => {}
            _ => differ(found),
        }
    }

    /// Whether a placeholder may stand for a text: a uuid where it says so, and what it stood for before.
    fn stands_for(&mut self, whose: &str, placeholder: &str, text: &str) -> bool {
        if placeholder.contains("uuid") && Uuid::try_parse(text).is_err() {
            return false;
        }
        self.known.entry((placeholder.to_owned(), whose.to_owned())).or_insert_with(|| text.to_owned()) == text
    }
}

/// `<...>`: any text, the same wherever it stands.
pub fn is_placeholder(text: &str) -> bool {
    text.len() > 2 && text.starts_with('<') && text.ends_with('>')
}

/// A difference in one line.
pub fn difference(path: &str, expected: &str, got: &str) -> String {
    format!("{path}: {expected} -> {got}")
}

/// A value in few characters.
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 160 { text } else { text.chars().take(157).chain("...".chars()).collect() }
}
