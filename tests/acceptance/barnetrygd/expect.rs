//! What a barnetrygd case expects beside the form of a message: error texts and headers.

use anyhow::{Context as _, bail};
use serde_json::Value;
use uuid::Uuid;

use crate::diff::difference;
use crate::stub::Request;

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
