//! How bytes stand in JSON: as JSON under their name, else as text under `NAME_text`, else under `NAME_base64`; null stands for none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::check::fields::Fields;

/// When bytes are shown as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Where they parse as JSON and no number loses digits; spaces and escapes may differ.
    Json,
    /// Where writing what was parsed gives the same bytes again.
    Exact,
    /// Never: text stands under the name itself.
    Text,
}

/// Puts bytes into an object.
pub(super) fn put(fields: &mut Map<String, Value>, name: &str, bytes: Option<&Bytes>, form: Form) {
    let Some(bytes) = bytes else {
        fields.insert(name.to_owned(), Value::Null);
        return;
    };
    let (suffix, value) = match (parsed(bytes, form), std::str::from_utf8(bytes)) {
        (Some(value), _) => ("", value),
        (None, Ok(text)) if form == Form::Text => ("", text.into()),
        (None, Ok(text)) => ("_text", text.into()),
        (None, Err(_)) => ("_base64", base64(bytes).into()),
    };
    fields.insert(format!("{name}{suffix}"), value);
}

/// Takes bytes put as `Exact`, or written by hand; the outer `None`: no such field.
pub(super) fn take(fields: &mut Fields<'_>, name: &str) -> Result<Option<Option<Bytes>>, String> {
    let text_name = format!("{name}_text");
    let base64_name = format!("{name}_base64");
    let found = [name, &text_name, &base64_name].into_iter().filter(|name| fields.has(name)).count();
    if found > 1 {
        return Err(format!("{}: only one of \"{name}\", \"{text_name}\", \"{base64_name}\" may be there", fields.at()));
    }
    if let Some(text) = fields.text(&text_name)? {
        return Ok(Some(Some(text.into())));
    }
    if let Some(text) = fields.text(&base64_name)? {
        let bytes = STANDARD.decode(&text).map_err(|error| format!("{}.{base64_name}: no base64: {error}", fields.at()))?;
        return Ok(Some(Some(bytes.into())));
    }
    Ok(fields.value(name).map(|value| if value.is_null() { None } else { Some(value.to_string().into()) }))
}

/// Standard base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn parsed(bytes: &[u8], form: Form) -> Option<Value> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let fits = match form {
        Form::Json => numbers_survive(bytes),
        Form::Exact => value.to_string().as_bytes() == bytes,
        Form::Text => false,
    };
    // A JSON null would read as "no bytes".
    (fits && !value.is_null()).then_some(value)
}

/// Whether every number of a JSON text is held exactly by what it parses to: integers of 64 bits, or at most 15 digits.
fn numbers_survive(json: &[u8]) -> bool {
    let (mut in_text, mut escaped) = (false, false);
    let mut number = String::new();
    for byte in json.iter().copied().chain([b' ']) {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        // Outside texts these letters stand only in numbers, but for the e of true and false, which parses as none of them.
        if byte.is_ascii_digit() || (!number.is_empty() && b".eE+-".contains(&byte)) || byte == b'-' {
            number.push(byte as char);
            continue;
        }
        if !number.is_empty() {
            let exact = number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
            let digits = number.split(['e', 'E']).next().unwrap_or_default().bytes().filter(u8::is_ascii_digit).count();
            if !exact && digits > 15 {
                return false;
            }
            number.clear();
        }
        in_text = byte == b'"';
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_lose_digits_are_found() {
        for kept in [
            "1",
            "-9223372036854775808",
            "18446744073709551615",
            "0.1",
            "1e5",
            "[true,false,null]",
            "\"12345678901234567890123\"",
            "\"\\\"1234567890123456789012\"",
        ] {
            assert!(numbers_survive(kept.as_bytes()), "{kept}");
        }
        for lost in ["12345678901234567890123", "[0.1234567890123456789]", "{\"a\\\"\":18446744073709551616}"] {
            assert!(!numbers_survive(lost.as_bytes()), "{lost}");
        }
    }
}
