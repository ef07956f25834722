//! What messages read: entries, scans and ids, of earlier settlements and of messages that are not settled yet.

use serde_json::json;
use tolk::plugin::{Binding, Write};

use crate::support::host::TestHost;

#[tokio::test]
async fn a_counter_over_many_keys_misses_no_step() {
    // Each message reads what some earlier one wrote, whichever key it was on: the outputs must look as if run one after the other.
    let mut host = TestHost::new("").await;
    let scripts: Vec<_> =
        (0..200_u64).map(|i| json!({ "key": format!("k{i}"), "seq": i, "read": ["n"], "write": [["n", i.to_string()]] })).collect();
    host.consume(&scripts).await;
    let outputs = host.outputs().await;
    assert_eq!(outputs.len(), 200);
    let mut before = json!(null);
    for output in &outputs {
        assert_eq!(output["saw"][0], before, "in the order of settlement each sees its predecessor");
        before = json!(output["seq"].as_u64().unwrap().to_string());
    }
}

#[tokio::test]
async fn scans_see_what_enters_and_leaves() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "w", "write": [["a", "1", "p/1"], ["b", "1", "p/2"], ["z", "1", "q"]] })]).await;
    host.consume(&[json!({ "key": "s", "scan": "p/" })]).await;
    host.consume(&[json!({ "key": "w", "write": [["a", "1", "q"], ["b", null], ["c", "1", "p/3"]] })]).await;
    host.consume(&[json!({ "key": "s", "scan": "p/" })]).await;
    let saws: Vec<_> =
        host.outputs().await.into_iter().filter(|output| output["key"] == "s").map(|output| output["saw"][0].clone()).collect();
    assert_eq!(saws, [json!(["a", "b"]), json!(["c"])]);
}

#[tokio::test]
async fn ids_are_the_same_ever_after_and_bindings_win() {
    let mut host = TestHost::new("").await;
    let bound = "00000000-0000-4000-8000-000000000007";
    host.consume(&[
        json!({ "key": "a", "known": "x" }),
        json!({ "key": "a", "id": "x" }),
        json!({ "key": "a", "known": "x" }),
        json!({ "key": "b", "bind": ["y", bound] }),
    ])
    .await;
    host.consume(&[json!({ "key": "b", "id": "y" }), json!({ "key": "a", "id": "x" })]).await;
    let saw = |key: &str| -> Vec<_> { Vec::from_iter([key.to_owned()]) };
    let outputs = host.outputs().await;
    let of = |key: &str| outputs.iter().filter(|output| output["key"] == key).map(|output| output["saw"][0].clone()).collect::<Vec<_>>();
    let a = of("a");
    assert_eq!(a[0], json!(null), "known-id never makes one");
    assert!(a[1].is_string() && a[1] == a[2] && a[2] == a[3], "{a:?}");
    assert_eq!(of("b")[1], json!(bound));
    assert_eq!(saw("a").len(), 1);
}

#[tokio::test]
async fn a_binding_that_conflicts_either_way_is_invalid() {
    let mut host = TestHost::new("").await;
    let id = |n: u8| format!("00000000-0000-4000-8000-00000000000{n}");
    host.consume(&[
        json!({ "key": "a", "bind": ["x", id(1)] }),
        json!({ "key": "b", "bind": ["x", id(2)] }),
        json!({ "key": "c", "bind": ["y", id(1)] }),
        json!({ "key": "d", "bind": ["x", id(1)] }),
    ])
    .await;
    let mut words = host.words().await;
    // Keys run side by side, so which of the three rivals comes first is open; two lose, the equal one never does.
    words.sort();
    assert_eq!(words.iter().filter(|word| *word == "invalid").count(), 2, "{words:?}");
    let codes: Vec<_> = host.statuses().await.into_iter().filter_map(|one| one.code).filter(|code| code == "id-conflict").collect();
    assert_eq!(codes.len(), 2);
}

#[tokio::test]
async fn what_another_host_wrote_meanwhile_is_read_again() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "do": "wait", "read": ["x"], "on": ["x"] })]).await;
    let write = Write { collection: "c".to_owned(), key: "x".to_owned(), value: Some("by hand".into()), indexes: vec![] };
    let binding = Binding { namespace: "n".to_owned(), key: "k".to_owned(), id: "00000000-0000-4000-8000-000000000009".to_owned() };
    host.store.put_entries(&[write], &[binding]).await.unwrap();
    host.consume(&[json!({ "key": "b", "known": "k" })]).await;
    let outputs = host.outputs().await;
    assert_eq!(outputs.len(), 2);
    assert!(outputs.iter().any(|output| output["saw"] == json!(["by hand"])));
    assert!(outputs.iter().any(|output| output["saw"] == json!(["00000000-0000-4000-8000-000000000009"])));
}
