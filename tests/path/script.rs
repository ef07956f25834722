//! What the tests put in, and what must come of it: messages that are scripts for the scripted plugin, with the outputs, entries and statuses
//! that one serial execution gives. Knows nothing of hosts.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tolk::message::Captured;

/// The tables that have a plugin.
pub(super) const TABLES: [&str; 3] = ["a", "b", "c"];
/// Keys of each table.
const KEYS: u64 = 30;
/// The time of every message.
pub(super) const AT_MS: i64 = 1_700_000_000_000;

/// An attempt that only the test's own trouble decides.
pub(super) const ANY_ATTEMPT: u64 = u64::MAX;

/// A message and what must come of it.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) captured: Captured,
    pub(super) status: &'static str,
    /// The code, where it is certain.
    pub(super) code: Option<&'static str>,
    pub(super) outputs: Vec<Expected>,
}

/// An output.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expected {
    pub(super) key: String,
    pub(super) seq: u64,
    pub(super) i: u64,
    pub(super) attempt: u64,
    pub(super) saw: Saw,
}

/// What the plugin read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Saw {
    /// This.
    Values(Vec<Value>),
    /// The id of its key.
    Id,
    /// The entry that all such messages write: each sees what exactly one other wrote.
    Shared,
}

/// Numbers that look random and are the same for the same seed (splitmix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

/// Writes scripts and keeps the books.
pub(super) struct Scripts {
    dice: Dice,
    partitions: i32,
    offsets: BTreeMap<i32, i64>,
    seqs: BTreeMap<String, u64>,
    /// The entries as they must be in the end, but for the shared one.
    pub(super) entries: BTreeMap<String, String>,
    /// Entries that a message waits for and nobody has written yet.
    closed: Vec<String>,
    gates: u64,
    dead: u64,
}

impl Scripts {
    pub(super) fn new(seed: u64, partitions: i32) -> Self {
        let (dice, offsets, seqs) = (Dice(seed), BTreeMap::new(), BTreeMap::new());
        Self { dice, partitions, offsets, seqs, entries: BTreeMap::new(), closed: Vec::new(), gates: 0, dead: 0 }
    }

    /// So many messages of all kinds.
    pub(super) fn some(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            let table = TABLES[self.dice.below(3) as usize];
            // One key takes a fifth of everything.
            let hot = self.dice.below(5) == 0;
            let (table, key) = if hot { ("c", "hot".to_owned()) } else { (table, format!("{table}-{}", self.dice.below(KEYS))) };
            let message = match self.dice.below(100) {
                0..=44 => self.put(table, &key),
                45..=64 => self.chained(table, &key),
                65..=71 => self.retried(table, &key),
                72..=76 => self.timed_out(table, &key),
                77..=81 => self.gated(table, &key),
                82..=86 => self.script(table, &key, json!({ "id": key }), 0, Saw::Id),
                87..=90 => self.ended(table, &key, "ignore", "ignored"),
                91..=94 => self.ended(table, &key, "reject", "invalid"),
                _ => self.script(table, &key, json!({ "read": ["shared"], "write": [["shared", "SEQ"]] }), 0, Saw::Shared),
            };
            messages.push(message);
            if self.closed.len() > 3 {
                messages.push(self.open_gate());
            }
        }
        if self.dead > 0 {
            let old = format!("dead-{}", 1 + self.dice.below(self.dead));
            messages.push(self.behind(&old));
        }
        messages.extend(self.dead_key());
        messages
    }

    /// What the messages so far still need to come to their ends.
    pub(super) fn rest(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while !self.closed.is_empty() {
            messages.push(self.open_gate());
        }
        messages
    }

    /// A message that is simply put out, one to three times or not at all.
    pub(super) fn put(&mut self, table: &str, key: &str) -> Message {
        let outputs = [1, 1, 1, 2, 3, 0][self.dice.below(6) as usize];
        self.script(table, key, json!({ "outputs": outputs }), 0, Saw::Values(vec![]))
    }

    /// Reads what the last such message of its key wrote, and writes its own number.
    fn chained(&mut self, table: &str, key: &str) -> Message {
        let saw = self.entries.get(key).map_or(Value::Null, |seq| seq.as_str().into());
        let message = self.script(table, key, json!({ "read": [key], "write": [[key, "SEQ"]] }), 0, Saw::Values(vec![saw]));
        self.entries.insert(key.to_owned(), self.seqs[key].to_string());
        message
    }

    fn retried(&mut self, table: &str, key: &str) -> Message {
        let times = 1 + self.dice.below(2);
        self.script(table, key, json!({ "do": "retry", "times": times }), times, Saw::Values(vec![]))
    }

    /// Waits for what never comes.
    fn timed_out(&mut self, table: &str, key: &str) -> Message {
        let timeout = 20 + self.dice.below(300);
        self.script(table, key, json!({ "do": "wait", "on": ["never"], "timeout": timeout, "times": 1 }), 1, Saw::Values(vec![]))
    }

    /// Waits for what a later message of another key writes.
    fn gated(&mut self, table: &str, key: &str) -> Message {
        self.gates += 1;
        let gate = format!("gate-{}", self.gates);
        self.closed.push(gate.clone());
        let saw = vec![format!("open {gate}").into()];
        self.script(table, key, json!({ "do": "wait", "read": [gate], "on": [gate] }), 0, Saw::Values(saw))
    }

    fn open_gate(&mut self) -> Message {
        let gate = self.closed.remove(0);
        let value = format!("open {gate}");
        let message = self.script("a", "opener", json!({ "write": [[gate, value]] }), 0, Saw::Values(vec![]));
        self.entries.insert(gate, value);
        message
    }

    /// A key that a trap stops for good, and what stands behind it.
    fn dead_key(&mut self) -> [Message; 2] {
        self.dead += 1;
        let key = format!("dead-{}", self.dead);
        let trap = self.ended("b", &key, "trap", "failed");
        [Message { code: Some("trap"), ..trap }, self.behind(&key)]
    }

    /// A message of a key that stands still.
    fn behind(&mut self, key: &str) -> Message {
        let message = self.put("b", key);
        Message { status: "behind", code: Some("behind"), outputs: Vec::new(), ..message }
    }

    /// Fails for as long as an entry is not there; put out once that was written and somebody has asked for a retry.
    pub(super) fn healable(&mut self, table: &str, key: &str, entry: &str) -> Message {
        self.script(table, key, json!({ "do": "fail", "read": [entry] }), 0, Saw::Values(vec!["healed".into()]))
    }

    /// What heals those.
    pub(super) fn heals(&mut self, entry: &str) -> Message {
        self.entries.insert(entry.to_owned(), "healed".to_owned());
        self.script("a", "healer", json!({ "write": [[entry, "healed"]] }), 0, Saw::Values(vec![]))
    }

    /// A message without outputs.
    pub(super) fn ended(&mut self, table: &str, key: &str, what: &str, status: &'static str) -> Message {
        let message = self.script(table, key, json!({ "do": what }), 0, Saw::Values(vec![]));
        Message { status, code: Some("told-to"), outputs: Vec::new(), ..message }
    }

    /// A message whose text "SEQ" is its number.
    pub(super) fn script(&mut self, table: &str, key: &str, script: Value, attempt: u64, saw: Saw) -> Message {
        let seq = self.seqs.entry(key.to_owned()).or_default();
        *seq += 1;
        let seq = *seq;
        let outputs = script["outputs"].as_u64().unwrap_or(1);
        // All shared writes must differ, so their value names the key too.
        let value = if saw == Saw::Shared { format!("{key}#{seq}") } else { seq.to_string() };
        let mut whole = json!({ "table": table, "key": key, "seq": seq });
        whole.as_object_mut().unwrap().extend(script.as_object().unwrap().clone());
        let payload = whole.to_string().replace("\"SEQ\"", &format!("\"{value}\""));
        let captured = self.captured(key, Some(payload.into()));
        let expected = |i| Expected { key: key.to_owned(), seq, i, attempt, saw: saw.clone() };
        Message { captured, status: "handled", code: None, outputs: (0..outputs).map(expected).collect() }
    }

    fn captured(&mut self, key: &str, payload: Option<Bytes>) -> Captured {
        let sum: u32 = key.bytes().map(u32::from).sum();
        let partition = i32::try_from(sum).unwrap() % self.partitions;
        let offset = self.offsets.entry(partition).or_default();
        *offset += 1;
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        Captured { partition, offset: *offset - 1, key, payload, timestamp_ms: Some(AT_MS), ..Captured::default() }
    }

    /// One of each that is odd.
    pub(super) fn odd(&mut self) -> Vec<Message> {
        let mut messages: Vec<Message> = [
            (Some(&b"{\"table\":\"a\",\"key\":\"k\","[..]), "invalid", "broken-json"),
            (Some(b"{\"table\":\"a\",\"key\":\"odd\xff\"}"), "invalid", "broken-json"),
            (Some(b"{\"table\":\"a\",\"key\":\"odd-utf8\",\"x\":\"\xc3\x28\"}"), "invalid", "bad-json"),
            (Some(b"{\"table\":\"a\",\0\"key\":\"k\"}"), "invalid", "broken-json"),
            (Some(b"\0\0\0"), "invalid", "broken-json"),
            (Some(b""), "invalid", "broken-json"),
            (Some(b"\"only words\""), "invalid", "no-table"),
            (None, "invalid", "no-table"),
            (Some(b"{\"table\":\"unknown\",\"key\":\"k\",\"op\":\"?\"}"), "invalid", "unknown-table"),
        ]
        .into_iter()
        .map(|(payload, status, code)| Message {
            captured: self.captured("odd", payload.map(Bytes::from_static)),
            status,
            code: Some(code),
            outputs: Vec::new(),
        })
        .collect();
        messages.extend(self.odd_and_handled());
        messages
    }

    fn odd_and_handled(&mut self) -> Vec<Message> {
        let mut nul = self.put("a", "nul\0key");
        // As JSON the NUL is escaped; the record's key holds it raw.
        assert!(nul.captured.payload.as_ref().unwrap().windows(6).any(|six| six == b"\\u0000"));
        nul.captured.headers = vec![("null".to_owned(), None), ("".to_owned(), Some(Bytes::from_static(b"\0\xff")))];
        let mut no_key = self.put("b", "null-key");
        no_key.captured.key = None;
        let mut unordered = self.put("b", "unordered");
        (unordered.captured.key, unordered.captured.payload) = (None, Some(Bytes::from_static(b"{\"table\":\"b\"}")));
        (unordered.status, unordered.code, unordered.outputs) = ("invalid", Some("no-key"), Vec::new());
        let mut large_key = self.put("c", "large-key");
        large_key.captured.key = Some(vec![b'k'; 1 << 20].into());
        let mut headers = self.put("a", "headers");
        headers.captured.headers = (0..1_000).map(|i| (format!("h{}", i % 7), Some(format!("value {i}").into()))).collect();
        vec![nul, no_key, unordered, large_key, headers]
    }

    /// A payload of so many bytes, handled.
    pub(super) fn large(&mut self, bytes: usize) -> Message {
        let mut message = self.put("c", "large");
        let payload = message.captured.payload.take().unwrap();
        let head = std::str::from_utf8(&payload).unwrap().strip_suffix('}').unwrap();
        let pad = bytes - head.len() - "\"pad\":\"\",}".len();
        message.captured.payload = Some(format!("{head},\"pad\":\"{}\"}}", "x".repeat(pad)).into());
        message
    }

    /// A message whose output no sink of the tests takes: its key is `bytes` long, which is more than the topic allows.
    pub(super) fn refused(&mut self, bytes: usize) -> Message {
        let message = self.script("c", &"k".repeat(bytes), json!({}), 0, Saw::Values(vec![]));
        let mut message = Message { status: "failed", code: Some("parked-output"), outputs: Vec::new(), ..message };
        message.captured.key = None;
        message
    }
}
