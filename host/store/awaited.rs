//! Names the things a message can wait for by 128-bit hashes, so that a wake-up is one indexed join whatever is awaited.
//! Both stores keep these hashes in `wait`; knows no SQL.

use uuid::Uuid;

use crate::message::KeyHash;
use crate::plugin::{Request, Scan};

/// What one request waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The thing; for a scan the collection, or the index.
    pub hash: KeyHash,
    /// For a scan: what the changed key, or index value, starts with.
    pub prefix: Option<String>,
}

/// A thing that changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Touched {
    /// The thing, as in [`Awaited`].
    pub hash: KeyHash,
    /// For scans: the key, or index value, that changed.
    pub value: Option<String>,
}

impl Awaited {
    /// What a request waits for; `None`: nothing in the store changes its answer (`Call`, or an id that is none).
    pub fn of(request: &Request) -> Option<Self> {
        Some(match request {
            Request::Entry { collection, key } => Self { hash: entry(collection, key), prefix: None },
            Request::Entries(Scan { collection, index: None, prefix, .. }) => {
                Self { hash: collection_hash(collection), prefix: Some(prefix.clone()) }
            }
            Request::Entries(Scan { collection, index: Some(index), prefix, .. }) => {
                Self { hash: index_hash(collection, index), prefix: Some(prefix.clone()) }
            }
            Request::Id { namespace, key } | Request::KnownId { namespace, key } => Self { hash: source_key(namespace, key), prefix: None },
            Request::KeyOf { namespace, id } => Self { hash: id_hash(namespace, Uuid::try_parse(id).ok()?), prefix: None },
            Request::Call(_) => return None,
        })
    }

    /// Whether a change wakes whoever waits for this.
    pub fn is_touched_by(&self, touched: &Touched) -> bool {
        self.hash == touched.hash
            && self.prefix.as_ref().is_none_or(|prefix| touched.value.as_ref().is_some_and(|value| value.starts_with(prefix.as_str())))
    }
}

impl Touched {
    /// What the change of an entry touches; `pairs` are its index names and values before and after.
    pub fn by_entry<'a>(
        collection: &'a str,
        key: &'a str,
        pairs: impl Iterator<Item = (&'a str, &'a str)> + 'a,
    ) -> impl Iterator<Item = Self> + 'a {
        [Self { hash: entry(collection, key), value: None }, Self { hash: collection_hash(collection), value: Some(key.to_owned()) }]
            .into_iter()
            .chain(pairs.map(move |(name, value)| Self { hash: index_hash(collection, name), value: Some(value.to_owned()) }))
    }

    /// What a new binding touches.
    pub fn by_binding(namespace: &str, key: &str, id: Uuid) -> [Self; 2] {
        [Self { hash: source_key(namespace, key), value: None }, Self { hash: id_hash(namespace, id), value: None }]
    }
}

fn entry(collection: &str, key: &str) -> KeyHash {
    KeyHash::of_parts(&[b"entry", collection.as_bytes(), key.as_bytes()])
}

fn collection_hash(collection: &str) -> KeyHash {
    KeyHash::of_parts(&[b"collection", collection.as_bytes()])
}

fn index_hash(collection: &str, name: &str) -> KeyHash {
    KeyHash::of_parts(&[b"index", collection.as_bytes(), name.as_bytes()])
}

fn source_key(namespace: &str, key: &str) -> KeyHash {
    KeyHash::of_parts(&[b"key", namespace.as_bytes(), key.as_bytes()])
}

fn id_hash(namespace: &str, id: Uuid) -> KeyHash {
    KeyHash::of_parts(&[b"id", namespace.as_bytes(), id.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touches(request: Request, pairs: &[(&str, &str)]) -> bool {
        let awaited = Awaited::of(&request).unwrap();
        Touched::by_entry("persons", "ab1", pairs.iter().copied()).any(|touched| awaited.is_touched_by(&touched))
    }

    fn scan(index: Option<&str>, prefix: &str) -> Request {
        Request::Entries(Scan { collection: "persons".into(), index: index.map(Into::into), prefix: prefix.into(), after: None, limit: 10 })
    }

    #[test]
    fn an_entry_touches_itself_its_prefixes_and_its_index_values() {
        assert!(touches(Request::Entry { collection: "persons".into(), key: "ab1".into() }, &[]));
        assert!(!touches(Request::Entry { collection: "persons".into(), key: "ab".into() }, &[]));
        assert!(touches(scan(None, "ab"), &[]));
        assert!(touches(scan(None, ""), &[]));
        assert!(!touches(scan(None, "b"), &[]));
        assert!(touches(scan(Some("name"), "Ol"), &[("name", "Ola")]));
        assert!(!touches(scan(Some("name"), "Ol"), &[("town", "Ola")]));
        assert!(!touches(scan(Some("name"), "ab"), &[]));
    }

    #[test]
    fn an_id_is_the_same_thing_in_any_spelling() {
        let id = Uuid::from_u128(0xabc);
        let request = Request::KeyOf { namespace: "n".into(), id: id.to_string().to_uppercase() };
        let awaited = Awaited::of(&request).unwrap();
        assert!(Touched::by_binding("n", "k", id).iter().any(|touched| awaited.is_touched_by(touched)));
        assert!(Awaited::of(&Request::KeyOf { namespace: "n".into(), id: "none".into() }).is_none());
    }
}
