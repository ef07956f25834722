//! What is published: a participant, its envelope, and where both go.

use serde::Serialize;
use serde_json::Number;
use tolk_sdk::{Context, Message, Output};

use crate::event::Operation;
use crate::names::target;
use crate::participant::{Kind, Participant, Valid};
use crate::reason::{self, Reason};
use crate::remote::RemoteActivity;
use crate::status::{self, Situation, Status};
use crate::time::{Date, DateTime};

/// A participant as it is published; every field is written, null as null.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload<'a> {
    /// The amt uuid.
    pub id: &'a str,
    /// The activity's remote id.
    pub gjennomforing_id: &'a str,
    /// The national identity number.
    pub person_ident: &'a str,
    /// The first day.
    pub start_dato: Option<Date>,
    /// The last day.
    pub slutt_dato: Option<Date>,
    /// The status.
    pub status: Status,
    /// Why it ended.
    pub status_aarsak: Option<Reason>,
    /// Days a week.
    pub dager_per_uke: Option<&'a Number>,
    /// Percent of full time.
    pub prosent_deltid: Option<&'a Number>,
    /// When it was registered.
    pub registrert_dato: DateTime,
    /// When the status began to hold.
    pub status_endret_dato: Option<DateTime>,
    /// Why it was ordered.
    pub innsok_begrunnelse: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    transaction_id: &'a str,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    operation: &'static str,
    payload: &'a Payload<'a>,
}

impl<'a> Payload<'a> {
    /// Computes what is published of a valid row.
    pub fn of(row: &'a Participant, valid: &Valid, activity: &'a RemoteActivity, id: &'a str, person_ident: &'a str, today: Date) -> Self {
        let situation = Situation {
            code: valid.status,
            start: valid.start,
            end: valid.end,
            changed: valid.changed,
            registered: valid.registered,
            // The remote answer holds neither end nor status of an activity any more; the rules keep their place for both.
            activity_end: None,
            activity_ended: false,
            activity_status: None,
            single: activity.single,
            course: activity.course,
            today,
        };
        let (status, status_endret_dato) = status::decide(&situation);
        let order_reason = row.order_reason.as_deref();
        Self {
            id,
            gjennomforing_id: &activity.id,
            person_ident,
            start_dato: valid.start,
            slutt_dato: valid.end,
            status,
            status_aarsak: reason::decide(valid.status, status, valid.reason, situation.activity_ended),
            dager_per_uke: row.days_per_week.as_ref(),
            prosent_deltid: row.percent.as_ref(),
            registrert_dato: valid.registered,
            status_endret_dato,
            innsok_begrunnelse: match row.kind {
                Kind::Live => Some(order_reason.unwrap_or_default()),
                Kind::Hist => order_reason,
            },
        }
    }

    /// The same participant after its deletion: registered by mistake.
    pub fn deleted(self) -> Self {
        Self {
            status: Status::Feilregistrert,
            status_aarsak: None,
            dager_per_uke: None,
            prosent_deltid: None,
            innsok_begrunnelse: None,
            ..self
        }
    }

    /// The bare participant, for activities of single persons.
    pub fn bare(&self) -> Output {
        Output::put(target::SINGLE, self.id, json(self))
    }

    /// The participant in its envelope.
    pub fn enveloped(&self, operation: Operation, message: &Message, ctx: &Context) -> Output {
        let envelope = Envelope {
            // The message's own id is unique per transaction and the same on every re-run.
            transaction_id: &message.id,
            source: "AMT_ARENA_ACL",
            kind: "DELTAKER",
            timestamp: ctx.now().local().to_string(),
            operation: operation.as_str(),
            payload: self,
        };
        Output::put(target::AMT_TILTAK, self.id, json(&envelope))
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers are always JSON")
}
