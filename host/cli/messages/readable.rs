//! Bytes as a person can read them: JSON pretty, else text, else the first bytes in hexadecimal.

use serde_json::Value;

/// Bytes shown of what is neither JSON nor text.
const PREVIEW_BYTES: usize = 64;

/// What the bytes are, and a text for them.
pub(super) fn readable(bytes: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => match pretty(text) {
            Some(pretty) => ("JSON", pretty),
            None => ("text", text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()),
        },
        Err(_) => {
            let hex: Vec<String> = bytes.iter().take(PREVIEW_BYTES).map(|byte| format!("{byte:02x}")).collect();
            ("bytes", format!("{}{}", hex.join(" "), if bytes.len() > PREVIEW_BYTES { " …" } else { "" }))
        }
    }
}

/// Only objects and arrays gain by being laid out; a number shown as JSON would be a riddle.
fn pretty(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    if !value.is_object() && !value.is_array() {
        return None;
    }
    serde_json::to_string_pretty(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_shown_as_it_is() {
        assert_eq!(readable(b"{\"b\":1,\"a\":[]}"), ("JSON", "{\n  \"b\": 1,\n  \"a\": []\n}".to_owned()));
        assert_eq!(readable(b"{broken"), ("text", "{broken".to_owned()));
        assert_eq!(readable(b"a\x00b"), ("text", "a\u{fffd}b".to_owned()));
        assert_eq!(readable(&[0xff, 0x00]), ("bytes", "ff 00".to_owned()));
        assert!(readable(&[0xff; 100]).1.ends_with("ff …"));
    }
}
