//! Answers that are kept, and calls that share one under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tolk::endpoint::{Called, Caller, Endpoints};
use tolk::plugin::Call;

use super::{ORIGIN, ahead, call, failed, lenient, response};
use crate::support::stub::{Reply, Stub};

fn counting(number: usize) -> Reply {
    Reply::json(200, &number.to_string())
}

async fn body(endpoints: &Endpoints, call: &Call) -> String {
    String::from_utf8(response(endpoints.call(call, ORIGIN).await).body.to_vec()).unwrap()
}

fn spawn(endpoints: &Arc<Endpoints>, call: Call) -> tokio::task::JoinHandle<Called> {
    let endpoints = endpoints.clone();
    tokio::spawn(async move { endpoints.call(&call, ORIGIN).await })
}

#[tokio::test]
async fn good_answers_are_kept_their_time() {
    let stub = Stub::start(|number, _| counting(number)).await;
    let (endpoints, time) = ahead(&stub.url(), "path = \"/{a}/{b}\"\ncache = { ttl_ms = 300000, entries_max = 2 }");
    let (ab, ba) = (call(&[("a", "1"), ("b", "2")]), call(&[("b", "2"), ("a", "1")]));
    assert_eq!(body(&endpoints, &ab).await, "0");
    assert_eq!(body(&endpoints, &ba).await, "0", "the order of parameters does not matter");
    assert_eq!(body(&endpoints, &Call { lenient: true, ..ab.clone() }).await, "0", "nor whether it is lenient");
    assert_eq!(body(&endpoints, &Call { body: Some("x".into()), ..ab.clone() }).await, "1", "the body does");
    assert_eq!(body(&endpoints, &call(&[("a", "2"), ("b", "2")])).await, "2");
    assert_eq!(body(&endpoints, &ab).await, "3", "two at most are kept");
    time.pass(Duration::from_secs(299));
    assert_eq!(body(&endpoints, &ab).await, "3");
    time.pass(Duration::from_secs(1));
    assert_eq!(body(&endpoints, &ab).await, "4");
    endpoints.forget();
    assert_eq!(body(&endpoints, &ab).await, "5");
    let counts = endpoints.states()[0].counts;
    assert_eq!((counts.calls, counts.sent, counts.cached), (9, 6, 3));
}

#[tokio::test]
async fn parameters_that_do_not_count_are_left_out() {
    let stub = Stub::start(|number, _| counting(number)).await;
    let settings = "path = \"/{id}\"\nheaders = { x-trace = \"{trace}\" }\ncache = { ttl_ms = 1000, key = [\"id\"] }";
    let (endpoints, _) = ahead(&stub.url(), settings);
    assert_eq!(body(&endpoints, &call(&[("id", "1"), ("trace", "a")])).await, "0");
    assert_eq!(body(&endpoints, &call(&[("id", "1"), ("trace", "b")])).await, "0");
    assert_eq!(body(&endpoints, &call(&[("id", "2"), ("trace", "b")])).await, "1");
    let Called::Wrong { .. } = endpoints.call(&call(&[("id", "1")]), ORIGIN).await else { panic!("a wrong call was answered") };
}

#[tokio::test]
async fn errors_are_not_kept() {
    let replies = [
        Reply::json(404, "{}"),
        Reply::json(500, "{}"),
        Reply::json(200, "{\"errors\":[{\"code\":\"server_error\"}]}"),
        Reply::json(200, "{\"errors\":[{\"code\":\"not_found\"}]}"),
        Reply::json(200, "{\"errors\":[{\"code\":\"other\"}]}"),
        Reply::Reset,
        Reply::json(200, "{\"good\":1}"),
    ];
    let stub = Stub::start(move |number, _| replies[number.min(6)].clone()).await;
    let settings = "path = \"/\"\ncache = { ttl_ms = 1000, except = [\"/errors\"] }\nretry_bodies = [{ pointer = \"/errors/0/code\", equals = [\"server_error\"] }]
        final_bodies = [{ pointer = \"/errors/0/code\", equals = [\"not_found\"] }]\nunreachable = \"attempt\"";
    let (endpoints, _) = ahead(&stub.url(), settings);
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 404);
    for code in ["remote-status", "remote-body"] {
        assert_eq!(failed(endpoints.call(&call(&[]), ORIGIN).await).0, code);
    }
    assert!(body(&endpoints, &call(&[])).await.contains("not_found"));
    assert!(body(&endpoints, &call(&[])).await.contains("other"));
    assert_eq!(failed(endpoints.call(&call(&[]), ORIGIN).await).0, "remote-unreachable");
    for _ in 0..3 {
        assert_eq!(body(&endpoints, &call(&[])).await, "{\"good\":1}");
    }
    assert_eq!(stub.count(), 7);
}

#[tokio::test]
async fn equal_calls_share_one_under_way() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let stub = Stub::start(move |number, _| Reply::When(gate.clone(), Box::new(Reply::json(500, &number.to_string())))).await;
    let (endpoints, _) = ahead(&stub.url(), "path = \"/\"\ncache = { ttl_ms = 0 }");
    let calls: Vec<_> = (0..50).map(|i| spawn(&endpoints, if i % 2 == 0 { call(&[]) } else { lenient() })).collect();
    stub.reached(1).await;
    while endpoints.states()[0].counts.shared < 49 {
        tokio::task::yield_now().await;
    }
    open.send_replace(true);
    for (i, call) in calls.into_iter().enumerate() {
        match call.await.unwrap() {
            Called::Failed { code, .. } if i % 2 == 0 => assert_eq!(code, "remote-status"),
            Called::Response(response) if i % 2 == 1 => assert_eq!((response.status, response.body.as_ref()), (500, b"0".as_slice())),
            other => panic!("call {i}: {other:?}"),
        }
    }
    assert_eq!(stub.count(), 1);
    assert_eq!(failed(endpoints.call(&call(&[]), ORIGIN).await).0, "remote-status");
    assert_eq!(stub.count(), 2, "without a time to keep it, an answer is shared only while it is under way");
}

#[tokio::test]
async fn a_shared_call_survives_whoever_began_it() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let stub = Stub::start(move |number, _| Reply::When(gate.clone(), Box::new(counting(number)))).await;
    let (endpoints, _) = ahead(&stub.url(), "path = \"/\"\ncache = { ttl_ms = 60000 }");
    let leader = spawn(&endpoints, call(&[]));
    stub.reached(1).await;
    let other = spawn(&endpoints, call(&[]));
    while endpoints.states()[0].counts.shared < 1 {
        tokio::task::yield_now().await;
    }
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    open.send_replace(true);
    assert_eq!(response(other.await.unwrap()).body, "0");
    assert_eq!(body(&endpoints, &call(&[])).await, "0");
    assert_eq!(stub.count(), 1);
}

#[tokio::test]
async fn kept_answers_outlive_the_remote_system_but_not_a_pause() {
    let up = Arc::new(AtomicBool::new(true));
    let is_up = up.clone();
    let stub = Stub::start(move |number, _| if is_up.load(Ordering::SeqCst) { counting(number) } else { Reply::Reset }).await;
    let settings = "path = \"/{id}\"\ncache = { ttl_ms = 60000 }\nbreaker_failures = 1\nbreaker_open_ms = 60000";
    let (endpoints, time) = ahead(&stub.url(), settings);
    assert_eq!(body(&endpoints, &call(&[("id", "1")])).await, "0");
    up.store(false, Ordering::SeqCst);
    super::away(endpoints.call(&call(&[("id", "2")]), ORIGIN).await);
    assert_eq!(endpoints.states()[0].breaker, "open");
    assert_eq!(body(&endpoints, &call(&[("id", "1")])).await, "0");
    up.store(true, Ordering::SeqCst);
    assert!(endpoints.set_paused("person", true));
    assert!(super::away(endpoints.call(&call(&[("id", "1")]), ORIGIN).await).0.contains("tolk resume --endpoint person"));
    endpoints.set_paused("person", false);
    time.pass(Duration::from_secs(61));
    assert_eq!(body(&endpoints, &call(&[("id", "1")])).await, "2", "what was kept before the pause may be what it was paused for");
}
