//! The component's side: the generated bindings, and the moves between their types and ours. Only `register!` uses it.

use std::cell::RefCell;

use crate::context::Context;
use crate::message::{Cause, Delivery, Message};
use crate::outcome::{Action, Fault, FaultKind, Outcome, Output};
use crate::request::{Answer, Call, Entry, Id, KeyOf, KnownId, Page, Reply, Request, Response, Scan};
use crate::time::Now;
use crate::{Description, Translator};

#[expect(missing_docs, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plugin",
        pub_export_macro: true,
        export_macro_name: "export_plugin",
        default_bindings_module: "tolk_sdk::component::bindings",
        runtime_path: "tolk_sdk::component::rt",
    });
}

pub use bindings::export_plugin;
pub use bindings::exports::tolk::translator::translator as wire;
pub use wire::Guest;
pub use wit_bindgen::rt;

/// The sheet as the host reads it.
pub fn describe<T: Translator>() -> wire::Description {
    let Description { name, version, summary, tables, reads, writes, namespaces, endpoints, targets } = T::describe();
    wire::Description { name, version, summary, tables, reads, writes, namespaces, endpoints, targets }
}

/// Makes the instance's translator.
pub fn configure<T: Translator>(slot: &RefCell<Option<T>>, config: &str) -> Result<(), String> {
    *slot.borrow_mut() = Some(T::configure(config)?);
    Ok(())
}

/// Runs one round.
pub fn translate<T: Translator>(slot: &RefCell<Option<T>>, message: wire::Message, context: wire::Context) -> wire::Verdict {
    let slot = slot.borrow();
    let Some(translator) = slot.as_ref() else {
        let fault = Outcome::failed("not-configured", "the host called translate before configure");
        return wire::Verdict { outcome: outcome(fault.into()), log: Vec::new() };
    };
    let message = message_of(message);
    let context = context_of(context);
    let outcome = match translator.translate(&message, &context) {
        Ok(settled) => outcome(settled),
        Err(stop) => match stop.into_outcome() {
            Ok(settled) => outcome(settled),
            Err(needs) => wire::Outcome::Needs(needs.into_iter().map(request).collect()),
        },
    };
    wire::Verdict { outcome, log: context.log.into_inner() }
}

fn message_of(message: wire::Message) -> Message {
    let wire::Message { id, feed, table, partition, offset, key, payload, headers, timestamp_ms, received_ms } = message;
    Message { id, feed, table, partition, offset, key, payload, headers, timestamp_ms, received_ms }
}

fn context_of(context: wire::Context) -> Context {
    Context {
        now: Now { ms: context.now_ms, utc_offset_s: context.utc_offset_s },
        attempt: context.attempt,
        waited_ms: context.waited_ms,
        cause: Cause::from_word(&context.cause),
        delivery: context.delivery.map(|wire::Delivery { id, params, expected }| Delivery { id, params, expected }),
        answers: context.answers.into_iter().map(answer_of).collect(),
        ..Context::default()
    }
}

fn answer_of(answer: wire::Answer) -> Answer {
    let request = match answer.request {
        wire::Request::Entry(wire::EntryRef { collection, key }) => Request::Entry(Entry { collection, key }),
        wire::Request::Entries(wire::Scan { collection, index, prefix, after, limit }) => {
            Request::Entries(Scan { collection, index, prefix, after, limit })
        }
        wire::Request::Id(wire::IdRef { namespace, key }) => Request::Id(Id { namespace, key }),
        wire::Request::KnownId(wire::IdRef { namespace, key }) => Request::KnownId(KnownId { namespace, key }),
        wire::Request::KeyOf(wire::IdOwner { namespace, id }) => Request::KeyOf(KeyOf { namespace, id }),
        wire::Request::Call(wire::Call { endpoint, params, body, lenient }) => Request::Call(Call { endpoint, params, body }, lenient),
    };
    let reply = match answer.reply {
        wire::Reply::Entry(value) => Reply::Entry(value),
        wire::Reply::Entries(wire::Page { items, more }) => Reply::Entries(Page { items, more }),
        wire::Reply::Id(id) => Reply::Id(id),
        wire::Reply::KnownId(id) => Reply::KnownId(id),
        wire::Reply::KeyOf(key) => Reply::KeyOf(key),
        wire::Reply::Response(wire::Response { status, headers, body }) => Reply::Response(Response { status, headers, body }),
        wire::Reply::Unreachable(reason) => Reply::Unreachable(reason),
    };
    Answer { request: request.canonical(), reply }
}

fn request(request: Request) -> wire::Request {
    match request {
        Request::Entry(Entry { collection, key }) => wire::Request::Entry(wire::EntryRef { collection, key }),
        Request::Entries(Scan { collection, index, prefix, after, limit }) => {
            wire::Request::Entries(wire::Scan { collection, index, prefix, after, limit })
        }
        Request::Id(Id { namespace, key }) => wire::Request::Id(wire::IdRef { namespace, key }),
        Request::KnownId(KnownId { namespace, key }) => wire::Request::KnownId(wire::IdRef { namespace, key }),
        Request::KeyOf(KeyOf { namespace, id }) => wire::Request::KeyOf(wire::IdOwner { namespace, id }),
        Request::Call(Call { endpoint, params, body }, lenient) => wire::Request::Call(wire::Call { endpoint, params, body, lenient }),
    }
}

fn outcome(outcome: Outcome) -> wire::Outcome {
    match outcome {
        Outcome::Translated(translation) => wire::Outcome::Translated(wire::Translation {
            outputs: translation.outputs.into_iter().map(output).collect(),
            writes: translation.writes.into_iter().map(write).collect(),
            bindings: translation.bindings.into_iter().map(binding).collect(),
            revisit_at_ms: translation.revisit_at_ms,
            note: translation.note,
        }),
        Outcome::Ignored(dismissal) => wire::Outcome::Ignored(wire::Dismissal {
            code: dismissal.code,
            reason: dismissal.reason,
            writes: dismissal.writes.into_iter().map(write).collect(),
            bindings: dismissal.bindings.into_iter().map(binding).collect(),
            detail: dismissal.detail,
        }),
        Outcome::Waiting(wait) => wire::Outcome::Waiting(wire::Wait {
            code: wait.code,
            reason: wait.reason,
            on: wait.on.into_iter().map(request).collect(),
            timeout_ms: wait.timeout_ms,
        }),
        Outcome::Faulty(Fault { kind, code, message, field, detail, after_ms }) => {
            let fault = wire::Fault { code, message, field, detail, after_ms };
            match kind {
                FaultKind::Retry => wire::Outcome::Retry(fault),
                FaultKind::Rejected => wire::Outcome::Rejected(fault),
                FaultKind::Failed => wire::Outcome::Failed(fault),
            }
        }
    }
}

fn output(output: Output) -> wire::Output {
    let Output { target, action, key, payload, headers, version, fingerprint } = output;
    let action = match action {
        Action::Put => wire::Action::Put,
        Action::Merge => wire::Action::Merge,
        Action::Delete => wire::Action::Delete,
    };
    wire::Output { target, action, key, payload, headers, version, fingerprint }
}

fn write(write: crate::Write) -> wire::Write {
    let crate::Write { collection, key, value, indexes } = write;
    wire::Write { collection, key, value, indexes }
}

fn binding(binding: crate::Binding) -> wire::Binding {
    let crate::Binding { namespace, key, id } = binding;
    wire::Binding { namespace, key, id }
}
