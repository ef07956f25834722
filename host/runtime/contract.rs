//! Holds a verdict against the contract: what the description names, what the limits allow, what the stores can keep. Knows nothing of
//! wasmtime.

use uuid::Uuid;

use super::log::{is_plain, plain};
use crate::plugin::{Action, Binding, Description, Fault, KEY_BYTES_MAX, Limits, Outcome, Output, Request, Wait, Write};

/// Bytes of a code.
const CODE_BYTES_MAX: usize = 128;
/// Bytes of a reason or note; more is cut.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Entries of one scanned page.
const SCAN_LIMIT_MAX: u32 = 10_000;
/// A hundred years, in milliseconds: beyond it an interval is a mistake.
const INTERVAL_MS_MAX: u64 = 100 * 366 * 24 * 3_600_000;

/// A verdict that is not taken: a stable code and a sentence without the plugin's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) code: &'static str,
    pub(super) text: String,
}

type Checked = Result<(), Breach>;

fn invalid(text: String) -> Breach {
    Breach { code: "invalid-outcome", text }
}

/// Checks an outcome and makes its texts safe to show.
pub(super) fn check(outcome: &mut Outcome, description: &Description, limits: &Limits) -> Checked {
    size(outcome, limits)?;
    let sheet = Sheet(description);
    match outcome {
        Outcome::Needs(needs) => {
            if needs.is_empty() {
                return Err(invalid("it needs nothing and yet has no outcome".to_owned()));
            }
            needs.iter().try_for_each(|need| sheet.request(need))
        }
        Outcome::Translated(translation) => {
            translation.outputs.iter().enumerate().try_for_each(|(index, output)| sheet.output(index, output))?;
            sheet.remembered(&translation.writes, &translation.bindings)?;
            translation.note.as_mut().map_or(Ok(()), text)
        }
        Outcome::Ignored(dismissal) => {
            sheet.remembered(&dismissal.writes, &dismissal.bindings)?;
            code(&dismissal.code)?;
            text(&mut dismissal.reason)
        }
        Outcome::Waiting(wait) => sheet.wait(wait),
        Outcome::Retry(fault) | Outcome::Rejected(fault) | Outcome::Failed(fault) => judge(fault),
    }
}

fn judge(fault: &mut Fault) -> Checked {
    code(&fault.code)?;
    interval("after-ms", fault.after_ms)?;
    text(&mut fault.message)?;
    fault.field.as_mut().map_or(Ok(()), text)
}

fn interval(name: &str, ms: Option<u64>) -> Checked {
    match ms {
        Some(ms) if ms > INTERVAL_MS_MAX => Err(invalid(format!("{name} is {ms}, at most {INTERVAL_MS_MAX} (a hundred years)"))),
        _ => Ok(()),
    }
}

fn code(code: &str) -> Checked {
    if code.is_empty() || code.len() > CODE_BYTES_MAX || !is_plain(code) {
        let shown = plain(code, CODE_BYTES_MAX);
        return Err(invalid(format!("the code \"{shown}\" has {} bytes; it must have 1 to {CODE_BYTES_MAX} printable ones", code.len())));
    }
    Ok(())
}

fn text(text: &mut String) -> Checked {
    if text.len() > TEXT_BYTES_MAX || !is_plain(text) {
        *text = plain(text, TEXT_BYTES_MAX);
    }
    Ok(())
}

/// A text that the stores keep as text and may index.
fn key(what: &str, key: &str) -> Checked {
    if key.is_empty() {
        return Err(invalid(format!("{what} is empty")));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(invalid(format!("{what} has {} bytes, at most {KEY_BYTES_MAX}", key.len())));
    }
    storable(what, key)
}

fn storable(what: &str, text: &str) -> Checked {
    match text.contains('\0') {
        true => Err(invalid(format!("{what} holds a zero character, which databases do not keep"))),
        false => Ok(()),
    }
}

fn uuid(what: &str, id: &str) -> Checked {
    match id.len() == 36 && Uuid::try_parse(id).is_ok() {
        true => Ok(()),
        false => Err(invalid(format!("{what} is \"{}\", not a uuid of 36 characters", plain(id, 64)))),
    }
}

/// What the plugin said it would use.
struct Sheet<'a>(&'a Description);

impl Sheet<'_> {
    fn named(&self, list: &'static str, names: &[String], name: &str, what: &str) -> Checked {
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        let known = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let text = format!("{what} names \"{}\", its description lists under {list}: {known}", plain(name, 128));
        Err(Breach { code: "not-described", text })
    }

    fn request(&self, request: &Request) -> Checked {
        match request {
            Request::Entry { collection, key: k } => {
                self.named("reads", &self.0.reads, collection, "a read")?;
                key("the key of a read", k)
            }
            Request::Entries(scan) => {
                self.named("reads", &self.0.reads, &scan.collection, "a scan")?;
                if scan.limit == 0 || scan.limit > SCAN_LIMIT_MAX {
                    return Err(invalid(format!("the limit of a scan is {}, it must be 1 to {SCAN_LIMIT_MAX}", scan.limit)));
                }
                scan.index.as_deref().map_or(Ok(()), |index| key("the index of a scan", index))?;
                storable("the prefix of a scan", &scan.prefix)?;
                scan.after.as_deref().map_or(Ok(()), |after| storable("the start of a scan", after))
            }
            Request::Id { namespace, key: k } | Request::KnownId { namespace, key: k } => {
                self.named("namespaces", &self.0.namespaces, namespace, "a need of an id")?;
                key("the key of an id", k)
            }
            Request::KeyOf { namespace, id } => {
                self.named("namespaces", &self.0.namespaces, namespace, "a need of a key")?;
                uuid("the id of a need", id)
            }
            Request::Call(call) => self.named("endpoints", &self.0.endpoints, &call.endpoint, "a call"),
        }
    }

    fn output(&self, index: usize, output: &Output) -> Checked {
        self.named("targets", &self.0.targets, &output.target, "an output")?;
        if output.action == Action::Delete && output.key.is_none() {
            return Err(invalid(format!("output {index} deletes without a key")));
        }
        if output.version.is_some_and(|version| i64::try_from(version).is_err()) {
            return Err(invalid(format!("the version of output {index} is {:?}, at most {}", output.version, i64::MAX)));
        }
        output.headers.iter().try_for_each(|(name, _)| key("the name of a header", name))
    }

    fn remembered(&self, writes: &[Write], bindings: &[Binding]) -> Checked {
        for write in writes {
            self.named("writes", &self.0.writes, &write.collection, "a write")?;
            key("the key of a write", &write.key)?;
            for (name, value) in &write.indexes {
                key("the name of an index", name)?;
                storable("the value of an index", value)?;
                if value.len() > KEY_BYTES_MAX {
                    return Err(invalid(format!("the value of index \"{name}\" has {} bytes, at most {KEY_BYTES_MAX}", value.len())));
                }
            }
        }
        for binding in bindings {
            self.named("namespaces", &self.0.namespaces, &binding.namespace, "a binding")?;
            key("the key of a binding", &binding.key)?;
            uuid("the id of a binding", &binding.id)?;
        }
        Ok(())
    }

    fn wait(&self, wait: &mut Wait) -> Checked {
        code(&wait.code)?;
        interval("timeout-ms", wait.timeout_ms)?;
        for awaited in &wait.on {
            if matches!(awaited, Request::Call(_) | Request::Id { .. }) {
                return Err(invalid("it waits for a call or for an id that is made on demand; nothing would ever wake it".to_owned()));
            }
            self.request(awaited)?;
        }
        text(&mut wait.reason)
    }
}

fn size(outcome: &Outcome, limits: &Limits) -> Checked {
    let (bytes, needs) = match outcome {
        Outcome::Needs(needs) => (needs.iter().map(request_bytes).sum(), needs.len()),
        Outcome::Translated(translation) => {
            let count = translation.outputs.len();
            if count > limits.outputs_max {
                let text = format!("outputs_max is {}, used {count}", limits.outputs_max);
                return Err(Breach { code: "output-limit", text });
            }
            let outputs: usize = translation.outputs.iter().map(output_bytes).sum();
            (outputs + remembered_bytes(&translation.writes, &translation.bindings), 0)
        }
        Outcome::Ignored(dismissal) => {
            (bytes_of(&dismissal.detail) + remembered_bytes(&dismissal.writes, &dismissal.bindings) + dismissal.reason.len(), 0)
        }
        Outcome::Waiting(wait) => (wait.on.iter().map(request_bytes).sum(), wait.on.len()),
        Outcome::Retry(fault) | Outcome::Rejected(fault) | Outcome::Failed(fault) => (bytes_of(&fault.detail) + fault.message.len(), 0),
    };
    if needs > limits.needs_max {
        return Err(Breach { code: "needs-limit", text: format!("needs_max is {}, used {needs}", limits.needs_max) });
    }
    if bytes > limits.output_bytes_max {
        let text = format!("output_bytes_max is {} bytes, used {bytes}", limits.output_bytes_max);
        return Err(Breach { code: "output-limit", text });
    }
    Ok(())
}

fn bytes_of(bytes: &Option<bytes::Bytes>) -> usize {
    bytes.as_ref().map_or(0, bytes::Bytes::len)
}

fn output_bytes(output: &Output) -> usize {
    let headers: usize = output.headers.iter().map(|(name, value)| name.len() + bytes_of(value)).sum();
    output.target.len() + bytes_of(&output.key) + bytes_of(&output.payload) + bytes_of(&output.fingerprint) + headers
}

fn remembered_bytes(writes: &[Write], bindings: &[Binding]) -> usize {
    let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let writes: usize = writes.iter().map(|write| write.key.len() + bytes_of(&write.value) + pairs(&write.indexes)).sum();
    writes + bindings.iter().map(|binding| binding.key.len() + binding.id.len()).sum::<usize>()
}

fn request_bytes(request: &Request) -> usize {
    match request {
        Request::Entry { collection, key } => collection.len() + key.len(),
        Request::Entries(scan) => scan.collection.len() + scan.prefix.len() + scan.after.as_ref().map_or(0, String::len),
        Request::Id { namespace, key } | Request::KnownId { namespace, key } => namespace.len() + key.len(),
        Request::KeyOf { namespace, id } => namespace.len() + id.len(),
        Request::Call(call) => {
            let params: usize = call.params.iter().map(|(name, value)| name.len() + value.len()).sum();
            call.endpoint.len() + params + bytes_of(&call.body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Call, Dismissal, Translation};

    fn description() -> Description {
        let one = |name: &str| vec![name.to_owned()];
        Description {
            reads: one("r"),
            writes: one("w"),
            namespaces: one("n"),
            endpoints: one("e"),
            targets: one("t"),
            ..Description::default()
        }
    }

    fn check_one(mut outcome: Outcome) -> Result<Outcome, Breach> {
        check(&mut outcome, &description(), &Limits::default()).map(|()| outcome)
    }

    fn breach(outcome: Outcome, code: &str, text: &str) {
        let breach = check_one(outcome).expect_err("a breach");
        assert_eq!(breach.code, code, "{breach:?}");
        assert!(breach.text.contains(text), "{breach:?}");
    }

    fn write(collection: &str, key: &str) -> Outcome {
        let write = Write { collection: collection.to_owned(), key: key.to_owned(), value: None, indexes: Vec::new() };
        Outcome::Translated(Translation { writes: vec![write], ..Translation::default() })
    }

    fn binding(id: &str) -> Outcome {
        let binding = Binding { namespace: "n".to_owned(), key: "k".to_owned(), id: id.to_owned() };
        Outcome::Translated(Translation { bindings: vec![binding], ..Translation::default() })
    }

    fn output(output: Output) -> Outcome {
        Outcome::Translated(Translation { outputs: vec![output], ..Translation::default() })
    }

    #[test]
    fn what_is_described_passes() {
        assert!(check_one(write("w", "k")).is_ok());
        assert!(check_one(binding("0b6e9c1c-2d0d-4f5e-9a44-0d9f6b0a7c11")).is_ok());
        assert!(check_one(output(Output { target: "t".to_owned(), ..Output::default() })).is_ok());
    }

    #[test]
    fn what_is_not_described_is_refused() {
        breach(write("r", "k"), "not-described", "\"r\"");
        breach(output(Output { target: "u".to_owned(), ..Output::default() }), "not-described", "\"u\"");
        let call = Call { endpoint: "x".to_owned(), params: Vec::new(), body: None, lenient: false };
        breach(Outcome::Needs(vec![Request::Call(call)]), "not-described", "endpoints");
        breach(Outcome::Needs(vec![Request::Entry { collection: "w".to_owned(), key: "k".to_owned() }]), "not-described", "reads");
    }

    #[test]
    fn what_a_store_cannot_keep_is_refused() {
        breach(write("w", ""), "invalid-outcome", "is empty");
        breach(write("w", "a\0b"), "invalid-outcome", "zero character");
        breach(write("w", &"k".repeat(1001)), "invalid-outcome", "1001 bytes, at most 1000");
        breach(binding("not-a-uuid"), "invalid-outcome", "\"not-a-uuid\"");
        breach(binding("0b6e9c1c2d0d4f5e9a440d9f6b0a7c11"), "invalid-outcome", "36 characters");
        let version = Some(u64::MAX);
        breach(output(Output { target: "t".to_owned(), version, ..Output::default() }), "invalid-outcome", "version");
    }

    #[test]
    fn a_wait_that_nothing_wakes_is_refused() {
        let on = vec![Request::Id { namespace: "n".to_owned(), key: "k".to_owned() }];
        let wait = Wait { code: "c".to_owned(), on, ..Wait::default() };
        breach(Outcome::Waiting(wait), "invalid-outcome", "wake");
        let wait = Wait { code: "c".to_owned(), timeout_ms: Some(u64::MAX), ..Wait::default() };
        breach(Outcome::Waiting(wait), "invalid-outcome", "hundred years");
    }

    #[test]
    fn limits_name_themselves_and_what_was_used() {
        let needs = (0..65).map(|n| Request::Entry { collection: "r".to_owned(), key: n.to_string() }).collect();
        breach(Outcome::Needs(needs), "needs-limit", "needs_max is 64, used 65");
        let payload = Some(bytes::Bytes::from(vec![0; (8 << 20) + 1]));
        breach(
            output(Output { target: "t".to_owned(), payload, ..Output::default() }),
            "output-limit",
            "output_bytes_max is 8388608 bytes, used 838861",
        );
        breach(Outcome::Needs(Vec::new()), "invalid-outcome", "needs nothing");
    }

    #[test]
    fn texts_for_people_are_made_safe() {
        let dismissal = Dismissal { code: "c".to_owned(), reason: "a\u{1b}b".to_owned(), ..Dismissal::default() };
        match check_one(Outcome::Ignored(dismissal)) {
            Ok(Outcome::Ignored(dismissal)) => assert_eq!(dismissal.reason, "a\\u{1b}b"),
            other => panic!("{other:?}"),
        }
        let fault = Fault { code: "a\nb".to_owned(), ..Fault::default() };
        breach(Outcome::Failed(fault), "invalid-outcome", "printable");
    }
}
