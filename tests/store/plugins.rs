//! Cases of `Plugins`: components, artefacts, what is active and what was.

use bytes::Bytes;
use tolk::plugin::{Description, Digest};
use tolk::store::{Activation, Component};

use super::rig::{LEASE_MS, Rig, START_MS};

fn component(bytes: &[u8], pushed_ms: i64) -> Component {
    let description = Description { name: "p".to_owned(), version: "1".to_owned(), tables: vec!["T".to_owned()], ..Description::default() };
    Component {
        digest: Digest::of(bytes),
        size: bytes.len() as i64,
        description,
        imports: vec!["wasi:clocks/wall-clock".to_owned()],
        pushed_ms,
        pushed_by: "kari".to_owned(),
    }
}

/// An activation that is not stored yet.
pub fn activation(table: &str, digest: Digest, at_ms: i64) -> Activation {
    Activation {
        id: 0,
        feed: "arena".to_owned(),
        table: table.to_owned(),
        digest,
        config: "{\"a\": 1}".to_owned(),
        at_ms,
        by: "ola".to_owned(),
        why: "better".to_owned(),
    }
}

pub async fn components_and_artefacts_round_trip(rig: Rig) {
    let store = &rig.store;
    let (old, new) = (component(b"\0asm old", START_MS), component(b"\0asm new", START_MS + 1));
    store.put_component(&old, b"\0asm old").await.unwrap();
    store.put_component(&new, b"\0asm new").await.unwrap();
    store.put_component(&Component { pushed_by: "somebody else".to_owned(), ..old.clone() }, b"\0asm old").await.unwrap();
    assert_eq!(store.components().await.unwrap(), [new, old.clone()]);
    assert_eq!(store.component_bytes(old.digest).await.unwrap(), Some(Bytes::from_static(b"\0asm old")));
    assert_eq!(store.component_bytes(Digest::of(b"none")).await.unwrap(), None);
    store.put_artefact(old.digest, "engine 1", b"one").await.unwrap();
    store.put_artefact(old.digest, "engine 2", b"two").await.unwrap();
    assert_eq!(store.artefact(old.digest, "engine 1").await.unwrap(), Some(Bytes::from_static(b"one")));
    assert_eq!(store.artefact(old.digest, "engine 2").await.unwrap(), Some(Bytes::from_static(b"two")));
    assert_eq!(store.artefact(old.digest, "engine 3").await.unwrap(), None);
}

pub async fn the_active_plugin_is_the_last_activated(rig: Rig) {
    let store = &rig.store;
    let (one, two) = (component(b"one", 1), component(b"two", 2));
    store.put_component(&one, b"one").await.unwrap();
    store.put_component(&two, b"two").await.unwrap();
    let (start, active) = store.active().await.unwrap();
    assert!(active.is_empty());
    assert_eq!(store.revision().await.unwrap(), start);
    let mut revisions = vec![start];
    let mut ids = Vec::new();
    for (table, digest) in [("T", one.digest), ("U", one.digest), ("T", two.digest), ("T", one.digest)] {
        ids.push(store.activate(&activation(table, digest, START_MS)).await.unwrap());
        revisions.push(store.revision().await.unwrap());
    }
    assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
    let (revision, mut active) = store.active().await.unwrap();
    assert_eq!(revision, *revisions.last().unwrap());
    active.sort_by(|one, other| one.table.cmp(&other.table));
    let stored = |id: usize, table: &str| Activation { id: ids[id], ..activation(table, one.digest, START_MS) };
    assert_eq!(active, [stored(3, "T"), stored(1, "U")]);
}

pub async fn activation_history_is_kept(rig: Rig) {
    let store = &rig.store;
    let one = component(b"one", 1);
    store.put_component(&one, b"one").await.unwrap();
    let mut ids = Vec::new();
    for (feed, table) in [("arena", "T"), ("arena", "U"), ("other", "T"), ("arena", "T")] {
        let activation = Activation { feed: feed.to_owned(), ..activation(table, one.digest, START_MS) };
        ids.push(store.activate(&activation).await.unwrap());
    }
    let history = async |feed, table| {
        let found = store.activations(feed, table).await.unwrap();
        found.iter().map(|activation| ids.iter().position(|id| *id == activation.id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(history(None, None).await, [3, 2, 1, 0]);
    assert_eq!(history(Some("arena"), None).await, [3, 1, 0]);
    assert_eq!(history(Some("arena"), Some("T")).await, [3, 0]);
    assert_eq!(history(None, Some("T")).await, [3, 2, 0]);
    assert!(history(Some("none"), None).await.is_empty());
}

pub async fn the_oldest_revision_is_of_the_living(rig: Rig) {
    assert_eq!(rig.store.oldest_revision().await.unwrap(), None);
    let owner = rig.owner().await;
    owner.store.report_revision(&owner.host, 7).await.unwrap();
    assert_eq!(owner.store.oldest_revision().await.unwrap(), Some(7));
    owner.store.report_revision(&owner.host, 9).await.unwrap();
    assert_eq!(owner.store.oldest_revision().await.unwrap(), Some(9));
    rig.pass_ms(LEASE_MS as i64 + 1);
    assert_eq!(owner.store.oldest_revision().await.unwrap(), None);
}
