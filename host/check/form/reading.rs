//! Reads requests, replies and answers from their JSON form; what is wrong is named by its path.

use serde_json::Value;

use super::bytes;
use crate::check::fields::Fields;
use crate::plugin::{Answer, Call, Reply, Request, Response, Scan};

const REQUESTS: [&str; 6] = ["entry", "entries", "id", "known_id", "key_of", "call"];
const REPLIES: [&str; 7] = ["entry", "entries", "id", "known_id", "key_of", "response", "unreachable"];

/// Reads an answer and sees that the reply fits the request.
pub fn answer_from(value: &Value) -> Result<Answer, String> {
    let mut fields = Fields::of(value, "answer")?;
    let (request, reply) = (fields.value("request"), fields.value("reply"));
    let (Some(request), Some(reply)) = (request, reply) else {
        return Err("answer: \"request\" and \"reply\" must both be there".to_owned());
    };
    fields.finish()?;
    let answer = Answer { request: request_from(request)?, reply: reply_from(reply)? };
    let fits = matches!(
        (&answer.request, &answer.reply),
        (Request::Entry { .. }, Reply::Entry(_))
            | (Request::Entries(_), Reply::Entries { .. })
            | (Request::Id { .. }, Reply::Id(_))
            | (Request::KnownId { .. }, Reply::KnownId(_))
            | (Request::KeyOf { .. }, Reply::KeyOf(_))
            | (Request::Call(_), Reply::Response(_) | Reply::Unreachable(_))
    );
    if fits { Ok(answer) } else { Err("answer: the reply is of another kind than the request".to_owned()) }
}

/// Reads a request.
pub fn request_from(value: &Value) -> Result<Request, String> {
    let mut outer = Fields::of(value, "request")?;
    let tag = one_of(&outer, &REQUESTS)?;
    let mut fields = Fields::of(outer.value(tag).unwrap_or(&Value::Null), tag)?;
    outer.finish()?;
    let request = match tag {
        "entry" => Request::Entry { collection: fields.need_text("collection")?, key: fields.need_text("key")? },
        "entries" => Request::Entries(Scan {
            collection: fields.need_text("collection")?,
            index: fields.text("index")?,
            prefix: fields.text("prefix")?.unwrap_or_default(),
            after: fields.text("after")?,
            limit: fields
                .number("limit")?
                .and_then(|limit| u32::try_from(limit).ok())
                .ok_or("entries: \"limit\" must be there, a number of 32 bits")?,
        }),
        "id" => Request::Id { namespace: fields.need_text("namespace")?, key: fields.need_text("key")? },
        "known_id" => Request::KnownId { namespace: fields.need_text("namespace")?, key: fields.need_text("key")? },
        "key_of" => Request::KeyOf { namespace: fields.need_text("namespace")?, id: fields.need_text("id")? },
        _ => Request::Call(Call {
            endpoint: fields.need_text("endpoint")?,
            params: fields.pairs("params")?,
            body: bytes::take(&mut fields, "body")?.flatten(),
            lenient: fields.flag("lenient")?,
        }),
    };
    fields.finish()?;
    Ok(request)
}

/// Reads a reply.
pub fn reply_from(value: &Value) -> Result<Reply, String> {
    let mut outer = Fields::of(value, "reply")?;
    if let Some(entry) = bytes::take(&mut outer, "entry")? {
        outer.finish()?;
        return Ok(Reply::Entry(entry));
    }
    let tag = one_of(&outer, &REPLIES)?;
    let inner = outer.value(tag).unwrap_or(&Value::Null);
    let optional = match inner {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(format!("reply.{tag}: must be a text or null")),
    };
    outer.finish()?;
    Ok(match tag {
        "id" => Reply::Id(optional?.ok_or("reply.id: must be a text")?),
        "known_id" => Reply::KnownId(optional?),
        "key_of" => Reply::KeyOf(optional?),
        "unreachable" => Reply::Unreachable(optional?.unwrap_or_default()),
        "entries" => entries_from(inner)?,
        _ => response_from(inner)?,
    })
}

fn entries_from(value: &Value) -> Result<Reply, String> {
    let mut fields = Fields::of(value, "reply.entries")?;
    let mut items = Vec::new();
    for (i, item) in fields.list("items")?.iter().enumerate() {
        let mut item = Fields::of(item, &format!("reply.entries.items[{i}]"))?;
        let value = bytes::take(&mut item, "value")?.flatten();
        let value = value.ok_or_else(|| format!("{}: \"value\" is missing", item.at()))?;
        items.push((item.need_text("key")?, value));
        item.finish()?;
    }
    let more = fields.flag("more")?;
    fields.finish()?;
    Ok(Reply::Entries { items, more })
}

fn response_from(value: &Value) -> Result<Reply, String> {
    let mut fields = Fields::of(value, "reply.response")?;
    let status = fields.number("status")?.unwrap_or(200);
    let response = Response {
        status: u16::try_from(status).map_err(|_| format!("reply.response.status: {status} is no status"))?,
        headers: fields.pairs("headers")?,
        body: bytes::take(&mut fields, "body")?.flatten().unwrap_or_default(),
    };
    fields.finish()?;
    Ok(Reply::Response(response))
}

/// The one tag that is there.
fn one_of<'a>(fields: &Fields<'_>, tags: &[&'a str]) -> Result<&'a str, String> {
    let mut there = tags.iter().copied().filter(|tag| fields.has(tag));
    match (there.next(), there.next()) {
        (Some(tag), None) => Ok(tag),
        _ => Err(format!("{}: must hold exactly one of {}, holds {:?}", fields.at(), tags.join(", "), fields.names())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mistakes_are_named_by_their_path() {
        let cases = [
            (json!({"request": {"cal": {}}, "reply": {"response": {}}}), "exactly one of"),
            (
                json!({"request": {"call": {"endpoint": "e", "param": {}}}, "reply": {"response": {}}}),
                "\"param\" is no field; the nearest known is \"params\"",
            ),
            (json!({"request": {"call": {}}, "reply": {"response": {}}}), "\"endpoint\" is missing"),
            (json!({"request": {"call": {"endpoint": "e", "params": {"a": 1}}}, "reply": {"response": {}}}), "call.params"),
            (json!({"request": {"call": {"endpoint": "e"}}, "reply": {"response": {"body": 1, "body_text": ""}}}), "only one of"),
            (json!({"request": {"call": {"endpoint": "e"}}, "reply": {"response": {"body_base64": "?"}}}), "body_base64"),
            (json!({"request": {"id": {"namespace": "n", "key": "k"}}, "reply": {"entry": 1}}), "another kind"),
            (json!({"request": {"id": {"namespace": "n", "key": "k"}}}), "both"),
        ];
        for (value, want) in cases {
            let error = answer_from(&value).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
