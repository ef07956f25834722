//! Turns what the store found, and the overlay, into the reply a translator sees. Pure.

use bytes::Bytes;
use uuid::Uuid;

use super::ids;
use super::overlay::{Overlay, Seen};
use crate::plugin::{Binding, Reply, Request, Scan};
use crate::store::Found;

/// A reply, what was seen for it, and the id that was derived for it.
pub struct Resolved {
    /// What the guest sees.
    pub reply: Reply,
    /// What validation needs.
    pub seen: Seen,
    /// An id made now: stored with the message.
    pub derived: Option<Binding>,
}

/// Resolves one request: the overlay's newest value, else the store's as of settlement `at`.
pub fn resolve(request: &Request, found: &Found, at: i64, overlay: &Overlay, secret: &[u8; 32]) -> Resolved {
    let stored = |reply| Resolved { reply, seen: seen(request, Some(at), vec![]), derived: None };
    match (request, found) {
        (Request::Entry { collection, key }, Found::Entry(value)) => match overlay.entry(collection, key) {
            Some((value, cell)) => Resolved { reply: Reply::Entry(value), seen: seen(request, None, vec![cell]), derived: None },
            None => stored(Reply::Entry(value.clone())),
        },
        (Request::Entries(scan), Found::Page { items, more }) => page(request, scan, items, *more, at, overlay),
        (Request::Id { namespace, key }, Found::Id(id)) => match (overlay.id(namespace, key), id) {
            (Some((id, cell)), _) => Resolved { reply: Reply::Id(id.to_string()), seen: seen(request, None, vec![cell]), derived: None },
            (None, Some(id)) => stored(Reply::Id(id.to_string())),
            (None, None) => {
                let id = ids::derive(secret, namespace, key).to_string();
                let derived = Binding { namespace: namespace.clone(), key: key.clone(), id: id.clone() };
                Resolved { derived: Some(derived), ..stored(Reply::Id(id)) }
            }
        },
        (Request::KnownId { namespace, key }, Found::Id(id)) => match overlay.id(namespace, key) {
            Some((id, cell)) => {
                Resolved { reply: Reply::KnownId(Some(id.to_string())), seen: seen(request, None, vec![cell]), derived: None }
            }
            None => stored(Reply::KnownId(id.as_ref().map(Uuid::to_string))),
        },
        (Request::KeyOf { namespace, id }, Found::Key(key)) => match overlay.owner(namespace, id) {
            Some((key, cell)) => Resolved { reply: Reply::KeyOf(Some(key)), seen: seen(request, None, vec![cell]), derived: None },
            None => stored(Reply::KeyOf(key.clone())),
        },
        (request, found) => unreachable!("the store answers each request in its kind: {request:?} by {found:?}"),
    }
}

fn seen(request: &Request, at: Option<i64>, cells: Vec<super::overlay::Cell>) -> Seen {
    Seen { request: request.clone(), at, cells, keys: Vec::new() }
}

/// A store's page with the overlay's changes laid over it, in key order, cut to the limit.
fn page(request: &Request, scan: &Scan, items: &[(String, Bytes)], more: bool, at: i64, overlay: &Overlay) -> Resolved {
    let mut patched: Vec<(String, Bytes)> = items.to_vec();
    let mut cells = Vec::new();
    // Beyond the store's page we know nothing, so what the overlay adds there belongs to a later page.
    let last = if more { items.last().map(|(key, _)| key.clone()) } else { None };
    for patch in overlay.patches(scan) {
        let before = patched.len();
        patched.retain(|(key, _)| *key != patch.key);
        let was = patched.len() < before;
        let in_page = scan.after.as_ref().is_none_or(|after| patch.key > *after) && last.as_ref().is_none_or(|last| patch.key <= *last);
        match patch.value {
            Some(value) if in_page => patched.push((patch.key, value)),
            _ if was => {}
            _ => continue,
        }
        cells.push(patch.cell);
    }
    patched.sort_by(|a, b| a.0.cmp(&b.0));
    let limit = scan.limit as usize;
    let more = more || patched.len() > limit;
    patched.truncate(limit);
    let keys = patched.iter().map(|(key, _)| key.clone()).chain(items.iter().map(|(key, _)| key.clone())).collect();
    Resolved {
        reply: Reply::Entries { items: patched, more },
        seen: Seen { request: request.clone(), at: Some(at), cells, keys },
        derived: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::overlay::Cell;
    use super::*;
    use crate::plugin::Write;

    fn scan(after: Option<&str>, limit: u32) -> Scan {
        Scan { collection: "c".to_owned(), index: None, prefix: "k".to_owned(), after: after.map(str::to_owned), limit }
    }

    fn check(scan: Scan, stored: &[&str], more: bool, writes: &[(&str, bool)], expected: &[&str], expected_more: bool) {
        let mut overlay = Overlay::default();
        let writes: Vec<Write> = writes
            .iter()
            .map(|(key, there)| Write {
                collection: "c".to_owned(),
                key: (*key).to_owned(),
                value: there.then(|| Bytes::from_static(b"v")),
                indexes: vec![],
            })
            .collect();
        overlay.apply(&writes, &[], &Cell::default());
        let items = stored.iter().map(|key| ((*key).to_owned(), Bytes::from_static(b"v"))).collect();
        let request = Request::Entries(scan);
        let resolved = resolve(&request, &Found::Page { items, more }, 3, &overlay, &[0; 32]);
        let Reply::Entries { items, more } = resolved.reply else { panic!("a page") };
        assert_eq!(items.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(more, expected_more);
    }

    #[test]
    fn a_page_shows_unsettled_writes() {
        check(scan(None, 9), &["k1", "k3"], false, &[("k2", true), ("k3", false), ("x", true)], &["k1", "k2"], false);
        check(scan(Some("k1"), 9), &["k3"], false, &[("k0", true), ("k2", true)], &["k2", "k3"], false);
        check(scan(None, 2), &["k1", "k3"], true, &[("k2", true), ("k4", true)], &["k1", "k2"], true);
        check(scan(None, 2), &["k1", "k3"], true, &[("k4", true)], &["k1", "k3"], true);
    }

    #[test]
    fn an_id_is_derived_unless_it_is_bound() {
        let request = Request::Id { namespace: "n".to_owned(), key: "k".to_owned() };
        let made = resolve(&request, &Found::Id(None), 1, &Overlay::default(), &[0; 32]);
        assert!(made.derived.is_some());
        let bound = Uuid::from_u128(9);
        let known = resolve(&request, &Found::Id(Some(bound)), 1, &Overlay::default(), &[0; 32]);
        assert_eq!(known.reply, Reply::Id(bound.to_string()));
        assert!(known.derived.is_none());
    }
}
