//! Reads files of captured messages, as `tolk capture` writes them, into messages for tests.

use serde::Deserialize;

use crate::message::Message;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    feed: String,
    #[serde(default)]
    table: String,
    #[serde(default)]
    position: Position,
    timestamp: Option<i64>,
    key: Option<Text>,
    payload: Option<Text>,
    #[serde(default)]
    headers: Vec<(String, Option<Text>)>,
}

#[derive(Default, Deserialize)]
struct Position {
    partition: u32,
    offset: u64,
}

/// Text where the bytes are UTF-8, base64 where they are not.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Encoded { base64: String },
}

impl Text {
    fn bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Plain(text) => Ok(text.into_bytes()),
            Self::Encoded { base64 } => decode(&base64).ok_or_else(|| "its base64 cannot be read".to_owned()),
        }
    }
}

/// The messages of a file of captures, one JSON object a line; empty lines are skipped. The error names the line.
pub fn captured(lines: &str) -> Result<Vec<Message>, String> {
    let numbered = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    numbered.map(|(at, line)| message(line).map_err(|error| format!("line {}: {error}", at + 1))).collect()
}

fn message(line: &str) -> Result<Message, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let Position { partition, offset } = line.position;
    let header = |(name, value): (String, Option<Text>)| Ok((name, value.map(Text::bytes).transpose()?));
    Ok(Message {
        // Stable and different for each position, as the host's are.
        id: format!("00000000-0000-8000-8000-{:04x}{:08x}", partition & 0xffff, offset & 0xffff_ffff),
        feed: line.feed,
        table: line.table,
        partition,
        offset,
        key: line.key.map(Text::bytes).transpose()?,
        payload: line.payload.map(Text::bytes).transpose()?,
        headers: line.headers.into_iter().map(header).collect::<Result<_, String>>()?,
        timestamp_ms: line.timestamp,
        received_ms: 0,
    })
}

/// The bytes of standard base64.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes().map(|byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let digits: Vec<u8> = digits.collect::<Option<_>>()?;
    let groups = digits.chunks(4).map(|group| {
        let bits = group.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - group.len()));
        let bytes = bits.to_be_bytes();
        (group.len() > 1).then(|| bytes[1..group.len()].to_vec())
    });
    Some(groups.collect::<Option<Vec<_>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_may_be_text_bytes_or_null() {
        let lines = concat!(
            r#"{"table":"T","feed":"f","position":{"partition":2,"offset":7},"timestamp":5,"key":"k","payload":{"base64":"/wA="},"#,
            r#""headers":[["h",null],["h","v"]],"expect":{}}"#,
            "\n\n",
            r#"{"payload":null}"#
        );
        let messages = captured(lines).unwrap();
        assert_eq!((messages[0].partition, messages[0].offset, messages[0].timestamp_ms), (2, 7, Some(5)));
        assert_eq!((messages[0].key.as_deref(), messages[0].bytes()), (Some(&b"k"[..]), &[0xff, 0][..]));
        assert_eq!(messages[0].headers, [("h".to_owned(), None), ("h".to_owned(), Some(b"v".to_vec()))]);
        assert_eq!((&messages[1].payload, messages[1].table.as_str(), messages.len()), (&None, "", 2));
        assert_ne!(messages[0].id, messages[1].id);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        assert!(captured("{\"payload\":null}\n{").unwrap_err().starts_with("line 2: "));
        assert!(captured(r#"{"payload":{"base64":"*"}}"#).unwrap_err().starts_with("line 1: its base64"));
    }

    #[test]
    fn base64_of_every_length() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")] {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(decode("Z"), None);
    }
}
