//! Endpoints that are away: what needs them parks, few of them probe, and once an answer comes all go on at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tolk::endpoint::config::Config;
use tolk::endpoint::pace::{Ahead, Pace};
use tolk::endpoint::{Endpoints, Outside};
use tolk::message::Status;
use tolk::store::{Pausable, Paused};

use crate::support::host::{TestHost, status};
use crate::support::stub::{Reply, Stub};

fn calling(keys: std::ops::Range<usize>) -> Vec<Value> {
    keys.map(|i| json!({ "key": format!("k{i}"), "call": "x" })).collect()
}

/// A host whose endpoint `e` is a server that is up or not, under the test's time.
async fn with_server(settings: &str) -> (TestHost, Stub, Arc<AtomicBool>, Arc<Ahead>) {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let server = Stub::start(move |_, _| if is_up.load(Ordering::SeqCst) { Reply::json(200, "{}") } else { Reply::Reset }).await;
    let config: Config = toml::from_str(&format!("base_url = \"{}\"\npath = \"/{{item}}\"\n{settings}", server.url())).unwrap();
    let time = Arc::new(Ahead::default());
    let outside = Outside { pace: Pace::Ahead(time.clone()), ..Outside::default() };
    let endpoints = Arc::new(Endpoints::with(&[("e".to_owned(), config)].into(), &outside).unwrap());
    (TestHost::new("").await.with_caller(endpoints).await, server, up, time)
}

async fn later(host: &mut TestHost, time: &Ahead, ms: i64) {
    time.pass(Duration::from_millis(ms.unsigned_abs()));
    host.later(ms).await;
}

#[tokio::test]
async fn a_herd_parks_few_of_it_probe_and_all_go_on_when_one_is_answered() {
    let (mut host, server, up, time) = with_server("breaker_failures = 5\nbreaker_open_ms = 10000\nconcurrency_max = 1").await;
    host.consume(&calling(0..200)).await;
    assert_eq!(host.count(Status::Retry).await, 200);
    assert_eq!(server.count(), 5, "the breaker opened");
    let rows = host.statuses().await;
    let code = |row: &tolk::store::MessageStatus| (row.code.clone().unwrap(), row.attempts);
    assert!(rows.iter().all(|row| code(row) == ("endpoint-away".to_owned(), 0)), "no attempt is burnt");
    let reason = rows.last().unwrap().reason.clone().unwrap();
    assert!(reason.contains("endpoint \"e\"") && reason.contains("the next probe goes at"), "{reason}");
    // Only a few try again with each probe. The first five had parked before the breaker opened, by the endpoint's own back-off.
    later(&mut host, &time, 10_000).await;
    assert!((6..=7).contains(&server.count()), "{}", server.count());
    let before = server.count();
    later(&mut host, &time, 10_000).await;
    assert_eq!(server.count(), before + 1, "one probe a turn");
    assert_eq!(host.count(Status::Retry).await, 200);
    // The probe that is answered brings all others on, long before their own time.
    up.store(true, Ordering::SeqCst);
    later(&mut host, &time, 10_000).await;
    assert_eq!(host.count(Status::Handled).await, 200);
    assert_eq!(server.count(), before + 201);
}

#[tokio::test]
async fn an_endpoint_that_comes_and_goes_leaves_nobody_behind() {
    let (mut host, server, up, time) = with_server("breaker_failures = 1\nbreaker_open_ms = 1000").await;
    for round in 1..4 {
        up.store(false, Ordering::SeqCst);
        let from = host.statuses().await.len();
        host.consume(&calling(from..from + 20)).await;
        assert_eq!(host.count(Status::Retry).await, 20, "round {round}");
        up.store(true, Ordering::SeqCst);
        // Whoever missed being told has its own time.
        for _ in 0..10 {
            later(&mut host, &time, 1_000).await;
        }
        assert_eq!(host.count(Status::Handled).await, from + 20, "round {round}, {} requests", server.count());
    }
}

#[tokio::test]
async fn a_paused_endpoint_parks_until_it_is_resumed() {
    let mut host = TestHost::new("").await;
    host.stub.answers.lock().unwrap().insert("x".to_owned(), status(200));
    let of = Pausable::Endpoint { endpoint: "e".to_owned() };
    assert!(host.store.pause(&of, "kari", "it writes nonsense").await.unwrap());
    host.pauses.store(Arc::new(host.store.pauses().await.unwrap()));
    host.consume(&[json!({ "key": "a", "call": "x" }), json!({ "key": "b", "lenient": "x" }), json!({ "key": "c" })]).await;
    let row = host.statuses().await.remove(0);
    assert_eq!((row.status.as_str(), row.code.as_deref(), row.attempts), ("retry", Some("endpoint-away"), 0));
    let reason = row.reason.unwrap();
    assert!(reason.contains("kari") && reason.contains("it writes nonsense") && reason.contains("tolk resume --endpoint e"), "{reason}");
    assert_eq!(host.words().await, ["retry", "handled", "handled"], "a lenient call is told that nobody is there");
    assert!(host.stub.calls.lock().unwrap().is_empty());
    assert!(host.store.resume_paused(&of, "kari", "mended").await.unwrap());
    host.pauses.store(Arc::new(Vec::<Paused>::new()));
    // Hosts must see the resume first.
    host.later(tolk::store::actions::SEEN_MS).await;
    assert_eq!(host.words().await, ["handled", "handled", "handled"]);
}
