//! Order per key: across retries, waits, failures, batches, swaps and crashes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tolk::message::Status;
use tolk::translate::engine::Intake;

use crate::support::host::{TestHost, status};

pub fn assert_in_order(outputs: &[Value]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for output in outputs {
        let (key, seq) = (output["key"].as_str().unwrap(), output["seq"].as_u64().unwrap());
        let before = last.insert(key, seq);
        assert!(before.is_none_or(|before| before < seq), "key {key}: {seq} after {before:?}");
    }
}

#[tokio::test]
async fn a_key_that_may_not_go_on_holds_back_itself_alone() {
    let mut host = TestHost::new("").await;
    host.consume(&[
        json!({ "key": "a", "seq": 1, "do": "retry", "times": 1 }),
        json!({ "key": "a", "seq": 2 }),
        json!({ "key": "b", "seq": 1 }),
        json!({ "key": "a", "seq": 3, "do": "ignore" }),
    ])
    .await;
    assert_eq!(host.words().await, ["retry", "behind", "handled", "behind"]);
    host.consume(&[json!({ "key": "a", "seq": 4 })]).await;
    assert_eq!(host.count(Status::Behind).await, 3);
    host.later(1_000).await;
    assert_eq!(host.words().await, ["handled", "handled", "handled", "ignored", "handled"]);
    let outputs = host.outputs().await;
    assert_in_order(&outputs);
    assert_eq!(outputs.len(), 4);
}

#[tokio::test]
async fn what_was_run_ahead_and_stands_behind_again_is_not_in_flight() {
    let mut host = TestHost::new("retry = { backoff_ms = [1000], attempts_max = 9 }").await;
    let retried = |seq: u64| json!({ "key": "a", "seq": seq, "do": "retry", "times": 1 });
    host.consume(&[retried(1), retried(2), json!({ "key": "a", "seq": 3 }), json!({ "key": "a", "seq": 4 })]).await;
    // The first is done; the others come along, and the second stops those behind it a second time.
    host.later(1_000).await;
    assert_eq!(host.words().await, ["handled", "retry", "behind", "behind"]);
    host.activate("another").await;
    assert_eq!(host.engine.oldest_revision(), host.registry.snapshot().revision, "nothing runs on the plugin before");
}

#[tokio::test]
async fn failed_blocks_under_strict_and_not_under_skip() {
    let scripts =
        [json!({ "key": "a", "do": "fail" }), json!({ "key": "a" }), json!({ "key": "a", "do": "reject" }), json!({ "key": "a" })];
    let mut strict = TestHost::new("").await;
    strict.consume(&scripts).await;
    assert_eq!(strict.words().await, ["failed", "behind", "behind", "behind"]);
    let mut skip = TestHost::new("policy = \"skip\"").await;
    skip.consume(&scripts).await;
    assert_eq!(skip.words().await, ["failed", "handled", "invalid", "handled"]);
}

#[tokio::test]
async fn thousands_of_messages_on_few_keys_keep_their_order_through_trouble() {
    let mut host = TestHost::new("retry = { backoff_ms = [10], attempts_max = 50 }").await;
    host.stub.answers.lock().unwrap().insert("ok".to_owned(), status(200));
    let script = |i: u64| {
        let key = format!("k{}", i % 13);
        match i % 17 {
            3 => json!({ "key": key, "seq": i, "do": "retry", "times": 2 }),
            5 => json!({ "key": key, "seq": i, "call": "ok" }),
            7 => json!({ "key": key, "seq": i, "read": [format!("e{}", i % 5)], "write": [[format!("e{}", i % 5), i.to_string()]] }),
            11 => json!({ "key": key, "seq": i, "do": "reject" }),
            _ => json!({ "key": key, "seq": i }),
        }
    };
    let total = 3_000;
    for chunk in 0..6 {
        let scripts: Vec<_> = (chunk * 500..(chunk + 1) * 500).map(script).collect();
        host.append(&scripts).await;
        host.work().await;
        host.later(10).await;
    }
    let rejected = (0..total).filter(|i| i % 17 == 11).count();
    for _ in 0..2_000 {
        if host.store.counts().await.unwrap().iter().all(|count| count.status == "handled" || count.status == "invalid") {
            break;
        }
        host.later(10).await;
    }
    let done = |status: &str| status == "handled" || status == "invalid";
    let stuck: Vec<_> = host.statuses().await.into_iter().filter(|one| !done(&one.status)).collect();
    assert!(stuck.is_empty(), "{stuck:#?}");
    let outputs = host.outputs().await;
    assert_eq!(outputs.len(), total as usize - rejected);
    assert_in_order(&outputs);
}

#[tokio::test]
async fn thousands_behind_one_key_drain_in_order() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "seq": 0, "do": "retry", "times": 1 })]).await;
    for chunk in 0..4_u64 {
        let scripts: Vec<_> = (0..1_250).map(|i| json!({ "key": "a", "seq": 1 + chunk * 1_250 + i })).collect();
        host.consume(&scripts).await;
    }
    assert_eq!(host.count(Status::Behind).await, 5_000);
    host.later(1_000).await;
    let outputs = host.outputs().await;
    assert_eq!(outputs.len(), 5_001);
    assert_in_order(&outputs);
}

#[tokio::test]
async fn a_new_owner_goes_on_where_the_old_one_was() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "seq": 1, "do": "wait", "read": ["x"], "on": ["x"] }), json!({ "key": "a", "seq": 2 })]).await;
    host.append(&[json!({ "key": "b", "seq": 1 }), json!({ "key": "a", "seq": 3 })]).await;
    host.crash().await;
    host.work().await;
    assert_eq!(host.words().await, ["waiting", "behind", "handled", "behind"]);
    host.consume(&[json!({ "key": "p", "seq": 1, "write": [["x", "1"]] })]).await;
    assert_eq!(host.count(Status::Handled).await, 5);
    assert_in_order(&host.outputs().await);
}

#[tokio::test]
async fn a_message_runs_by_hand_before_it_is_due() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "seq": 1, "do": "retry", "times": 1 }), json!({ "key": "a", "seq": 2 })]).await;
    let (rows, _) = (host.store.captured(&tolk::store::Filter { limit: 10, ..Default::default() }).await.unwrap(), ());
    let first = rows.iter().map(|(message, _)| message.place).min_by_key(|place| place.n).unwrap();
    host.engine.work(Intake::Rows(vec![first])).await.unwrap();
    assert_eq!(host.words().await, ["handled", "pending"], "the next of the key is free, and not run by hand");
    host.work().await;
    assert_eq!(host.words().await, ["handled", "handled"]);
}

#[tokio::test]
async fn a_swap_takes_effect_between_messages_and_each_has_one_digest() {
    let mut host = TestHost::new("").await;
    host.activate("v1").await;
    host.consume(&(0..50).map(|i| json!({ "key": format!("k{}", i % 7), "seq": i })).collect::<Vec<_>>()).await;
    host.activate("v2").await;
    host.consume(&(50..100).map(|i| json!({ "key": format!("k{}", i % 7), "seq": i })).collect::<Vec<_>>()).await;
    let outputs = host.outputs().await;
    assert_eq!(outputs.len(), 100);
    assert!(outputs.iter().all(|output| output["by"] == if output["seq"].as_u64() < Some(50) { "v1" } else { "v2" }));
    assert_in_order(&outputs);
}
