//! What is measured with: change events of 1 kB, as a file of captured messages and as a source that hands them over from memory.

use std::io::{BufWriter, Write};
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use tolk::message::{Captured, Position};
use tolk::source::captured::{Line, to_line};
use tolk::source::{Batch, Error, Source};

/// Bytes of a change event.
const EVENT_BYTES: usize = 1_000;

/// Change events of one table, each of one of `keys` ordering keys, in turn.
pub fn events(count: usize, keys: usize) -> Vec<Captured> {
    (0..count).map(|n| event(n, n % keys, "ACCEPTED")).collect()
}

/// Change events that cannot be done: the first of each of `keys` keys waits for something that never comes, the others stand behind it.
pub fn parked(count: usize, keys: usize) -> impl Iterator<Item = Captured> + Send {
    (0..count).map(move |n| event(n, PARKED + n % keys, "PARKED"))
}

/// Ordering keys from here on are those of parked messages.
const PARKED: usize = 100_000_000;

fn event(n: usize, key: usize, state: &str) -> Captured {
    let mut event = json!({
        "table": "SHOP.ITEM",
        "op_type": if n.is_multiple_of(3) { "I" } else { "U" },
        "op_ts": "2024-03-05 08:09:10.000000",
        "current_ts": "2024-03-05T08:09:11.123000",
        "pos": format!("{n:020}"),
        "after": {
            "ITEM_ID": 1_000_000 + key,
            "ORDER_ID": 7_000_000 + n / 4,
            "STATE": state,
            "NAME": "a name of some length",
            "STREET": "Storgata 12 B",
            "POSTCODE": "0155",
            "TOWN": "OSLO",
            "FROM_DATE": "2024-01-01 00:00:00",
            "TO_DATE": if n.is_multiple_of(5) { None } else { Some("2024-12-31 00:00:00") },
            "PERCENT": 50.5,
            "CHANGED_BY": "BATCH_USER_7",
            "CHANGED_AT": "2024-03-05 08:09:10",
            "QUANTITY": n % 17,
            "UNIT": "STK",
            "PRICE": 1_999.5,
            "CURRENCY": "NOK",
            "REASON": null,
            "REFERENCE": format!("REF-{n}"),
            "ARCHIVED": "N",
            "REMARK": "",
        },
    });
    let room = EVENT_BYTES.saturating_sub(event.to_string().len());
    event["after"]["REMARK"] = "lorem ipsum dolor sit amet ".chars().cycle().take(room).collect::<String>().into();
    Captured {
        partition: 0,
        offset: i64::try_from(n).unwrap(),
        key: Some(Bytes::from((1_000_000 + key).to_string())),
        payload: Some(Bytes::from(event.to_string())),
        headers: Vec::new(),
        timestamp_ms: Some(1_709_622_550_000),
    }
}

/// Writes messages as a file source reads them.
pub fn write(path: &Path, messages: &[Captured]) {
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    for captured in messages {
        writeln!(file, "{}", to_line(&Line { captured: captured.clone(), ..Line::default() })).unwrap();
    }
    file.flush().unwrap();
}

/// A source that hands over what is in memory, which costs nothing, or what is made as it is asked for.
pub struct Memory {
    messages: std::iter::Peekable<Box<dyn Iterator<Item = Captured> + Send>>,
    offset: i64,
}

impl Memory {
    pub fn new(messages: Vec<Captured>) -> Self {
        Self::made(messages.into_iter())
    }

    pub fn made(messages: impl Iterator<Item = Captured> + Send + 'static) -> Self {
        let messages: Box<dyn Iterator<Item = Captured> + Send> = Box::new(messages);
        Self { messages: messages.peekable(), offset: 0 }
    }
}

#[async_trait]
impl Source for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn open(&mut self, positions: &[Position]) -> Result<(), Error> {
        // Where an earlier turn has taken messages in, these come after them.
        self.offset = positions.iter().map(|position| position.next_offset).max().unwrap_or(0);
        Ok(())
    }

    async fn next(&mut self, rows_max: usize, _bytes_max: usize) -> Result<Batch, Error> {
        let mut messages: Vec<Captured> = self.messages.by_ref().take(rows_max).collect();
        for message in &mut messages {
            message.offset = self.offset;
            self.offset += 1;
        }
        Ok(Batch { messages, ended: self.messages.peek().is_none() })
    }

    fn committed(&mut self, _positions: &[Position]) {}
}
