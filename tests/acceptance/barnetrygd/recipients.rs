//! Recipients in the system's own words: what state each is in, how it came there, how many errors lie behind it.

use serde_json::{Value, json};
use tolk::message::Place;
use tolk::store::MessageStatus;
use uuid::Uuid;

/// A recipient of a case.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// Its delivery.
    pub delivery: String,
    /// Its number.
    pub ident: String,
    /// Its message.
    pub id: Uuid,
    /// Where that stands.
    pub place: Place,
    /// States, oldest first, as they were seen.
    pub history: Vec<&'static str>,
    /// Errors when it was looked at last.
    pub attempts: i32,
}

/// The state of a recipient; `None`: no recipient there, its message was refused.
pub fn word(status: &MessageStatus) -> Option<&'static str> {
    Some(match status.status.as_str() {
        "pending" | "behind" | "held" | "waiting" => "Klar",
        // Ordered to run while nothing runs.
        "retry" if status.code.as_deref() == Some(tolk::store::actions::PAUSED) => "Klar",
        "retry" => "Retry",
        "failed" => "Feilet",
        "handled" => "Ferdig",
        "stopped" => "Stoppet",
        "finished" => "Avsluttet",
        _ => return None,
    })
}

impl Recipient {
    /// Notes the state it is in now, where it has changed.
    pub fn note(&mut self, status: &MessageStatus) {
        let Some(word) = word(status) else { return };
        let erred = word == "Retry" && status.attempts > self.attempts;
        if self.history.last() != Some(&word) || erred {
            self.history.push(word);
        }
        self.attempts = status.attempts;
    }
}

/// A record of the source system.
pub fn record(kind: &str, delivery: &str, ident: Option<&str>, count: usize) -> Value {
    json!({ "meldingstype": kind, "requestId": delivery, "personident": ident, "antallIdenterTotalt": count })
}
