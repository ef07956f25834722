//! What lets a message wait although its turn has come: the pace of its key, pauses, policies, classes of errors.

use serde_json::json;
use std::sync::Arc;
use tolk::message::Status;
use tolk::store::actions::SEEN_MS;
use tolk::store::{Pausable, Paused};

use crate::flow::order::assert_in_order;
use crate::support::host::TestHost;

#[tokio::test]
async fn keys_end_no_faster_than_their_interval() {
    let mut host = TestHost::new("min_key_interval_ms = 500").await;
    host.later(500).await;
    host.consume(&[json!({ "key": "a", "seq": 1 }), json!({ "key": "a", "seq": 2 }), json!({ "key": "b", "seq": 1 })]).await;
    assert_eq!(host.words().await, ["handled", "retry", "handled"]);
    let second = &host.statuses().await[1];
    assert_eq!((second.code.as_deref(), second.attempts), (Some("paced"), 0));
    host.later(499).await;
    assert_eq!(host.count(Status::Handled).await, 2);
    host.later(1).await;
    assert_eq!(host.count(Status::Handled).await, 3);
    host.crash().await;
    host.consume(&[json!({ "key": "c", "seq": 1 })]).await;
    assert_eq!(host.count(Status::Retry).await, 1, "a new owner does not know who ended when");
    host.later(500).await;
    assert_eq!(host.count(Status::Handled).await, 4);
    assert_in_order(&host.outputs().await);
}

#[tokio::test]
async fn a_paused_table_parks_and_a_resumed_one_goes_on() {
    let mut host = TestHost::new("").await;
    let table = Pausable::Table { feed: "f".to_owned(), table: "t".to_owned() };
    let pauses = |list: Vec<Paused>| Arc::new(list);
    assert!(host.store.pause(&table, "kari", "a look at the rules").await.unwrap());
    assert!(!host.store.pause(&table, "ola", "too").await.unwrap());
    let paused = host.store.pauses().await.unwrap();
    assert_eq!((paused.len(), paused[0].by.as_str()), (1, "kari"));
    host.pauses.store(pauses(paused));
    host.consume(&[json!({ "key": "a", "seq": 1 }), json!({ "table": "other", "key": "a", "seq": 1 })]).await;
    assert_eq!(host.words().await, ["retry", "handled"]);
    let first = &host.statuses().await[0];
    assert_eq!((first.code.as_deref(), first.attempts), (Some("paused"), 0));
    let reason = first.reason.as_deref().unwrap();
    assert!(reason.contains("kari") && reason.contains("a look at the rules") && reason.contains("tolk resume"), "{reason}");
    assert!(host.store.resume_paused(&table, "kari", "done").await.unwrap());
    host.pauses.store(pauses(host.store.pauses().await.unwrap()));
    // Hosts must see the resume first.
    host.later(SEEN_MS).await;
    assert_eq!(host.words().await, ["handled", "handled"]);
}

#[tokio::test]
async fn a_paused_feed_leaves_its_messages_where_they_are() {
    let mut host = TestHost::new("").await;
    let feed = Pausable::Feed { feed: "f".to_owned() };
    host.store.pause(&feed, "kari", "a fire").await.unwrap();
    host.pauses.store(Arc::new(host.store.pauses().await.unwrap()));
    host.consume(&[json!({ "key": "a", "seq": 1 })]).await;
    assert_eq!(host.words().await, ["pending"]);
    host.store.resume_paused(&feed, "kari", "it is out").await.unwrap();
    host.pauses.store(Arc::default());
    host.work().await;
    assert_eq!(host.words().await, ["handled"]);
}

#[tokio::test]
async fn under_newest_wins_an_older_message_goes_when_a_newer_one_is_handled() {
    let mut host = TestHost::new("policy = \"newest-wins\"").await;
    host.consume(&[json!({ "key": "a", "seq": 1, "do": "retry" }), json!({ "key": "b", "seq": 1, "do": "retry", "times": 1 })]).await;
    host.consume(&[json!({ "key": "a", "seq": 2 })]).await;
    assert_eq!(host.words().await, ["ignored", "retry", "handled"]);
    assert_eq!(host.statuses().await[0].code.as_deref(), Some("superseded"));
    host.later(10_000).await;
    assert_eq!(host.words().await, ["ignored", "handled", "handled"]);
    host.consume(&[json!({ "key": "a", "seq": 3, "do": "fail" }), json!({ "key": "a", "seq": 4, "do": "ignore" })]).await;
    assert_eq!(host.words().await[3..], ["failed", "ignored"], "only a handled one is newer");
}

#[tokio::test]
async fn errors_have_classes_with_their_own_tries() {
    let settings = "[retry]\nbackoff_ms = [1000]\nattempts_max = 5\nquarantine_ms = 50000\n\
                    [retry.classes]\ntold-to = { attempts_max = 2, backoff_ms = [10] }\ntrap = { attempts_max = 3, backoff_ms = [20] }";
    let mut host = TestHost::new(settings).await;
    host.consume(&[json!({ "key": "a", "do": "retry" }), json!({ "key": "b", "do": "trap" })]).await;
    assert_eq!(host.words().await, ["retry", "retry"]);
    host.later(10).await;
    assert_eq!(host.words().await, ["failed", "retry"]);
    host.later(20).await;
    host.later(20).await;
    assert_eq!(host.words().await, ["failed", "failed"]);
    let due = host.statuses().await[0].due_ms.unwrap();
    assert!(due > 0, "it is tried again after its quarantine");
    host.later(50_000).await;
    assert_eq!(host.words().await, ["failed", "failed"]);
    assert!(host.statuses().await[0].due_ms.unwrap() > due);
}
