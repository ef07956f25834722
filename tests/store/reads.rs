//! Cases of `Reads`: entries, scans and ids, all as of one settlement.

use bytes::Bytes;
use tolk::plugin::{Request, Scan};
use tolk::store::Found;
use uuid::Uuid;

use super::rig::{Rig, binding, by_index, by_key, entry, put, put_indexed, remove};

fn known_id(namespace: &str, key: &str) -> Request {
    Request::KnownId { namespace: namespace.to_owned(), key: key.to_owned() }
}

fn key_of(namespace: &str, id: Uuid) -> Request {
    Request::KeyOf { namespace: namespace.to_owned(), id: id.to_string() }
}

fn page(found: &Found) -> (Vec<&str>, bool) {
    match found {
        Found::Page { items, more } => (items.iter().map(|(key, _)| key.as_str()).collect(), *more),
        other => panic!("not a page: {other:?}"),
    }
}

pub async fn absent_things_are_absent(rig: Rig) {
    let id = Request::Id { namespace: "n".to_owned(), key: "k".to_owned() };
    let requests = [entry("c", "k"), Request::Entries(by_key("c", "")), id, known_id("n", "k"), key_of("n", Uuid::new_v4())];
    let snapshot = rig.store.read(&requests).await.unwrap();
    let nothing = Found::Page { items: Vec::new(), more: false };
    assert_eq!(snapshot.found, [Found::Entry(None), nothing, Found::Id(None), Found::Id(None), Found::Key(None)]);
    let call = tolk::plugin::Call { endpoint: "e".to_owned(), params: Vec::new(), body: None, lenient: false };
    assert!(rig.store.read(&[Request::Call(call)]).await.is_err());
    let no_uuid = Request::KeyOf { namespace: "n".to_owned(), id: "no uuid".to_owned() };
    assert_eq!(rig.store.read(&[no_uuid]).await.unwrap().found, [Found::Key(None)]);
}

pub async fn entries_bindings_and_scans_are_found(rig: Rig) {
    let id = Uuid::new_v4();
    let before = rig.store.read(&[]).await.unwrap().at;
    let writes = [put_indexed("c", "k1", "one", &[("i", "x")]), put("c", "k2", "two"), put("d", "k1", "other"), put("c", "k3", "")];
    rig.store.put_entries(&writes, &[binding("n", "k", id)]).await.unwrap();
    let requests = [
        entry("c", "k1"),
        entry("c", "k3"),
        entry("d", "k1"),
        Request::Entries(by_index("c", "i", "x")),
        Request::Id { namespace: "n".to_owned(), key: "k".to_owned() },
        known_id("n", "k"),
        key_of("n", id),
        key_of("other", id),
    ];
    let snapshot = rig.store.read(&requests).await.unwrap();
    assert!(snapshot.at > before);
    let one = Bytes::from_static(b"one");
    assert_eq!(
        snapshot.found,
        [
            Found::Entry(Some(one.clone())),
            Found::Entry(Some(Bytes::new())),
            Found::Entry(Some(Bytes::from_static(b"other"))),
            Found::Page { items: vec![("k1".to_owned(), one)], more: false },
            Found::Id(Some(id)),
            Found::Id(Some(id)),
            Found::Key(Some("k".to_owned())),
            Found::Key(None),
        ]
    );
    rig.store.put_entries(&[remove("c", "k1")], &[]).await.unwrap();
    let snapshot = rig.store.read(&requests[..4]).await.unwrap();
    assert_eq!(snapshot.found[0], Found::Entry(None));
    assert_eq!(page(&snapshot.found[3]), (vec![], false));
}

pub async fn pages_go_on_after_a_key(rig: Rig) {
    let writes: Vec<_> =
        (0..7).map(|i| put_indexed("c", &format!("k{i}"), "v", &[("i", if i % 2 == 0 { "even" } else { "odd" })])).collect();
    rig.store.put_entries(&writes, &[]).await.unwrap();
    let requests = [
        Request::Entries(Scan { limit: 3, ..by_key("c", "k") }),
        Request::Entries(Scan { limit: 3, after: Some("k2".to_owned()), ..by_key("c", "k") }),
        Request::Entries(Scan { limit: 3, after: Some("k5".to_owned()), ..by_key("c", "") }),
        Request::Entries(Scan { limit: 2, after: Some("k0".to_owned()), ..by_index("c", "i", "even") }),
        Request::Entries(Scan { limit: 3, after: Some("k0".to_owned()), ..by_index("c", "i", "even") }),
    ];
    let found = rig.store.read(&requests).await.unwrap().found;
    assert_eq!(page(&found[0]), (vec!["k0", "k1", "k2"], true));
    assert_eq!(page(&found[1]), (vec!["k3", "k4", "k5"], true));
    assert_eq!(page(&found[2]), (vec!["k6"], false));
    assert_eq!(page(&found[3]), (vec!["k2", "k4"], true));
    assert_eq!(page(&found[4]), (vec!["k2", "k4", "k6"], false));
}

pub async fn index_scans_find_values_that_start_with_the_prefix(rig: Rig) {
    // Key order and value order differ: pages are in key order.
    let writes = [
        put_indexed("c", "3", "v", &[("i", "ab"), ("j", "zz")]),
        put_indexed("c", "1", "v", &[("i", "abc")]),
        put_indexed("c", "2", "v", &[("i", "a")]),
        put_indexed("c", "4", "v", &[("i", "abd"), ("i", "abe")]),
        put_indexed("c", "5", "v", &[("j", "ab")]),
        put_indexed("d", "6", "v", &[("i", "ab")]),
    ];
    rig.store.put_entries(&writes, &[]).await.unwrap();
    let requests = [
        Request::Entries(by_index("c", "i", "ab")),
        Request::Entries(by_index("c", "i", "")),
        Request::Entries(by_index("c", "j", "z")),
        Request::Entries(Scan { limit: 1, ..by_index("c", "i", "ab") }),
    ];
    let found = rig.store.read(&requests).await.unwrap().found;
    assert_eq!(page(&found[0]), (vec!["1", "3", "4"], false));
    assert_eq!(page(&found[1]), (vec!["1", "2", "3", "4"], false));
    assert_eq!(page(&found[2]), (vec!["3"], false));
    assert_eq!(page(&found[3]), (vec!["1"], true));
}

pub async fn a_scan_prefix_is_bytes_not_a_pattern(rig: Rig) {
    let keys = ["%", "_", "\\", "a%b", "A", "a", "æ", "\u{ffff}x", "\u{10ffff}", "\u{10ffff}y"];
    let writes: Vec<_> = keys.iter().map(|key| put("c", key, "v")).collect();
    rig.store.put_entries(&writes, &[]).await.unwrap();
    for (prefix, expected) in [
        ("%", vec!["%"]),
        ("_", vec!["_"]),
        ("\\", vec!["\\"]),
        ("a", vec!["a", "a%b"]),
        ("A", vec!["A"]),
        ("æ", vec!["æ"]),
        ("\u{ffff}", vec!["\u{ffff}x"]),
        ("\u{10ffff}", vec!["\u{10ffff}", "\u{10ffff}y"]),
    ] {
        let found = rig.store.read(&[Request::Entries(by_key("c", prefix))]).await.unwrap().found;
        assert_eq!(page(&found[0]), (expected, false), "prefix {prefix:?}");
    }
    // Keys are in the order of their bytes.
    let found = rig.store.read(&[Request::Entries(by_key("c", ""))]).await.unwrap().found;
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(page(&found[0]).0, sorted);
}

pub async fn many_requests_are_answered_in_order(rig: Rig) {
    let ids: Vec<_> = (0..300).map(|_| Uuid::new_v4()).collect();
    let writes: Vec<_> = (0..300).map(|i| put("c", &format!("k{i}"), &format!("v{i}"))).collect();
    let bindings: Vec<_> = ids.iter().enumerate().map(|(i, id)| binding("n", &format!("k{i}"), *id)).collect();
    rig.store.put_entries(&writes, &bindings).await.unwrap();
    let mut requests = Vec::new();
    let mut expected = Vec::new();
    for i in (0..300).rev() {
        let key = format!("k{i}");
        requests.extend([entry("c", &key), known_id("n", &key), entry("c", &format!("none{i}")), key_of("n", ids[i]), entry("c", &key)]);
        let value = Found::Entry(Some(Bytes::from(format!("v{i}"))));
        expected.extend([value.clone(), Found::Id(Some(ids[i])), Found::Entry(None), Found::Key(Some(key)), value]);
    }
    assert_eq!(rig.store.read(&requests).await.unwrap().found, expected);
}
