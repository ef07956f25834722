//! A message with everything around it as JSON, the same at every door.

use bytes::Bytes;
use serde_json::{Value, json};

use super::text::time;
use crate::check::form;
use crate::plugin::{Answer, Request};
use crate::source::captured;
use crate::store::{Activation, Filter, MessageDetail};
use crate::translate::answers;

/// A payload for programs: an object or array as itself, else text, else `{"base64": ...}`, as captures write it.
pub fn value(bytes: &Bytes) -> Value {
    let document = serde_json::from_slice(bytes).ok().filter(|value: &Value| value.is_object() || value.is_array());
    document.unwrap_or_else(|| captured::text(Some(bytes)))
}

/// An activation.
pub fn activation(activation: &Activation) -> Value {
    json!({
        "id": activation.id, "feed": activation.feed, "table": activation.table, "digest": activation.digest.to_string(),
        "config": activation.config, "at_ms": activation.at_ms, "by": activation.by, "why": activation.why,
    })
}

/// The kept answers; those of another version that cannot be read are left out.
pub fn kept_answers(detail: &MessageDetail) -> Vec<Answer> {
    detail.answers.as_ref().and_then(|kept| answers::unpack(kept).ok()).unwrap_or_default()
}

/// What is asked for, in words.
pub fn request(request: &Request) -> String {
    match request {
        Request::Entry { collection, key } => format!("entry {collection}/{key}"),
        Request::Entries(scan) => match &scan.index {
            Some(index) => format!("entries of {} with {index} \"{}\"", scan.collection, scan.prefix),
            None => format!("entries of {} with a key that starts with \"{}\"", scan.collection, scan.prefix),
        },
        Request::Id { namespace, key } | Request::KnownId { namespace, key } => format!("an id for {namespace}/{key}"),
        Request::KeyOf { namespace, id } => format!("the key of {namespace}/{id}"),
        Request::Call(call) => format!("a call of {}", call.endpoint),
    }
}

/// A message, whole.
pub fn message(detail: &MessageDetail) -> Value {
    let input = &detail.message.captured;
    let outputs = detail.outputs.iter().map(|(target, output, published, parked)| {
        json!({
            "target": target, "action": output.action, "published": published, "refused": parked,
            "event_id": output.event_id, "settlement": output.cursor.settlement, "index": output.cursor.index,
            "digest": output.digest.map(|digest| digest.to_string()), "version": output.version,
            "key": captured::text(output.key.as_ref()), "headers": captured::headers(&output.headers), "payload": output.payload.as_ref().map(value),
        })
    });
    let outputs: Vec<Value> = outputs.collect();
    json!({
        "status": detail.status,
        "waits_for": detail.waits.iter().map(request).collect::<Vec<_>>(),
        "settlement": detail.settlement,
        "now_ms": detail.now_ms,
        "activation": detail.activation.as_ref().map(activation),
        "input": {
            "key": captured::text(input.key.as_ref()), "headers": captured::headers(&input.headers), "timestamp_ms": input.timestamp_ms,
            "payload": input.payload.as_ref().map(value),
        },
        "answers": kept_answers(detail).iter().map(form::answer).collect::<Vec<_>>(),
        "outputs": outputs,
    })
}

/// A filter in words, for the audit trail; empty: it names nothing.
pub fn filter(filter: &Filter) -> String {
    let text = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
    let at = |name: &str, ms: Option<i64>| ms.map(|ms| format!("{name} {}", time(ms)));
    let keys = (!filter.keys.is_empty()).then(|| format!("{} keys ({})", filter.keys.len(), cut(&filter.keys.join(", "), 80)));
    let parts = [
        text("feed", &filter.feed),
        text("table", &filter.table),
        text("key", &filter.key),
        keys,
        filter.status.map(|status| format!("status {}", status.as_str())),
        text("code", &filter.code),
        text("reason with", &filter.reason),
        filter.delivery.as_ref().map(|(feed, id)| format!("delivery {feed}/{id}")),
        at("since", filter.since_ms),
        at("until", filter.until_ms),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The first characters of a text.
fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters { text.to_owned() } else { text.chars().take(characters - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Status;

    #[test]
    fn payloads_are_shown_as_what_they_are() {
        assert_eq!(value(&Bytes::from_static(&[0xff])), json!({"base64": "/w=="}));
        assert_eq!(value(&Bytes::from_static(b"7")), json!("7"));
        assert_eq!(value(&Bytes::from_static(b"[7]")), json!([7]));
    }

    #[test]
    fn a_filter_is_told_in_words() {
        assert_eq!(filter(&Filter::default()), "");
        let one = Filter {
            feed: Some("f".into()),
            status: Some(Status::Failed),
            since_ms: Some(0),
            keys: vec!["a".into(), "b".into()],
            delivery: Some(("f".into(), "7".into())),
            ..Filter::default()
        };
        assert_eq!(filter(&one), "feed f, 2 keys (a, b), status failed, delivery f/7, since 1970-01-01T00:00:00.000Z");
    }
}
