//! Published messages, compared with those that a case expects.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::play::Scenario;
use crate::diff::{Placeholders, difference, is_placeholder, short};
use crate::world::Sent;

/// The collection of recipients that nothing goes out for.
const INFORMATION: &str = "barnetrygdinformasjon";

/// Compares the published messages with a number or a list.
pub fn compare(expected: &Value, sent: &[Sent], found: &mut Vec<String>) -> anyhow::Result<()> {
    if let Some(count) = expected.as_u64() {
        if count != sent.len() as u64 {
            found.push(difference("outputs", &count.to_string(), &sent.len().to_string()));
        }
        return Ok(());
    }
    let expected = expected.as_array().context("expect.outputs is a number or a list")?;
    if expected.len() != sent.len() {
        found.push(difference("outputs", &format!("{} in all", expected.len()), &sent.len().to_string()));
    }
    let mut placeholders = Placeholders::default();
    for (number, (expected, sent)) in expected.iter().zip(sent).enumerate() {
        let at = format!("outputs[{number}]");
        let got = json!({ "topic": sent.topic, "key": json_of(sent.row.key.as_ref()), "value": json_of(sent.row.payload.as_ref()) });
        for (name, expected) in expected.as_object().context("an expected message is an object")? {
            match name.as_str() {
                "value" => message(&format!("{at}.value"), expected, &got["value"], &mut placeholders, found),
                _ => placeholders.compare("", &format!("{at}.{name}"), expected, got.get(name), found),
            }
        }
    }
    Ok(())
}

/// A published message.
pub fn json_of(bytes: Option<&bytes::Bytes>) -> Value {
    serde_json::from_slice(bytes.map(|bytes| &bytes[..]).unwrap_or_default()).unwrap_or_default()
}

/// Compares a whole message; raw answers in their order, texts of JSON as JSON.
fn message(path: &str, expected: &Value, got: &Value, placeholders: &mut Placeholders, found: &mut Vec<String>) {
    let Some(fields) = expected.as_object() else {
        return placeholders.compare("", path, expected, Some(got), found);
    };
    for (name, expected) in fields {
        let path = format!("{path}.{name}");
        match (name.as_str(), expected) {
            ("rådata", Value::Array(expected)) => raw_answers(&path, expected, list(&got["rådata"]), found),
            _ => placeholders.compare("", &path, expected, got.get(name), found),
        }
    }
}

/// Raw answers one after the other; a placeholder stands for one or more of its kind.
fn raw_answers(path: &str, expected: &[Value], got: &[Value], found: &mut Vec<String>) {
    let mut rest = got.iter().peekable();
    for (number, expected) in expected.iter().enumerate() {
        let at = format!("{path}[{number}]");
        if let Some(placeholder) = expected.as_str().filter(|text| is_placeholder(text)) {
            let mut taken = 0;
            while rest.next_if(|raw| is_of_kind(raw, placeholder)).is_some() {
                taken += 1;
            }
            if taken == 0 {
                found.push(difference(&at, placeholder, "none"));
            }
            continue;
        }
        let Some(raw) = rest.next() else {
            found.push(difference(&at, &short(expected), "nothing"));
            continue;
        };
        for (name, expected) in expected.as_object().into_iter().flatten() {
            let (wanted, there) = (text(expected), text(&raw[name.as_str()]));
            let json = |text: &str| serde_json::from_str::<Value>(text).ok();
            let same =
                wanted == there || is_placeholder(&wanted) && !there.is_empty() || json(&wanted).is_some_and(|it| Some(it) == json(&there));
            if !same {
                found.push(difference(&format!("{at}.{name}"), &short(expected), &short(&raw[name.as_str()])));
            }
        }
    }
    for raw in rest {
        found.push(difference(path, "no more", &short(raw)));
    }
}

fn is_of_kind(raw: &Value, placeholder: &str) -> bool {
    match placeholder.to_lowercase() {
        kind if kind.contains("pdl") => raw.get("fnr").is_none(),
        kind if kind.contains("hjelpest") => raw.get("hjelpestønad").is_some(),
        kind if kind.contains("barnetrygd") => raw.get("barnetrygd").is_some(),
        _ => true,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Scenario<'_> {
    /// Messages that were published, in their order.
    pub async fn sent(&self) -> anyhow::Result<Vec<Sent>> {
        self.world.sent().await
    }

    /// What is kept of recipients that nothing goes out for.
    pub async fn kept(&self) -> anyhow::Result<Vec<Value>> {
        let scan = tolk::plugin::Scan { collection: INFORMATION.to_owned(), index: None, prefix: String::new(), after: None, limit: 1_000 };
        let entries = self.world.store.entries(&scan).await?;
        Ok(entries.iter().map(|(_, value)| json_of(Some(value))).collect())
    }

    /// The one form of a case: of the message that was published, or of what is kept in its place.
    pub async fn form(&self) -> anyhow::Result<Value> {
        let sent = self.sent().await?;
        match sent.first() {
            Some(sent) => Ok(json_of(sent.row.payload.as_ref())),
            None => self.kept().await?.into_iter().next().context("neither published nor kept"),
        }
    }
}
