//! Remote systems that mean harm or are broken: redirects, hangs, drips, resets, bombs. None costs more than its deadline and its cap.

use std::time::{Duration, Instant};

use tolk::endpoint::Caller;

use super::{ORIGIN, away, call, endpoints, failed, lenient, response};
use crate::support::stub::{Reply, Stub};

#[tokio::test]
async fn redirects_are_not_followed() {
    let trap = Stub::start(|_, _| Reply::json(200, "secret")).await;
    let to = format!("{}/latest/meta-data", trap.url());
    let stub = Stub::start(move |_, _| Reply::json(302, "").with_header("location", &to)).await;
    let endpoints = endpoints(&stub.url(), "path = \"/\"");
    let (code, reason, _) = failed(endpoints.call(&call(&[]), ORIGIN).await);
    assert!(code == "remote-redirect" && reason.contains("/latest/meta-data"), "{code}: {reason}");
    assert_eq!(response(endpoints.call(&lenient(), ORIGIN).await).status, 302);
    assert_eq!(trap.count(), 0);
}

#[tokio::test]
async fn hangs_drips_and_resets_end_at_the_deadline() {
    for reply in [
        Reply::Hang,
        Reply::Drip(Duration::from_millis(5)),
        Reply::Drip(Duration::from_secs(1)),
        Reply::After(Duration::from_secs(60), Box::new(Reply::Hang)),
    ] {
        let what = format!("{reply:?}");
        let stub = Stub::start(move |_, _| reply.clone()).await;
        let endpoints = endpoints(&stub.url(), "path = \"/\"\ntimeout_ms = 150\naway_ms = [700]");
        let start = Instant::now();
        let (reason, after_ms) = away(endpoints.call(&lenient(), ORIGIN).await);
        assert!(start.elapsed() < Duration::from_secs(5), "{what} took {:?}", start.elapsed());
        assert!(reason.contains("timeout_ms") && (700..=840).contains(&after_ms), "{what}: {reason}, {after_ms} ms");
    }
    let stub = Stub::start(|_, _| Reply::Reset).await;
    away(endpoints(&stub.url(), "path = \"/\"").call(&call(&[]), ORIGIN).await);
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (reason, _) = away(endpoints(&format!("http://{nobody}"), "path = \"/{id}\"").call(&call(&[("id", "s3cret")]), ORIGIN).await);
    assert!(reason.contains("refused") && !reason.contains("s3cret"), "{reason}");
}

#[tokio::test]
async fn bodies_are_capped() {
    let gzip = Reply::json(200, "\u{1f}pretend").with_header("content-encoding", "gzip");
    let replies = [
        (Reply::Huge { bytes: 1 << 30, declared: true }, Some("remote-too-large")),
        (Reply::Huge { bytes: 1 << 30, declared: false }, Some("remote-too-large")),
        (Reply::Huge { bytes: 10_000, declared: false }, None),
        (Reply::Huge { bytes: 10_001, declared: true }, Some("remote-too-large")),
        (gzip, Some("remote-encoding")),
    ];
    for (reply, want) in replies {
        let what = format!("{reply:?}");
        let stub = Stub::start(move |_, _| reply.clone()).await;
        let called = endpoints(&stub.url(), "path = \"/\"\nbody_bytes_max = 10000").call(&call(&[]), ORIGIN).await;
        match want {
            Some(code) => assert_eq!(failed(called).0, code, "{what}"),
            None => assert_eq!(response(called).body.len(), 10_000, "{what}"),
        }
    }
}

#[tokio::test]
async fn torn_answers_and_nonsense_are_transport_errors() {
    let endless_header = [b"HTTP/1.1 200 OK\r\nx-big: ".as_slice(), &vec![b'x'; 4 << 20]].concat();
    let bomb = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx".to_vec();
    for reply in [Reply::Torn("{\"half\":".to_owned()), Reply::Raw(b"SSH-2.0-x\r\n".to_vec()), Reply::Raw(endless_header), Reply::Raw(bomb)]
    {
        let what = format!("{reply:.60?}");
        let stub = Stub::start(move |_, _| reply.clone()).await;
        let endpoints = endpoints(&stub.url(), "path = \"/\"\nbreaker_failures = 1\nbreaker_open_ms = 60000");
        away(endpoints.call(&call(&[]), ORIGIN).await);
        assert_eq!(endpoints.states()[0].breaker, "open", "{what}");
    }
}

/// A compressed body was not asked for: it is refused by its name, so that none is ever unpacked, and the cap counts what arrives.
#[tokio::test]
async fn compressed_bodies_are_not_unpacked() {
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unknown"] {
        let stub = Stub::start(move |_, _| Reply::json(200, "{}").with_header("content-encoding", encoding)).await;
        let endpoints = endpoints(&stub.url(), "path = \"/\"");
        let (code, reason, _) = failed(endpoints.call(&call(&[]), ORIGIN).await);
        assert!(code == "remote-encoding" && reason.contains(encoding), "{reason}");
        assert_eq!(stub.requests()[0].header("accept-encoding"), None);
    }
}

#[tokio::test]
async fn a_lying_retry_after_is_not_believed_for_long() {
    let stub = Stub::start(|number, _| {
        Reply::json(503, "").with_header("retry-after", ["99999999999", "-5", "never", "Thu, 31 Dec 2099 23:59:59 GMT"][number])
    })
    .await;
    let endpoints = endpoints(&stub.url(), "path = \"/\"\nbreaker_failures = 0");
    for want in [Some(3_600_000), None, None, Some(3_600_000)] {
        assert_eq!(failed(endpoints.call(&call(&[]), ORIGIN).await).2, want);
    }
}

#[tokio::test]
async fn translators_see_chosen_headers_in_a_fixed_order() {
    let reply = || {
        let reply = Reply::json(200, "{}").with_header("x-request-id", "1").with_header("set-cookie", "s=1").with_header("Link", "b");
        reply.with_header("etag", "\"7\"").with_header("link", "a").with_header("date", "now").with_header("server", "x")
    };
    let stub = Stub::start(move |_, _| reply()).await;
    let headers = response(endpoints(&stub.url(), "path = \"/\"").call(&call(&[]), ORIGIN).await).headers;
    let want = [("content-type", "application/json"), ("etag", "\"7\""), ("link", "b"), ("link", "a")];
    assert_eq!(headers, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let chosen = endpoints(&stub.url(), "path = \"/\"\nresponse_headers = [\"X-Request-Id\", \"date\"]");
    let headers = response(chosen.call(&call(&[]), ORIGIN).await).headers;
    assert_eq!(headers, [("date", "now"), ("x-request-id", "1")].map(|(name, value)| (name.to_owned(), value.to_owned())));
}
