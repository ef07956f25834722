//! Endpoints against a real loopback server that answers, lingers, breaks off and lies.

mod addresses;
mod away;
mod cache;
mod hostile;
mod retries;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tolk::endpoint::config::Config;
use tolk::endpoint::pace::{Ahead, Pace};
use tolk::endpoint::{Called, Caller, Endpoints, Outside};
use tolk::plugin::{Call, Response};
use uuid::Uuid;

use crate::support::stub::{Reply, Stub};

/// What the calls are made for.
const ORIGIN: Uuid = Uuid::from_u128(7);

/// Endpoints with one called `person`, from TOML beside its base URL.
fn endpoints(base_url: &str, settings: &str) -> Endpoints {
    let config: Config = toml::from_str(&format!("base_url = \"{base_url}\"\n{settings}")).unwrap();
    Endpoints::new(&BTreeMap::from([("person".to_owned(), config)])).unwrap()
}

fn call(params: &[(&str, &str)]) -> Call {
    Call {
        endpoint: "person".to_owned(),
        params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: None,
        lenient: false,
    }
}

fn lenient() -> Call {
    Call { lenient: true, ..call(&[]) }
}

/// The same, with a time that runs ahead.
fn ahead(base_url: &str, settings: &str) -> (Arc<Endpoints>, Arc<Ahead>) {
    let config: Config = toml::from_str(&format!("base_url = \"{base_url}\"\n{settings}")).unwrap();
    let time = Arc::new(Ahead::default());
    let outside = Outside { pace: Pace::Ahead(time.clone()), ..Outside::default() };
    (Arc::new(Endpoints::with(&BTreeMap::from([("person".to_owned(), config)]), &outside).unwrap()), time)
}

fn response(called: Called) -> Response {
    match called {
        Called::Response(response) => response,
        other => panic!("no response: {other:?}"),
    }
}

fn away(called: Called) -> (String, u64) {
    match called {
        Called::Away { reason, after_ms } => (reason, after_ms),
        other => panic!("not away: {other:?}"),
    }
}

fn failed(called: Called) -> (String, String, Option<u64>) {
    match called {
        Called::Failed { code, reason, after_ms } => (code, reason, after_ms),
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test]
async fn templates_fill_path_query_headers_and_body() {
    let stub = Stub::start(|_, _| Reply::json(200, "{\"ok\":true}").with_header("X-Trace", "7").with_header("set-cookie", "s=1")).await;
    let settings = "response_headers = [\"X-Trace\", \"content-type\"]\nmethod = \"post\"\npath = \"/v1/{id}/x?since={day}\"\nheaders = { \"X-Id\" = \"nr {id}\" }\nauth = { kind = \"bearer\", token = \"t0k\" }";
    let mut call = call(&[("day", "2024-01-01T00:00+01"), ("id", "a/../b")]);
    call.body = Some("{\"q\":1}".into());
    let got = response(endpoints(&stub.url(), settings).call(&call, ORIGIN).await);
    assert_eq!((got.status, got.body.as_ref()), (200, "{\"ok\":true}".as_bytes()));
    let headers = [("content-type", "application/json"), ("x-trace", "7")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(got.headers, headers);
    let sent = &stub.requests()[0];
    assert_eq!((sent.method.as_str(), sent.path.as_str()), ("POST", "/v1/a%2F..%2Fb/x?since=2024-01-01T00%3A00%2B01"));
    assert_eq!(sent.header("host"), Some(stub.address.to_string().as_str()));
    assert_eq!(sent.header("x-id"), Some("nr a/../b"));
    assert_eq!(sent.header("authorization"), Some("Bearer t0k"));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_eq!(sent.header("accept-encoding"), None);
    assert_eq!(sent.body, b"{\"q\":1}");
}

#[tokio::test]
async fn a_wrong_call_names_endpoint_and_parameter_and_sends_nothing() {
    let stub = Stub::start(|_, _| Reply::json(200, "{}")).await;
    let endpoints = endpoints(&stub.url(), "path = \"/{id}\"");
    for (call, words) in [
        (call(&[("ID", "1")]), ["\"person\"", "\"id\""]),
        (call(&[("id", "..")]), ["\"person\"", "climb"]),
        (Call { endpoint: "persons".to_owned(), ..call(&[]) }, ["\"persons\"", "nearest is \"person\""]),
    ] {
        let Called::Wrong { reason } = endpoints.call(&call, ORIGIN).await else { panic!("{call:?} went out") };
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    }
    assert_eq!(stub.count(), 0);
}

#[tokio::test]
async fn statuses_are_answers_unless_they_are_retried() {
    let stub = Stub::start(|number, _| match number {
        0 => Reply::json(404, "{}"),
        1 => Reply::json(503, "down\r\n\u{1b}[31m"),
        2 => Reply::json(429, "slow").with_header("retry-after", "17"),
        _ => Reply::json(500, "boom"),
    })
    .await;
    let endpoints = endpoints(&stub.url(), "path = \"/\"");
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 404);
    let (code, reason, after_ms) = failed(endpoints.call(&call(&[]), ORIGIN).await);
    assert_eq!((code.as_str(), after_ms), ("remote-status", None));
    assert_eq!(reason, "endpoint \"person\": 503 Service Unavailable, body \"down\\r\\n\\u{1b}[31m\"");
    assert_eq!(failed(endpoints.call(&call(&[]), ORIGIN).await).2, Some(17_000));
    assert_eq!(response(endpoints.call(&lenient(), ORIGIN).await).status, 500);
}

#[tokio::test]
async fn tokens_are_fetched_once_renewed_and_replaced_when_refused() {
    let refuse_first = Arc::new(AtomicBool::new(false));
    let refusing = refuse_first.clone();
    let tokens = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let given = tokens.clone();
    let stub = Stub::start(move |_, request| match request.path.as_str() {
        "/token" => {
            let number = given.fetch_add(1, Ordering::SeqCst);
            Reply::json(200, &format!("{{\"access_token\":\"t{number}\",\"token_type\":\"Bearer\",\"expires_in\":3600}}"))
        }
        _ if refusing.load(Ordering::SeqCst) && request.header("authorization") == Some("Bearer t0") => Reply::json(401, "{}"),
        _ => Reply::json(200, "{}"),
    })
    .await;
    let auth = format!(
        "path = \"/\"\nauth = {{ kind = \"client-credentials\", token_url = \"{}/token\", client_id = \"me\", client_secret = \"p&w\", scope = \"api://x/.default\" }}",
        stub.url()
    );
    let endpoints = Arc::new(endpoints(&stub.url(), &auth));
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let endpoints = endpoints.clone();
            tokio::spawn(async move { endpoints.call(&call(&[]), ORIGIN).await })
        })
        .collect();
    for call in calls {
        assert_eq!(response(call.await.unwrap()).status, 200);
    }
    assert_eq!(tokens.load(Ordering::SeqCst), 1);
    let form = stub.requests().into_iter().find(|request| request.path == "/token").unwrap();
    let body = String::from_utf8(form.body).unwrap();
    assert_eq!(body, "grant_type=client_credentials&client_id=me&client_secret=p%26w&scope=api%3A%2F%2Fx%2F.default");
    refuse_first.store(true, Ordering::SeqCst);
    assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 200);
    assert_eq!(tokens.load(Ordering::SeqCst), 2);
    assert_eq!(stub.requests().last().unwrap().header("authorization"), Some("Bearer t1"));
}

#[tokio::test]
async fn a_token_at_its_end_is_fetched_anew() {
    let stub = Stub::start(|number, request| match request.path.as_str() {
        "/token" => Reply::json(200, &format!("{{\"access_token\":\"t{number}\",\"expires_in\":0}}")),
        _ => Reply::json(200, "{}"),
    })
    .await;
    let auth = format!(
        "path = \"/\"\nauth = {{ kind = \"client-credentials\", token_url = \"{}/token\", client_id = \"me\", client_secret = \"x\" }}",
        stub.url()
    );
    let endpoints = endpoints(&stub.url(), &auth);
    for _ in 0..2 {
        assert_eq!(response(endpoints.call(&call(&[]), ORIGIN).await).status, 200);
    }
    let sent: Vec<_> = stub.requests().iter().filter_map(|request| request.header("authorization").map(str::to_owned)).collect();
    assert_eq!(sent, ["Bearer t0", "Bearer t2"]);
}

#[tokio::test]
async fn without_a_token_the_endpoint_is_away_and_no_secret_is_told() {
    let stub = Stub::start(|_, _| Reply::json(401, "{\"error\":\"invalid_client\",\"error_description\":\"p4ss is wrong\"}")).await;
    let auth = format!(
        "path = \"/\"\nauth = {{ kind = \"client-credentials\", token_url = \"{}/token\", client_id = \"me\", client_secret = \"p4ss\" }}",
        stub.url()
    );
    let (reason, _) = away(endpoints(&stub.url(), &auth).call(&call(&[]), ORIGIN).await);
    assert!(reason.contains("invalid_client") && !reason.contains("p4ss"), "{reason}");
    assert!(stub.requests().iter().all(|request| request.path == "/token"));
}

#[test]
fn wrong_settings_name_their_key() {
    for (settings, key) in [
        ("path = \"x\"", "endpoints.person.path"),
        ("path = \"/\"\nretry_statuses = [\"5xx\"]", "endpoints.person.retry_statuses"),
        ("path = \"/\"\nretry_bodies = [\"errors\"]", "endpoints.person.retry_bodies"),
        ("path = \"/\"\nfinal_bodies = [{ pointer = \"errors\", equals = [1] }]", "endpoints.person.final_bodies"),
        ("path = \"/\"\ntries = 0", "endpoints.person.tries"),
        ("path = \"/\"\nresponse_headers = [\"Set-Cookie\"]", "endpoints.person.response_headers"),
        ("path = \"/\"\nallow_addresses = [\"10.0.0.0/33\"]", "endpoints.person.allow_addresses"),
        ("path = \"/\"\ncache = { ttl_ms = 1, entries_max = 0 }", "endpoints.person.cache.entries_max"),
        ("path = \"/\"\nidempotency_key = true\ncache = { ttl_ms = 1 }", "endpoints.person.idempotency_key"),
        ("path = \"/\"\nmethod = \"POST\"\nheaders = { Idempotency-Key = \"1\" }", "endpoints.person.headers.Idempotency-Key"),
        ("path = \"/\"\nheaders = { Host = \"x\" }", "endpoints.person.headers.Host"),
        ("path = \"/\"\nconcurrency_max = 0", "endpoints.person.concurrency_max"),
        ("path = \"/\"\nauth = { kind = \"bearer\", token = \"a\\nb\" }", "endpoints.person.auth.token"),
    ] {
        let config: Config = toml::from_str(&format!("base_url = \"http://localhost\"\n{settings}")).unwrap();
        let error = Endpoints::new(&BTreeMap::from([("person".to_owned(), config)])).err().unwrap().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[tokio::test]
async fn an_idempotency_key_is_the_same_at_every_attempt_of_a_call() {
    let stub = Stub::start(|_, _| Reply::json(200, "{}")).await;
    let post = endpoints(&stub.url(), "method = \"POST\"\npath = \"/{a}/{b}\"");
    let (one, swapped, other) = (call(&[("a", "1"), ("b", "2")]), call(&[("b", "2"), ("a", "1")]), call(&[("a", "2"), ("b", "2")]));
    for (call, origin) in [(&one, 1), (&swapped, 1), (&one, 2), (&other, 1)] {
        response(post.call(call, Uuid::from_u128(origin)).await);
    }
    let keys: Vec<_> = stub.requests().iter().map(|request| request.header("idempotency-key").unwrap().to_owned()).collect();
    assert!(Uuid::try_parse(&keys[0]).is_ok(), "{keys:?}");
    assert_eq!(keys[0], keys[1]);
    assert!(keys[2] != keys[0] && keys[3] != keys[0] && keys[2] != keys[3], "{keys:?}");
    for (settings, there) in [
        ("path = \"/\"", false),
        ("path = \"/\"\nidempotency_key = true", true),
        ("path = \"/\"\nmethod = \"PUT\"", true),
        ("path = \"/\"\nmethod = \"POST\"\nsafe = true", false),
        ("path = \"/\"\nmethod = \"POST\"\nidempotency_key = false", false),
    ] {
        response(endpoints(&stub.url(), settings).call(&call(&[]), ORIGIN).await);
        assert_eq!(stub.requests().last().unwrap().header("idempotency-key").is_some(), there, "{settings}");
    }
}
