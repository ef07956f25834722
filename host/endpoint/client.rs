//! One endpoint: turns a call into an HTTP request and what comes back into a `Called`. Holds the deadline, the body cap, the limit of
//! concurrent calls and the breaker of its endpoint.

use std::error::Error as _;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER, SET_COOKIE};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::auth::{Auth, Credentials};
use super::breaker::{Breaker, Leave, Seen};
use super::config::Config;
use super::template::{Template, UrlTemplate};
use super::{Called, Error, State, canonical};
use crate::plugin::{Call, Response};

/// Bytes of a body that a reason shows.
const BODY_SHOWN: usize = 200;
/// The longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Headers that the connection or the body decides; templates may not.
const HEADERS_REFUSED: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "accept-encoding"];

/// The header that tells a server which requests are one and the same.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An endpoint, ready to be called.
pub struct Endpoint {
    name: String,
    client: Client,
    method: Method,
    url: UrlTemplate,
    headers: Vec<(HeaderName, Template)>,
    auth: Auth,
    timeout: Duration,
    retry_statuses: Vec<RangeInclusive<u16>>,
    retry_pointers: Vec<String>,
    backoff_ms: Vec<u64>,
    body_bytes_max: usize,
    idempotency_key: bool,
    concurrency_max: usize,
    permits: Semaphore,
    breaker: Breaker,
    /// Whether shadows and dry runs may call it.
    pub safe: bool,
}

/// What an HTTP exchange ended in, before anybody judges it.
enum Exchange {
    Answer { status: StatusCode, headers: HeaderMap, body: Bytes },
    Broken(Trouble),
    NoToken(String),
}

/// Why a body could not be read.
pub(super) enum Trouble {
    /// The connection broke, or the deadline came.
    Transport(String),
    /// It is longer than the cap, in bytes.
    TooLarge(usize),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(reason) => f.write_str(reason),
            Self::TooLarge(max) => write!(f, "the body is longer than {max} bytes"),
        }
    }
}

impl Endpoint {
    /// Checks the settings and makes the endpoint ready; nothing is sent.
    pub fn new(name: &str, config: &Config, client: Client) -> Result<Self, Error> {
        let wrong = |key: &str, reason: String| Error::Config { endpoint: name.to_owned(), key: key.to_owned(), reason };
        let method = Method::from_bytes(config.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| wrong("method", format!("\"{}\" is no method", config.method)))?;
        let url = UrlTemplate::parse(&config.base_url, &config.path).map_err(|(key, reason)| wrong(key, reason))?;
        let changes = !method.is_safe() && !config.safe;
        let idempotency_key = config.idempotency_key.unwrap_or(changes);
        let mut headers = Vec::new();
        for (header, template) in &config.headers {
            let key = format!("headers.{header}");
            let parsed: HeaderName = header.parse().map_err(|_| wrong(&key, format!("\"{header}\" is no header name")))?;
            if HEADERS_REFUSED.contains(&parsed.as_str()) {
                return Err(wrong(&key, "the host sets this header itself: remove it".to_owned()));
            }
            if parsed == IDEMPOTENCY_KEY && idempotency_key {
                return Err(wrong(&key, "the host sets this header itself: remove it, or set idempotency_key = false".to_owned()));
            }
            headers.push((parsed, Template::parse(template).map_err(|reason| wrong(&key, reason))?));
        }
        for pointer in &config.retry_pointers {
            if !pointer.starts_with('/') {
                return Err(wrong("retry_pointers", format!("\"{pointer}\" is no JSON pointer: it starts with \"/\"")));
            }
        }
        for (key, value) in [
            ("timeout_ms", config.timeout_ms),
            ("concurrency_max", config.concurrency_max as u64),
            ("body_bytes_max", config.body_bytes_max as u64),
        ] {
            if value == 0 {
                return Err(wrong(key, "it must be more than 0".to_owned()));
            }
        }
        let retry_statuses = config.retry_statuses.iter().map(|text| statuses(text)).collect::<Result<_, _>>();
        Ok(Self {
            name: name.to_owned(),
            client,
            method,
            url,
            headers,
            auth: Auth::new(&config.auth).map_err(|(key, reason)| wrong(key, reason))?,
            timeout: Duration::from_millis(config.timeout_ms),
            retry_statuses: retry_statuses.map_err(|reason| wrong("retry_statuses", reason))?,
            retry_pointers: config.retry_pointers.clone(),
            backoff_ms: config.backoff_ms.clone(),
            body_bytes_max: config.body_bytes_max,
            idempotency_key,
            concurrency_max: config.concurrency_max,
            permits: Semaphore::new(config.concurrency_max.min(Semaphore::MAX_PERMITS)),
            breaker: Breaker::new(config.breaker_failures, Duration::from_millis(config.breaker_open_ms)),
            safe: config.safe,
        })
    }

    /// Makes one call: at most one time-out for a free place, and one for the call itself.
    pub async fn call(&self, call: &Call, origin: Uuid) -> Called {
        let (request, may_repeat) = match self.request(call, origin) {
            Ok(built) => built,
            Err(reason) => return Called::Wrong { reason: format!("endpoint \"{}\": {reason}", self.name) },
        };
        // A breaker that is open, or opens while this call waits for a place, sends it away without a request.
        if let Some(wait) = self.breaker.wait(Instant::now()) {
            return self.open(wait);
        }
        let Ok(Ok(_permit)) = tokio::time::timeout(self.timeout, self.permits.acquire()).await else {
            let reason = format!(
                "endpoint \"{}\": all {} places (concurrency_max) stayed busy for {:?}",
                self.name, self.concurrency_max, self.timeout
            );
            return Called::Away { reason, after_ms: self.backoff(1) };
        };
        let leave = match self.breaker.ask(Instant::now()) {
            Ok(leave) => leave,
            Err(wait) => return self.open(wait),
        };
        let exchange = match tokio::time::timeout(self.timeout, self.exchange(request, may_repeat)).await {
            Ok(exchange) => exchange,
            Err(_) => Exchange::Broken(Trouble::Transport(format!("no answer within {:?} (timeout_ms)", self.timeout))),
        };
        self.judge(call, exchange, leave)
    }

    /// What people see of the endpoint.
    pub fn state(&self) -> State {
        let (seen, failures) = self.breaker.seen(Instant::now());
        let (breaker, probe_after_ms) = match seen {
            Seen::Closed => ("closed", None),
            Seen::Open { probe_after } => ("open", Some(millis(probe_after))),
            Seen::Probing => ("probing", None),
        };
        let calls = self.concurrency_max.saturating_sub(self.permits.available_permits());
        State { endpoint: self.name.clone(), breaker, failures, probe_after_ms, calls }
    }

    fn request(&self, call: &Call, origin: Uuid) -> Result<(RequestBuilder, Option<RequestBuilder>), String> {
        let mut request = self.client.request(self.method.clone(), self.url.fill(&call.params)?);
        if self.idempotency_key {
            request = request.header(IDEMPOTENCY_KEY, canonical::key(call, origin).to_string());
        }
        let mut typed = false;
        for (name, template) in &self.headers {
            typed |= name == CONTENT_TYPE;
            request = request.header(name, template.header(&call.params).map_err(|reason| format!("header \"{name}\": {reason}"))?);
        }
        if let Some(body) = &call.body {
            if !typed {
                request = request.header(CONTENT_TYPE, "application/json");
            }
            request = request.body(body.clone());
        }
        let again = request.try_clone();
        Ok((request, again))
    }

    /// Sends, with a second try where a kept token was refused.
    async fn exchange(&self, request: RequestBuilder, again: Option<RequestBuilder>) -> Exchange {
        let credentials = match self.auth.credentials(&self.client).await {
            Ok(credentials) => credentials,
            Err(reason) => return Exchange::NoToken(reason),
        };
        let first = self.send(request, &credentials).await;
        let refused = matches!(&first, Exchange::Answer { status, .. } if *status == StatusCode::UNAUTHORIZED);
        let Some(again) = again.filter(|_| refused) else { return first };
        if !self.auth.refused(&credentials).await {
            return first;
        }
        match self.auth.credentials(&self.client).await {
            Ok(credentials) => self.send(again, &credentials).await,
            Err(reason) => Exchange::NoToken(reason),
        }
    }

    async fn send(&self, mut request: RequestBuilder, credentials: &Credentials) -> Exchange {
        if let Some((name, value)) = credentials {
            request = request.header(name, value.clone());
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Exchange::Broken(Trouble::Transport(cause(error.without_url()))),
        };
        match read_body(&mut response, self.body_bytes_max).await {
            Ok(body) => Exchange::Answer { status: response.status(), headers: response.headers().clone(), body },
            Err(trouble) => Exchange::Broken(trouble),
        }
    }

    /// Decides what the call came to, and tells the breaker.
    fn judge(&self, call: &Call, exchange: Exchange, leave: Leave<'_>) -> Called {
        let named = |reason: String| format!("endpoint \"{}\": {reason}", self.name);
        let (status, headers, body) = match exchange {
            Exchange::Answer { status, headers, body } => (status, headers, body),
            Exchange::Broken(Trouble::TooLarge(max)) => {
                leave.succeeded();
                return failed("remote-too-large", named(format!("the body is longer than {max} bytes (body_bytes_max)")), None);
            }
            Exchange::Broken(Trouble::Transport(reason)) | Exchange::NoToken(reason) => {
                let failures = leave.failed(Instant::now());
                return Called::Away { reason: named(reason), after_ms: self.away_ms(failures) };
            }
        };
        let retried = self.retry_statuses.iter().any(|range| range.contains(&status.as_u16()));
        if retried {
            leave.failed(Instant::now());
        } else {
            leave.succeeded();
        }
        let said = || format!("{status}, body \"{}\"", escaped(&body, BODY_SHOWN));
        if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let encoding = escaped(encoding.as_bytes(), 50);
            return failed(
                "remote-encoding",
                named(format!("{status} with a body encoded as \"{encoding}\", which was not asked for")),
                None,
            );
        }
        if !call.lenient {
            if retried {
                return failed("remote-status", named(said()), retry_after(&headers));
            }
            if status.is_redirection() && headers.contains_key(LOCATION) {
                let to = escaped(headers[LOCATION].as_bytes(), BODY_SHOWN);
                return failed(
                    "remote-redirect",
                    named(format!("{status} to {to}: redirects are not followed; set base_url and path")),
                    None,
                );
            }
            if let Some(pointer) = self.refusing_pointer(status, &body) {
                return failed("remote-body", named(format!("{pointer} is set in {}", said())), retry_after(&headers));
            }
        }
        Called::Response(Response { status: status.as_u16(), headers: pairs(&headers), body })
    }

    /// The first of `retry_pointers` that resolves to something in a 2xx body.
    fn refusing_pointer(&self, status: StatusCode, body: &[u8]) -> Option<&str> {
        if self.retry_pointers.is_empty() || !status.is_success() {
            return None;
        }
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        self.retry_pointers.iter().map(String::as_str).find(|pointer| {
            body.pointer(pointer).is_some_and(|value| match value {
                serde_json::Value::Null | serde_json::Value::Bool(false) => false,
                serde_json::Value::String(text) => !text.is_empty(),
                serde_json::Value::Array(items) => !items.is_empty(),
                _ => true,
            })
        })
    }

    fn open(&self, wait: Duration) -> Called {
        let (seen, failures) = self.breaker.seen(Instant::now());
        let why = if seen == Seen::Probing { "a probe is under way" } else { "the breaker is open" };
        Called::Away {
            reason: format!("endpoint \"{}\": {why} after {failures} failures in a row", self.name),
            after_ms: jittered(millis(wait)),
        }
    }

    /// The wait after a transport failure: to the probe where the breaker opened by it.
    fn away_ms(&self, failures: u32) -> u64 {
        let backoff = self.backoff(failures);
        self.breaker.wait(Instant::now()).map_or(backoff, |wait| jittered(millis(wait)))
    }

    fn backoff(&self, failures: u32) -> u64 {
        let nth = (failures.max(1) - 1) as usize;
        jittered(self.backoff_ms.get(nth).or(self.backoff_ms.last()).copied().unwrap_or(1_000))
    }
}

fn failed(code: &str, reason: String, after_ms: Option<u64>) -> Called {
    Called::Failed { code: code.to_owned(), reason, after_ms }
}

/// Up to a fifth longer, so that those who failed together do not come back together.
fn jittered(ms: u64) -> u64 {
    ms + rand::random_range(0..=ms / 5)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `"429"` or `"500-599"`.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=999).contains(status));
    let range = match text.split_once('-') {
        Some((from, to)) => number(from).zip(number(to)),
        None => number(text).map(|status| (status, status)),
    };
    let (from, to) =
        range.filter(|(from, to)| from <= to).ok_or_else(|| format!("\"{text}\" is no status or range, such as \"429\" or \"500-599\""))?;
    Ok(from..=to)
}

/// `Retry-After` in milliseconds: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or_default()
        }
    };
    Some(millis(wait.min(RETRY_AFTER_MAX)))
}

/// Names in lower case and values as text. Cookies are secrets of the session, and nothing a translation may depend on.
fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = headers.iter().filter(|(name, _)| *name != SET_COOKIE);
    shown.map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

/// The whole body, or why not; never more than `max` bytes and a piece are held.
pub(super) async fn read_body(response: &mut reqwest::Response, max: usize) -> Result<Bytes, Trouble> {
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(Trouble::TooLarge(max));
    }
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|error| Trouble::Transport(cause(error.without_url())))? {
        if body.len() + piece.len() > max {
            return Err(Trouble::TooLarge(max));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// An error with its sources, in one line.
pub(super) fn cause(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// The first `max` bytes as text on one line: control characters escaped, bytes that are no UTF-8 replaced.
pub(super) fn escaped(bytes: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(max)]);
    let mut line: String =
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect();
    if bytes.len() > max {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_or_ranges() {
        assert_eq!(statuses("429"), Ok(429..=429));
        assert_eq!(statuses("500-599"), Ok(500..=599));
        for wrong in ["", "5xx", "599-500", "42", "500-", "1000"] {
            assert!(statuses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bodies_are_shown_on_one_line() {
        assert_eq!(escaped(b"a\r\n\x1b[31mred\0 \"q\"", 200), "a\\r\\n\\u{1b}[31mred\\u{0} \"q\"");
        assert_eq!(escaped(&[b'x'; 300], 3), "xxx…");
        assert_eq!(escaped(b"\xff\xfe", 10), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(7_000));
        assert_eq!(of("99999999"), Some(3_600_000));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0));
        assert_eq!(of("soon"), None);
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let ms = of(&jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).unwrap()).unwrap();
        assert!((90_000..=100_000).contains(&ms), "{ms}");
    }
}
