//! Every end a message can come to, and what brings it on from there.

use serde_json::json;
use tolk::endpoint::Called;
use tolk::message::Status;

use crate::support::host::{TestHost, status};

#[tokio::test]
async fn every_outcome_has_its_status_and_its_neighbours_are_handled() {
    let mut host = TestHost::new("").await;
    let words = ["put", "ignore", "reject", "fail", "retry", "wait", "trap", "loop", "put"];
    let scripts: Vec<_> = words.iter().enumerate().map(|(i, word)| json!({ "table": "t", "key": format!("k{i}"), "do": word })).collect();
    host.consume(&scripts).await;
    let expected = ["handled", "ignored", "invalid", "failed", "retry", "waiting", "failed", "failed", "handled"];
    assert_eq!(host.words().await, expected);
    let all = host.statuses().await;
    assert_eq!((all[2].code.as_deref(), all[2].reason.as_deref()), (Some("told-to"), Some("the message says so (field /do)")));
    assert_eq!(all[6].code.as_deref(), Some("trap"));
    assert_eq!(all[7].code.as_deref(), Some("cpu-limit"));
    let digest = all[0].digest.clone().expect("a handled message names its plugin");
    assert!(all[7].reason.as_deref().unwrap().contains(&digest[..12]), "{:?}", all[7].reason);
    assert_eq!(host.outputs().await.len(), 2);
}

#[tokio::test]
async fn what_ingest_cannot_read_is_invalid_and_the_rest_goes_on() {
    let mut host = TestHost::new("[tables.t]\n[tables.u]").await;
    let put = json!({ "table": "t", "key": "a" }).to_string();
    let unknown = json!({ "table": "elsewhere", "key": "a" }).to_string();
    host.append_raw(vec![Some("{".to_owned()), Some(put.clone()), None, Some(unknown), Some(put), Some(String::new())]).await;
    host.work().await;
    // The plugin is active for every table, so a table that the config does not list is translated all the same.
    let codes: Vec<_> = host.statuses().await.into_iter().map(|one| (one.status, one.code.unwrap_or_default())).collect();
    let is = |i: usize, status: &str, code: &str| assert_eq!((codes[i].0.as_str(), codes[i].1.as_str()), (status, code), "{codes:?}");
    is(0, "invalid", "broken-json");
    is(1, "handled", "");
    assert_eq!(codes[2].0, "invalid", "a tombstone is not JSON to this plugin");
    is(3, "handled", "");
    is(5, "invalid", "broken-json");
}

#[tokio::test]
async fn a_retry_backs_off_and_ends_failed() {
    let mut host = TestHost::new("retry = { backoff_ms = [1000, 5000], attempts_max = 3 }").await;
    host.consume(&[json!({ "key": "a", "do": "retry", "times": 2 }), json!({ "key": "b", "do": "retry" })]).await;
    assert_eq!(host.words().await, ["retry", "retry"]);
    host.later(999).await;
    assert_eq!(host.statuses().await[0].attempts, 1, "not before its time");
    host.later(1).await;
    assert_eq!(host.statuses().await[0].attempts, 2);
    host.later(4_999).await;
    assert_eq!(host.words().await, ["retry", "retry"]);
    host.later(1).await;
    assert_eq!(host.words().await, ["handled", "failed"]);
    let output = &host.outputs().await[0];
    assert_eq!((&output["attempt"], &output["cause"]), (&json!(2), &json!("Retry")));
    assert_eq!(host.statuses().await[1].attempts, 3);
}

#[tokio::test]
async fn a_wait_is_woken_by_its_entry_or_times_out() {
    let mut host = TestHost::new("").await;
    let wait = |key: &str, on: &str| json!({ "key": key, "do": "wait", "times": 1, "read": [on], "on": [on], "timeout": 60_000 });
    host.consume(&[wait("a", "x"), wait("b", "y")]).await;
    assert_eq!(host.words().await, ["waiting", "waiting"]);
    host.clock.fetch_add(1_000, std::sync::atomic::Ordering::SeqCst);
    host.consume(&[json!({ "key": "p", "write": [["x", "there"]], "outputs": 0 })]).await;
    assert_eq!(host.words().await, ["handled", "waiting", "handled"]);
    host.later(59_000).await;
    assert_eq!(host.words().await, ["handled", "handled", "handled"]);
    let outputs = host.outputs().await;
    assert_eq!((&outputs[0]["saw"][0], &outputs[0]["cause"], &outputs[0]["waited"]), (&json!("there"), &json!("Woken"), &json!(1_000)));
    assert_eq!((&outputs[1]["cause"], &outputs[1]["attempt"]), (&json!("TimedOut"), &json!(1)));
}

#[tokio::test]
async fn a_parent_in_the_same_batch_is_seen_or_waited_for_whatever_the_order() {
    let mut host = TestHost::new("").await;
    let child = |i: usize| json!({ "key": format!("c{i}"), "do": "wait", "read": ["p"], "on": ["p"] });
    let mut scripts: Vec<_> = (0..20).map(child).collect();
    scripts.push(json!({ "key": "p", "write": [["p", "1"]], "outputs": 0 }));
    scripts.extend((20..40).map(child));
    host.consume(&scripts).await;
    assert_eq!(host.count(Status::Handled).await, 41);
    assert!(host.outputs().await.iter().all(|output| output["saw"][0] == "1"));
}

#[tokio::test]
async fn a_call_that_is_away_parks_without_burning_attempts() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "call": "x" }), json!({ "key": "b", "lenient": "x" })]).await;
    let all = host.statuses().await;
    assert_eq!((all[0].status.as_str(), all[0].code.as_deref(), all[0].attempts), ("retry", Some("endpoint-away"), 0));
    assert_eq!(all[1].status, "handled", "a lenient call takes unreachable for an answer");
    let failed = Called::Failed { code: "remote-status".to_owned(), reason: "503".to_owned(), after_ms: Some(2_000) };
    host.stub.answers.lock().unwrap().insert("x".to_owned(), failed);
    host.later(1_000).await;
    assert_eq!(host.statuses().await[0].attempts, 1, "a retried status counts");
    host.stub.answers.lock().unwrap().insert("x".to_owned(), status(404));
    host.later(2_000).await;
    assert_eq!(host.words().await, ["handled", "handled"]);
    assert_eq!(host.outputs().await[1]["saw"], json!([404]));
}

#[tokio::test]
async fn a_table_without_a_plugin_waits_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("t.db").display());
    let mut host = TestHost::on(&url, "tolk", "[tables.t]").await;
    host.consume(&[json!({ "table": "t", "key": "a" }), json!({ "table": "other", "key": "b" })]).await;
    let all = host.statuses().await;
    assert_eq!((all[0].status.as_str(), all[0].code.as_deref()), ("waiting", Some("no-translator")));
    assert_eq!((all[1].status.as_str(), all[1].code.as_deref()), ("invalid", Some("unknown-table")));
    host.activate("v1").await;
    host.work().await;
    assert_eq!(host.words().await, ["handled", "invalid"]);
    assert_eq!(host.outputs().await[0]["by"], "v1");
}

#[tokio::test]
async fn a_host_that_has_not_loaded_a_plugin_yet_tries_again_soon() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("t.db").display());
    let mut host = TestHost::on(&url, "tolk", "").await;
    // What `activate` tells the store, before this host's registry looks.
    let told = tolk::plugin::Write {
        collection: tolk::registry::TRANSLATORS.to_owned(),
        key: "f/*".to_owned(),
        value: Some("activation 1".into()),
        indexes: Vec::new(),
    };
    host.store.put_entries(&[told], &[]).await.unwrap();
    host.consume(&[json!({ "key": "a" })]).await;
    let all = host.statuses().await;
    assert_eq!((all[0].status.as_str(), all[0].code.as_deref(), all[0].attempts), ("retry", Some("plugin-not-loaded"), 0));
    host.activate("v1").await;
    host.later(1_000).await;
    assert_eq!(host.words().await, ["handled"]);
}
