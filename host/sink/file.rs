//! The file sink: JSON Lines, one output a line, appended and synced to the disk batch by batch. Half a line that a crash left is cut off
//! when the file is opened: the batch it belonged to was never reported as sent, so it comes again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Sent, Sink};
use crate::plugin::Action;
use crate::source::captured;
use crate::store::OutputRow;

/// A sink that appends to a file.
pub struct FileSink {
    file: Arc<Mutex<File>>,
}

impl FileSink {
    /// Opens or makes the file and cuts half a line at its end.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        cut_half_line(&mut file)?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn send(&self, target: &str, outputs: &[OutputRow]) -> Vec<Sent> {
        let mut text = Vec::new();
        for output in outputs {
            text.extend_from_slice(line(target, output).as_bytes());
            text.push(b'\n');
        }
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || append(&mut file.lock().expect("no writer panics"), &text)).await;
        let sent = match written.expect("writing a file does not panic") {
            Ok(()) => Sent::Done,
            Err(error) => Sent::Away(error.to_string()),
        };
        vec![sent; outputs.len()]
    }

    fn settle_ms(&self) -> u64 {
        0
    }
}

/// Writes a batch as a whole or not at all.
fn append(file: &mut File, text: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    let written = file.write_all(text).and_then(|()| file.sync_data());
    if written.is_err() {
        // The caller sends all of it again; where even this fails, the next open cuts what is half.
        file.set_len(before)?;
    }
    written
}

fn cut_half_line(file: &mut File) -> io::Result<()> {
    const BLOCK: u64 = 64 << 10;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < file.metadata()?.len() {
        file.set_len(end)?;
        file.sync_data()?;
    }
    Ok(())
}

fn line(target: &str, output: &OutputRow) -> String {
    let mut fields = Map::new();
    fields.insert("target".to_owned(), target.into());
    fields.insert("position".to_owned(), super::position_header(output).into());
    fields.insert("event_id".to_owned(), output.event_id.to_string().into());
    fields.insert("feed".to_owned(), output.feed.as_str().into());
    if let Some(digest) = &output.digest {
        fields.insert("digest".to_owned(), digest.to_string().into());
    }
    let action = match output.action {
        Action::Put => "put",
        Action::Merge => "merge",
        Action::Delete => "delete",
    };
    fields.insert("action".to_owned(), action.into());
    if let Some(version) = output.version {
        fields.insert("version".to_owned(), version.into());
    }
    fields.insert("key".to_owned(), captured::text(output.key.as_ref()));
    if !output.headers.is_empty() {
        fields.insert("headers".to_owned(), captured::headers(&output.headers));
    }
    fields.insert("payload".to_owned(), captured::text(output.payload.as_ref()));
    Value::Object(fields).to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::message::{FeedId, Place};
    use crate::store::OutputCursor;

    fn output(index: i32, payload: &'static [u8]) -> OutputRow {
        OutputRow {
            cursor: OutputCursor { settlement: 7, index },
            event_id: Uuid::nil(),
            place: Place { feed: FeedId(1), lane: 0, n: 1 },
            feed: "orders".to_owned(),
            digest: None,
            action: Action::Put,
            key: Some(Bytes::from_static(b"\xff")),
            payload: Some(Bytes::from_static(payload)),
            headers: vec![("h".to_owned(), None)],
            version: Some(3),
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn half_a_line_of_a_crash_is_cut_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/out.jsonl");
        let sink = FileSink::open(&path).unwrap();
        assert_eq!(sink.send("out", &[output(0, b"one\ntwo"), output(1, b"")]).await, [Sent::Done, Sent::Done]);
        let long = "x".repeat(200_000);
        for half in ["{\"tar", "{", &long] {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(half.as_bytes()).unwrap();
            let sink = FileSink::open(&path).unwrap();
            assert_eq!(lines(&path).len(), 2);
            assert_eq!(sink.send("out", &[]).await, []);
        }
        let sink = FileSink::open(&path).unwrap();
        sink.send("out", &[output(2, b"\xfe")]).await;
        let lines = lines(&path);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["payload"], "one\ntwo");
        assert_eq!(lines[0]["key"], serde_json::json!({"base64": "/w=="}));
        assert_eq!(lines[0]["headers"], serde_json::json!([["h", null]]));
        assert_eq!(lines[0]["position"], "0000000000000000007.0000000000");
        assert_eq!(lines[2]["payload"], serde_json::json!({"base64": "/g=="}));
    }

    #[tokio::test]
    async fn a_file_that_is_half_a_line_only_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        std::fs::write(&path, "{").unwrap();
        FileSink::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
