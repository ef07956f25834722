//! Cases of `Outputs`: order, pages, the fenced cursor, parked outputs.

use bytes::Bytes;
use tolk::plugin::{Action, Output};
use tolk::store::{OutputCursor, OutputRow, Parked, Settled, event_id};

use super::rig::{Owner, Rig, done, output};

const START: OutputCursor = OutputCursor { settlement: 0, index: -1 };
const ALL: (i64, i64) = (10_000, 1 << 40);

async fn all(owner: &Owner, target: &str, after: OutputCursor) -> Vec<OutputRow> {
    owner.store.outputs(target, after, ALL.0, ALL.1).await.unwrap().0
}

fn payloads(rows: &[OutputRow]) -> Vec<&str> {
    rows.iter().map(|row| std::str::from_utf8(row.payload.as_ref().unwrap()).unwrap()).collect()
}

/// Settles three messages in two settlements, with outputs to both targets.
async fn settle_some(owner: &Owner) -> (i64, i64) {
    let messages = owner.messages(&["x", "y", "z"]).await;
    let outputs = |i: usize, outputs: &[(&str, &str)]| Settled {
        outputs: outputs.iter().map(|(target, payload)| output(target, "k", payload)).collect(),
        ..done(&messages[i])
    };
    let first = owner.commit(vec![outputs(1, &[("a", "1"), ("b", "2"), ("a", "3")]), outputs(0, &[("b", "4"), ("a", "5")])]).await;
    let second = owner.commit(vec![outputs(2, &[("a", "6")])]).await;
    (first, second)
}

pub async fn outputs_come_in_settlement_order(rig: Rig) {
    let owner = rig.owner().await;
    let (first, second) = settle_some(&owner).await;
    let (rows, looked) = owner.store.outputs("a", START, ALL.0, ALL.1).await.unwrap();
    assert_eq!(payloads(&rows), ["1", "3", "5", "6"]);
    assert_eq!(looked, second);
    assert!(rows.is_sorted_by(|one, next| one.cursor < next.cursor));
    assert_eq!(rows.iter().map(|row| row.cursor.settlement).collect::<Vec<_>>(), [first, first, first, second]);
    assert_eq!(payloads(&all(&owner, "b", START).await), ["2", "4"]);
    assert_eq!(payloads(&all(&owner, "a", rows[1].cursor).await), ["5", "6"]);
    assert!(all(&owner, "a", rows[3].cursor).await.is_empty());
    assert!(rows.iter().all(|row| row.feed == "arena" && row.place.feed == owner.feed && row.digest.is_none()));
    assert_eq!(rows.iter().map(|row| row.place.n).collect::<Vec<_>>(), [2, 2, 1, 3]);
}

pub async fn output_pages_are_cut(rig: Rig) {
    let owner = rig.owner().await;
    let (first, second) = settle_some(&owner).await;
    let (rows, looked) = owner.store.outputs("a", START, 2, ALL.1).await.unwrap();
    assert_eq!((payloads(&rows), looked), (vec!["1", "3"], first));
    let (rows, looked) = owner.store.outputs("a", rows[1].cursor, 2, ALL.1).await.unwrap();
    assert_eq!(payloads(&rows), ["5", "6"]);
    assert!(looked <= second);
    let (rows, looked) = owner.store.outputs("a", START, ALL.0, 1).await.unwrap();
    assert_eq!((payloads(&rows), looked), (vec!["1"], first));

    let message = owner.messages(&["large"]).await.remove(0);
    let large = |_| Output { payload: Some(Bytes::from(vec![b'x'; 10_000])), ..output("b", "k", "") };
    owner.commit(vec![Settled { outputs: (0..1_000).map(large).collect(), ..done(&message) }]).await;
    let mut cursor = OutputCursor { settlement: second, index: i32::MAX };
    let mut found = 0;
    loop {
        let (rows, _) = owner.store.outputs("b", cursor, ALL.0, 1_000_000).await.unwrap();
        let Some(last) = rows.last() else { break };
        assert!(rows.len() <= 101, "{} rows of 10 kB for 1 MB", rows.len());
        (found, cursor) = (found + rows.len(), last.cursor);
    }
    assert_eq!(found, 1_000);
}

pub async fn the_cursor_passes_foreign_settlements(rig: Rig) {
    let owner = rig.owner().await;
    let (_, second) = settle_some(&owner).await;
    let after = all(&owner, "b", START).await.last().unwrap().cursor;
    assert_eq!(owner.store.outputs("b", after, ALL.0, ALL.1).await.unwrap(), (Vec::new(), second));
    let message = owner.messages(&["nothing"]).await.remove(0);
    let third = owner.commit(vec![done(&message)]).await;
    let (rows, looked) = owner.store.outputs("b", after, ALL.0, ALL.1).await.unwrap();
    assert!(rows.is_empty());
    assert_eq!(looked, third);
}

pub async fn published_is_fenced_and_monotone(rig: Rig) {
    let owner = rig.owner().await;
    settle_some(&owner).await;
    let rows = all(&owner, "a", START).await;
    let epoch = owner.target_epoch("a");
    assert!(!owner.store.published("a", epoch - 1, rows[2].cursor, &[]).await.unwrap());
    assert!(!owner.store.published("a", epoch + 1, rows[2].cursor, &[]).await.unwrap());
    assert!(owner.store.published("a", epoch, rows[2].cursor, &[]).await.unwrap());
    // A call that is repeated is the same; one that would go back is refused.
    assert!(owner.store.published("a", epoch, rows[2].cursor, &[]).await.unwrap());
    assert!(!owner.store.published("a", epoch, rows[0].cursor, &[]).await.unwrap());
    let claimed = owner.store.claim(&owner.host, &owner.wanted()).await.unwrap();
    let cursor = |target: &str| claimed.targets.iter().find(|lease| lease.target == target).unwrap().cursor;
    assert_eq!(cursor("a"), rows[2].cursor);
    assert_eq!(cursor("b").settlement, 0);
    let mut unpublished = owner.store.unpublished().await.unwrap();
    unpublished.sort();
    assert_eq!(unpublished, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
}

pub async fn a_parked_output_fails_its_message(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["x", "y"]).await;
    let to = |i: usize, key: Option<&'static [u8]>| {
        let output = Output { key: key.map(Bytes::from_static), ..output("a", "", "p") };
        Settled { outputs: vec![output], ..done(&messages[i]) }
    };
    owner.commit(vec![to(0, Some(b"\xff\0")), to(1, None)]).await;
    let rows = all(&owner, "a", START).await;
    assert!(owner.store.parked_keys("a").await.unwrap().is_empty());
    let status = async |i: usize| owner.store.message(messages[i].id).await.unwrap().unwrap();
    assert_eq!(status(0).await.status.status, "handled");

    let refused = |row: &OutputRow, reason: &str| Parked { cursor: row.cursor, reason: reason.to_owned() };
    let stale = owner.store.published("a", owner.target_epoch("a") - 1, rows[1].cursor, &[refused(&rows[0], "no")]).await.unwrap();
    assert!(!stale);
    assert!(owner.store.parked_keys("a").await.unwrap().is_empty(), "a fenced publisher parks nothing");
    let parked = [refused(&rows[0], "too large")];
    assert!(owner.store.published("a", owner.target_epoch("a"), rows[1].cursor, &parked).await.unwrap());
    assert_eq!(owner.store.parked_keys("a").await.unwrap(), [Some(Bytes::from_static(b"\xff\0"))]);
    assert!(owner.store.parked_keys("b").await.unwrap().is_empty());
    let failed = status(0).await;
    assert_eq!((failed.status.status.as_str(), failed.status.reason.as_deref()), ("failed", Some("too large")));
    assert_eq!(failed.outputs.len(), 1);
    assert_eq!(status(1).await.status.status, "handled");
    assert!(owner.store.published("a", owner.target_epoch("a"), rows[1].cursor, &[refused(&rows[1], "no topic")]).await.unwrap());
    let mut keys = owner.store.parked_keys("a").await.unwrap();
    keys.sort();
    assert_eq!(keys, [None, Some(Bytes::from_static(b"\xff\0"))]);
}

pub async fn event_ids_are_stable(rig: Rig) {
    let owner = rig.owner().await;
    let message = owner.messages(&["x"]).await.remove(0);
    let whole = Output {
        target: "a".to_owned(),
        action: Action::Merge,
        key: Some(Bytes::new()),
        payload: None,
        headers: vec![("h".to_owned(), None), ("h".to_owned(), Some(Bytes::from_static(b"\0\xff")))],
        version: Some(u64::MAX),
        fingerprint: None,
    };
    let delete = Output { action: Action::Delete, key: None, ..output("b", "", "") };
    owner.commit(vec![Settled { outputs: vec![whole.clone(), delete, whole.clone()], ..done(&message) }]).await;
    let rows = all(&owner, "a", START).await;
    let ids: Vec<_> = rows.iter().map(|row| row.event_id).collect();
    assert_eq!(ids, [event_id(message.id, 0, 0), event_id(message.id, 0, 2)]);
    for row in rows {
        assert_eq!(
            (row.action, row.key, row.payload, row.headers, row.version),
            (whole.action, whole.key.clone(), whole.payload.clone(), whole.headers.clone(), whole.version)
        );
    }
    let deleted = all(&owner, "b", START).await.remove(0);
    assert_eq!((deleted.action, deleted.key, deleted.payload), (Action::Delete, None, Some(Bytes::new())));
}
