//! The file source: JSON Lines, one message a line, partition 0, the offset of a message is the number of its line from 0. So offsets are
//! gapless but for empty lines, a person finds a line by its offset, and nothing moves when the file grows. A `position` in a line is where
//! the message was captured, and does not count here. A line that is no captured message (see `captured`) is itself the payload: broken
//! JSON becomes a row with a status, and a file of plain payloads needs no wrapping. In follow mode a line without its newline is unfinished.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::ahead::{self, Ahead, Bundle};
use super::{Batch, Error, Source, captured};
use crate::message::{Captured, Position};

const READ_BYTES: usize = 1 << 20;
const GROWTH_POLL: Duration = Duration::from_millis(100);

/// A source that reads a file.
pub struct FileSource {
    path: PathBuf,
    name: String,
    follow: bool,
    ahead: Ahead,
}

impl FileSource {
    /// A source of the file at `path`; nothing is opened yet.
    pub fn new(path: &Path, follow: bool) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self { path: path.to_owned(), name, follow, ahead: Ahead::closed(path.display().to_string()) }
    }
}

#[async_trait]
impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&mut self, positions: &[Position]) -> Result<(), Error> {
        let (sender, ahead) = ahead::channel(self.path.display().to_string());
        self.ahead = ahead;
        let skip = positions.iter().find(|position| position.partition == 0).map_or(0, |position| position.next_offset);
        let (path, follow) = (self.path.clone(), self.follow);
        let opened = tokio::task::spawn_blocking(move || Lines::open(path, follow, skip));
        let lines = opened.await.expect("opening a file does not panic")?;
        thread::Builder::new()
            .name("file source".to_owned())
            .spawn(move || lines.read_all(&sender))
            .map_err(|error| Error::Away { place: self.path.display().to_string(), reason: format!("no thread: {error}") })?;
        Ok(())
    }

    async fn next(&mut self, rows_max: usize, bytes_max: usize) -> Result<Batch, Error> {
        self.ahead.next(rows_max, bytes_max).await
    }

    fn committed(&mut self, _positions: &[Position]) {}
}

/// The file as its reading thread sees it.
struct Lines {
    path: PathBuf,
    follow: bool,
    reader: BufReader<File>,
    inode: u64,
    /// Bytes of whole lines read.
    bytes: u64,
    /// The number of the next line.
    next: i64,
}

impl Lines {
    fn open(path: PathBuf, follow: bool, skip: i64) -> Result<Self, Error> {
        let file = File::open(&path).map_err(|error| cannot_open(&path, follow, &error))?;
        let away = |error: io::Error| away(&path, &error);
        let inode = file.metadata().map_err(away)?.ino();
        let (lines, bytes) = skip_lines(&file, skip).map_err(away)?;
        if lines < skip {
            let reason = format!(
                "the file has only {lines} lines: it was cut or is another file; bring back the old one, or give the feed another name to read this one from its start"
            );
            return Err(Error::Gap { place: path.display().to_string(), partition: 0, offset: skip, reason });
        }
        let mut reader = BufReader::with_capacity(READ_BYTES, file);
        reader.seek(SeekFrom::Start(bytes)).map_err(|error| self::away(&path, &error))?;
        Ok(Self { path, follow, reader, inode, bytes, next: skip })
    }

    fn read_all(mut self, sender: &mpsc::Sender<Result<Batch, Error>>) {
        loop {
            let step = self.read_bundle();
            let ended = matches!(&step, Ok(batch) if batch.ended);
            let failed = step.is_err();
            let idle = matches!(&step, Ok(batch) if batch.messages.is_empty()) && !ended;
            if !idle && sender.blocking_send(step).is_err() || ended || failed || sender.is_closed() {
                return;
            }
            if idle {
                thread::sleep(GROWTH_POLL);
            }
        }
    }

    /// Lines up to a bundle's size; an empty one where a followed file has not grown.
    fn read_bundle(&mut self) -> Result<Batch, Error> {
        let mut bundle = Bundle::default();
        let mut line = Vec::new();
        while !bundle.is_full() {
            line.clear();
            let read = self.reader.read_until(b'\n', &mut line).map_err(|error| away(&self.path, &error))?;
            let whole = line.last() == Some(&b'\n');
            if read == 0 || (!whole && self.follow) {
                if !self.follow {
                    return Ok(Batch { messages: bundle.take(), ended: true });
                }
                if bundle.is_empty() {
                    self.check_same_file()?;
                }
                self.reader.seek(SeekFrom::Start(self.bytes)).map_err(|error| away(&self.path, &error))?;
                break;
            }
            self.bytes += read as u64;
            if whole {
                line.pop();
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                bundle.push(message(&line, self.next));
            }
            self.next += 1;
        }
        Ok(Batch { messages: bundle.take(), ended: false })
    }

    /// A followed file only grows; one that was cut or replaced is a gap, not a new beginning.
    fn check_same_file(&self) -> Result<(), Error> {
        let now = std::fs::metadata(&self.path).map_err(|error| away(&self.path, &error))?;
        if now.ino() == self.inode && now.len() >= self.bytes {
            return Ok(());
        }
        let reason = "the file was cut or replaced while it was followed; lines are only ever to be appended".to_owned();
        Err(Error::Gap { place: self.path.display().to_string(), partition: 0, offset: self.next, reason })
    }
}

/// How many lines there are, up to `lines_max`, and how many bytes they have.
fn skip_lines(mut file: &File, lines_max: i64) -> io::Result<(i64, u64)> {
    let (mut lines, mut bytes) = (0, 0);
    let mut block = vec![0; READ_BYTES];
    let mut last = b'\n';
    while lines < lines_max {
        let read = file.read(&mut block)?;
        if read == 0 {
            // A last line without its newline is a line too, where it was read as one.
            let unended = last != b'\n' && lines + 1 == lines_max;
            return Ok(if unended { (lines_max, bytes) } else { (lines, bytes) });
        }
        let ends = block[..read].iter().filter(|byte| **byte == b'\n').count() as i64;
        if lines + ends < lines_max {
            lines += ends;
            bytes += read as u64;
            last = block[read - 1];
            continue;
        }
        for (at, _) in block[..read].iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            lines += 1;
            if lines == lines_max {
                return Ok((lines, bytes + at as u64 + 1));
            }
        }
    }
    Ok((lines, bytes))
}

fn message(line: &[u8], offset: i64) -> Captured {
    match captured::from_line(line) {
        Ok(line) => Captured { partition: 0, offset, ..line.captured },
        Err(_) => Captured { offset, payload: Some(Bytes::copy_from_slice(line)), ..Captured::default() },
    }
}

fn cannot_open(path: &Path, follow: bool, error: &io::Error) -> Error {
    if follow && error.kind() == io::ErrorKind::NotFound {
        return Error::Away { place: path.display().to_string(), reason: "the file does not exist yet".to_owned() };
    }
    Error::Wrong { place: path.display().to_string(), reason: format!("{error}; see `path` of the feed's source") }
}

fn away(path: &Path, error: &io::Error) -> Error {
    Error::Away { place: path.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn all(source: &mut FileSource) -> Vec<(i64, Option<Bytes>)> {
        let mut seen = Vec::new();
        loop {
            let batch = source.next(2, 1 << 20).await.unwrap();
            assert!(batch.messages.len() <= 2);
            seen.extend(batch.messages.into_iter().map(|message| (message.offset, message.payload)));
            if batch.ended {
                return seen;
            }
        }
    }

    fn position(next_offset: i64) -> [Position; 1] {
        [Position { partition: 0, next_offset }]
    }

    #[tokio::test]
    async fn lines_are_numbered_and_broken_ones_are_messages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        std::fs::write(
            &path,
            "{\"payload\":\"a\",\"position\":{\"partition\":4,\"offset\":9}}\n\n{broken\n{\"payload\":null}\r\n{\"x\":1}",
        )
        .unwrap();
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let expected = [(0, text("a")), (2, text("{broken")), (3, None), (4, text("{\"x\":1}"))];
        let mut source = FileSource::new(&path, false);
        for from in 0..=5 {
            source.open(&position(from)).await.unwrap();
            assert_eq!(all(&mut source).await, expected.iter().filter(|(offset, _)| *offset >= from).cloned().collect::<Vec<_>>());
        }
        assert!(matches!(source.open(&position(6)).await, Err(Error::Gap { offset: 6, .. })));
    }

    #[tokio::test]
    async fn a_followed_file_is_read_line_by_line_as_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        let mut source = FileSource::new(&path, true);
        assert!(source.open(&[]).await.unwrap_err().is_transient());
        let mut file = File::create(&path).unwrap();
        write!(file, "one\ntw").unwrap();
        source.open(&[]).await.unwrap();
        let batch = source.next(10, 1 << 20).await.unwrap();
        assert_eq!(batch.messages.len(), 1);
        write!(file, "o\nthree\n").unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(source.next(10, 1 << 20).await.unwrap().messages);
        }
        assert_eq!(
            seen.iter().map(|message| (message.offset, message.payload.as_deref().unwrap())).collect::<Vec<_>>(),
            [(1, &b"two"[..]), (2, b"three")]
        );
        file.set_len(2).unwrap();
        assert!(matches!(source.next(10, 1 << 20).await, Err(Error::Gap { offset: 3, .. })));
    }
}
