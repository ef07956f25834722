//! The loop on PostgreSQL, over the Unix socket and over TCP, which write rows by different ways.

use serde_json::json;

use crate::support::host::TestHost;
use crate::support::{postgres_tcp_url, postgres_url};

async fn flow(url: &str, schema: &str) {
    let mut host = TestHost::on(url, schema, "retry = { backoff_ms = [10], attempts_max = 9 }").await;
    host.activate("").await;
    let script = |i: u64| match i % 10 {
        3 => json!({ "key": format!("k{}", i % 7), "seq": i, "do": "retry", "times": 1 }),
        5 => json!({ "key": format!("k{}", i % 7), "seq": i, "read": ["n"], "write": [["n", i.to_string(), "p"]] }),
        7 => json!({ "key": format!("k{}", i % 7), "seq": i, "scan": "p", "id": i.to_string() }),
        _ => json!({ "key": format!("k{}", i % 7), "seq": i }),
    };
    host.consume(&(0..700).map(script).collect::<Vec<_>>()).await;
    for _ in 0..200 {
        if host.words().await.iter().all(|word| word == "handled") {
            break;
        }
        host.later(10).await;
    }
    let words = host.words().await;
    assert!(words.iter().all(|word| word == "handled"), "{words:?}");
    let outputs = host.outputs().await;
    assert_eq!(outputs.len(), 700);
    super::order::assert_in_order(&outputs);
}

fn schema(name: &str) -> String {
    format!("flow_{name}_{}", uuid::Uuid::new_v4().simple())
}

#[tokio::test]
async fn over_the_unix_socket() {
    flow(postgres_url(), &schema("socket")).await;
}

#[tokio::test]
async fn over_tcp() {
    flow(postgres_tcp_url(), &schema("tcp")).await;
}
