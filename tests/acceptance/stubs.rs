//! The remote systems of a case: a loopback HTTP server that answers what the case's stubs say. What no stub matches is closed without an
//! answer: a transport error.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::stub::{Reply, Request, Stub};

/// One answer.
#[derive(Clone)]
struct Answer {
    method: String,
    url: String,
    /// What the request's body must be, as JSON; `None`: whatever it is.
    request: Option<Value>,
    /// What the request's body must hold at least.
    request_match: Option<Value>,
    status: u16,
    body: Vec<u8>,
}

/// What decides on each request.
pub type Decide = Box<dyn FnMut(&Request) -> Reply + Send>;

/// The server and its answers.
pub struct Remote {
    server: Stub,
    decide: Arc<Mutex<Decide>>,
}

impl Remote {
    /// Starts a server without an answer.
    pub async fn start() -> Self {
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(|_| Reply::Reset)));
        let known = decide.clone();
        let server = Stub::start(move |_, request| known.lock().unwrap_or_else(PoisonError::into_inner)(request)).await;
        Self { server, decide }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Replaces all answers by those of a list of stubs.
    pub fn answer(&self, stubs: &Value) -> anyhow::Result<()> {
        let answers: Vec<Answer> = match stubs {
            Value::Null => Vec::new(),
            Value::Array(stubs) => stubs.iter().map(Answer::read).collect::<anyhow::Result<_>>()?,
            other => bail!("http: {other} is no list of stubs"),
        };
        self.decide_by(Box::new(move |request| match answers.iter().find(|answer| answer.fits(request)) {
            Some(answer) => Reply::Answer { status: answer.status, headers: json_header(), body: answer.body.clone() },
            None => Reply::Reset,
        }));
        Ok(())
    }

    /// Leaves every answer to a system's own stubs.
    pub fn decide_by(&self, decide: Decide) {
        *self.decide.lock().unwrap_or_else(PoisonError::into_inner) = decide;
    }

    /// How many requests there were so far.
    pub fn count(&self) -> usize {
        self.server.count()
    }

    /// The requests from the one with this number on.
    pub fn requests(&self, from: usize) -> Vec<Request> {
        self.server.requests().split_off(from)
    }
}

impl Answer {
    fn read(stub: &Value) -> anyhow::Result<Self> {
        const KNOWN: [&str; 8] = ["method", "url", "request", "request_match", "status", "body", "body_text", "note"];
        let fields = stub.as_object().with_context(|| format!("http: {stub} is no stub"))?;
        if let Some(key) = fields.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            bail!("http: a stub's `{key}` is not played");
        }
        let body = match fields.get("body_text").or_else(|| fields.get("body")) {
            None | Some(Value::Null) => Vec::new(),
            // A text is what stands in the answer, JSON or not.
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(json) => json.to_string().into_bytes(),
        };
        let status = fields.get("status").map_or(Some(200), Value::as_u64).and_then(|status| u16::try_from(status).ok());
        Ok(Self {
            method: stub["method"].as_str().unwrap_or("GET").to_ascii_uppercase(),
            url: stub["url"].as_str().context("http: a stub needs a `url`")?.to_owned(),
            request: fields.get("request").filter(|request| !request.is_null()).cloned(),
            request_match: fields.get("request_match").filter(|request| !request.is_null()).cloned(),
            status: status.context("http: a stub's `status` is no HTTP status")?,
            body,
        })
    }

    fn fits(&self, request: &Request) -> bool {
        let body = || serde_json::from_slice::<Value>(&request.body).ok();
        let path = request.path == self.url || decoded(&request.path) == decoded(&self.url);
        let whole = self.request.as_ref().is_none_or(|wanted| body().as_ref() == Some(wanted));
        let part = self.request_match.as_ref().is_none_or(|wanted| body().is_some_and(|body| holds(&body, wanted)));
        self.method == request.method && path && whole && part
    }
}

/// Whether `value` has everything that `wanted` names.
pub fn holds(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| there.get(name).is_some_and(|value| holds(value, wanted)))
        }
        (value, wanted) => value == wanted,
    }
}

fn decoded(url: &str) -> String {
    percent_encoding::percent_decode_str(url).decode_utf8_lossy().into_owned()
}

fn json_header() -> Vec<(String, String)> {
    vec![("content-type".to_owned(), "application/json".to_owned())]
}
