//! Tries within a call: by status, by body, by transport; how long between them, and what ends them.

use std::time::Duration;

use tolk::endpoint::Caller;

use super::{ORIGIN, ahead, away, call, endpoints, failed, lenient, response};
use crate::support::stub::{Reply, Stub};

#[tokio::test]
async fn a_body_pointer_that_resolves_fails_the_attempt() {
    let bodies = ["{\"errors\":null}", "{\"errors\":[]}", "{\"errors\":[{\"message\":\"no\"}]}", "not json", "{\"errors\":[1]}"];
    let stub = Stub::start(move |number, _| Reply::json(200, bodies[number])).await;
    let endpoints = endpoints(&stub.url(), "path = \"/graphql\"\nmethod = \"POST\"\nretry_bodies = [\"/errors\"]");
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 200);
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 200);
    let (code, reason, _) = failed(endpoints.call(&call(&[]), ORIGIN).await);
    assert_eq!(code, "remote-body");
    assert!(reason.contains("/errors") && reason.contains("{\"message\":\"no\"}"), "{reason}");
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).body, "not json");
    assert_eq!(response(endpoints.call(&lenient(), ORIGIN).await).body, bodies[4]);
}

/// How barnetrygd asks for identities.
const GRAPHQL: &str = "path = \"/graphql\"\nmethod = \"POST\"\ntries = 4\nbackoff_ms = [1500, 3750, 9375]\nretry_statuses = [\"400-599\"]
    retry_bodies = [{ pointer = \"/errors/0/extensions/code\", equals = [\"server_error\"] }]
    unreachable = \"attempt\"\nbreaker_failures = 0";

fn within(waits: &[Duration], wanted_ms: &[u64]) {
    assert_eq!(waits.len(), wanted_ms.len(), "{waits:?}");
    for (wait, wanted) in waits.iter().zip(wanted_ms) {
        let least = Duration::from_millis(*wanted);
        assert!((least..=least + least / 5).contains(wait), "{wait:?} is not {least:?} and up to a fifth");
    }
}

fn error(code: &str) -> Reply {
    Reply::json(200, &format!("{{\"data\":{{}},\"errors\":[{{\"extensions\":{{\"code\":\"{code}\"}}}}]}}"))
}

#[tokio::test]
async fn transient_answers_are_tried_again_within_the_call() {
    type Answer = fn() -> Reply;
    let cases: [(&str, Answer, &str); 4] = [
        ("a status", || Reply::json(401, "no"), "remote-status"),
        ("another status", || Reply::json(503, "down"), "remote-status"),
        ("a body", || error("server_error"), "remote-body"),
        ("the transport", || Reply::Reset, "remote-unreachable"),
    ];
    for (what, answer, code) in cases {
        let stub = Stub::start(move |_, _| answer()).await;
        let (endpoints, time) = ahead(&stub.url(), GRAPHQL);
        assert_eq!(failed(endpoints.call(&call(&[]), ORIGIN).await).0, code, "{what}");
        assert_eq!(stub.count(), 4, "{what}");
        within(&time.waits(), &[1_500, 3_750, 9_375]);
        let state = &endpoints.states()[0];
        assert_eq!((state.counts.calls, state.counts.sent, state.counts.failed), (1, 4, 1));

        let stub = Stub::start(move |number, _| if number < 2 { answer() } else { Reply::json(200, "{\"data\":1}") }).await;
        let (endpoints, time) = ahead(&stub.url(), GRAPHQL);
        assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).body, "{\"data\":1}", "{what}");
        assert_eq!((stub.count(), time.waits().len()), (3, 2), "{what}");
    }
}

#[tokio::test]
async fn permanent_answers_are_the_translators_at_once() {
    for code in ["not_found", "unauthorized", "bad_request"] {
        let stub = Stub::start(move |_, _| error(code)).await;
        let (endpoints, _) = ahead(&stub.url(), GRAPHQL);
        assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 200);
        assert_eq!(stub.count(), 1, "{code}");
    }
    // What is final wins over what is retried, bodies and statuses alike.
    let settings = "path = \"/\"\ntries = 3\nretry_bodies = [\"/errors\"]
        final_bodies = [{ pointer = \"/errors/0/extensions/code\", equals = [\"not_found\"] }, \"/gone\"]";
    let stub = Stub::start(|number, _| match number {
        0 => error("not_found"),
        1 => Reply::json(503, "{\"gone\":true}"),
        _ => error("other"),
    })
    .await;
    let (endpoints, _) = ahead(&stub.url(), settings);
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 200);
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 503);
    assert_eq!(endpoints.states()[0].failures, 0, "a final answer is no failure of the remote system");
    assert_eq!(failed(endpoints.call(&call(&[]), ORIGIN).await).0, "remote-body");
    assert_eq!(stub.count(), 5);
}

#[tokio::test]
async fn a_lenient_call_is_given_the_last_tries_answer() {
    let stub = Stub::start(|number, _| Reply::json(500, &number.to_string())).await;
    let (endpoints, time) = ahead(&stub.url(), "path = \"/\"\ntries = 3\nbackoff_ms = [10]");
    assert_eq!(response(endpoints.call(&lenient(), ORIGIN).await).body, "2");
    within(&time.waits(), &[10, 10]);
}

#[tokio::test]
async fn retry_after_is_waited_out_or_handed_on() {
    let stub = Stub::start(|number, _| match number {
        0 => Reply::json(429, "").with_header("retry-after", "7"),
        1 => Reply::json(200, "{}"),
        2 => Reply::json(429, "").with_header("retry-after", "31"),
        _ => {
            let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600);
            let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap();
            Reply::json(503, "").with_header("retry-after", &date)
        }
    })
    .await;
    let (endpoints, time) = ahead(&stub.url(), "path = \"/\"\ntries = 2\nbackoff_ms = [100]");
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 200);
    assert_eq!(time.waits(), [Duration::from_secs(7)]);
    assert_eq!(failed(endpoints.call(&call(&[]), ORIGIN).await).2, Some(31_000));
    let after_ms = failed(endpoints.call(&call(&[]), ORIGIN).await).2.unwrap();
    assert!((590_000..=600_000).contains(&after_ms), "{after_ms}");
    assert_eq!((stub.count(), time.waits().len()), (4, 1), "a long wait is the message's, not the call's");
}

#[tokio::test]
async fn tries_end_where_the_breaker_opens() {
    let stub = Stub::start(|_, _| Reply::json(500, "")).await;
    let (endpoints, _) = ahead(&stub.url(), "path = \"/\"\ntries = 5\nbreaker_failures = 2\nbreaker_open_ms = 60000");
    let (reason, after_ms) = away(endpoints.call(&call(&[]), ORIGIN).await);
    assert!(reason.contains("the breaker is open after 2 failures"), "{reason}");
    assert!((59_000..=60_000).contains(&after_ms), "{after_ms}");
    assert_eq!(stub.count(), 2, "an attempt is not burnt where its tries cannot be made");
}

#[tokio::test]
async fn tries_carry_one_idempotency_key() {
    let stub = Stub::start(|number, _| if number < 2 { Reply::json(500, "") } else { Reply::json(200, "") }).await;
    let (endpoints, _) = ahead(&stub.url(), "path = \"/\"\nmethod = \"POST\"\ntries = 3");
    response(endpoints.call(&call(&[]), ORIGIN).await);
    let keys: Vec<_> = stub.requests().iter().map(|request| request.header("idempotency-key").unwrap().to_owned()).collect();
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

/// The first try's effect takes place after our time-out: the server must be able to see that the second is the same.
#[tokio::test]
async fn a_late_answer_and_the_next_attempt_have_one_key() {
    let stub = Stub::start(|number, _| if number == 0 { Reply::Hang } else { Reply::json(200, "") }).await;
    let endpoints = endpoints(&stub.url(), "path = \"/\"\nmethod = \"POST\"\ntimeout_ms = 200");
    away(endpoints.call(&call(&[]), ORIGIN).await);
    response(endpoints.call(&call(&[]), ORIGIN).await);
    let requests = stub.requests();
    assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
}
