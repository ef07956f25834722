//! From the nouns of `plugin` to the borrowed types of the bindings, and from the bindings' owned types back. Payloads are not copied here.

use bytes::Bytes;

use super::bindings::exports::tolk::translator::translator as wit;
use crate::message::{Headers, Message};
use crate::plugin::{
    Action, Answer, Binding, Call, Context, Description, Dismissal, Fault, Outcome, Output, Reply, Request, Scan, Translation, Wait, Write,
};

/// Lends a message and its context to a call.
pub(super) fn lend<R>(message: &Message, feed: &str, context: &Context, call: impl FnOnce(wit::Message<'_>, wit::Context<'_>) -> R) -> R {
    let mut id = uuid::Uuid::encode_buffer();
    let captured = &message.captured;
    let headers: Vec<(&str, Option<&[u8]>)> = captured.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let lent = wit::Message {
        id: message.id.hyphenated().encode_lower(&mut id),
        feed,
        table: &message.table,
        partition: u32::try_from(captured.partition).unwrap_or(0),
        offset: u64::try_from(captured.offset).unwrap_or(0),
        key: captured.key.as_deref(),
        payload: captured.payload.as_deref(),
        headers: &headers,
        timestamp_ms: captured.timestamp_ms,
        received_ms: message.received_ms,
    };
    let params = context.delivery.as_ref().map(|delivery| lend_pairs(&delivery.params));
    let delivery = context.delivery.as_ref().zip(params.as_deref()).map(|(delivery, params)| wit::Delivery {
        id: &delivery.id,
        params,
        expected: delivery.expected,
    });
    let lists: Vec<Lists<'_>> = context.answers.iter().map(Lists::of).collect();
    let answers: Vec<wit::Answer<'_>> = context.answers.iter().zip(&lists).map(|(answer, lists)| lend_answer(answer, lists)).collect();
    let context = wit::Context {
        now_ms: context.now_ms,
        utc_offset_s: context.utc_offset_s,
        attempt: context.attempt,
        waited_ms: context.waited_ms,
        cause: context.cause.as_str(),
        delivery,
        answers: &answers,
    };
    call(lent, context)
}

/// The lists of one answer that the borrowed types refer to; empty ones cost nothing.
#[derive(Default)]
struct Lists<'a> {
    params: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'a str, &'a str)>,
    items: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Lists<'a> {
    fn of(answer: &'a Answer) -> Self {
        let mut lists = Self::default();
        if let Request::Call(call) = &answer.request {
            lists.params = lend_pairs(&call.params);
        }
        match &answer.reply {
            Reply::Response(response) => lists.headers = lend_pairs(&response.headers),
            Reply::Entries { items, .. } => lists.items = items.iter().map(|(key, value)| (key.as_str(), &**value)).collect(),
            _ => {}
        }
        lists
    }
}

fn lend_pairs(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn lend_answer<'a>(answer: &'a Answer, lists: &'a Lists<'a>) -> wit::Answer<'a> {
    let request = match &answer.request {
        Request::Entry { collection, key } => wit::RequestParam::Entry(wit::EntryRefParam { collection, key }),
        Request::Entries(scan) => wit::RequestParam::Entries(wit::ScanParam {
            collection: &scan.collection,
            index: scan.index.as_deref(),
            prefix: &scan.prefix,
            after: scan.after.as_deref(),
            limit: scan.limit,
        }),
        Request::Id { namespace, key } => wit::RequestParam::Id(wit::IdRefParam { namespace, key }),
        Request::KnownId { namespace, key } => wit::RequestParam::KnownId(wit::IdRefParam { namespace, key }),
        Request::KeyOf { namespace, id } => wit::RequestParam::KeyOf(wit::IdOwnerParam { namespace, id }),
        Request::Call(call) => wit::RequestParam::Call(wit::CallParam {
            endpoint: &call.endpoint,
            params: &lists.params,
            body: call.body.as_deref(),
            lenient: call.lenient,
        }),
    };
    let reply = match &answer.reply {
        Reply::Entry(value) => wit::Reply::Entry(value.as_deref()),
        Reply::Entries { more, .. } => wit::Reply::Entries(wit::Page { items: &lists.items, more: *more }),
        Reply::Id(id) => wit::Reply::Id(id),
        Reply::KnownId(id) => wit::Reply::KnownId(id.as_deref()),
        Reply::KeyOf(key) => wit::Reply::KeyOf(key.as_deref()),
        Reply::Response(response) => {
            wit::Reply::Response(wit::Response { status: response.status, headers: &lists.headers, body: &response.body })
        }
        Reply::Unreachable(reason) => wit::Reply::Unreachable(reason),
    };
    wit::Answer { request, reply }
}

impl From<wit::Outcome> for Outcome {
    fn from(outcome: wit::Outcome) -> Self {
        match outcome {
            wit::Outcome::Needs(needs) => Self::Needs(needs.into_iter().map(Into::into).collect()),
            wit::Outcome::Translated(translation) => Self::Translated(translation.into()),
            wit::Outcome::Ignored(dismissal) => Self::Ignored(dismissal.into()),
            wit::Outcome::Waiting(wait) => Self::Waiting(wait.into()),
            wit::Outcome::Retry(fault) => Self::Retry(fault.into()),
            wit::Outcome::Rejected(fault) => Self::Rejected(fault.into()),
            wit::Outcome::Failed(fault) => Self::Failed(fault.into()),
        }
    }
}

impl From<wit::RequestResult> for Request {
    fn from(request: wit::RequestResult) -> Self {
        match request {
            wit::RequestResult::Entry(wit::EntryRefResult { collection, key }) => Self::Entry { collection, key },
            wit::RequestResult::Entries(wit::ScanResult { collection, index, prefix, after, limit }) => {
                Self::Entries(Scan { collection, index, prefix, after, limit })
            }
            wit::RequestResult::Id(wit::IdRefResult { namespace, key }) => Self::Id { namespace, key },
            wit::RequestResult::KnownId(wit::IdRefResult { namespace, key }) => Self::KnownId { namespace, key },
            wit::RequestResult::KeyOf(wit::IdOwnerResult { namespace, id }) => Self::KeyOf { namespace, id },
            wit::RequestResult::Call(wit::CallResult { endpoint, params, body, lenient }) => {
                Self::Call(Call { endpoint, params, body: body.map(Bytes::from), lenient })
            }
        }
    }
}

impl From<wit::Translation> for Translation {
    fn from(translation: wit::Translation) -> Self {
        let wit::Translation { outputs, writes, bindings, revisit_at_ms, note } = translation;
        Self {
            outputs: outputs.into_iter().map(Into::into).collect(),
            writes: writes.into_iter().map(Into::into).collect(),
            bindings: bindings.into_iter().map(Into::into).collect(),
            revisit_at_ms,
            note,
        }
    }
}

impl From<wit::Output> for Output {
    fn from(output: wit::Output) -> Self {
        let headers: Headers = output.headers.into_iter().map(|(name, value)| (name, value.map(Bytes::from))).collect();
        Self {
            target: output.target,
            action: match output.action {
                wit::Action::Put => Action::Put,
                wit::Action::Merge => Action::Merge,
                wit::Action::Delete => Action::Delete,
            },
            key: output.key.map(Bytes::from),
            payload: output.payload.map(Bytes::from),
            headers,
            version: output.version,
            fingerprint: output.fingerprint.map(Bytes::from),
        }
    }
}

impl From<wit::Write> for Write {
    fn from(write: wit::Write) -> Self {
        let wit::Write { collection, key, value, indexes } = write;
        Self { collection, key, value: value.map(Bytes::from), indexes }
    }
}

impl From<wit::Binding> for Binding {
    fn from(binding: wit::Binding) -> Self {
        let wit::Binding { namespace, key, id } = binding;
        Self { namespace, key, id }
    }
}

impl From<wit::Dismissal> for Dismissal {
    fn from(dismissal: wit::Dismissal) -> Self {
        let wit::Dismissal { code, reason, writes, bindings, detail } = dismissal;
        Self {
            code,
            reason,
            writes: writes.into_iter().map(Into::into).collect(),
            bindings: bindings.into_iter().map(Into::into).collect(),
            detail: detail.map(Bytes::from),
        }
    }
}

impl From<wit::Wait> for Wait {
    fn from(wait: wit::Wait) -> Self {
        let wit::Wait { code, reason, on, timeout_ms } = wait;
        Self { code, reason, on: on.into_iter().map(Into::into).collect(), timeout_ms }
    }
}

impl From<wit::Fault> for Fault {
    fn from(fault: wit::Fault) -> Self {
        let wit::Fault { code, message, field, detail, after_ms } = fault;
        Self { code, message, field, detail: detail.map(Bytes::from), after_ms }
    }
}

impl From<wit::Description> for Description {
    fn from(description: wit::Description) -> Self {
        let wit::Description { name, version, summary, tables, reads, writes, namespaces, endpoints, targets } = description;
        Self { name, version, summary, tables, reads, writes, namespaces, endpoints, targets }
    }
}
