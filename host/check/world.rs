//! A small world in memory: the entries, ids and bindings that earlier messages of a capture left behind, as a store would hold them.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use crate::plugin::{Binding, Reply, Request, Scan, Write};
use crate::translate::ids;

/// Ids of checks come from a secret that everybody knows, so that they are the same on every machine.
const SECRET: [u8; 32] = [0; 32];

/// Entries and ids.
#[derive(Debug, Default)]
pub struct World {
    /// By collection and key.
    entries: BTreeMap<String, BTreeMap<String, Entry>>,
    /// By namespace and source key.
    ids: BTreeMap<(String, String), Uuid>,
    /// By namespace and id.
    keys: BTreeMap<(String, Uuid), String>,
}

#[derive(Debug)]
struct Entry {
    value: Bytes,
    indexes: Vec<(String, String)>,
}

impl World {
    /// What the world answers; `None` for calls.
    pub fn answer(&self, request: &Request) -> Option<Reply> {
        Some(match request {
            Request::Entry { collection, key } => {
                Reply::Entry(self.entries.get(collection).and_then(|keys| keys.get(key)).map(|entry| entry.value.clone()))
            }
            Request::Entries(scan) => self.page(scan),
            Request::Id { namespace, key } => {
                let id = self.id(namespace, key).unwrap_or_else(|| ids::derive(&SECRET, namespace, key));
                Reply::Id(id.to_string())
            }
            Request::KnownId { namespace, key } => Reply::KnownId(self.id(namespace, key).map(|id| id.to_string())),
            Request::KeyOf { namespace, id } => {
                let id = Uuid::try_parse(id).ok();
                Reply::KeyOf(id.and_then(|id| self.keys.get(&(namespace.clone(), id)).cloned()))
            }
            Request::Call(_) => return None,
        })
    }

    /// Binds ids, the derived ones that a message asked for as well as those it found; an error names the first that conflicts, and then
    /// nothing is bound.
    pub fn bind(&mut self, bindings: &[Binding]) -> Result<(), String> {
        let mut new = Vec::new();
        for Binding { namespace, key, id } in bindings {
            let parsed = Uuid::try_parse(id).map_err(|_| format!("the binding of {namespace} \"{key}\": \"{id}\" is no uuid"))?;
            if let Some(other) = self.id(namespace, key).filter(|other| *other != parsed) {
                return Err(format!("the binding of {namespace} \"{key}\" to {id} conflicts: it is bound to {other}"));
            }
            if let Some(other) = self.keys.get(&(namespace.clone(), parsed)).filter(|other| *other != key) {
                return Err(format!("the binding of {namespace} \"{key}\" to {id} conflicts: that id belongs to \"{other}\""));
            }
            new.push((namespace.clone(), key.clone(), parsed));
        }
        for (namespace, key, id) in new {
            self.keys.insert((namespace.clone(), id), key.clone());
            self.ids.insert((namespace, key), id);
        }
        Ok(())
    }

    /// Applies writes.
    pub fn write(&mut self, writes: &[Write]) {
        for write in writes {
            let keys = self.entries.entry(write.collection.clone()).or_default();
            match &write.value {
                Some(value) => keys.insert(write.key.clone(), Entry { value: value.clone(), indexes: write.indexes.clone() }),
                None => keys.remove(&write.key),
            };
        }
    }

    fn id(&self, namespace: &str, key: &str) -> Option<Uuid> {
        self.ids.get(&(namespace.to_owned(), key.to_owned())).copied()
    }

    fn page(&self, scan: &Scan) -> Reply {
        let covered = |key: &String, entry: &Entry| match &scan.index {
            None => key.starts_with(&scan.prefix),
            Some(index) => entry.indexes.iter().any(|(name, value)| name == index && value.starts_with(&scan.prefix)),
        };
        let keys = self.entries.get(&scan.collection).into_iter().flatten();
        let mut found = keys.filter(|(key, entry)| covered(key, entry) && scan.after.as_ref().is_none_or(|after| *key > after));
        let items = found.by_ref().take(scan.limit as usize).map(|(key, entry)| (key.clone(), entry.value.clone())).collect();
        Reply::Entries { items, more: found.next().is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, value: Option<&'static str>, index: &str) -> Write {
        let value = value.map(|text| Bytes::from_static(text.as_bytes()));
        Write { collection: "c".into(), key: key.into(), value, indexes: vec![("by".into(), index.into())] }
    }

    fn keys(world: &World, index: Option<&str>, prefix: &str, after: Option<&str>, limit: u32) -> (Vec<String>, bool) {
        let scan =
            Scan { collection: "c".into(), index: index.map(Into::into), prefix: prefix.into(), after: after.map(Into::into), limit };
        match world.answer(&Request::Entries(scan)) {
            Some(Reply::Entries { items, more }) => (items.into_iter().map(|(key, _)| key).collect(), more),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn entries_appear_change_and_go() {
        let mut world = World::default();
        let entry = Request::Entry { collection: "c".into(), key: "k".into() };
        assert_eq!(world.answer(&entry), Some(Reply::Entry(None)));
        world.write(&[write("k", Some("1"), "x")]);
        world.write(&[write("k", Some("2"), "x")]);
        assert_eq!(world.answer(&entry), Some(Reply::Entry(Some(Bytes::from_static(b"2")))));
        world.write(&[write("k", None, "")]);
        assert_eq!(world.answer(&entry), Some(Reply::Entry(None)));
    }

    #[test]
    fn scans_page_through_keys_and_indexes() {
        let mut world = World::default();
        world.write(&[write("k1", Some("1"), "x1"), write("k2", Some("1"), "y"), write("k3", Some("1"), "x2"), write("l", Some("1"), "x")]);
        assert_eq!(keys(&world, None, "k", None, 2), (vec!["k1".into(), "k2".into()], true));
        assert_eq!(keys(&world, None, "k", Some("k2"), 2), (vec!["k3".into()], false));
        assert_eq!(keys(&world, Some("by"), "x", None, 9), (vec!["k1".into(), "k3".into(), "l".into()], false));
        assert_eq!(keys(&world, Some("other"), "", None, 9), (vec![], false));
    }

    #[test]
    fn ids_are_derived_and_bound_both_ways() {
        let mut world = World::default();
        let (id, known) =
            (Request::Id { namespace: "n".into(), key: "k".into() }, Request::KnownId { namespace: "n".into(), key: "k".into() });
        let Some(Reply::Id(derived)) = world.answer(&id) else { panic!("an id") };
        assert_eq!(World::default().answer(&id), Some(Reply::Id(derived.clone())), "the same everywhere");
        assert_eq!(world.answer(&known), Some(Reply::KnownId(None)), "known-id never creates");
        world.bind(&[Binding { namespace: "n".into(), key: "k".into(), id: derived.clone() }]).unwrap();
        assert_eq!(world.answer(&known), Some(Reply::KnownId(Some(derived.clone()))));
        let key_of = Request::KeyOf { namespace: "n".into(), id: derived.to_uppercase() };
        assert_eq!(world.answer(&key_of), Some(Reply::KeyOf(Some("k".into()))));
        let other = Uuid::from_u128(7).to_string();
        assert!(world.bind(&[Binding { namespace: "n".into(), key: "k".into(), id: other.clone() }]).unwrap_err().contains("bound to"));
        assert!(world.bind(&[Binding { namespace: "n".into(), key: "l".into(), id: derived }]).unwrap_err().contains("belongs to \"k\""));
        assert!(world.bind(&[Binding { namespace: "n".into(), key: "l".into(), id: "7".into() }]).unwrap_err().contains("no uuid"));
        world.bind(&[Binding { namespace: "n".into(), key: "l".into(), id: other.clone() }]).unwrap();
        assert_eq!(world.answer(&Request::Id { namespace: "n".into(), key: "l".into() }), Some(Reply::Id(other)), "a bound id wins");
    }
}
