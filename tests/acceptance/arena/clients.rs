//! Exchanges with remote systems: a request goes out through the endpoint that it fits, its stubbed answer is read by the translators' code.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value, json};
use tolk::endpoint::config::{Auth, Config};
use tolk::endpoint::{Called, Caller};
use tolk::plugin::{Answer, Context, Outcome, Reply, Request};
use uuid::Uuid;

use super::pairs::{self, Pairs};
use crate::bench::Bench;
use crate::diff::{Placeholders, difference, is_placeholder};

/// What is known of a case beside the request, its answer and what is made of it.
const KNOWN: [&str; 12] =
    ["id", "title", "name", "test", "client", "source", "note", "request", "request_body", "auth", "response", "expected"];

/// What the reading code made of an answer.
enum Made {
    Value(Value),
    Error(String),
}

/// Plays one exchange; its differences.
pub async fn play(bench: &Bench, pairs: &Pairs, case: &Value) -> anyhow::Result<Vec<String>> {
    let case = filled(case);
    let fields = case.as_object().context("a case is an object")?;
    let error = fields.get("error").or_else(|| fields.get("throws")).filter(|error| **error != false);
    if let Some(key) = fields.keys().find(|key| !KNOWN.contains(&key.as_str()) && !["error", "throws"].contains(&key.as_str())) {
        bail!("an exchange's `{key}` is not played");
    }
    let request = case["request"].as_str().context("request is a text")?;
    let (method, url) = request.split_once(' ').context("a request is a method and a path")?;
    let mut settings = bench.endpoint_settings()?;
    let (endpoint, of) = fitting(&settings, method, url, &case["request_body"])?;
    let auth = case["auth"].as_str();
    if let Some(token) = auth.map(|auth| auth.strip_prefix("Bearer ").context("auth is a bearer token")).transpose()? {
        settings.get_mut(&endpoint).expect("it fits").auth = Auth::Bearer { token: token.to_owned() };
    }
    let mut stub = case["response"].as_object().cloned().context("response is an object")?;
    stub.extend([("method".to_owned(), method.into()), ("url".to_owned(), url.into())]);
    bench.remote.answer(&json!([stub]))?;
    let before = bench.remote.count();
    let made = made(bench, pairs, &settings, &endpoint, &of).await?;
    let mut found = Vec::new();
    let sent = bench.remote.requests(before);
    ensure!(!sent.is_empty(), "no request was made");
    for request in &sent {
        if auth.is_some() && request.header("authorization") != auth {
            found.push(difference("auth", auth.unwrap_or_default(), request.header("authorization").unwrap_or("none")));
        }
        let body = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
        if !case["request_body"].is_null() && body != case["request_body"] {
            found.push(difference("request_body", &case["request_body"].to_string(), &body.to_string()));
        }
    }
    match (made, error, fields.get("expected")) {
        (Made::Value(got), None, Some(expected)) => {
            Placeholders::default().compare("", "expected", expected, Some(&got), &mut found);
        }
        (Made::Value(got), Some(error), _) => found.push(difference("error", &error.to_string(), &got.to_string())),
        (Made::Error(text), None, expected) => {
            let expected = expected.map_or("nothing".to_owned(), Value::to_string);
            found.push(difference("expected", &expected, &format!("an error: {text}")));
        }
        (Made::Error(_), Some(_), _) => {}
        (Made::Value(_), None, None) => bail!("the case expects nothing"),
    }
    Ok(found)
}

/// The endpoint whose templates a request fits, and what fills them.
fn fitting(settings: &BTreeMap<String, Config>, method: &str, url: &str, body: &Value) -> anyhow::Result<(String, String)> {
    // The template with the longest literal text wins: `/id/{activityId}` over `/{id}`.
    let fits = settings.iter().filter(|(_, endpoint)| endpoint.method == method).filter_map(|(name, endpoint)| {
        let (before, after) = match endpoint.path.split_once('{') {
            Some((before, rest)) => (before, rest.split_once('}').map_or("", |(_, after)| after)),
            None => (endpoint.path.as_str(), ""),
        };
        let value = url.strip_prefix(before)?.strip_suffix(after)?;
        let plain = !value.contains(['/', '?', '&']) && value.is_empty() != endpoint.path.contains('{');
        plain.then(|| (before.len() + after.len(), name, value))
    });
    let (_, name, value) =
        fits.max_by_key(|(length, ..)| *length).with_context(|| format!("no endpoint of arena.toml makes {method} {url}"))?;
    let value = match body["personIdent"].as_str() {
        Some(person) => person.to_owned(),
        None => percent_encoding::percent_decode_str(value).decode_utf8()?.into_owned(),
    };
    Ok((name.clone(), value))
}

async fn made(bench: &Bench, pairs: &Pairs, settings: &BTreeMap<String, Config>, endpoint: &str, of: &str) -> anyhow::Result<Made> {
    let endpoints = bench.endpoints_of(settings)?;
    let message = pairs::message("remote", &json!({ "endpoint": endpoint, "of": of }));
    let mut context = Context::default();
    loop {
        let verdict = pairs.translator.translate(&mut pairs.runtime.here(), &message, "pairs", &context);
        let outcome = verdict.map_err(|trouble| anyhow::anyhow!("{}: {}", trouble.code, trouble.text))?.outcome;
        let requests = match outcome {
            Outcome::Needs(requests) => requests,
            Outcome::Translated(translation) => {
                let payload = translation.outputs.into_iter().next().and_then(|output| output.payload).context("a result is put out")?;
                return Ok(Made::Value(serde_json::from_slice(&payload)?));
            }
            Outcome::Retry(fault) | Outcome::Rejected(fault) | Outcome::Failed(fault) => return Ok(Made::Error(fault.message)),
            other => bail!("the reading code ends in {other:?}"),
        };
        for request in requests {
            let Request::Call(call) = &request else { bail!("the reading code asks for {request:?}") };
            match endpoints.call(call, Uuid::nil()).await {
                Called::Response(response) => context.answers.push(Answer { request, reply: Reply::Response(response) }),
                Called::Failed { reason, .. } | Called::Away { reason, .. } => return Ok(Made::Error(reason)),
                Called::Wrong { reason } => bail!("the call is wrong: {reason}"),
            }
        }
    }
}

/// A case with something in the place of its placeholders: the same for the same one.
fn filled(case: &Value) -> Value {
    match case {
        Value::String(text) if is_placeholder(text) => stands_for(text).into(),
        Value::String(text) => text.split_inclusive('>').map(filled_text).collect::<String>().into(),
        Value::Array(items) => items.iter().map(filled).collect(),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), filled(field))).collect::<Map<_, _>>().into(),
        other => other.clone(),
    }
}

/// `/v1/<uuid>` with its placeholder filled.
fn filled_text(piece: &str) -> String {
    match piece.find('<') {
        Some(at) if is_placeholder(&piece[at..]) => format!("{}{}", &piece[..at], stands_for(&piece[at..])),
        _ => piece.to_owned(),
    }
}

fn stands_for(placeholder: &str) -> String {
    match placeholder {
        "<today>" => jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date().to_string(),
        other if other.contains("uuid") => Uuid::new_v5(&Uuid::NAMESPACE_OID, other.as_bytes()).to_string(),
        other => other.trim_matches(['<', '>']).to_owned(),
    }
}
