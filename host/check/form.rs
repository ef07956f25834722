//! The readable, stable JSON form of the contract's nouns: requests, replies, answers, outcomes. Files of captured messages hold it, kept
//! answers are shown in it. Answers read back byte for byte; outcomes are for people and comparisons, and are not read back.

mod bytes;
pub mod reading;

use ::bytes::Bytes;
use serde_json::{Map, Value};

pub use reading::{answer_from, reply_from, request_from};

use crate::message::Headers;
use crate::plugin::{Action, Answer, Binding, Fault, Outcome, Output, Reply, Request, Write};
use bytes::Form;

/// A request: `{"entry": {"collection": "c", "key": "k"}}`, `{"call": {"endpoint": "e", "params": {..}, "body": ..}}`, and so on.
pub fn request(request: &Request) -> Value {
    let (tag, fields) = match request {
        Request::Entry { collection, key } => ("entry", texts([("collection", collection), ("key", key)])),
        Request::Entries(scan) => {
            let mut fields = texts([("collection", &scan.collection)]);
            put(&mut fields, "index", scan.index.clone());
            if !scan.prefix.is_empty() {
                put(&mut fields, "prefix", Some(scan.prefix.clone()));
            }
            put(&mut fields, "after", scan.after.clone());
            put(&mut fields, "limit", Some(scan.limit));
            ("entries", fields)
        }
        Request::Id { namespace, key } => ("id", texts([("namespace", namespace), ("key", key)])),
        Request::KnownId { namespace, key } => ("known_id", texts([("namespace", namespace), ("key", key)])),
        Request::KeyOf { namespace, id } => ("key_of", texts([("namespace", namespace), ("id", id)])),
        Request::Call(call) => {
            let mut fields = texts([("endpoint", &call.endpoint)]);
            if !call.params.is_empty() {
                fields.insert("params".to_owned(), pairs(&call.params));
            }
            if call.body.is_some() {
                bytes::put(&mut fields, "body", call.body.as_ref(), Form::Exact);
            }
            put(&mut fields, "lenient", call.lenient.then_some(true));
            ("call", fields)
        }
    };
    tagged(tag, Value::Object(fields))
}

/// A reply: `{"entry": VALUE or null}`, `{"id": "..."}`, `{"response": {"status": 200, "body": ..}}`, and so on.
pub fn reply(reply: &Reply) -> Value {
    match reply {
        Reply::Entry(value) => {
            let mut fields = Map::new();
            bytes::put(&mut fields, "entry", value.as_ref(), Form::Exact);
            Value::Object(fields)
        }
        Reply::Entries { items, more } => {
            let items = items.iter().map(|(key, value)| {
                let mut item = texts([("key", key)]);
                bytes::put(&mut item, "value", Some(value), Form::Exact);
                Value::Object(item)
            });
            let mut fields = Map::from_iter([("items".to_owned(), items.collect())]);
            put(&mut fields, "more", more.then_some(true));
            tagged("entries", Value::Object(fields))
        }
        Reply::Id(id) => tagged("id", id.as_str()),
        Reply::KnownId(id) => tagged("known_id", id.clone()),
        Reply::KeyOf(key) => tagged("key_of", key.clone()),
        Reply::Response(response) => {
            let mut fields = Map::from_iter([("status".to_owned(), response.status.into())]);
            if !response.headers.is_empty() {
                fields.insert("headers".to_owned(), pairs(&response.headers));
            }
            if !response.body.is_empty() {
                bytes::put(&mut fields, "body", Some(&response.body), Form::Exact);
            }
            tagged("response", Value::Object(fields))
        }
        Reply::Unreachable(reason) => tagged("unreachable", reason.as_str()),
    }
}

/// A request and its reply: `{"request": .., "reply": ..}`.
pub fn answer(answer: &Answer) -> Value {
    Value::Object(Map::from_iter([("request".to_owned(), request(&answer.request)), ("reply".to_owned(), reply(&answer.reply))]))
}

/// An outcome: `{"outcome": "translated", "outputs": [..], ..}`; what is absent or empty is left out.
pub fn outcome(outcome: &Outcome) -> Value {
    let mut fields = Map::new();
    fields.insert("outcome".to_owned(), word(outcome).into());
    match outcome {
        Outcome::Needs(requests) => list(&mut fields, "needs", requests, request),
        Outcome::Translated(translation) => {
            list(&mut fields, "outputs", &translation.outputs, output);
            list(&mut fields, "writes", &translation.writes, write);
            list(&mut fields, "bindings", &translation.bindings, binding);
            put(&mut fields, "revisit_at_ms", translation.revisit_at_ms);
            put(&mut fields, "note", translation.note.clone());
        }
        Outcome::Ignored(dismissal) => {
            fields.extend(texts([("code", &dismissal.code), ("reason", &dismissal.reason)]));
            list(&mut fields, "writes", &dismissal.writes, write);
            list(&mut fields, "bindings", &dismissal.bindings, binding);
            detail(&mut fields, dismissal.detail.as_ref());
        }
        Outcome::Waiting(wait) => {
            fields.extend(texts([("code", &wait.code), ("reason", &wait.reason)]));
            list(&mut fields, "on", &wait.on, request);
            put(&mut fields, "timeout_ms", wait.timeout_ms);
        }
        Outcome::Retry(fault) | Outcome::Rejected(fault) | Outcome::Failed(fault) => put_fault(&mut fields, fault),
    }
    Value::Object(fields)
}

/// The contract's word for an outcome.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Needs(_) => "needs",
        Outcome::Translated(_) => "translated",
        Outcome::Ignored(_) => "ignored",
        Outcome::Waiting(_) => "waiting",
        Outcome::Retry(_) => "retry",
        Outcome::Rejected(_) => "rejected",
        Outcome::Failed(_) => "failed",
    }
}

/// An output: payload as JSON where it parses, key as text.
pub fn output(output: &Output) -> Value {
    let mut fields = texts([("target", &output.target)]);
    put(&mut fields, "action", Some(action(output.action)));
    bytes::put(&mut fields, "key", output.key.as_ref(), Form::Text);
    bytes::put(&mut fields, "payload", output.payload.as_ref(), Form::Json);
    if !output.headers.is_empty() {
        fields.insert("headers".to_owned(), headers(&output.headers));
    }
    put(&mut fields, "version", output.version);
    if output.fingerprint.is_some() {
        bytes::put(&mut fields, "fingerprint", output.fingerprint.as_ref(), Form::Json);
    }
    Value::Object(fields)
}

/// Bytes as a field beside others: JSON under the name itself, else text under `NAME_text`, else `NAME_base64`; null where there are none.
pub fn put_payload(fields: &mut Map<String, Value>, name: &str, payload: Option<&Bytes>) {
    bytes::put(fields, name, payload, Form::Json);
}

fn write(write: &Write) -> Value {
    let mut fields = texts([("collection", &write.collection), ("key", &write.key)]);
    bytes::put(&mut fields, "value", write.value.as_ref(), Form::Json);
    if !write.indexes.is_empty() {
        fields.insert("indexes".to_owned(), pairs(&write.indexes));
    }
    Value::Object(fields)
}

fn binding(binding: &Binding) -> Value {
    Value::Object(texts([("namespace", &binding.namespace), ("key", &binding.key), ("id", &binding.id)]))
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Put => "put",
        Action::Merge => "merge",
        Action::Delete => "delete",
    }
}

/// `[["name", "value"], ..]`: null where there is no value, `{"base64": ".."}` where it is no text.
fn headers(headers: &Headers) -> Value {
    let pair = |(name, value): &(String, Option<Bytes>)| {
        let value = match value.as_ref().map(|value| std::str::from_utf8(value)) {
            None => Value::Null,
            Some(Ok(text)) => text.into(),
            Some(Err(_)) => tagged("base64", bytes::base64(value.as_ref().map_or(&[], |value| value))),
        };
        Value::Array(vec![name.as_str().into(), value])
    };
    headers.iter().map(pair).collect()
}

fn put_fault(fields: &mut Map<String, Value>, fault: &Fault) {
    fields.extend(texts([("code", &fault.code), ("message", &fault.message)]));
    put(fields, "field", fault.field.clone());
    detail(fields, fault.detail.as_ref());
    put(fields, "after_ms", fault.after_ms);
}

fn detail(fields: &mut Map<String, Value>, detail: Option<&Bytes>) {
    if detail.is_some() {
        bytes::put(fields, "detail", detail, Form::Json);
    }
}

/// An object where names are unique, else a list of pairs, so that nothing is lost.
fn pairs(pairs: &[(String, String)]) -> Value {
    let mut names: Vec<_> = pairs.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    if names.windows(2).all(|two| two[0] != two[1]) {
        return Value::Object(pairs.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect());
    }
    pairs.iter().map(|(name, value)| Value::Array(vec![name.as_str().into(), value.as_str().into()])).collect()
}

fn texts<const N: usize>(fields: [(&str, &String); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, text)| (name.to_owned(), text.as_str().into())).collect()
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), value.into());
    }
}

fn list<T>(fields: &mut Map<String, Value>, name: &str, items: &[T], form: impl Fn(&T) -> Value) {
    if !items.is_empty() {
        fields.insert(name.to_owned(), items.iter().map(form).collect());
    }
}

fn tagged(tag: &str, value: impl Into<Value>) -> Value {
    Value::Object(Map::from_iter([(tag.to_owned(), value.into())]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::{Call, Dismissal, Response, Scan, Translation, Wait};

    fn text(value: &Value) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn answers_read_back_byte_for_byte() {
        let bodies: [&[u8]; 12] = [
            b"{\"a\":1}",
            b"{ \"a\": 1 }",
            b"{\"a\":1.0,\"a\":2}",
            b"\"text\"",
            b"null",
            b"plain",
            b"",
            b"\xff\x00",
            b"12345678901234567890123",
            b"1e5",
            b"[\"\\u00e6\"]",
            b"true",
        ];
        let call = |params: &[(&str, &str)], body: Option<&[u8]>| {
            Request::Call(Call {
                endpoint: "e".to_owned(),
                params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                body: body.map(Bytes::copy_from_slice),
                lenient: body.is_none(),
            })
        };
        let mut answers = vec![
            (Request::Id { namespace: "n".into(), key: "k".into() }, Reply::Id("i".into())),
            (Request::KnownId { namespace: "n".into(), key: "k".into() }, Reply::KnownId(None)),
            (Request::KnownId { namespace: "n".into(), key: "k".into() }, Reply::KnownId(Some("i".into()))),
            (Request::KeyOf { namespace: "n".into(), id: "i".into() }, Reply::KeyOf(Some("k".into()))),
            (Request::KeyOf { namespace: "n".into(), id: "i".into() }, Reply::KeyOf(None)),
            (Request::Entry { collection: "c".into(), key: "k".into() }, Reply::Entry(None)),
            (call(&[("a", "1"), ("a", "2")], None), Reply::Unreachable("down".into())),
        ];
        for body in bodies {
            let body = Bytes::copy_from_slice(body);
            let scan = Scan {
                collection: "c".into(),
                index: Some("i".into()),
                prefix: if body.is_empty() { String::new() } else { "p".into() },
                after: Some("a".into()),
                limit: 3,
            };
            let headers = vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
            answers.extend([
                (Request::Entry { collection: "c".into(), key: "k".into() }, Reply::Entry(Some(body.clone()))),
                (Request::Entries(scan), Reply::Entries { items: vec![("k".into(), body.clone())], more: body.is_empty() }),
                (call(&[("a", "1")], Some(&body)), Reply::Response(Response { status: 404, headers, body: body.clone() })),
            ]);
        }
        for (request, reply) in answers {
            let given = Answer { request, reply };
            let line = text(&answer(&given));
            assert_eq!(answer_from(&serde_json::from_str(&line).unwrap()), Ok(given), "{line}");
        }
    }

    #[test]
    fn replies_are_readable() {
        assert_eq!(reply(&Reply::Entry(Some(Bytes::from_static(b"{\"a\":1}")))), json!({"entry": {"a": 1}}));
        assert_eq!(reply(&Reply::Entry(Some(Bytes::from_static(b"a,b")))), json!({"entry_text": "a,b"}));
        let response = Response { status: 200, headers: vec![], body: Bytes::from_static(b"{\"name\":\"Kari\"}") };
        assert_eq!(reply(&Reply::Response(response)), json!({"response": {"status": 200, "body": {"name": "Kari"}}}));
    }

    #[test]
    fn outcomes_are_readable() {
        let output = Output {
            target: "out".into(),
            action: Action::Delete,
            key: Some(Bytes::from_static(b"17")),
            payload: Some(Bytes::from_static(b"{ \"status\": \"DELTAR\" }")),
            headers: vec![("a".into(), None), ("a".into(), Some(Bytes::from_static(b"\xff")))],
            version: Some(3),
            fingerprint: None,
        };
        let write = Write { collection: "c".into(), key: "k".into(), value: None, indexes: vec![("by".into(), "x".into())] };
        let translated = Translation { outputs: vec![output], writes: vec![write], note: Some("n".into()), ..Translation::default() };
        assert_eq!(
            outcome(&Outcome::Translated(translated)),
            json!({
                "outcome": "translated",
                "outputs": [{
                    "target": "out", "action": "delete", "key": "17", "payload": {"status": "DELTAR"},
                    "headers": [["a", null], ["a", {"base64": "/w=="}]], "version": 3
                }],
                "writes": [{"collection": "c", "key": "k", "value": null, "indexes": {"by": "x"}}],
                "note": "n"
            })
        );
        let ignored = Dismissal { code: "old".into(), reason: "r".into(), detail: Some(Bytes::from_static(b"d")), ..Dismissal::default() };
        assert_eq!(outcome(&Outcome::Ignored(ignored)), json!({"outcome": "ignored", "code": "old", "reason": "r", "detail_text": "d"}));
        let on = vec![Request::Entry { collection: "c".into(), key: "k".into() }];
        let wait = Wait { code: "parent".into(), reason: "r".into(), on, timeout_ms: Some(5) };
        assert_eq!(
            outcome(&Outcome::Waiting(wait)),
            json!({"outcome": "waiting", "code": "parent", "reason": "r", "on": [{"entry": {"collection": "c", "key": "k"}}], "timeout_ms": 5})
        );
        let fault = Fault { code: "bad".into(), message: "m".into(), field: Some("/a".into()), ..Fault::default() };
        assert_eq!(outcome(&Outcome::Rejected(fault)), json!({"outcome": "rejected", "code": "bad", "message": "m", "field": "/a"}));
    }
}
