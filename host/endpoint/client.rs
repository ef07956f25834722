//! One endpoint: turns a call into requests and what comes back into a `Called`. Holds the tries, the deadline, the limit of concurrent
//! calls, the cache and the breaker of its endpoint.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderName};
use reqwest::{Client, Method, RequestBuilder};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::answer::{Answers, Ended, Judged};
use super::auth::Auth;
use super::breaker::{Breaker, Leave, Refusal, Seen};
use super::cache::{Cache, Found, ended};
use super::config::{Config, Unreachable};
use super::counts::Counts;
use super::exchange::{Exchange, Trouble, exchange};
use super::pace::Pace;
use super::template::{Template, UrlTemplate};
use super::{Called, Error, State, canonical};
use crate::plugin::Call;

/// The longest `Retry-After` that a call waits out between two of its tries; a longer one fails the attempt, which comes back by then.
const RETRY_AFTER_WAITED: Duration = Duration::from_secs(30);
/// How long messages park while an operator has paused the endpoint; when it is resumed they are told.
const PAUSED: Duration = Duration::from_secs(60);
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
    answers: Answers,
    timeout: Duration,
    tries: u32,
    backoff_ms: Vec<u64>,
    unreachable: Unreachable,
    away_ms: Vec<u64>,
    body_bytes_max: usize,
    idempotency_key: bool,
    concurrency_max: usize,
    permits: Semaphore,
    breaker: Breaker,
    /// Why the last failure was one, without anything of a body.
    last_failure: Mutex<String>,
    paused: AtomicBool,
    cache: Option<Arc<Cache>>,
    counts: Counts,
    pace: Pace,
    /// Whether shadows and dry runs may call it.
    pub safe: bool,
}

/// A try's end, and whether another one may fare better.
struct Tried {
    ended: Ended,
    again: bool,
}

impl Endpoint {
    /// Checks the settings and makes the endpoint ready; nothing is sent.
    pub fn new(name: &str, config: &Config, client: Client, pace: Pace) -> Result<Self, Error> {
        let wrong = |key: &str, reason: String| Error::Config { endpoint: name.to_owned(), key: key.to_owned(), reason };
        let method = Method::from_bytes(config.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| wrong("method", format!("\"{}\" is no method", config.method)))?;
        let url = UrlTemplate::parse(&config.base_url, &config.path).map_err(|(key, reason)| wrong(key, reason))?;
        let changes = !method.is_safe() && !config.safe && config.cache.is_none();
        let idempotency_key = config.idempotency_key.unwrap_or(changes);
        if idempotency_key && config.cache.is_some() {
            return Err(wrong("idempotency_key", "calls that share an answer have no key of their own: remove it, or cache".to_owned()));
        }
        for (key, value) in [
            ("timeout_ms", config.timeout_ms),
            ("tries", config.tries.into()),
            ("concurrency_max", config.concurrency_max as u64),
            ("body_bytes_max", config.body_bytes_max as u64),
            ("cache.entries_max", config.cache.as_ref().map_or(1, |cache| cache.entries_max as u64)),
        ] {
            if value == 0 {
                return Err(wrong(key, "it must be more than 0".to_owned()));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            client,
            method,
            url,
            headers: headers(config, idempotency_key).map_err(|(key, reason)| wrong(&key, reason))?,
            auth: Auth::new(&config.auth).map_err(|(key, reason)| wrong(key, reason))?,
            answers: Answers::new(name, config).map_err(|(key, reason)| wrong(key, reason))?,
            timeout: Duration::from_millis(config.timeout_ms),
            tries: config.tries,
            backoff_ms: config.backoff_ms.clone(),
            unreachable: config.unreachable,
            away_ms: config.away_ms.clone(),
            body_bytes_max: config.body_bytes_max,
            idempotency_key,
            concurrency_max: config.concurrency_max,
            permits: Semaphore::new(config.concurrency_max.min(Semaphore::MAX_PERMITS)),
            breaker: Breaker::new(config.breaker_failures, Duration::from_millis(config.breaker_open_ms)),
            last_failure: Mutex::default(),
            paused: AtomicBool::new(false),
            cache: config.cache.as_ref().map(|cache| Arc::new(Cache::new(cache))),
            counts: Counts::default(),
            pace,
            safe: config.safe,
        })
    }

    /// Makes one call: for each of its tries a wait for a free place (see [`Self::place`]), and one time-out for the request itself.
    pub async fn call(self: &Arc<Self>, call: &Call, origin: Uuid) -> Called {
        Counts::count(&self.counts.calls);
        let request = match self.request(call, origin) {
            Ok(built) => built,
            Err(reason) => return Called::Wrong { reason: self.named(&reason) },
        };
        let ended = if self.paused.load(Ordering::Relaxed) {
            let reason = self.named(&format!("an operator has paused it; `tolk resume --endpoint {}` lets calls go on", self.name));
            Ended::Away { reason, after: PAUSED, spread: PAUSED / 5 }
        } else if let Some(cache) = &self.cache {
            self.shared(cache, call, request).await
        } else {
            self.tried(&request).await
        };
        self.told(ended, call.lenient)
    }

    /// Pauses or resumes it. While it is paused nothing is sent; what was cached before is not given out afterwards.
    pub fn set_paused(&self, paused: bool) {
        let was = self.paused.swap(paused, Ordering::Relaxed);
        if paused && !was {
            self.forget();
        }
    }

    /// Forgets every answer.
    pub fn forget(&self) {
        if let Some(cache) = &self.cache {
            cache.forget();
        }
    }

    /// Whether it has failed last, or is paused: parked messages gain nothing by trying now.
    pub fn is_away(&self) -> bool {
        self.paused.load(Ordering::Relaxed) || self.breaker.seen(self.pace.now()) != (Seen::Closed, 0)
    }

    /// What people see of the endpoint.
    pub fn state(&self) -> State {
        let (seen, failures) = self.breaker.seen(self.pace.now());
        let (breaker, probe_after_ms) = match seen {
            Seen::Closed => ("closed", None),
            Seen::Open { probe_after } => ("open", Some(millis(probe_after))),
            Seen::Probing => ("probing", None),
        };
        let calls = self.concurrency_max.saturating_sub(self.permits.available_permits());
        let paused = self.paused.load(Ordering::Relaxed);
        State { endpoint: self.name.clone(), paused, breaker, failures, probe_after_ms, calls, counts: self.counts.so_far() }
    }

    fn request(&self, call: &Call, origin: Uuid) -> Result<RequestBuilder, String> {
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
        Ok(request)
    }

    /// A kept answer, or the end of an equal call under way, or of this one, which then goes on though nobody may wait for it any more.
    async fn shared(self: &Arc<Self>, cache: &Arc<Cache>, call: &Call, request: RequestBuilder) -> Ended {
        let shared = match cache.find(cache.key(call), self.pace.now()) {
            Found::Kept(response) => {
                Counts::count(&self.counts.cached);
                return Ended::Answer { response, failure: None, keep: true };
            }
            Found::UnderWay(shared) => {
                Counts::count(&self.counts.shared);
                shared
            }
            Found::Nothing(leader, shared) => {
                let endpoint = self.clone();
                tokio::spawn(async move {
                    let ended = endpoint.tried(&request).await;
                    leader.end(ended, endpoint.pace.now());
                });
                shared
            }
        };
        let broke_off = || {
            let (reason, after, spread) = (self.named("the call broke off"), Duration::ZERO, Duration::from_secs(1));
            Ended::Away { reason, after, spread }
        };
        ended(shared).await.unwrap_or_else(broke_off)
    }

    /// Tries until an answer stands, the tries are used up, or the breaker opens.
    async fn tried(&self, request: &RequestBuilder) -> Ended {
        let mut number = 1;
        loop {
            let Tried { ended, again } = self.one_try(request).await;
            if !again || number >= self.tries {
                return ended;
            }
            // The rest of the tries would go nowhere, so they are not used up.
            if let Some(refusal) = self.breaker.refuse(self.pace.now()) {
                return self.refused(refusal);
            }
            let asked = match &ended {
                Ended::Answer { failure: Some(failure), .. } => Duration::from_millis(failure.after_ms.unwrap_or(0)),
                _ => Duration::ZERO,
            };
            if asked > RETRY_AFTER_WAITED {
                return ended;
            }
            let backoff = nth(&self.backoff_ms, number);
            self.pace.wait((backoff + spread(backoff / 5)).max(asked)).await;
            number += 1;
        }
    }

    async fn one_try(&self, request: &RequestBuilder) -> Tried {
        // A breaker that is open, or opens while this call waits for a place, sends it away without a request.
        if let Some(refusal) = self.breaker.refuse(self.pace.now()) {
            return Tried { ended: self.refused(refusal), again: false };
        }
        let Some(_permit) = self.place().await else {
            let reason = format!("all {} places (concurrency_max) stayed busy for {:?}", self.concurrency_max, self.timeout);
            let after = nth(&self.away_ms, 1);
            return Tried { ended: Ended::Away { reason: self.named(&reason), after, spread: after / 5 }, again: false };
        };
        let leave = match self.breaker.ask(self.pace.now()) {
            Ok(leave) => leave,
            Err(refusal) => return Tried { ended: self.refused(refusal), again: false },
        };
        Counts::count(&self.counts.sent);
        let exchange = exchange(&self.client, &self.auth, request, self.body_bytes_max);
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(exchange) => self.judge(exchange, leave),
            Err(_) => self.unreached(format!("no answer within {:?} (timeout_ms)", self.timeout), leave),
        }
    }

    /// Waits for a free place: for one time-out, and on while the last answer was a good one, since a queue that moves is no failure.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        let mut free = std::pin::pin!(self.permits.acquire());
        loop {
            match tokio::time::timeout(self.timeout, &mut free).await {
                Ok(permit) => return permit.ok(),
                Err(_) if self.is_away() => return None,
                Err(_) => {}
            }
        }
    }

    /// Decides what a try came to, and tells the breaker.
    fn judge(&self, exchange: Exchange, leave: Leave<'_>) -> Tried {
        match exchange {
            Exchange::Answer { status, headers, body } => {
                let Judged { ended, again, unsound } = self.answers.judge(status, &headers, body);
                match unsound {
                    Some(reason) => self.failed(leave, reason),
                    None => {
                        leave.succeeded();
                        0
                    }
                };
                Tried { ended, again }
            }
            Exchange::Broken(Trouble::TooLarge(max)) => {
                leave.succeeded();
                let reason = format!("the body is longer than {max} bytes (body_bytes_max)");
                Tried { ended: Ended::Failed(self.answers.failure("remote-too-large", reason, None)), again: false }
            }
            Exchange::Broken(Trouble::Transport(reason)) | Exchange::NoToken(reason) => self.unreached(reason, leave),
        }
    }

    fn unreached(&self, reason: String, leave: Leave<'_>) -> Tried {
        let failures = self.failed(leave, reason.clone());
        let ended = match self.unreachable {
            Unreachable::Attempt => Ended::Failed(self.answers.failure("remote-unreachable", reason, None)),
            Unreachable::Park => {
                // Where it opened the breaker, it comes back for the probe.
                let refusal = self.breaker.refuse(self.pace.now());
                let after = refusal.map_or(nth(&self.away_ms, failures), |refusal| refusal.after);
                let apart = if refusal.is_some_and(|refusal| refusal.early) { Duration::ZERO } else { after / 5 };
                Ended::Away { reason: self.named(&reason), after, spread: apart }
            }
        };
        Tried { ended, again: true }
    }

    fn failed(&self, leave: Leave<'_>, reason: String) -> u32 {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        leave.failed(self.pace.now())
    }

    fn refused(&self, Refusal { probe_after, after, early }: Refusal) -> Ended {
        let (seen, failures) = self.breaker.seen(self.pace.now());
        let last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let probe = if seen == Seen::Probing {
            "a probe is under way".to_owned()
        } else {
            let at = jiff::Timestamp::now() + probe_after;
            format!("the next probe goes at {at:.0}")
        };
        let reason = self.named(&format!("the breaker is open after {failures} failures in a row, the last: {last}; {probe}"));
        Ended::Away { reason, after, spread: if early { Duration::ZERO } else { after / 5 } }
    }

    /// The end as one caller is told it.
    fn told(&self, ended: Ended, lenient: bool) -> Called {
        let failure = match ended {
            Ended::Answer { response, failure, .. } if lenient || failure.is_none() => return Called::Response(response),
            Ended::Answer { failure, .. } => failure.expect("a failure, or it was an answer"),
            Ended::Failed(failure) => failure,
            Ended::Away { reason, after, spread: apart } => {
                Counts::count(&self.counts.away);
                return Called::Away { reason, after_ms: millis(after + spread(apart)) };
            }
        };
        Counts::count(&self.counts.failed);
        Called::Failed { code: failure.code.to_owned(), reason: failure.reason, after_ms: failure.after_ms }
    }

    fn named(&self, reason: &str) -> String {
        // People and the store find messages that parked for an endpoint by how this begins: `store::actions::away_reason`.
        format!("endpoint \"{}\": {reason}", self.name)
    }
}

fn headers(config: &Config, idempotency_key: bool) -> Result<Vec<(HeaderName, Template)>, (String, String)> {
    let mut headers = Vec::new();
    for (header, template) in &config.headers {
        let key = format!("headers.{header}");
        let Ok(parsed) = header.parse::<HeaderName>() else { return Err((key, format!("\"{header}\" is no header name"))) };
        if HEADERS_REFUSED.contains(&parsed.as_str()) {
            return Err((key, "the host sets this header itself: remove it".to_owned()));
        }
        if parsed == IDEMPOTENCY_KEY && idempotency_key {
            return Err((key, "the host sets this header itself: remove it, or set idempotency_key = false".to_owned()));
        }
        headers.push((parsed, Template::parse(template).map_err(|reason| (key, reason))?));
    }
    Ok(headers)
}

/// The wait after so many failures; the last one repeats.
fn nth(waits_ms: &[u64], number: u32) -> Duration {
    let at = (number.max(1) - 1) as usize;
    Duration::from_millis(waits_ms.get(at).or(waits_ms.last()).copied().unwrap_or(1_000))
}

/// A random part of it, so that those who failed together do not come back together.
fn spread(most: Duration) -> Duration {
    Duration::from_millis(rand::random_range(0..=millis(most)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
