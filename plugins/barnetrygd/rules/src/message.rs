//! What comes of a recipient: the message that goes out, or what is kept of one that nothing goes out for.

use serde::Serialize;
use serde_json::json;
use tolk_sdk::{Message, Outcome, Output, Translation, Write};

use crate::call::Calls;
use crate::entry::Entry;
use crate::names::{BY_DELIVERY, BY_TROUBLE, INFORMATION, NOT_SENT, TARGET};
use crate::raw::Raw;
use crate::trouble::Trouble;

/// The form of the message and of what is kept; exactly one of the two lists of a message that is sent has elements.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Form<'r> {
    omsorgsyter: &'r str,
    persongrunnlag: &'r [Entry],
    feilinfo: &'r [Trouble],
    #[serde(rename = "rådata")]
    raw: &'r [Raw],
    innlesing_id: &'r str,
    correlation_id: &'r str,
}

/// A recipient whose number is known, completed or given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The recipient's current number.
    pub ident: String,
    /// An entry for each owner.
    pub entries: Vec<Entry>,
    /// What ended the steps early.
    pub trouble: Option<Trouble>,
    /// Raw answers.
    pub raw: Vec<Raw>,
}

impl Completed {
    /// The message, where there is at least one case and no trouble; else what is kept and never sent.
    pub fn translation(mut self, message: &Message, calls: &Calls<'_>) -> Translation {
        self.entries.iter_mut().for_each(Entry::sort);
        if self.trouble.is_none() && !self.entries.is_empty() {
            let key = json!({ "ident": self.ident }).to_string();
            return Outcome::handled().output(Output::put(TARGET, key, self.form(calls)));
        }
        let kind = self.trouble.as_ref().map_or("IngenSaker", |trouble| trouble.kind);
        let kept = Write::set(INFORMATION, &message.id, self.form(calls));
        let kept = kept.index(BY_DELIVERY, format!("{}/", calls.delivery)).index(BY_TROUBLE, format!("{kind}/"));
        Outcome::handled().write(kept).note(NOT_SENT)
    }

    fn form(&self, calls: &Calls<'_>) -> String {
        let form = Form {
            omsorgsyter: &self.ident,
            persongrunnlag: &self.entries,
            feilinfo: self.trouble.as_slice(),
            raw: &self.raw,
            innlesing_id: calls.delivery,
            correlation_id: calls.correlation,
        };
        serde_json::to_string(&form).expect("texts, numbers and lists are JSON")
    }
}
