//! Endpoints that are away: the breaker and its probes, places that are all busy, pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tolk::endpoint::{Called, Caller};

use super::{ORIGIN, ahead, away, call, endpoints, failed, lenient, response};
use crate::support::stub::{Reply, Stub};

#[tokio::test]
async fn the_breaker_opens_and_one_probe_closes_it() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let stub = Stub::start(move |_, _| if is_up.load(Ordering::SeqCst) { Reply::json(200, "{}") } else { Reply::json(500, "{}") }).await;
    let endpoints = endpoints(&stub.url(), "path = \"/\"\nbreaker_failures = 3\nbreaker_open_ms = 60000");
    for _ in 0..3 {
        failed(endpoints.call(&call(&[]), ORIGIN).await);
    }
    let (reason, after_ms) = away(endpoints.call(&call(&[]), ORIGIN).await);
    assert!(reason.contains("breaker is open after 3 failures") && (50_000..=72_000).contains(&after_ms), "{reason}, {after_ms} ms");
    away(endpoints.call(&lenient(), ORIGIN).await);
    assert_eq!(stub.count(), 3, "nothing goes out while it is open");
    let state = &endpoints.states()[0];
    assert_eq!((state.endpoint.as_str(), state.breaker, state.failures, state.calls), ("person", "open", 3, 0));
    assert!(state.probe_after_ms.is_some());

    let endpoints = self::endpoints(&stub.url(), "path = \"/\"\nbreaker_failures = 1\nbreaker_open_ms = 1");
    failed(endpoints.call(&call(&[]), ORIGIN).await);
    up.store(true, Ordering::SeqCst);
    while !matches!(endpoints.call(&call(&[]), ORIGIN).await, Called::Response(_)) {
        tokio::task::yield_now().await;
    }
    let state = &endpoints.states()[0];
    assert_eq!((state.breaker, state.failures, state.probe_after_ms), ("closed", 0, None));
}

#[tokio::test]
async fn only_one_probe_is_under_way() {
    let stub = Stub::start(|number, _| if number == 0 { Reply::json(500, "{}") } else { Reply::Hang }).await;
    let endpoints = Arc::new(endpoints(&stub.url(), "path = \"/\"\nbreaker_failures = 1\nbreaker_open_ms = 1\ntimeout_ms = 20000"));
    failed(endpoints.call(&call(&[]), ORIGIN).await);
    let prober = endpoints.clone();
    let probe = tokio::spawn(async move {
        loop {
            prober.call(&call(&[]), ORIGIN).await;
        }
    });
    stub.reached(2).await;
    assert!(away(endpoints.call(&call(&[]), ORIGIN).await).0.contains("probe is under way"));
    assert_eq!(endpoints.states()[0].breaker, "probing");
    probe.abort();
    assert!(probe.await.unwrap_err().is_cancelled());
    // A probe that was given up frees the place for the next.
    assert_eq!(endpoints.states()[0].breaker, "open");
    assert_eq!(stub.count(), 2);
}

#[tokio::test]
async fn concurrency_is_limited_and_a_full_endpoint_sends_away() {
    let stub = Stub::start(|_, _| Reply::Hang).await;
    let endpoints = Arc::new(endpoints(&stub.url(), "path = \"/\"\nconcurrency_max = 2\ntimeout_ms = 20000"));
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let endpoints = endpoints.clone();
            tokio::spawn(async move { endpoints.call(&call(&[]), ORIGIN).await })
        })
        .collect();
    stub.reached(2).await;
    assert_eq!(endpoints.states()[0].calls, 2);
    assert_eq!(stub.count(), 2);
    calls.iter().for_each(tokio::task::JoinHandle::abort);

    let busy = Arc::new(self::endpoints(&stub.url(), "path = \"/\"\nconcurrency_max = 1\ntimeout_ms = 300\nbreaker_failures = 0"));
    let holder = busy.clone();
    let holding = tokio::spawn(async move {
        loop {
            holder.call(&call(&[]), ORIGIN).await;
        }
    });
    stub.reached(3).await;
    let mut reasons = Vec::new();
    for _ in 0..4 {
        reasons.push(away(busy.call(&call(&[]), ORIGIN).await).0);
    }
    assert!(reasons.iter().any(|reason| reason.contains("concurrency_max") || reason.contains("timeout_ms")), "{reasons:?}");
    holding.abort();
}

#[tokio::test]
async fn a_queue_that_moves_sends_nobody_away() {
    let stub = Stub::start(|_, _| Reply::After(Duration::from_millis(40), Box::new(Reply::json(200, "{}")))).await;
    // The last in the queue waits longer than one time-out.
    let endpoints = Arc::new(endpoints(&stub.url(), "path = \"/\"\nconcurrency_max = 2\ntimeout_ms = 2000"));
    let calls: Vec<_> = (0..120)
        .map(|_| {
            let endpoints = endpoints.clone();
            tokio::spawn(async move { endpoints.call(&call(&[]), ORIGIN).await })
        })
        .collect();
    for call in calls {
        response(call.await.unwrap());
    }
    assert_eq!((stub.count(), endpoints.states()[0].calls), (120, 0));
}

#[tokio::test]
async fn a_few_come_back_for_the_probe_and_the_rest_later() {
    let stub = Stub::start(|_, _| Reply::json(503, "{\"secret\":1}")).await;
    let (endpoints, time) = ahead(&stub.url(), "path = \"/\"\nbreaker_failures = 1\nbreaker_open_ms = 10000");
    failed(endpoints.call(&call(&[]), ORIGIN).await);
    for turn in 1..4 {
        let mut waits = Vec::new();
        for _ in 0..50 {
            let (reason, after_ms) = away(endpoints.call(&call(&[]), ORIGIN).await);
            let told =
                reason.contains("\"person\"") && reason.contains("503 Service Unavailable") && reason.contains("the next probe goes at 20");
            assert!(told && !reason.contains("secret"), "{reason}");
            waits.push(after_ms);
        }
        assert_eq!(waits.iter().filter(|wait| **wait <= 10_000).count(), 3, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= 10_000 || (59_000..=72_000).contains(wait)), "{waits:?}");
        time.pass(Duration::from_secs(10));
        failed(endpoints.call(&call(&[]), ORIGIN).await);
        assert_eq!(stub.count(), turn + 1, "one probe a turn");
    }
}

#[tokio::test]
async fn an_operator_pauses_and_resumes() {
    let stub = Stub::start(|_, _| Reply::json(200, "{}")).await;
    let endpoints = endpoints(&stub.url(), "path = \"/\"");
    assert!(!endpoints.is_away("person") && !endpoints.set_paused("nobody", true));
    endpoints.pause_only(&["person"]);
    for call in [call(&[]), lenient()] {
        let (reason, after_ms) = away(endpoints.call(&call, ORIGIN).await);
        assert!(reason.contains("tolk resume --endpoint person") && after_ms >= 60_000, "{reason}");
    }
    assert!(endpoints.is_away("person") && endpoints.states()[0].paused);
    assert_eq!(stub.count(), 0);
    endpoints.pause_only(&["others"]);
    assert!(!endpoints.is_away("person"));
    response(endpoints.call(&call(&[]), ORIGIN).await);
}

#[tokio::test]
async fn an_endpoint_is_away_until_it_answers() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let stub = Stub::start(move |_, _| if is_up.load(Ordering::SeqCst) { Reply::json(200, "{}") } else { Reply::Reset }).await;
    let (endpoints, time) = ahead(&stub.url(), "path = \"/\"\nbreaker_failures = 2\nbreaker_open_ms = 1000");
    away(endpoints.call(&call(&[]), ORIGIN).await);
    assert!(endpoints.is_away("person"), "its breaker is closed, but it failed last");
    away(endpoints.call(&call(&[]), ORIGIN).await);
    time.pass(Duration::from_secs(1));
    up.store(true, Ordering::SeqCst);
    assert!(endpoints.is_away("person"), "a probe is due, but nobody has answered");
    response(endpoints.call(&call(&[]), ORIGIN).await);
    assert!(!endpoints.is_away("person"));
}
