//! Cases of `Messages`: what people ask.

use bytes::Bytes;
use tolk::message::{Captured, NewMessage, Place, Status};
use tolk::plugin::{Digest, Scan};
use tolk::store::{Component, Filter, MessageDetail, OutputCursor, Parked, Settled, Settlement};
use uuid::Uuid;

use super::plugins::activation;
use super::rig::{Owner, Rig, START_MS, binding, by_index, by_key, done, end, entry, output, put, put_indexed, row, stays, waits};

fn all() -> Filter {
    Filter { limit: 100, ..Filter::default() }
}

async fn offsets(owner: &Owner, filter: Filter) -> Vec<i64> {
    owner.store.messages(&filter).await.unwrap().iter().map(|status| status.offset).collect()
}

/// Makes a component known and active for table `T`; the activation's number and the digest.
pub async fn active_plugin(owner: &Owner, bytes: &[u8]) -> (i64, Digest) {
    let component = Component {
        digest: Digest::of(bytes),
        size: 1,
        description: Default::default(),
        imports: Vec::new(),
        pushed_ms: 1,
        pushed_by: String::new(),
    };
    owner.store.put_component(&component, bytes).await.unwrap();
    (owner.store.activate(&activation("T", component.digest, START_MS)).await.unwrap(), component.digest)
}

pub async fn filters_narrow(rig: Rig) {
    let owner = rig.owner().await;
    let mut rows: Vec<NewMessage> = (0..6).map(|offset| row(offset as i32 % 2, offset, &format!("k{}", offset / 2))).collect();
    rows[1].table = "U".into();
    rows[2].ordering_key = None;
    rows[5].captured.partition = 9;
    rows[4].ordering_key = Some(Bytes::from_static(b"\xff"));
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    owner.commit(vec![Settled { end: Some(end(Status::Ignored, None)), ..done(&messages[0]) }]).await;

    assert_eq!(offsets(&owner, all()).await, [5, 4, 3, 2, 1, 0]);
    assert_eq!(offsets(&owner, Filter { oldest_first: true, ..all() }).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(offsets(&owner, Filter { limit: 2, ..all() }).await, [5, 4]);
    assert_eq!(offsets(&owner, Filter { feed: Some("arena".to_owned()), limit: 1, ..all() }).await, [5]);
    assert!(offsets(&owner, Filter { feed: Some("none".to_owned()), ..all() }).await.is_empty());
    assert_eq!(offsets(&owner, Filter { table: Some("U".to_owned()), ..all() }).await, [1]);
    assert_eq!(offsets(&owner, Filter { key: Some("k1".to_owned()), ..all() }).await, [3]);
    assert_eq!(offsets(&owner, Filter { status: Some(Status::Ignored), ..all() }).await, [0]);
    assert_eq!(offsets(&owner, Filter { status: Some(Status::Pending), ..all() }).await, [5, 4, 3, 2, 1]);
    assert_eq!(offsets(&owner, Filter { code: Some("a-code".to_owned()), ..all() }).await, [0]);
    assert_eq!(offsets(&owner, Filter { id: Some(rows[4].id), ..all() }).await, [4]);
    assert_eq!(offsets(&owner, Filter { at: Some((9, 5)), ..all() }).await, [5]);
    let place = messages[3].place;
    assert_eq!(offsets(&owner, Filter { place: Some(place), ..all() }).await, [messages[3].captured.offset]);
    assert_eq!(owner.store.message_at(place).await.unwrap().unwrap().message.place, place);
    assert!(owner.store.message_at(Place { n: 1_000, ..place }).await.unwrap().is_none());
    assert!(offsets(&owner, Filter { at: Some((0, 5)), ..all() }).await.is_empty());
    assert!(offsets(&owner, Filter { table: Some("U".to_owned()), status: Some(Status::Ignored), ..all() }).await.is_empty());
    let odd = owner.store.messages(&Filter { id: Some(rows[4].id), ..all() }).await.unwrap().remove(0);
    assert_eq!(odd.key.as_deref(), Some("\u{fffd}"));
    let unordered = owner.store.messages(&Filter { id: Some(rows[2].id), ..all() }).await.unwrap().remove(0);
    assert_eq!((unordered.key, unordered.status.as_str(), unordered.received_ms), (None, "pending", START_MS));
}

pub async fn counts_and_unpublished(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "d", "e"]).await;
    let outputs = vec![output("a", "k", "1"), output("a", "k", "2")];
    owner
        .commit(vec![
            Settled { outputs, ..done(&messages[0]) },
            done(&messages[1]),
            Settled { end: Some(end(Status::Invalid, None)), ..done(&messages[2]) },
            stays(&messages[3], Status::Retry, true, Some(1)),
        ])
        .await;
    let mut counts = owner.store.counts().await.unwrap();
    counts.sort_by(|one, other| one.status.cmp(&other.status));
    let found: Vec<_> = counts.iter().map(|count| (count.status.as_str(), count.count)).collect();
    assert_eq!(found, [("handled", 2), ("invalid", 1), ("pending", 1), ("retry", 1)]);
    assert!(counts.iter().all(|count| count.feed == "arena" && count.table == "T"));
    let unpublished = owner.store.unpublished().await.unwrap();
    assert_eq!(unpublished.iter().find(|(target, _)| target == "a").unwrap().1, 2);
    assert_eq!(unpublished.iter().find(|(target, _)| target == "b").map_or(0, |(_, count)| *count), 0);
}

pub async fn one_message_is_shown_whole(rig: Rig) {
    let owner = rig.owner().await;
    let (activation, digest) = active_plugin(&owner, b"one").await;
    let messages = owner.messages(&["x", "y", "z"]).await;
    let outputs = vec![output("a", "k", "1"), output("b", "k", "2"), output("a", "k", "3")];
    let whole = Settled { outputs, activation: Some(activation), answers: Some(Bytes::from_static(b"zip")), ..done(&messages[1]) };
    let other = Settled { outputs: vec![output("a", "k", "0")], activation: Some(activation), ..done(&messages[0]) };
    rig.pass_ms(11);
    let settlement = owner.commit_by(activation, START_MS + 3, vec![other, whole]).await;
    let cursor = OutputCursor { settlement, index: 1 };
    let parked = Parked { cursor, reason: "refused".to_owned() };
    assert!(owner.store.published("a", owner.target_epoch("a"), cursor, &[parked]).await.unwrap());
    assert!(owner.store.published("b", owner.target_epoch("b"), OutputCursor { settlement, index: 2 }, &[]).await.unwrap());

    let detail = async |id| -> MessageDetail { owner.store.message(id).await.unwrap().unwrap() };
    let found = detail(messages[1].id).await;
    assert_eq!((found.settlement, found.now_ms, found.answers.as_deref()), (Some(settlement), Some(START_MS + 3), Some(&b"zip"[..])));
    assert_eq!(found.activation.unwrap().id, activation);
    assert_eq!(found.status.digest, Some(digest.to_string()));
    assert_eq!(found.status.settled_ms, Some(START_MS + 11));
    assert_eq!(found.message.captured, messages[1].captured);
    let outputs = found.outputs.iter().map(|(target, row, published, parked)| {
        (target.as_str(), std::str::from_utf8(row.payload.as_ref().unwrap()).unwrap(), *published, parked.as_deref())
    });
    assert_eq!(outputs.collect::<Vec<_>>(), [("a", "1", false, Some("refused")), ("b", "2", true, None), ("a", "3", false, None)]);
    assert!(found.outputs.iter().all(|(_, row, ..)| row.digest == Some(digest)));
    assert_eq!(detail(messages[0].id).await.outputs.len(), 1);

    let on = [entry("c", "k")];
    let at = owner.now_at().await;
    owner.commit(vec![waits(&messages[2], &on, at)]).await;
    let waiting = detail(messages[2].id).await;
    assert_eq!((waiting.status.status.as_str(), waiting.settlement), ("waiting", None));
    assert_eq!(waiting.waits, on);
    assert!(waiting.outputs.is_empty());
    assert!(owner.store.message(Uuid::new_v4()).await.unwrap().is_none());
}

pub async fn captures_hold_the_bytes(rig: Rig) {
    let owner = rig.owner().await;
    let captured =
        |offset| Captured { offset, key: Some(Bytes::from_static(b"\xff")), headers: vec![("h".to_owned(), None)], ..Captured::default() };
    let rows: Vec<_> = (0..3).map(|offset| NewMessage { captured: captured(offset), ..row(0, offset, "k") }).collect();
    owner.append(&rows).await;
    owner.store.settle(&owner.host, owner.next_batch(), &Settlement::default()).await.unwrap();
    let found = owner.store.captured(&Filter { limit: 2, ..all() }).await.unwrap();
    assert_eq!(found.len(), 2);
    for ((message, status), row) in found.iter().zip(&rows) {
        assert_eq!(message.captured, row.captured);
        assert_eq!((message.id, status.id, status.status.as_str()), (row.id, row.id, "pending"));
    }
    assert!(owner.store.captured(&Filter { status: Some(Status::Handled), ..all() }).await.unwrap().is_empty());
}

pub async fn entries_and_bindings_are_listed(rig: Rig) {
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let writes = [put("c", "b", "2"), put_indexed("c", "a", "1", &[("i", "x")]), put("d", "a", "3")];
    rig.store.put_entries(&writes, &[binding("n", "b", one), binding("n", "a", two), binding("m", "a", one)]).await.unwrap();
    let pair = |key: &str, value: &'static str| (key.to_owned(), Bytes::from_static(value.as_bytes()));
    assert_eq!(rig.store.entries(&by_key("c", "")).await.unwrap(), [pair("a", "1"), pair("b", "2")]);
    assert_eq!(rig.store.entries(&Scan { limit: 1, ..by_key("c", "") }).await.unwrap(), [pair("a", "1")]);
    assert_eq!(rig.store.entries(&by_index("c", "i", "x")).await.unwrap(), [pair("a", "1")]);
    assert_eq!(rig.store.bindings("n").await.unwrap(), [("a".to_owned(), two), ("b".to_owned(), one)]);
    assert!(rig.store.bindings("none").await.unwrap().is_empty());
}
