//! What the writes of a settlement change, given what is stored: pure, the same for both stores.
//! Knows no SQL; a store reads the stored forms, asks here, and writes the answer.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use uuid::Uuid;

use super::awaited::{Awaited, Touched};
use super::{Settled, WorkRow};
use crate::message::{KeyHash, Status};
use crate::plugin::Write;

/// The stored form of an entry, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Hash of value and indexes; [`REMOVED`] where there is none.
    pub content: KeyHash,
    /// Its index pairs as text.
    pub indexes: Option<String>,
    /// When the message that wrote it was received, milliseconds since 1970.
    pub origin_ms: i64,
}

/// A write with whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Index into `settled` of the message that writes.
    pub index: usize,
    /// What it writes.
    pub write: &'a Write,
    /// When it was received, milliseconds since 1970.
    pub received_ms: i64,
    /// Whether it is a run again, which leaves alone what a message received later wrote.
    pub again: bool,
}

impl<'a> Written<'a> {
    /// The writes of messages, in the order of serialisation.
    pub fn of(settled: &'a [Settled]) -> Vec<Self> {
        let of = |(index, message): (usize, &'a Settled)| {
            let (received_ms, again) = (message.received_ms, message.run > 0);
            message.writes.iter().map(move |write| Self { index, write, received_ms, again })
        };
        settled.iter().enumerate().flat_map(of).collect()
    }

    /// Writes by hand, now.
    pub fn by_hand(writes: &'a [Write], now_ms: i64) -> Vec<Self> {
        writes.iter().enumerate().map(|(index, write)| Self { index, write, received_ms: now_ms, again: false }).collect()
    }
}

/// The content of an entry that does not exist, or not any more.
pub const REMOVED: KeyHash = KeyHash([0; 16]);

/// An entry as it is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The collection.
    pub collection: &'a str,
    /// The key.
    pub key: &'a str,
    /// The value; `None` is a removal.
    pub value: Option<&'a Bytes>,
    /// Hash of value and indexes.
    pub content: KeyHash,
    /// Its index pairs as text; `None` for none.
    pub indexes: Option<String>,
    /// Index rows to be stored under the new version: name, value, removed.
    pub pairs: Vec<(String, String, bool)>,
    /// When the message that wrote it was received, milliseconds since 1970.
    pub origin_ms: i64,
}

/// An entry that a later message wrote just as it is: no change, but from now on it is as young as that message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Younger<'a> {
    /// The collection.
    pub collection: &'a str,
    /// The key.
    pub key: &'a str,
    /// When that message was received, milliseconds since 1970.
    pub origin_ms: i64,
}

/// All changes of a settlement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Entries to store, each once.
    pub entries: Vec<Change<'a>>,
    /// Stored entries that did not change but are younger now, each once.
    pub younger: Vec<Younger<'a>>,
    /// What changed, with the index into `settled` of the last message that changed it.
    pub touched: HashMap<Touched, usize>,
}

impl<'a> Changes<'a> {
    /// The changes of some writes, in the order of serialisation. Later writes win; equal ones change nothing.
    pub fn of(writes: &[Written<'a>], stored: &HashMap<(String, String), Stored>) -> Self {
        let mut changes = Self::default();
        let mut places: HashMap<(&'a str, &'a str), Place<'a>> = HashMap::new();
        let mut order = Vec::new();
        for written in writes {
            let write = written.write;
            let place = places.entry((&write.collection, &write.key)).or_insert_with(|| {
                order.push((write.collection.as_str(), write.key.as_str()));
                Place::new(stored.get(&(write.collection.clone(), write.key.clone())))
            });
            if place.write(written) {
                let pairs = place.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                for touched in Touched::by_entry(&write.collection, &write.key, pairs) {
                    changes.touched.insert(touched, written.index);
                }
            }
        }
        for (collection, key) in order {
            let place = places.remove(&(collection, key)).expect("it was put there");
            let Some(write) = place.last else {
                let younger = Younger { collection, key, origin_ms: place.origin_ms };
                changes.younger.extend(place.stored_ms.is_some_and(|stored_ms| stored_ms < place.origin_ms).then_some(younger));
                continue;
            };
            let now: HashSet<(String, String)> = pairs_of(place.indexes.as_deref()).into_iter().collect();
            let pairs =
                place.pairs.into_iter().map(|pair| (!now.contains(&pair), pair)).map(|(removed, (name, value))| (name, value, removed));
            changes.entries.push(Change {
                collection,
                key,
                value: write.value.as_ref(),
                content: place.content,
                indexes: place.indexes,
                pairs: pairs.collect(),
                origin_ms: place.origin_ms,
            });
        }
        changes
    }

    /// Notes a new binding of a message.
    pub fn bound(&mut self, index: usize, namespace: &str, key: &str, id: Uuid) {
        self.touched.extend(Touched::by_binding(namespace, key, id).map(|touched| (touched, index)));
    }

    /// Whether a message that begins to wait in this settlement is woken by a later message of it.
    pub fn wakes(&self, index: usize, settled: &Settled) -> bool {
        let waits = |work: &&WorkRow| matches!(work.status, Status::Waiting | Status::Retry);
        let Some(work) = settled.work.as_ref().filter(waits) else { return false };
        // Settlements with both waits and writes are small on one side; a plain walk is enough, but exact things are looked up.
        work.waits.iter().filter_map(Awaited::of).any(|awaited| match awaited.prefix {
            None => self.touched.get(&Touched { hash: awaited.hash, value: None }).is_some_and(|last| *last > index),
            Some(_) => self.touched.iter().any(|(touched, last)| *last > index && awaited.is_touched_by(touched)),
        })
    }
}

/// An entry while the writes of a settlement go over it.
struct Place<'a> {
    content: KeyHash,
    indexes: Option<String>,
    /// Every pair it had before or between.
    pairs: BTreeSet<(String, String)>,
    last: Option<&'a Write>,
    origin_ms: i64,
    stored_ms: Option<i64>,
}

impl<'a> Place<'a> {
    fn new(stored: Option<&Stored>) -> Self {
        let (content, indexes) = stored.map_or((REMOVED, None), |stored| (stored.content, stored.indexes.clone()));
        let pairs = pairs_of(indexes.as_deref()).into_iter().collect();
        let stored_ms = stored.map(|stored| stored.origin_ms);
        Self { content, indexes, pairs, last: None, origin_ms: stored_ms.unwrap_or(i64::MIN), stored_ms }
    }

    /// Whether the write changed something.
    fn write(&mut self, written: &Written<'a>) -> bool {
        let write = written.write;
        if written.again && self.origin_ms > written.received_ms {
            return false;
        }
        let indexes = if write.value.is_some() { indexes_text(&write.indexes) } else { None };
        let content = content(write.value.as_ref(), indexes.as_deref());
        if content == self.content {
            self.origin_ms = self.origin_ms.max(written.received_ms);
            return false;
        }
        self.origin_ms = written.received_ms;
        self.pairs.extend(pairs_of(indexes.as_deref()));
        (self.content, self.indexes, self.last) = (content, indexes, Some(write));
        true
    }
}

/// The index pairs of an entry as text: sorted, each once, JSON; `None` for none.
pub fn indexes_text(pairs: &[(String, String)]) -> Option<String> {
    if pairs.is_empty() {
        return None;
    }
    let sorted: BTreeSet<&(String, String)> = pairs.iter().collect();
    Some(serde_json::to_string(&sorted).expect("pairs of strings are JSON"))
}

/// The index pairs of a stored text.
pub fn pairs_of(indexes: Option<&str>) -> Vec<(String, String)> {
    indexes.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The hash of a value and its indexes: equal ones are no change.
pub fn content(value: Option<&Bytes>, indexes: Option<&str>) -> KeyHash {
    value.map_or(REMOVED, |value| KeyHash::of_parts(&[value, indexes.unwrap_or_default().as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, value: Option<&'static str>, indexes: &[(&str, &str)]) -> Write {
        Write {
            collection: "c".into(),
            key: key.into(),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            indexes: indexes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
    }

    fn stored(write: &Write) -> HashMap<(String, String), Stored> {
        let indexes = indexes_text(&write.indexes);
        let content = content(write.value.as_ref(), indexes.as_deref());
        HashMap::from([((write.collection.clone(), write.key.clone()), Stored { content, indexes, origin_ms: 5 })])
    }

    fn written(index: usize, write: &Write) -> Written<'_> {
        Written { index, write, received_ms: 5, again: false }
    }

    #[test]
    fn equal_writes_and_removals_of_nothing_change_nothing() {
        let same = write("a", Some("1"), &[("y", "2"), ("x", "1")]);
        let turned = write("a", Some("1"), &[("x", "1"), ("y", "2"), ("x", "1")]);
        let nothing = write("b", None, &[]);
        assert_eq!(Changes::of(&[written(0, &turned), written(1, &nothing)], &stored(&same)), Changes::default());
    }

    #[test]
    fn the_last_write_wins_and_old_index_values_are_removed() {
        let (old, first, last) =
            (write("a", Some("0"), &[("x", "0")]), write("a", Some("1"), &[("x", "1")]), write("a", Some("2"), &[("x", "2")]));
        let stored = stored(&old);
        let changes = Changes::of(&[written(3, &first), written(5, &last)], &stored);
        assert_eq!(changes.entries.len(), 1);
        assert_eq!(changes.entries[0].value.unwrap(), "2");
        let pairs = [("x".into(), "0".into(), true), ("x".into(), "1".into(), true), ("x".into(), "2".into(), false)];
        assert_eq!(changes.entries[0].pairs, pairs);
        assert_eq!(changes.touched.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([5]));
    }

    #[test]
    fn there_and_back_is_a_change() {
        let old = write("a", Some("0"), &[]);
        let there = write("a", Some("1"), &[]);
        let stored = stored(&old);
        let changes = Changes::of(&[written(0, &there), written(1, &old)], &stored);
        assert_eq!(changes.entries.len(), 1, "whoever read the value between must be told");
    }

    #[test]
    fn a_run_again_leaves_alone_what_a_later_message_wrote() {
        let (old, new, removal) = (write("a", Some("0"), &[]), write("a", Some("1"), &[]), write("a", None, &[]));
        let stored = stored(&old);
        let of = |write, received_ms, again| Written { index: 0, write, received_ms, again };
        assert_eq!(Changes::of(&[of(&new, 4, true), of(&removal, 4, true)], &stored), Changes::default());
        for (received_ms, again) in [(4, false), (5, true), (6, true)] {
            assert_eq!(Changes::of(&[of(&new, received_ms, again)], &stored).entries[0].origin_ms, received_ms);
        }
        // One that a later message wrote in the same settlement, and one that was as a later message would have it.
        let changes = Changes::of(&[of(&new, 9, false), of(&old, 8, true)], &stored);
        assert_eq!((changes.entries[0].value.unwrap().as_ref(), changes.entries[0].origin_ms), (&b"1"[..], 9));
        let changes = Changes::of(&[of(&old, 9, false), of(&new, 8, true)], &stored);
        assert_eq!((changes.entries.len(), changes.younger.as_slice()), (0, &[Younger { collection: "c", key: "a", origin_ms: 9 }][..]));
        assert!(Changes::of(&[of(&old, 4, false)], &stored).younger.is_empty());
    }
}
