//! The remote systems of a barnetrygd case: stubs that answer by path and body, in sequences, or by a rule; the more special one wins. A call
//! that no stub is for is closed without an answer, and remembered: the case fails by it.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::stub::{Reply, Request};
use crate::stubs::{Decide, holds};

/// Where persons are looked up.
pub const GRAPHQL: &str = "/graphql";

/// Where deliveries are ordered, followed by the year.
pub const ORDER: &str = "/api/ekstern/pensjon/bestill-personer-med-barnetrygd/";

/// Whether some stub of a case is for a path that begins so.
pub fn has(stubs: &Value, path: &str) -> bool {
    let urls =
        stubs.as_array().into_iter().flatten().filter_map(|stub| stub["url"].as_str().or_else(|| stub["sequence"][0]["url"].as_str()));
    urls.into_iter().any(|url| url.starts_with(path))
}

/// One stub, or several that answer one after the other.
struct Stub {
    method: String,
    url: String,
    /// Numbers that are looked up; empty: any.
    idents: Vec<String>,
    /// What the body must hold at least.
    request_match: Value,
    /// One after the other, one a call; the last one stays.
    answers: Vec<Answer>,
    next: usize,
}

enum Answer {
    /// A status and a body, in which the request's number may be named.
    Fixed(u16, String),
    /// Whoever is asked for is a person with that number alone.
    Itself,
}

/// Calls that no stub was for.
#[derive(Clone, Default)]
pub struct Strangers(Arc<Mutex<Vec<String>>>);

impl Strangers {
    /// Takes what was remembered.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What decides on requests by the stubs of a case.
pub fn decide(stubs: &Value, strangers: Strangers) -> anyhow::Result<Decide> {
    let mut stubs: Vec<Stub> = match stubs {
        Value::Null => Vec::new(),
        Value::Array(stubs) => stubs.iter().map(Stub::read).collect::<anyhow::Result<_>>()?,
        other => bail!("http: {other} is no list of stubs"),
    };
    if !stubs.iter().any(|stub| stub.url == GRAPHQL) {
        let (idents, request_match) = (Vec::new(), Value::Null);
        stubs.push(Stub {
            method: "POST".to_owned(),
            url: GRAPHQL.to_owned(),
            idents,
            request_match,
            answers: vec![Answer::Itself],
            next: 0,
        });
    }
    // The most special one first; of equals the one that stands first.
    stubs.sort_by_key(|stub| std::cmp::Reverse(stub.speciality()));
    Ok(Box::new(move |request| match stubs.iter_mut().find(|stub| stub.fits(request)) {
        Some(stub) => stub.reply(request),
        None => {
            let call = format!("{} {} {}", request.method, request.path, String::from_utf8_lossy(&request.body));
            strangers.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
            Reply::Reset
        }
    }))
}

impl Stub {
    fn read(stub: &Value) -> anyhow::Result<Self> {
        const KNOWN: [&str; 8] = ["method", "url", "request_match", "match_any_ident_of", "status", "body", "body_text", "rule"];
        if let Some(steps) = stub["sequence"].as_array() {
            let mut steps = steps.iter().map(Self::read);
            let first = steps.next().context("http: a sequence has a first answer")??;
            let more = steps.collect::<anyhow::Result<Vec<_>>>()?;
            let answers = first.answers.into_iter().chain(more.into_iter().flat_map(|stub| stub.answers)).collect();
            return Ok(Self { answers, ..first });
        }
        let fields = stub.as_object().with_context(|| format!("http: {stub} is no stub"))?;
        if let Some(key) = fields.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            bail!("http: a stub's `{key}` is not played");
        }
        let answer = match &stub["rule"] {
            Value::String(rule) if rule.contains("that ident as the only current one") => Answer::Itself,
            Value::Null => {
                let body = match (&stub["body_text"], &stub["body"]) {
                    (Value::String(text), _) => text.clone(),
                    (_, Value::Null) => String::new(),
                    (_, body) => body.to_string(),
                };
                let status = stub.get("status").map_or(Some(200), Value::as_u64).and_then(|status| u16::try_from(status).ok());
                Answer::Fixed(status.context("http: a stub's `status` is no HTTP status")?, body)
            }
            other => bail!("http: the rule {other} is not played"),
        };
        let idents = match &stub["match_any_ident_of"] {
            Value::Array(idents) => idents.iter().filter_map(|ident| ident.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            method: stub["method"].as_str().unwrap_or("POST").to_ascii_uppercase(),
            url: stub["url"].as_str().context("http: a stub needs a `url`")?.to_owned(),
            idents,
            request_match: stub["request_match"].clone(),
            answers: vec![answer],
            next: 0,
        })
    }

    /// How many things it asks of a request.
    fn speciality(&self) -> usize {
        usize::from(!self.idents.is_empty()) + self.request_match.as_object().map_or(0, serde_json::Map::len)
    }

    fn fits(&self, request: &Request) -> bool {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let ident = body["variables"]["ident"].as_str();
        let known = self.idents.is_empty() || ident.is_some_and(|ident| self.idents.iter().any(|known| known == ident));
        let matched = self.request_match.is_null() || holds(&body, &self.request_match);
        self.method == request.method && self.url == request.path && known && matched
    }

    fn reply(&mut self, request: &Request) -> Reply {
        let at = self.next.min(self.answers.len() - 1);
        self.next += 1;
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match &self.answers[at] {
            Answer::Fixed(status, text) => {
                Reply::json(*status, &text.replace("<fnr in request>", body["fnr"].as_str().unwrap_or_default()))
            }
            Answer::Itself => {
                let number = json!({
                    "identifikasjonsnummer": body["variables"]["ident"], "status": "I_BRUK", "type": "FNR",
                    "metadata": { "historisk": false, "master": "FREG" },
                });
                Reply::json(200, &json!({ "data": { "hentPerson": { "folkeregisteridentifikator": [number] } } }).to_string())
            }
        }
    }
}
