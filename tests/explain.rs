//! Whoever asks why a message has not come out is told, and is told what will wake it.

use serde_json::json;
use tolk::config::{Config, load};
use tolk::explain::{self, Explanation, Known, text};
use uuid::Uuid;

use crate::support::host::TestHost;

fn config() -> Config {
    let text = "[store]\nurl = \"sqlite://unused.db\"\n[feeds.f]\nsource = { kind = \"file\", path = \"none\" }\ntable_name = \"t\"\n\
                [feeds.f.delivery]\nid = [\"/id\"]\nmark = [\"/kind\"]\nstart = \"START\"\nend = \"END\"\nexpected = [\"/n\"]\n";
    load::parse(text, std::path::Path::new("tolk.toml"), &|_| None).unwrap()
}

async fn id(host: &TestHost, offset: usize) -> Uuid {
    host.statuses().await[offset].id
}

async fn explained(host: &TestHost, offset: usize) -> Explanation {
    let known = Known::read(&config(), &*host.store, None).await.unwrap();
    let detail = host.store.message(id(host, offset).await).await.unwrap().unwrap();
    explain::explain(&known, &*host.store, &detail).await.unwrap()
}

#[tokio::test]
async fn a_message_behind_leads_to_the_head_of_its_key() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "do": "fail" }), json!({ "key": "a" }), json!({ "key": "a" })]).await;
    let found = explained(&host, 2).await;
    assert_eq!((found.why.message.as_str(), found.why.status.as_str()), ("f/0/2", "behind"));
    let head = found.why.head.as_ref().unwrap();
    assert_eq!((head.message.as_str(), head.status.as_str()), ("f/0/0", "failed"));
    assert!(head.why.contains("told-to: the message says so") && head.wakes.is_empty(), "{head:?}");
    let first = id(&host, 0).await;
    assert!(head.next.contains(&format!("tolk retry {first} --reason TEXT")), "{head:?}");
    let lines = text::lines(&found);
    assert!(lines.contains("    f/0/0 (table t, key a): failed") && lines.contains("woken by: nothing but a person"), "{lines}");
}

#[tokio::test]
async fn a_wait_leads_to_whoever_would_write_the_entry() {
    let mut host = TestHost::new("").await;
    host.consume(&[
        json!({ "key": "p", "do": "fail" }),
        json!({ "key": "q", "do": "wait", "read": ["p"], "on": ["p"], "timeout": 5000 }),
        json!({ "key": "r", "do": "wait", "read": ["nobody"], "on": ["nobody"] }),
        json!({ "key": "w", "write": [["s", "1"]] }),
        json!({ "key": "x", "do": "wait", "on": ["w", "s"] }),
    ])
    .await;
    assert_eq!(host.words().await, ["failed", "waiting", "waiting", "handled", "waiting"]);
    let found = explained(&host, 1).await.why;
    assert_eq!((found.awaits[0].what.as_str(), found.awaits[0].exists), ("entry c/p", false));
    let writer = &found.awaits[0].writers[0];
    assert_eq!((writer.message.as_str(), writer.status.as_str()), ("f/0/0", "failed"));
    assert!(found.wakes.iter().any(|wakes| wakes.contains("ends at 2030-03-17")), "{found:?}");
    let found = explained(&host, 2).await.why;
    assert!(found.awaits[0].from.contains("no message with key nobody of f/t has come yet"), "{found:?}");
    let found = explained(&host, 4).await.why;
    assert!(found.awaits[0].from.contains("done and did not leave it: f/0/3 (handled)"), "{found:?}");
    assert!(found.awaits[1].exists && !found.awaits[0].exists, "{found:?}");
}

#[tokio::test]
async fn messages_that_wait_for_one_another_are_named_as_a_ring() {
    let mut host = TestHost::new("").await;
    let wait = |key: &str, on: &str| json!({ "key": key, "do": "wait", "read": [on], "on": [on] });
    host.consume(&[wait("a", "b"), wait("b", "c"), wait("c", "a"), wait("d", "a"), json!({ "key": "a" })]).await;
    let ring = vec![["f/0/0", "f/0/1", "f/0/2"].map(str::to_owned).to_vec()];
    for offset in 0..4 {
        assert_eq!(explained(&host, offset).await.cycles, ring, "asked about {offset}");
    }
    let behind = explained(&host, 4).await;
    assert_eq!(behind.cycles, ring, "the head of its key is in the ring");
    assert!(text::lines(&behind).contains("a ring: f/0/0 waits for f/0/1 waits for f/0/2 waits for f/0/0"), "{}", text::lines(&behind));
    let known = Known::read(&config(), &*host.store, None).await.unwrap();
    let stuck = explain::stuck(&known, &*host.store).await.unwrap();
    assert_eq!(stuck.cycles, ring);
    let groups: Vec<_> = stuck.groups.iter().map(|group| (group.status.as_str(), group.code.as_str(), group.messages)).collect();
    assert!(groups.contains(&("waiting", "told-to", 4)) && groups.contains(&("behind", "behind", 1)), "{groups:?}");
}

#[tokio::test]
async fn retries_have_a_time_and_outputs_a_target() {
    let mut host = TestHost::new("retry = { backoff_ms = [1000], attempts_max = 3 }").await;
    host.consume(&[json!({ "key": "a", "do": "retry" }), json!({ "key": "b" }), json!({ "key": "c", "outputs": 0 })]).await;
    let found = explained(&host, 0).await.why;
    assert!(found.wakes[0].contains("the next try at 2030-03-17") && found.wakes[0].contains("after 1 tries"), "{found:?}");
    // Nobody publishes in this test: the target is owned and behind.
    let found = explained(&host, 1).await.why;
    assert!(found.why.contains("1 of its outputs are not published: target out"), "{found:?}");
    assert!(found.wakes[0].contains("host test, which publishes out"), "{found:?}");
    assert!(explained(&host, 2).await.why.why.contains("it made no outputs"));
}

#[tokio::test]
async fn a_table_without_a_plugin_and_a_lane_without_a_host_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("t.db").display());
    let mut host = TestHost::on(&url, "tolk", "").await;
    host.consume(&[json!({ "key": "a" })]).await;
    let found = explained(&host, 0).await.why;
    assert!(found.why.contains("no plugin is active for table t of feed f"), "{found:?}");
    assert_eq!(found.next, ["tolk activate REF --feed f --table t"]);
    host.append(&[json!({ "key": "z" })]).await;
    let pending = explained(&host, 1).await.why;
    assert!(pending.wakes[0].contains("host test, which owns lane"), "{pending:?}");
    host.store.leave(&host.host).await.unwrap();
    let pending = explained(&host, 1).await.why;
    assert!(pending.why.contains("no host owns lane"), "{pending:?}");
}

#[tokio::test]
async fn a_held_part_names_its_delivery_and_what_that_lacks() {
    let settings = "[delivery]\nid = [\"/id\"]\nmark = [\"/kind\"]\nstart = \"START\"\nend = \"END\"\nexpected = [\"/n\"]\n";
    let mut host = TestHost::new(settings).await;
    host.consume(&[json!({ "id": "A", "kind": "START", "n": 3 }), json!({ "id": "A", "kind": "DATA", "key": "x" })]).await;
    assert_eq!(host.words().await[1], "held");
    let found = explained(&host, 1).await.why;
    assert!(found.why.contains("a part of delivery f/A, which is started; that lacks its end and 2 of 3 parts"), "{found:?}");
    assert!(found.wakes[0].contains("once it is complete"), "{found:?}");
    assert!(found.next[0].starts_with("tolk deliveries show ") && found.next[1] == "tolk messages --delivery f/A", "{found:?}");
    assert!(found.next[2].contains("tolk deliveries invalidate "), "{found:?}");
}
