//! Writes expectations into lines of captures: only the value of `expected` changes, every other byte of the line stays as its author
//! wrote it. Files are replaced whole or not at all.

use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

/// The line with this expectation: in place of the old one, or at the line's end. The line must be a JSON object.
pub fn with_expected(line: &str, expected: &Value) -> String {
    if let Some(span) = field(line, "expected") {
        return format!("{}{expected}{}", &line[..span.start], &line[span.end..]);
    }
    let end = line.rfind('}').unwrap_or(line.len());
    let before = line[..end].trim_end();
    let comma = if before.trim_start() == "{" { "" } else { ", " };
    format!("{before}{comma}\"expected\": {expected}{}", &line[end..])
}

/// Where the value of a field of the outermost object stands.
fn field(line: &str, name: &str) -> Option<Range<usize>> {
    let mut at = skip_space(line, line.find('{')? + 1);
    while line[at..].starts_with('"') {
        let key = value_end(line, at)?;
        let is_wanted = serde_json::from_str::<String>(&line[at..key]).is_ok_and(|key| key == name);
        let start = skip_space(line, skip_space(line, key) + 1);
        let end = value_end(line, start)?;
        if is_wanted {
            return Some(start..end);
        }
        at = skip_space(line, skip_space(line, end) + 1).min(line.len());
    }
    None
}

fn skip_space(line: &str, at: usize) -> usize {
    let at = at.min(line.len());
    line.len() - line[at..].trim_start().len()
}

/// Where the JSON value that starts at `start` ends.
fn value_end(line: &str, start: usize) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(&line[start..]).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    Some(start + values.byte_offset())
}

/// Replaces a file by a text: written beside it first, then moved over it.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    let written = std::fs::metadata(path).and_then(|old| {
        let mut file = std::fs::File::create(&beside)?;
        file.set_permissions(old.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    });
    if written.is_err() {
        // What is half written serves nobody; the error tells why.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_expectation_changes() {
        let new = json!({"outcome": "ignored"});
        for (line, want) in [
            (r#"{"payload": 1.0e2}"#, r#"{"payload": 1.0e2, "expected": {"outcome":"ignored"}}"#),
            (r#"{ "payload":"}", "a":[{}] } "#, r#"{ "payload":"}", "a":[{}], "expected": {"outcome":"ignored"}} "#),
            (
                r#"{"expected" : {"a":"}\""} , "payload":12345678901234567890123}"#,
                r#"{"expected" : {"outcome":"ignored"} , "payload":12345678901234567890123}"#,
            ),
            (r#"{"payload":{"expected":1},"expected":null}"#, r#"{"payload":{"expected":1},"expected":{"outcome":"ignored"}}"#),
            (r#"{"a\"":1,"exp\u0065cted":1}"#, r#"{"a\"":1,"exp\u0065cted":{"outcome":"ignored"}}"#),
            ("{}", r#"{"expected": {"outcome":"ignored"}}"#),
        ] {
            let got = with_expected(line, &new);
            assert_eq!(got, want);
            assert_eq!(serde_json::from_str::<Value>(&got).unwrap()["expected"], new);
            assert_eq!(with_expected(&got, &new), got);
        }
    }

    #[test]
    fn files_are_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "old").unwrap();
        replace(&path, "new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("missing"), "x").is_err());
    }
}
