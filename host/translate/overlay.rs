//! A host's own unsettled writes: visible to its later messages, which settle in the same transaction or later.
//! Knows nothing of runs or stores; a `Cell` is all that ties a write to the message that made it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use uuid::Uuid;

use crate::plugin::{Binding, Request, Scan, Write};

/// What became of the message that wrote something.
#[derive(Clone, Debug, Default)]
pub struct Cell(Arc<AtomicI64>);

/// The states of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Finished, not settled.
    Unsettled,
    /// Committed at this settlement.
    Settled(i64),
    /// Dropped: whoever read its writes runs again.
    Dropped,
}

impl Cell {
    /// What became of it.
    pub fn fate(&self) -> Fate {
        match self.0.load(Ordering::Acquire) {
            0 => Fate::Unsettled,
            -1 => Fate::Dropped,
            settlement => Fate::Settled(settlement),
        }
    }

    /// It was committed.
    pub fn settle(&self, settlement: i64) {
        self.0.store(settlement, Ordering::Release);
    }

    /// It was dropped.
    pub fn drop_writes(&self) {
        self.0.store(-1, Ordering::Release);
    }

    /// Whether both are of one message.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a message saw of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The request.
    pub request: Request,
    /// The settlement its store part was read at; `None`: the overlay alone answered.
    pub at: Option<i64>,
    /// Whose unsettled writes it saw.
    pub cells: Vec<Cell>,
    /// The keys of a scan's items.
    pub keys: Vec<String>,
}

struct Pending<T> {
    value: T,
    cell: Cell,
}

struct EntryWrite {
    value: Option<Bytes>,
    indexes: Vec<(String, String)>,
}

/// Unsettled writes, newest last per key.
#[derive(Default)]
pub struct Overlay {
    entries: HashMap<String, HashMap<String, Vec<Pending<EntryWrite>>>>,
    ids: HashMap<(String, String), Vec<Pending<Uuid>>>,
    owners: HashMap<(String, Uuid), Vec<Pending<String>>>,
}

/// An item that a scan gets from the overlay: present with a value, or gone.
pub struct Patch {
    /// The entry's key.
    pub key: String,
    /// Its value where it matches the scan now.
    pub value: Option<Bytes>,
    /// Who wrote it.
    pub cell: Cell,
}

impl Overlay {
    /// Adds what a message wrote.
    pub fn apply(&mut self, writes: &[Write], bindings: &[Binding], cell: &Cell) {
        for write in writes {
            let value = EntryWrite { value: write.value.clone(), indexes: write.indexes.clone() };
            let keys = self.entries.entry(write.collection.clone()).or_default();
            keys.entry(write.key.clone()).or_default().push(Pending { value, cell: cell.clone() });
        }
        for binding in bindings {
            let Ok(id) = Uuid::parse_str(&binding.id) else { continue };
            let by_key = self.ids.entry((binding.namespace.clone(), binding.key.clone())).or_default();
            by_key.push(Pending { value: id, cell: cell.clone() });
            let by_id = self.owners.entry((binding.namespace.clone(), id)).or_default();
            by_id.push(Pending { value: binding.key.clone(), cell: cell.clone() });
        }
    }

    /// Takes away what a message wrote, because it was settled or dropped.
    pub fn remove(&mut self, writes: &[Write], bindings: &[Binding], cell: &Cell) {
        fn prune<K: std::hash::Hash + Eq, T>(map: &mut HashMap<K, Vec<Pending<T>>>, key: &K, cell: &Cell) {
            if let Some(stack) = map.get_mut(key) {
                stack.retain(|pending| !pending.cell.is(cell));
                if stack.is_empty() {
                    map.remove(key);
                }
            }
        }
        for write in writes {
            if let Some(keys) = self.entries.get_mut(&write.collection) {
                prune(keys, &write.key, cell);
            }
        }
        for binding in bindings {
            prune(&mut self.ids, &(binding.namespace.clone(), binding.key.clone()), cell);
            if let Ok(id) = Uuid::parse_str(&binding.id) {
                prune(&mut self.owners, &(binding.namespace.clone(), id), cell);
            }
        }
    }

    /// The newest unsettled value of an entry (`Some(None)`: removed).
    pub fn entry(&self, collection: &str, key: &str) -> Option<(Option<Bytes>, Cell)> {
        let pending = self.entries.get(collection)?.get(key)?.last()?;
        Some((pending.value.value.clone(), pending.cell.clone()))
    }

    /// The newest unsettled id of a source key.
    pub fn id(&self, namespace: &str, key: &str) -> Option<(Uuid, Cell)> {
        let pending = self.ids.get(&(namespace.to_owned(), key.to_owned()))?.last()?;
        Some((pending.value, pending.cell.clone()))
    }

    /// The newest unsettled source key of an id.
    pub fn owner(&self, namespace: &str, id: &str) -> Option<(String, Cell)> {
        let id = Uuid::parse_str(id).ok()?;
        let pending = self.owners.get(&(namespace.to_owned(), id))?.last()?;
        Some((pending.value.clone(), pending.cell.clone()))
    }

    /// What the unsettled writes change in a scan's page.
    pub fn patches(&self, scan: &Scan) -> Vec<Patch> {
        let Some(keys) = self.entries.get(&scan.collection) else { return Vec::new() };
        let patch = |(key, stack): (&String, &Vec<Pending<EntryWrite>>)| {
            let newest = stack.last()?;
            let value = newest.value.value.clone().filter(|_| covers(scan, key, &newest.value.indexes));
            Some(Patch { key: key.clone(), value, cell: newest.cell.clone() })
        };
        keys.iter().filter_map(patch).collect()
    }

    /// Whether a settlement that is just committed holds the write that was seen and a later one of the same entry. Scans are told by the
    /// store, for they were read at a settlement before; ids never change.
    pub fn replaced(&self, seen: &Seen) -> bool {
        let (Request::Entry { collection, key }, None) = (&seen.request, seen.at) else { return false };
        let Some(stack) = self.entries.get(collection).and_then(|keys| keys.get(key)) else { return false };
        let at = stack.iter().rposition(|pending| seen.cells.iter().any(|cell| cell.is(&pending.cell)));
        at.is_some_and(|at| stack[at + 1..].iter().any(|pending| matches!(pending.cell.fate(), Fate::Settled(_))))
    }

    /// Whether what was seen is not what is there now.
    pub fn outdated(&self, seen: &Seen) -> bool {
        if seen.cells.iter().any(|cell| cell.fate() == Fate::Dropped) {
            return true;
        }
        let other = |cell: Option<Cell>| cell.is_some_and(|cell| !seen.cells.iter().any(|known| known.is(&cell)));
        match &seen.request {
            Request::Entry { collection, key } => other(self.entry(collection, key).map(|(_, cell)| cell)),
            Request::Id { namespace, key } | Request::KnownId { namespace, key } => other(self.id(namespace, key).map(|(_, cell)| cell)),
            Request::KeyOf { namespace, id } => other(self.owner(namespace, id).map(|(_, cell)| cell)),
            Request::Entries(scan) => {
                let touches = |patch: &Patch| patch.value.is_some() || seen.keys.contains(&patch.key);
                self.patches(scan).into_iter().any(|patch| touches(&patch) && other(Some(patch.cell)))
            }
            Request::Call(_) => false,
        }
    }
}

/// Whether an entry with these indexes stands in a scan.
fn covers(scan: &Scan, key: &str, indexes: &[(String, String)]) -> bool {
    match &scan.index {
        None => key.starts_with(&scan.prefix),
        Some(index) => indexes.iter().any(|(name, value)| name == index && value.starts_with(&scan.prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, value: Option<&'static str>, index: &str) -> Write {
        Write {
            collection: "c".to_owned(),
            key: key.to_owned(),
            value: value.map(|text| Bytes::from_static(text.as_bytes())),
            indexes: vec![("i".to_owned(), index.to_owned())],
        }
    }

    fn entry(key: &str) -> Request {
        Request::Entry { collection: "c".to_owned(), key: key.to_owned() }
    }

    fn scan() -> Scan {
        Scan { collection: "c".to_owned(), index: Some("i".to_owned()), prefix: "p".to_owned(), after: None, limit: 10 }
    }

    #[test]
    fn the_newest_write_is_seen_until_it_goes() {
        let (mut overlay, a, b) = (Overlay::default(), Cell::default(), Cell::default());
        overlay.apply(&[write("k", Some("1"), "p")], &[], &a);
        overlay.apply(&[write("k", None, "p")], &[], &b);
        assert_eq!(overlay.entry("c", "k").unwrap().0, None);
        overlay.remove(&[write("k", None, "p")], &[], &b);
        assert_eq!(overlay.entry("c", "k").unwrap().0.as_deref(), Some(&b"1"[..]));
        overlay.remove(&[write("k", Some("1"), "p")], &[], &a);
        assert!(overlay.entry("c", "k").is_none());
    }

    #[test]
    fn what_was_seen_before_a_write_is_outdated_after_it() {
        let (mut overlay, a) = (Overlay::default(), Cell::default());
        let seen = |request: Request, cells: Vec<Cell>, keys: &[&str]| Seen {
            request,
            at: Some(1),
            cells,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        assert!(!overlay.outdated(&seen(entry("k"), vec![], &[])));
        overlay.apply(&[write("k", Some("1"), "p1")], &[], &a);
        assert!(overlay.outdated(&seen(entry("k"), vec![], &[])));
        assert!(!overlay.outdated(&seen(entry("k"), vec![a.clone()], &[])));
        assert!(!overlay.outdated(&seen(entry("other"), vec![], &[])));
        assert!(overlay.outdated(&seen(Request::Entries(scan()), vec![], &[])), "an entry entered the range");
        overlay.apply(&[write("k", Some("1"), "elsewhere")], &[], &Cell::default());
        assert!(overlay.outdated(&seen(Request::Entries(scan()), vec![], &["k"])), "an entry left the range");
        assert!(!overlay.outdated(&seen(Request::Entries(scan()), vec![], &[])), "an entry outside the range is none of its business");
        a.drop_writes();
        assert!(overlay.outdated(&seen(entry("z"), vec![a], &[])), "whoever read dropped writes runs again");
    }

    #[test]
    fn a_write_that_its_own_settlement_replaced_is_told() {
        let (mut overlay, a, b) = (Overlay::default(), Cell::default(), Cell::default());
        overlay.apply(&[write("k", Some("1"), "p")], &[], &a);
        overlay.apply(&[write("k", Some("2"), "p")], &[], &b);
        let seen = |cell: &Cell| Seen { request: entry("k"), at: None, cells: vec![cell.clone()], keys: vec![] };
        assert!(!overlay.replaced(&seen(&a)), "the later one may settle later");
        a.settle(7);
        assert!(!overlay.replaced(&seen(&a)));
        b.settle(7);
        assert!(overlay.replaced(&seen(&a)) && !overlay.replaced(&seen(&b)));
    }

    #[test]
    fn ids_are_seen_both_ways() {
        let (mut overlay, a) = (Overlay::default(), Cell::default());
        let id = Uuid::from_u128(7);
        let binding = Binding { namespace: "n".to_owned(), key: "k".to_owned(), id: id.to_string() };
        overlay.apply(&[], std::slice::from_ref(&binding), &a);
        assert_eq!(overlay.id("n", "k").unwrap().0, id);
        assert_eq!(overlay.owner("n", &id.to_string()).unwrap().0, "k");
        overlay.remove(&[], &[binding], &a);
        assert!(overlay.id("n", "k").is_none() && overlay.owner("n", &id.to_string()).is_none());
    }
}
