//! Decides where a captured message goes: table, ordering key, lane, dedupe hash. Pure; nothing a message holds can make it fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::pointers::{PointerSet, strip_nul};
use crate::delivery::{self, Kind, Piece, Rules};
use crate::feed::Config;
use crate::message::{Captured, KeyHash, NewMessage, Prejudged, Status};

/// Namespace of message ids: uuid5 of it and `TOPIC/PARTITION/OFFSET`.
const MESSAGES: Uuid = Uuid::from_u128(0x6f1d_1a52_3b0c_5e67_9a54_746f_6c6b_0001);

/// How much of a payload over the limit is kept.
const KEPT_BYTES: usize = 4 << 10;

/// The pointers of a feed, compiled.
pub struct Router {
    config: Config,
    topic: String,
    set: PointerSet,
    plan: Plan,
    tables: HashMap<String, Plan>,
    delivery: Option<Marks>,
    /// Partitions of the source; 0: not known.
    partitions: AtomicI32,
    names: std::sync::Mutex<HashMap<String, Arc<str>>>,
}

/// Which slots of the pointer set hold what.
#[derive(Clone, Default)]
struct Plan {
    table: Vec<usize>,
    key: Vec<Part>,
    key_text: Vec<String>,
    dedupe: Vec<usize>,
}

/// Which slots say what a message is to its delivery.
struct Marks {
    id: Vec<usize>,
    mark: Vec<usize>,
    expected: Vec<usize>,
    config: delivery::Config,
    rules: Rules,
}

#[derive(Clone, Copy)]
enum Part {
    RecordKey,
    Slot(usize),
}

impl Router {
    /// Compiles a feed's pointers. `topic` names the source in message ids.
    pub fn new(config: &Config, topic: &str) -> Self {
        let mut pointers: Vec<String> = Vec::new();
        let mut slot = |pointer: &String| match pointers.iter().position(|known| known == pointer) {
            Some(slot) => slot,
            None => {
                pointers.push(pointer.clone());
                pointers.len() - 1
            }
        };
        let mut plan = |key: &[String], dedupe: &[String]| Plan {
            table: config.table.iter().map(&mut slot).collect(),
            key: key.iter().map(|pointer| if pointer == "key" { Part::RecordKey } else { Part::Slot(slot(pointer)) }).collect(),
            key_text: key.to_vec(),
            dedupe: dedupe.iter().map(&mut slot).collect(),
        };
        let feed = plan(&config.key, &config.dedupe);
        let tables = config
            .tables
            .iter()
            .map(|(name, table)| {
                let key = table.key.as_ref().unwrap_or(&config.key);
                let dedupe = table.dedupe.as_ref().unwrap_or(&config.dedupe);
                (name.clone(), plan(key, dedupe))
            })
            .collect();
        let delivery = config.delivery.as_ref().map(|config| Marks {
            id: config.id.iter().map(&mut slot).collect(),
            mark: config.mark.iter().map(&mut slot).collect(),
            expected: config.expected.iter().map(&mut slot).collect(),
            config: config.clone(),
            rules: Rules::of(config),
        });
        let set = PointerSet::new(pointers.iter().map(String::as_str));
        Self {
            config: config.clone(),
            topic: topic.to_owned(),
            set,
            plan: feed,
            tables,
            delivery,
            partitions: AtomicI32::new(1),
            names: std::sync::Mutex::default(),
        }
    }

    /// Tells how many partitions the source has; 0: not known. One, until told otherwise.
    pub fn set_partitions(&self, partitions: i32) {
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    /// The id of the message at a position.
    pub fn message_id(&self, partition: i32, offset: i64) -> Uuid {
        Uuid::new_v5(&MESSAGES, format!("{}/{partition}/{offset}", self.topic).as_bytes())
    }

    /// Routes a message. What does not resolve is a row all the same, with a status that says why.
    pub fn route(&self, mut captured: Captured) -> NewMessage {
        let oversized = self.cut(&mut captured);
        let routed = match oversized {
            Some(prejudged) => Err(prejudged),
            None => self.resolve(&captured),
        };
        let position = format!("{}/{}", captured.partition, captured.offset);
        let id = self.message_id(captured.partition, captured.offset);
        let (table, key, dedupe, delivery, prejudged) = match routed {
            Ok(routed) => (routed.table, routed.key, routed.dedupe, routed.delivery, None),
            Err((table, prejudged)) => (table, captured.key.clone(), None, None, Some(prejudged)),
        };
        let key_hash = match (&key, &delivery) {
            // Parts are ordered among themselves only: one delivery never waits for another.
            (Some(key), Some(piece)) => KeyHash::of_parts(&[b"delivery", piece.id.as_bytes(), table.as_bytes(), key]),
            (Some(key), None) => KeyHash::of(&table, key),
            (None, _) => KeyHash::of_parts(&[b"unordered", position.as_bytes()]),
        };
        NewMessage {
            id,
            lane: key_hash.lane(self.config.lanes),
            table: self.name(&table),
            ordering_key: key,
            key_hash,
            dedupe,
            captured,
            prejudged,
            delivery,
        }
    }

    fn resolve(&self, captured: &Captured) -> Result<Routed, (String, Prejudged)> {
        let found = match &captured.payload {
            Some(payload) if self.needs_payload() => self.extract(payload)?,
            _ => Vec::new(),
        };
        let get = |slot: usize| found.get(slot).and_then(Option::as_deref);
        let table = self.plan.table.iter().find_map(|slot| get(*slot)).or(self.config.table_name.as_deref());
        let delivery = match &self.delivery {
            Some(marks) => Some(self.piece(marks, get).map_err(|prejudged| (table.unwrap_or_default().to_owned(), prejudged))?),
            None => None,
        };
        if delivery.as_ref().is_some_and(|piece| piece.kind != Kind::Part) {
            // The host itself reads marks: they need neither table nor key.
            return Ok(Routed { table: table.unwrap_or_default().to_owned(), key: None, dedupe: None, delivery });
        }
        let Some(table) = table else {
            let what = if captured.payload.is_none() { "a tombstone has no payload" } else { "no pointer resolves" };
            let reason = format!("no table: {what} ({}), and the feed has no table_name", self.config.table.join(", "));
            return Err((String::new(), invalid("no-table", reason)));
        };
        let plan = self.tables.get(table).unwrap_or(&self.plan);
        let record_key = || captured.key.clone();
        let key = if plan.key.is_empty() {
            record_key()
        } else {
            let key = plan.key.iter().find_map(|part| match part {
                Part::RecordKey => record_key(),
                Part::Slot(slot) => get(*slot).map(|text| Bytes::copy_from_slice(text.as_bytes())),
            });
            if key.is_none() {
                let reason = format!("no ordering key: none of {} resolves", plan.key_text.join(", "));
                return Err((table.to_owned(), invalid("no-key", reason)));
            }
            key
        };
        let parts: Option<Vec<&[u8]>> = plan.dedupe.iter().map(|slot| get(*slot).map(str::as_bytes)).collect();
        let dedupe = parts.filter(|parts| !parts.is_empty()).map(|mut parts| {
            parts.push(table.as_bytes());
            KeyHash::of_parts(&parts)
        });
        Ok(Routed { table: table.to_owned(), key, dedupe, delivery })
    }

    /// What a message is to its delivery.
    fn piece<'f>(&self, marks: &Marks, get: impl Fn(usize) -> Option<&'f str>) -> Result<Piece, Prejudged> {
        let config = &marks.config;
        let word = marks.mark.iter().find_map(|slot| get(*slot));
        let is = |words: &delivery::Words| word.is_some_and(|word| words.has(word));
        let count = || marks.expected.iter().find_map(|slot| get(*slot)).map(str::parse::<u32>).transpose();
        let no_count = |_| invalid("no-delivery-count", format!("the delivery's count ({}) is no number", config.expected.join(", ")));
        let kind = if is(&config.start) {
            Kind::Start(count().map_err(no_count)?.map(i64::from))
        } else if is(&config.end) {
            Kind::End(count().map_err(no_count)?.map(i64::from))
        } else if config.part.0.is_empty() || is(&config.part) {
            Kind::Part
        } else {
            let reason = format!("no delivery mark: {} has none of the words of start, part and end", config.mark.join(", "));
            return Err(invalid("no-delivery-mark", reason));
        };
        let no_id = |what: &str| invalid("no-delivery-id", format!("no delivery id: {what} ({})", config.id.join(", ")));
        let id = marks.id.iter().find_map(|slot| get(*slot)).ok_or_else(|| no_id("no pointer resolves"))?;
        let id = delivery::id_of(config, id).ok_or_else(|| no_id("what it has is no uuid"))?;
        let rules = Rules { several: self.partitions.load(Ordering::Relaxed) != 1, ..marks.rules };
        Ok(Piece { id: id.into(), kind, rules })
    }

    fn needs_payload(&self) -> bool {
        self.delivery.is_some()
            || !self.config.table.is_empty()
            || !self.config.key.is_empty()
            || !self.config.dedupe.is_empty()
            || !self.tables.is_empty()
    }

    fn extract(&self, payload: &[u8]) -> Result<Vec<Option<String>>, (String, Prejudged)> {
        let broken = |error: serde_json::Error| (String::new(), invalid("broken-json", format!("the payload is no JSON: {error}")));
        if self.config.strip_nul {
            self.set.extract(&strip_nul(payload).map_err(broken)?).map_err(broken)
        } else {
            self.set.extract(payload).map_err(broken)
        }
    }

    /// Cuts a payload over the limit, leaving its start; the reason keeps its size and hash.
    fn cut(&self, captured: &mut Captured) -> Option<(String, Prejudged)> {
        let limit = self.config.payload_bytes_max;
        let payload = captured.payload.as_mut().filter(|payload| payload.len() > limit)?;
        let hash: String = Sha256::digest(&payload).iter().map(|byte| format!("{byte:02x}")).collect();
        let size = payload.len();
        // A copy, not a slice: a slice would keep the whole payload alive.
        *payload = Bytes::copy_from_slice(&payload[..KEPT_BYTES.min(limit)]);
        let reason = format!("the payload has {size} bytes, payload_bytes_max is {limit}; kept its start, sha256 of the whole is {hash}");
        Some((self.config.table_name.clone().unwrap_or_default(), invalid("payload-too-large", reason)))
    }

    fn name(&self, table: &str) -> Arc<str> {
        let mut names = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(name) = names.get(table) {
            return name.clone();
        }
        let name: Arc<str> = table.into();
        // Tables come from payloads: a flood of names must not stay in memory.
        if names.len() < 10_000 {
            names.insert(table.to_owned(), name.clone());
        }
        name
    }
}

struct Routed {
    table: String,
    key: Option<Bytes>,
    dedupe: Option<KeyHash>,
    delivery: Option<Piece>,
}

fn invalid(code: &str, reason: String) -> Prejudged {
    Prejudged { status: Status::Invalid, code: code.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(toml: &str) -> Router {
        let text = format!("source = {{ kind = \"kafka\", cluster = \"c\", topic = \"t\" }}\n{toml}");
        Router::new(&toml::from_str(&text).unwrap(), "t")
    }

    fn message(payload: Option<&str>, key: Option<&str>) -> Captured {
        Captured {
            payload: payload.map(|text| Bytes::copy_from_slice(text.as_bytes())),
            key: key.map(|text| Bytes::copy_from_slice(text.as_bytes())),
            offset: 7,
            ..Captured::default()
        }
    }

    const CHANGES: &str = "table = [\"/table\", \"/source/table\"]\nkey = [\"/after/ID\", \"/before/ID\"]\ndedupe = [\"/op\", \"/pos\"]\n\
        strip_nul = true\npayload_bytes_max = 200\n[tables.B]\nkey = [\"key\"]";

    #[test]
    fn one_topic_holds_several_tables() {
        let router = feed(CHANGES);
        let a = router.route(message(Some(r#"{"table":"A","op":"I","pos":"1","after":{"ID":5}}"#), Some("k")));
        assert_eq!((&*a.table, a.ordering_key.as_deref()), ("A", Some(&b"5"[..])));
        let gone = router.route(message(Some(r#"{"source":{"table":"A"},"op":"D","pos":"2","after":null,"before":{"ID":"5"}}"#), None));
        assert_eq!(gone.key_hash, a.key_hash, "a delete has the key of its row");
        assert_ne!(gone.dedupe, a.dedupe);
        let b = router.route(message(Some(r#"{"table":"B"}"#), Some("k")));
        assert_eq!((b.ordering_key.as_deref(), b.dedupe), (Some(&b"k"[..]), None));
        assert!(a.prejudged.is_none() && gone.prejudged.is_none() && b.prejudged.is_none());
    }

    #[test]
    fn what_does_not_resolve_is_invalid_and_says_why() {
        let router = feed(CHANGES);
        let large = format!(r#"{{"table":"A","after":{{"ID":5}},"x":"{}"}}"#, "y".repeat(200));
        for (payload, code, word) in [
            (Some("{"), "broken-json", "EOF"),
            (Some(r#"{"op":"I"}"#), "no-table", "/table, /source/table"),
            (None, "no-table", "tombstone"),
            (Some(r#"{"table":"A","after":{}}"#), "no-key", "/after/ID"),
            (Some(large.as_str()), "payload-too-large", "payload_bytes_max"),
        ] {
            let routed = router.route(message(payload, Some("k")));
            let judged = routed.prejudged.expect(code);
            assert_eq!((judged.status, judged.code.as_str()), (Status::Invalid, code));
            assert!(judged.reason.contains(word), "{}", judged.reason);
        }
    }

    #[test]
    fn nul_is_read_around_and_kept() {
        let routed = feed(CHANGES).route(message(Some("{\"table\":\"A\",\0\"after\":{\"ID\":\"\\u00005\"}}"), None));
        assert_eq!(routed.ordering_key.as_deref(), Some(&b"5"[..]));
        assert!(routed.captured.payload.unwrap().contains(&0));
    }

    #[test]
    fn marks_and_parts_of_deliveries_are_told_apart() {
        let config = "table_name = \"T\"\nkey = [\"/who\"]\n[delivery]\nid = [\"/id\"]\nid_is_uuid = true\nmark = [\"/kind\"]\n\
            start = \"START\"\nend = \"END\"\npart = \"DATA\"\nexpected = [\"/n\"]\nstrict_order = true";
        let router = feed(config);
        let id = "3D797C7D-6273-4be3-bd57-e13de35251f8";
        let route = |kind: &str, rest: &str| router.route(message(Some(&format!(r#"{{"id":"{id}","kind":"{kind}"{rest}}}"#)), Some("k")));
        let start = route("START", r#","n":3,"who":null"#);
        let piece = start.delivery.expect("a start");
        assert_eq!((piece.kind, &*piece.id), (Kind::Start(Some(3)), id.to_lowercase().as_str()));
        assert!(start.prejudged.is_none() && start.ordering_key.is_none() && !piece.rules.several);
        let part = route("DATA", r#","who":"1""#);
        assert_eq!((part.delivery.unwrap().kind, part.ordering_key.as_deref()), (Kind::Part, Some(&b"1"[..])));
        assert_ne!(part.key_hash, KeyHash::of("T", b"1"), "ordered among the parts of its delivery only");
        router.set_partitions(2);
        assert!(route("END", "").delivery.unwrap().rules.several);
        for (payload, code) in [
            (r#"{"abc":"1"}"#.to_owned(), "no-delivery-mark"),
            (format!(r#"{{"id":"{id}","kind":"OTHER"}}"#), "no-delivery-mark"),
            (r#"{"kind":"DATA","who":"1"}"#.to_owned(), "no-delivery-id"),
            (r#"{"id":"7","kind":"DATA","who":"1"}"#.to_owned(), "no-delivery-id"),
            (format!(r#"{{"id":"{id}","kind":"END","n":"x"}}"#), "no-delivery-count"),
            (format!(r#"{{"id":"{id}","kind":"DATA"}}"#), "no-key"),
        ] {
            let routed = router.route(message(Some(&payload), None));
            assert_eq!(routed.prejudged.map(|judged| judged.code).as_deref(), Some(code), "{payload}");
            assert!(routed.delivery.is_none());
        }
    }

    #[test]
    fn ids_and_lanes_are_stable() {
        let router = feed("table_name = \"T\"");
        let one = router.route(message(None, Some("k")));
        assert_eq!(one.id, router.message_id(0, 7));
        assert_ne!(one.id, router.message_id(1, 7));
        assert_eq!((&*one.table, one.lane), ("T", router.route(message(Some("x"), Some("k"))).lane));
        let unordered = router.route(message(None, None));
        assert_eq!(unordered.ordering_key, None);
        assert!(unordered.prejudged.is_none());
    }
}
