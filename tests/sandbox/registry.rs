//! What is active: swapped by revision, shared where equal, and never replaced by what cannot be loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use tolk::plugin::{Context, Digest, Limits};
use tolk::registry::{self, Registry};
use tolk::store::{self, Activation, Clock, Store};

use super::guest::{self, Guest, NAME};
use super::{message, runtime};

async fn store(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    let url = format!("sqlite://{}", folder.path().join("tolk.db").display());
    let config: store::Config = serde_json::from_value(serde_json::json!({ "url": url })).expect("a config");
    let store = store::open(&config, Clock::Database).await.expect("the store opens");
    store.migrate().await.expect("the store migrates");
    store
}

fn activation(table: &str, component: &[u8], config: &str) -> Activation {
    Activation {
        id: 0,
        feed: "feed".to_owned(),
        table: table.to_owned(),
        digest: Digest::of(component),
        config: config.to_owned(),
        at_ms: 0,
        by: "test".to_owned(),
        why: String::new(),
    }
}

async fn open(store: &Arc<dyn Store>) -> Registry {
    Registry::open(store.clone(), runtime(), BTreeMap::new()).await.expect("the registry opens")
}

/// Refuses every config.
fn choosy() -> Vec<u8> {
    let configure = format!("{} {} i32.const 160", guest::store_byte(160, 1), guest::store(164, &[NAME.0, NAME.1]));
    Guest { configure, ..guest::identity() }.component()
}

/// Another component that does the same.
fn variant(number: u32) -> Vec<u8> {
    Guest { fields: format!("(global i32 (i32.const {number}))"), ..guest::identity() }.component()
}

#[tokio::test]
async fn a_pushed_plugin_is_active_after_a_refresh() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let component = guest::identity().component();
    let registry = open(&store).await;
    let inspection = registry::push(&*store, &runtime(), &component, "test").await.expect("it is pushed");
    assert_eq!(inspection.digest, Digest::of(&component).to_string());
    assert_eq!(store.components().await.expect("a list")[0].description, inspection.description);
    assert!(!registry.refresh().await.expect("a refresh"), "a push activates nothing");
    let id = store.activate(&activation("person", &component, "")).await.expect("it is activated");
    assert!(registry.refresh().await.expect("a refresh"));
    assert!(!registry.refresh().await.expect("a refresh"), "nothing changed since");
    let snapshot = registry.snapshot();
    let active = snapshot.find("feed", "person").expect("it is active");
    assert_eq!((active.activation, active.config_digest), (id, Digest::of(b"")));
    assert!(snapshot.find("feed", "other").is_none() && snapshot.find("other", "person").is_none());
    let verdict = active.translator.translate(&mut runtime().here(), &message("k", b"p"), "feed", &Context::default());
    assert!(verdict.is_ok(), "{verdict:?}");
}

#[tokio::test]
async fn a_plugin_of_every_table_gives_way_to_a_table_s_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let (all, own) = (variant(1), variant(2));
    for component in [&all, &own] {
        registry::push(&*store, &runtime(), component, "test").await.expect("it is pushed");
    }
    for activation in [activation("*", &all, ""), activation("person", &own, ""), activation("unit", &own, "")] {
        store.activate(&activation).await.expect("it is activated");
    }
    let snapshot = open(&store).await.snapshot();
    let digest = |table: &str| snapshot.find("feed", table).expect("active").translator.digest();
    assert_eq!((digest("any"), digest("person")), (Digest::of(&all), Digest::of(&own)));
    let translator = |table: &str| &snapshot.find("feed", table).expect("active").translator;
    assert!(Arc::ptr_eq(translator("person"), translator("unit")), "one component with one config is loaded once");
}

#[tokio::test]
async fn a_plugin_that_cannot_be_loaded_replaces_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let (good, bad) = (variant(1), choosy());
    for component in [&good, &bad] {
        registry::push(&*store, &runtime(), component, "test").await.expect("it is pushed");
    }
    store.activate(&activation("person", &good, "")).await.expect("it is activated");
    store.activate(&activation("*", &good, "")).await.expect("it is activated");
    let registry = open(&store).await;
    let held = registry.snapshot();
    store.activate(&activation("person", &bad, "")).await.expect("it is activated");
    store.activate(&activation("unit", &bad, "")).await.expect("it is activated");
    assert!(registry.refresh().await.expect("a refresh"));
    let snapshot = registry.snapshot();
    assert!(snapshot.revision > held.revision);
    assert_eq!(snapshot.find("feed", "person").expect("the good one").translator.digest(), Digest::of(&good));
    assert!(snapshot.find("feed", "unit").is_none(), "the plugin of every table was not meant for it");
    let broken: Vec<(&str, &str)> =
        snapshot.broken().iter().map(|(activation, reason)| (activation.table.as_str(), reason.as_str())).collect();
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(
        broken.iter().all(|(_, reason)| reason.contains("refuses its config") && reason.contains(&Digest::of(&bad).short())),
        "{broken:?}"
    );
    assert!(!registry.refresh().await.expect("a refresh"), "what is broken is not tried at every poll");
    // Back to the good one: nothing is compiled or started for it.
    let before = Arc::as_ptr(&held.find("feed", "person").expect("active").translator);
    store.activate(&activation("person", &good, "")).await.expect("it is activated");
    store.activate(&activation("unit", &good, "")).await.expect("it is activated");
    assert!(registry.refresh().await.expect("a refresh"));
    let snapshot = registry.snapshot();
    assert!(snapshot.broken().is_empty());
    assert_eq!(Arc::as_ptr(&snapshot.find("feed", "person").expect("active").translator), before);
}

#[tokio::test]
async fn an_artefact_that_is_missing_or_tampered_with_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let component = variant(3);
    let digest = Digest::of(&component);
    registry::push(&*store, &runtime(), &component, "test").await.expect("it is pushed");
    store.activate(&activation("person", &component, "")).await.expect("it is activated");
    let key = runtime().engine_key();
    store.put_artefact(digest, &key, b"tampered").await.expect("it is stored");
    let snapshot = open(&store).await.snapshot();
    assert!(snapshot.find("feed", "person").is_some(), "{:?}", snapshot.broken());
    let artefact = store.artefact(digest, &key).await.expect("an answer").expect("an artefact");
    let secret = store.secret().await.expect("a secret");
    assert!(runtime().load(digest, &artefact, &secret, Limits::default(), "").is_ok(), "the new one is stored");
}
