//! Cases of `Settlements`: the fence, the validation of what was read, and what a settlement writes.

use tolk::message::Status;
use tolk::plugin::{Request, Scan};
use tolk::store::{Found, LaneRead, Read, Settled, Settlement, Stale, Verdict};
use uuid::Uuid;

use super::rig::{Owner, Rig, binding, by_index, by_key, done, end, entry, output, put, put_indexed, remove, stays};

/// A message that read one thing at a settlement.
async fn reader(owner: &Owner, request: Request, at: i64) -> Settled {
    let message = owner.messages(&["reader"]).await.remove(0);
    Settled { reads: vec![Read { request, at }], ..done(&message) }
}

/// Whether what was read at `at` is stale now.
async fn is_stale(owner: &Owner, request: &Request, at: i64) -> bool {
    let settled = reader(owner, request.clone(), at).await;
    match owner.settle(vec![settled]).await {
        Verdict::Stale(stale) => {
            assert_eq!(stale, [Stale { index: 0, read: Some(0) }]);
            true
        }
        Verdict::Committed { .. } => false,
        Verdict::Fenced(lanes) => panic!("fenced: {lanes:?}"),
    }
}

pub async fn a_settlement_moves_the_cursor(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c"]).await;
    let first = owner.commit(vec![done(&messages[0]), done(&messages[1])]).await;
    let second = owner.commit(vec![done(&messages[2])]).await;
    assert!(second > first);
    let claimed = owner.store.claim(&owner.host, &owner.wanted()).await.unwrap();
    let cursor = |lane| claimed.lanes.iter().find(|lease| lease.lane == lane).unwrap().cursor;
    assert_eq!((cursor(0), cursor(1)), (3, 0));
    assert_eq!(owner.now_at().await, second);
}

pub async fn a_batch_can_be_looked_up(rig: Rig) {
    let owner = rig.owner().await;
    let message = owner.messages(&["a"]).await.remove(0);
    let batch = owner.next_batch();
    assert_eq!(owner.store.settled(batch).await.unwrap(), None);
    let verdict = owner.store.settle(&owner.host, batch, &owner.settlement(vec![done(&message)])).await.unwrap();
    let Verdict::Committed { settlement, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(owner.store.settled(batch).await.unwrap(), Some(settlement));
    assert_eq!(owner.store.settled(batch + 1).await.unwrap(), None);
}

pub async fn a_foreign_epoch_is_fenced(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&[super::rig::row(0, 0, "k"), super::rig::row(1, 1, "l")]).await;
    let messages = owner.fetch().await;
    let write = Settled { writes: vec![put("c", "k", "v")], outputs: vec![output("a", "k", "o")], ..done(&messages[0]) };
    let mut settlement = owner.settlement(vec![write, done(&messages[1])]);
    settlement.lanes[1].epoch -= 1;
    let batch = owner.next_batch();
    let verdict = owner.store.settle(&owner.host, batch, &settlement).await.unwrap();
    assert_eq!(verdict, Verdict::Fenced(vec![(owner.feed, 1)]));
    assert_eq!(owner.store.settled(batch).await.unwrap(), None);
    assert_eq!(owner.store.read(&[entry("c", "k")]).await.unwrap().found, [Found::Entry(None)]);
    assert!(owner.store.outputs("a", Default::default(), 10, 1 << 20).await.unwrap().0.is_empty());
    let other = tolk::store::Host { id: Uuid::new_v4(), number: 99 };
    settlement.lanes[1].epoch += 1;
    let verdict = owner.store.settle(&other, batch + 1, &settlement).await.unwrap();
    let Verdict::Fenced(mut lanes) = verdict else { panic!("{verdict:?}") };
    lanes.sort_unstable();
    assert_eq!(lanes, [(owner.feed, 0), (owner.feed, 1)]);
}

pub async fn stale_entries_are_found(rig: Rig) {
    let owner = rig.owner().await;
    let request = entry("c", "k");
    let absent = owner.now_at().await;
    assert!(!is_stale(&owner, &request, absent).await);
    let other = owner.write(vec![put("c", "k2", "v"), put("d", "k", "v")]).await;
    assert!(!is_stale(&owner, &request, absent).await);
    let appeared = owner.write(vec![put("c", "k", "v1")]).await;
    assert!(appeared > other);
    assert!(is_stale(&owner, &request, absent).await, "appeared");
    assert!(!is_stale(&owner, &request, appeared).await);
    let changed = owner.write(vec![put("c", "k", "v2")]).await;
    assert!(is_stale(&owner, &request, appeared).await, "changed");
    assert!(!is_stale(&owner, &request, changed).await);
    let removed = owner.write(vec![remove("c", "k")]).await;
    assert!(is_stale(&owner, &request, changed).await, "removed");
    assert!(!is_stale(&owner, &request, removed).await);
    owner.write(vec![put("c", "k", "v2")]).await;
    assert!(is_stale(&owner, &request, changed).await, "gone and back is a change");
}

pub async fn stale_scans_by_key_are_found(rig: Rig) {
    let owner = rig.owner().await;
    let request = Request::Entries(by_key("c", "a%"));
    let empty = owner.write(vec![put("c", "aa1", "v"), put("c", "b", "v"), put("d", "a%1", "v")]).await - 1;
    assert!(!is_stale(&owner, &request, empty).await);
    let appeared = owner.write(vec![put("c", "a%1", "v")]).await;
    assert!(is_stale(&owner, &request, empty).await, "appeared");
    assert!(!is_stale(&owner, &request, appeared).await);
    let changed = owner.write(vec![put("c", "a%1", "v2")]).await;
    assert!(is_stale(&owner, &request, appeared).await, "changed");
    let left = owner.write(vec![remove("c", "a%1")]).await;
    assert!(is_stale(&owner, &request, changed).await, "left");
    assert!(!is_stale(&owner, &request, left).await);
    let everything = Request::Entries(by_key("c", ""));
    assert!(is_stale(&owner, &everything, changed).await);
    let page = Request::Entries(Scan { after: Some("z".to_owned()), ..by_key("c", "") });
    owner.write(vec![put("c", "z1", "v")]).await;
    assert!(is_stale(&owner, &page, left).await);
}

pub async fn stale_scans_by_index_are_found(rig: Rig) {
    let owner = rig.owner().await;
    let request = Request::Entries(by_index("c", "i", "x"));
    let start = owner.write(vec![put_indexed("c", "1", "v", &[("j", "x"), ("i", "y")]), put_indexed("d", "1", "v", &[("i", "x")])]).await;
    assert!(!is_stale(&owner, &request, start - 1).await);
    let appeared = owner.write(vec![put_indexed("c", "2", "v", &[("i", "xa")])]).await;
    assert!(is_stale(&owner, &request, start).await, "appeared");
    let changed = owner.write(vec![put_indexed("c", "2", "v2", &[("i", "xa")])]).await;
    assert!(is_stale(&owner, &request, appeared).await, "its value changed");
    assert!(!is_stale(&owner, &request, changed).await);
    let moved = owner.write(vec![put_indexed("c", "2", "v2", &[("i", "y")])]).await;
    assert!(is_stale(&owner, &request, changed).await, "moved out by another index value");
    assert!(!is_stale(&owner, &request, moved).await);
    let back = owner.write(vec![put_indexed("c", "2", "v2", &[("i", "y"), ("i", "xb")])]).await;
    assert!(is_stale(&owner, &request, moved).await, "moved in");
    let removed = owner.write(vec![remove("c", "2")]).await;
    assert!(is_stale(&owner, &request, back).await, "removed");
    assert!(!is_stale(&owner, &request, removed).await);
    owner.write(vec![put_indexed("c", "3", "v", &[("i", "y")])]).await;
    assert!(!is_stale(&owner, &request, removed).await);
}

pub async fn stale_ids_are_found(rig: Rig) {
    let owner = rig.owner().await;
    let id = Uuid::new_v4();
    let known = Request::KnownId { namespace: "n".to_owned(), key: "k".to_owned() };
    let made = Request::Id { namespace: "n".to_owned(), key: "k".to_owned() };
    let key_of = Request::KeyOf { namespace: "n".to_owned(), id: id.to_string() };
    let before = owner.now_at().await;
    let message = owner.messages(&["binder"]).await.remove(0);
    let bindings = vec![binding("n", "other", Uuid::new_v4()), binding("m", "k", id)];
    owner.commit(vec![Settled { bindings, ..done(&message) }]).await;
    for request in [&known, &made, &key_of] {
        assert!(!is_stale(&owner, request, before).await, "{request:?}");
    }
    let message = owner.messages(&["binder"]).await.remove(0);
    let bound = owner.commit(vec![Settled { bindings: vec![binding("n", "k", id)], ..done(&message) }]).await;
    for request in [&known, &made, &key_of] {
        assert!(is_stale(&owner, request, before).await, "{request:?}");
        assert!(!is_stale(&owner, request, bound).await, "{request:?}");
    }
}

pub async fn every_stale_message_is_reported(rig: Rig) {
    let owner = rig.owner().await;
    let at = owner.write(vec![put("c", "k", "v")]).await;
    owner.write(vec![put("c", "k", "v2"), put_indexed("c", "k3", "v", &[("i", "x")])]).await;
    let messages = owner.messages(&["a", "b", "c", "d"]).await;
    let read = |request, at| Read { request, at };
    let reads = [
        vec![read(entry("c", "other"), at), read(entry("c", "k"), at)],
        vec![read(entry("c", "k"), at + 1)],
        vec![read(Request::Entries(by_index("c", "i", "x")), at)],
        vec![],
    ];
    let settled: Vec<_> = messages.iter().zip(reads).map(|(message, reads)| Settled { reads, ..done(message) }).collect();
    let Verdict::Stale(mut stale) = owner.settle(settled).await else { panic!("not stale") };
    stale.sort_by_key(|stale| (stale.index, stale.read));
    assert_eq!(stale, [Stale { index: 0, read: Some(1) }, Stale { index: 2, read: Some(0) }]);
}

pub async fn a_stale_settlement_changes_nothing(rig: Rig) {
    let owner = rig.owner().await;
    let at = owner.now_at().await;
    let written = owner.write(vec![put("c", "k", "v")]).await;
    let messages = owner.messages(&["a", "b", "c"]).await;
    let first = Settled {
        outputs: vec![output("a", "k", "p")],
        writes: vec![put("c", "new", "v")],
        bindings: vec![binding("n", "k", Uuid::new_v4())],
        end: Some(end(Status::Ignored, None)),
        ..done(&messages[0])
    };
    let second = Settled { reads: vec![Read { request: entry("c", "k"), at }], ..done(&messages[1]) };
    let third = stays(&messages[2], Status::Retry, true, Some(1));
    let settlement = owner.settlement(vec![first, second, third]);
    let batch = owner.next_batch();
    let verdict = owner.store.settle(&owner.host, batch, &settlement).await.unwrap();
    assert_eq!(verdict, Verdict::Stale(vec![Stale { index: 1, read: Some(0) }]));
    assert_eq!(owner.store.settled(batch).await.unwrap(), None);
    assert_eq!(owner.now_at().await, written);
    assert!(owner.store.outputs("a", Default::default(), 10, 1 << 20).await.unwrap().0.is_empty());
    assert_eq!(owner.store.read(&[entry("c", "new")]).await.unwrap().found, [Found::Entry(None)]);
    assert!(owner.store.bindings("n").await.unwrap().is_empty());
    assert!(owner.store.blocked(&owner.lanes()).await.unwrap().is_empty());
    let leases = owner.store.claim(&owner.host, &owner.wanted()).await.unwrap().lanes;
    assert_eq!(leases.iter().find(|lease| lease.lane == 0).unwrap().cursor, 1);
    let unread = owner.store.fetch(&[LaneRead { feed: owner.feed, lane: 0, after: 1 }], 10, 1 << 20).await.unwrap();
    assert_eq!(unread.len(), 3);
    // The same batch number may commit what is left.
    let rest = owner.settlement(vec![done(&messages[0]), done(&messages[1]), done(&messages[2])]);
    assert!(matches!(owner.store.settle(&owner.host, batch, &rest).await.unwrap(), Verdict::Committed { .. }));
}

pub async fn an_equal_write_is_no_change(rig: Rig) {
    let owner = rig.owner().await;
    let write = || put_indexed("c", "k", "v", &[("i", "x"), ("j", "y")]);
    let at = owner.write(vec![write()]).await;
    let reordered = put_indexed("c", "k", "v", &[("j", "y"), ("i", "x"), ("i", "x")]);
    assert!(owner.write(vec![write()]).await > at);
    owner.write(vec![reordered, remove("c", "never was")]).await;
    for request in [entry("c", "k"), entry("c", "never was"), Request::Entries(by_index("c", "i", "x")), Request::Entries(by_key("c", "k"))]
    {
        assert!(!is_stale(&owner, &request, at).await, "{request:?}");
    }
    owner.write(vec![put_indexed("c", "k", "v", &[("i", "x")])]).await;
    assert!(is_stale(&owner, &entry("c", "k"), at).await, "other indexes are a change");
}

pub async fn a_write_replaces_the_whole_index_set(rig: Rig) {
    let owner = rig.owner().await;
    owner.write(vec![put_indexed("c", "k", "v", &[("i", "old"), ("j", "stays")])]).await;
    owner.write(vec![put_indexed("c", "k", "v", &[("i", "new"), ("j", "stays")])]).await;
    let count = async |index: &str, prefix: &str| owner.store.entries(&by_index("c", index, prefix)).await.unwrap().len();
    assert_eq!((count("i", "old").await, count("i", "new").await, count("j", "stays").await), (0, 1, 1));
    // The last of several writes in one settlement counts.
    owner.write(vec![remove("c", "k"), put_indexed("c", "k", "v2", &[("i", "last")])]).await;
    assert_eq!((count("i", "new").await, count("i", "last").await, count("j", "stays").await), (0, 1, 0));
    owner.write(vec![put("c", "k", "v3"), remove("c", "k")]).await;
    assert_eq!((count("i", "").await, owner.store.entries(&by_key("c", "")).await.unwrap().len()), (0, 0));
}

pub async fn bindings_conflict_either_way(rig: Rig) {
    let owner = rig.owner().await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    owner.store.put_entries(&[], &[binding("n", "k1", one)]).await.unwrap();
    let messages = owner.messages(&["a", "b", "c", "d"]).await;
    let binds = |i: usize, key: &str, id| Settled { bindings: vec![binding("n", key, id)], ..done(&messages[i]) };
    let verdict = owner.settle(vec![binds(0, "k2", two), binds(1, "k1", Uuid::new_v4()), binds(2, "k3", one)]).await;
    let Verdict::Stale(mut stale) = verdict else { panic!("{verdict:?}") };
    stale.sort_by_key(|stale| stale.index);
    assert_eq!(stale, [Stale { index: 1, read: None }, Stale { index: 2, read: None }]);
    // Also against an earlier message of the same settlement.
    let verdict = owner.settle(vec![binds(0, "k2", two), binds(1, "k2", Uuid::new_v4()), binds(2, "k3", two)]).await;
    let Verdict::Stale(mut stale) = verdict else { panic!("{verdict:?}") };
    stale.sort_by_key(|stale| stale.index);
    assert_eq!(stale, [Stale { index: 1, read: None }, Stale { index: 2, read: None }]);
    assert_eq!(owner.store.bindings("n").await.unwrap(), [("k1".to_owned(), one)]);
}

pub async fn an_equal_binding_is_no_conflict(rig: Rig) {
    let owner = rig.owner().await;
    let id = Uuid::new_v4();
    let messages = owner.messages(&["a", "b", "c"]).await;
    let binds = |i: usize| Settled { bindings: vec![binding("n", "k", id)], ..done(&messages[i]) };
    let at = owner.commit(vec![binds(0), binds(1)]).await;
    owner.commit(vec![binds(2)]).await;
    assert_eq!(owner.store.bindings("n").await.unwrap(), [("k".to_owned(), id)]);
    let known = Request::KnownId { namespace: "n".to_owned(), key: "k".to_owned() };
    assert!(!is_stale(&owner, &known, at).await);
}

pub async fn messages_of_one_settlement_do_not_stale_each_other(rig: Rig) {
    let owner = rig.owner().await;
    let at = owner.now_at().await;
    let messages = owner.messages(&["a", "b"]).await;
    let first = Settled { writes: vec![put("c", "k", "1")], ..done(&messages[0]) };
    let reads = vec![Read { request: entry("c", "k"), at }];
    let second = Settled { reads, writes: vec![put("c", "k", "2")], ..done(&messages[1]) };
    owner.commit(vec![first, second]).await;
    assert_eq!(owner.store.entries(&by_key("c", "")).await.unwrap(), [("k".to_owned(), bytes::Bytes::from_static(b"2"))]);
    // Nothing at all is a settlement too.
    let empty = owner.store.settle(&owner.host, owner.next_batch(), &Settlement::default()).await.unwrap();
    assert!(matches!(empty, Verdict::Committed { woken: 0, .. }), "{empty:?}");
}
