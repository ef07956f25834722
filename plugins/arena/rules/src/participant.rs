//! Rows of participants and hist participants: what is read of them, and what makes them valid.

use serde::Deserialize;
use serde_json::{Number, Value};
use tolk_sdk::{Fault, Outcome};

use crate::event::{optional_decimal, optional_id, optional_text, required_id, required_text};
use crate::reason::ArenaReason;
use crate::status::ArenaStatus;
use crate::time::{Date, DateTime};

/// The columns that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
pub struct ParticipantColumns {
    tiltakdeltaker_id: Option<Value>,
    hist_tiltakdeltaker_id: Option<Value>,
    tiltakgjennomforing_id: Option<Value>,
    person_id: Option<Value>,
    ekstern_id: Option<Value>,
    deltakertypekode: Option<Value>,
    dato_fra: Option<Value>,
    dato_til: Option<Value>,
    dato_statusendring: Option<Value>,
    reg_dato: Option<Value>,
    deltakerstatuskode: Option<Value>,
    aarsakverdikode_status: Option<Value>,
    antall_dager_pr_uke: Option<Value>,
    prosent_deltid: Option<Value>,
    begrunnelse_bestilling: Option<Value>,
}

/// Which of the two tables a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A participant.
    Live,
    /// A hist participant.
    Hist,
}

/// A row, read but not judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Participant {
    /// Of which table.
    pub kind: Kind,
    /// Its own id; 0 where there is none.
    pub arena_id: i64,
    /// The activity; 0 where there is none.
    pub activity_id: i64,
    /// The id that another system gave it; never empty.
    pub external_id: Option<String>,
    /// Whether its type says that it is of another system.
    pub is_external_type: bool,
    /// Days a week.
    pub days_per_week: Option<Number>,
    /// Percent of full time.
    pub percent: Option<Number>,
    /// Why it was ordered.
    pub order_reason: Option<String>,
    /// Arena's code, as it stands.
    pub status_code: String,
    person_id: Option<i64>,
    start: Option<String>,
    end: Option<String>,
    changed: Option<String>,
    registered: String,
    reason_code: Option<String>,
}

/// What a valid row holds beyond [`Participant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Valid {
    /// Arena's person.
    pub person_id: i64,
    /// The first day.
    pub start: Option<Date>,
    /// The last day.
    pub end: Option<Date>,
    /// When the status changed.
    pub changed: Option<DateTime>,
    /// When it was registered.
    pub registered: DateTime,
    /// Arena's status.
    pub status: ArenaStatus,
    /// Arena's reason.
    pub reason: Option<ArenaReason>,
}

impl Participant {
    /// Reads a row.
    pub fn read(columns: ParticipantColumns, kind: Kind) -> Result<Self, Fault> {
        let own = match kind {
            Kind::Live => &columns.tiltakdeltaker_id,
            Kind::Hist => &columns.hist_tiltakdeltaker_id,
        };
        Ok(Self {
            kind,
            arena_id: required_id(own.as_ref(), own_id_field(kind))?,
            activity_id: required_id(columns.tiltakgjennomforing_id.as_ref(), "TILTAKGJENNOMFORING_ID")?,
            person_id: optional_id(columns.person_id.as_ref(), "PERSON_ID")?,
            external_id: optional_text(columns.ekstern_id, "EKSTERN_ID")?.filter(|id| !id.is_empty()),
            is_external_type: columns.deltakertypekode.is_some_and(|code| code == "EKSTERN"),
            start: optional_text(columns.dato_fra, "DATO_FRA")?,
            end: optional_text(columns.dato_til, "DATO_TIL")?,
            changed: optional_text(columns.dato_statusendring, "DATO_STATUSENDRING")?,
            registered: required_text(columns.reg_dato, "REG_DATO")?,
            status_code: required_text(columns.deltakerstatuskode, "DELTAKERSTATUSKODE")?,
            reason_code: optional_text(columns.aarsakverdikode_status, "AARSAKVERDIKODE_STATUS")?,
            days_per_week: optional_decimal(columns.antall_dager_pr_uke, "ANTALL_DAGER_PR_UKE")?,
            percent: optional_decimal(columns.prosent_deltid, "PROSENT_DELTID")?,
            order_reason: optional_text(columns.begrunnelse_bestilling, "BEGRUNNELSE_BESTILLING")?,
        })
    }

    /// Whether another system owns it, by what the row itself says.
    pub fn is_external(&self) -> bool {
        self.external_id.is_some() || self.is_external_type
    }

    /// Judges the row; the first check that fails decides.
    pub fn validate(&self) -> Result<Valid, Fault> {
        let invalid = |code: &str, field: &str, text: String| Outcome::rejected(code, text).field(field);
        let own = own_id_field(self.kind);
        if self.arena_id == 0 {
            return Err(invalid("own-id-zero", own, format!("{own} er 0")));
        }
        if self.activity_id == 0 {
            let field = "TILTAKGJENNOMFORING_ID";
            return Err(invalid("activity-id-zero", field, format!("{field} er 0")));
        }
        let Some(person_id) = self.person_id else {
            return Err(invalid("person-id-null", "PERSON_ID", "PERSON_ID er null".to_owned()));
        };
        let start = parsed(self.start.as_deref(), "DATO_FRA", "LocalDate", Date::from_row)?;
        let end = parsed(self.end.as_deref(), "DATO_TIL", "LocalDate", Date::from_row)?;
        let Some(status) = ArenaStatus::from_code(&self.status_code) else {
            let text = format!("Ukjent DELTAKERSTATUSKODE {}", self.status_code);
            return Err(Outcome::failed("unknown-status-code", text).field("DELTAKERSTATUSKODE"));
        };
        let changed = parsed(self.changed.as_deref(), "DATO_STATUSENDRING", "LocalDateTime", DateTime::from_row)?;
        let reason = match &self.reason_code {
            None => None,
            Some(code) => Some(ArenaReason::from_code(code).ok_or_else(|| {
                Outcome::failed("unknown-reason-code", format!("Ukjent AARSAKVERDIKODE_STATUS {code}")).field("AARSAKVERDIKODE_STATUS")
            })?),
        };
        let registered = DateTime::from_row(&self.registered).ok_or_else(|| bad_date("REG_DATO", "LocalDateTime", &self.registered))?;
        Ok(Valid { person_id, start, end, changed, registered, status, reason })
    }
}

fn own_id_field(kind: Kind) -> &'static str {
    match kind {
        Kind::Live => "TILTAKDELTAKER_ID",
        Kind::Hist => "HIST_TILTAKDELTAKER_ID",
    }
}

fn parsed<T>(text: Option<&str>, field: &str, java_type: &str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Fault> {
    text.map(|text| parse(text).ok_or_else(|| bad_date(field, java_type, text))).transpose()
}

fn bad_date(field: &str, java_type: &str, value: &str) -> Fault {
    Outcome::rejected("bad-date", format!("{field} kan ikke parses til {java_type} ({value})")).field(field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tolk_sdk::FaultKind;

    use super::*;

    fn read(kind: Kind, changes: Value) -> Result<Participant, Fault> {
        let mut row = json!({
            "TILTAKDELTAKER_ID": 11, "HIST_TILTAKDELTAKER_ID": 12, "TILTAKGJENNOMFORING_ID": 13, "PERSON_ID": 14,
            "DELTAKERSTATUSKODE": "GJENN", "REG_DATO": "2030-01-02 03:04:05", "MOD_DATO": "STRING_NOT_SET",
        });
        for (key, value) in changes.as_object().unwrap() {
            row[key] = value.clone();
        }
        Participant::read(serde_json::from_value(row).unwrap(), kind)
    }

    fn judge(kind: Kind, changes: Value) -> (String, String) {
        let fault = read(kind, changes).unwrap().validate().unwrap_err();
        (fault.code, fault.message)
    }

    #[test]
    fn the_first_failing_check_decides() {
        // All is wrong; then one row of the table after the other is mended.
        let mut row = json!({
            "TILTAKDELTAKER_ID": null, "TILTAKGJENNOMFORING_ID": 0, "PERSON_ID": null, "DATO_FRA": "x", "DATO_TIL": "y",
            "DELTAKERSTATUSKODE": "gjenn", "DATO_STATUSENDRING": "z", "AARSAKVERDIKODE_STATUS": "", "REG_DATO": "2030-01-01",
        });
        let mut mend = |field: &str, value: Value, code: &str, text: &str| {
            let (found, message) = judge(Kind::Live, row.clone());
            assert_eq!((found.as_str(), message.as_str()), (code, text));
            row[field] = value;
        };
        mend("TILTAKDELTAKER_ID", json!("1"), "own-id-zero", "TILTAKDELTAKER_ID er 0");
        mend("TILTAKGJENNOMFORING_ID", json!(2), "activity-id-zero", "TILTAKGJENNOMFORING_ID er 0");
        mend("PERSON_ID", json!(3), "person-id-null", "PERSON_ID er null");
        mend("DATO_FRA", json!("2030-02-31 00:00:00"), "bad-date", "DATO_FRA kan ikke parses til LocalDate (x)");
        mend("DATO_TIL", Value::Null, "bad-date", "DATO_TIL kan ikke parses til LocalDate (y)");
        mend("DELTAKERSTATUSKODE", json!("TILBUD"), "unknown-status-code", "Ukjent DELTAKERSTATUSKODE gjenn");
        mend("DATO_STATUSENDRING", Value::Null, "bad-date", "DATO_STATUSENDRING kan ikke parses til LocalDateTime (z)");
        mend("AARSAKVERDIKODE_STATUS", json!("UTV"), "unknown-reason-code", "Ukjent AARSAKVERDIKODE_STATUS ");
        mend("REG_DATO", json!("2030-01-01 24:00:00"), "bad-date", "REG_DATO kan ikke parses til LocalDateTime (2030-01-01)");
        let valid = read(Kind::Live, row).unwrap().validate().unwrap();
        assert_eq!((valid.person_id, valid.reason, valid.status), (3, Some(ArenaReason::Utv), ArenaStatus::Tilbud));
        assert_eq!(valid.start.unwrap().to_string(), "2030-02-28");
        assert_eq!(valid.registered.to_string(), "2030-01-02T00:00:00");
    }

    #[test]
    fn unknown_codes_are_for_a_person_to_decide() {
        let fault = |changes| read(Kind::Live, changes).unwrap().validate().unwrap_err().kind;
        assert_eq!(fault(json!({ "DELTAKERSTATUSKODE": "NY" })), FaultKind::Failed);
        assert_eq!(fault(json!({ "AARSAKVERDIKODE_STATUS": "NY" })), FaultKind::Failed);
        assert_eq!(fault(json!({ "DATO_FRA": "" })), FaultKind::Rejected);
    }

    #[test]
    fn a_hist_row_has_an_id_of_its_own() {
        assert_eq!(read(Kind::Hist, json!({})).unwrap().arena_id, 12);
        let (code, text) = judge(Kind::Hist, json!({ "HIST_TILTAKDELTAKER_ID": null }));
        assert_eq!((code.as_str(), text.as_str()), ("own-id-zero", "HIST_TILTAKDELTAKER_ID er 0"));
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_said() {
        for field in ["DELTAKERSTATUSKODE", "REG_DATO"] {
            assert_eq!(read(Kind::Live, json!({ field: null })).unwrap_err().code, "missing-field");
        }
        assert_eq!(read(Kind::Live, json!({ "PERSON_ID": "x" })).unwrap_err().code, "bad-number");
    }

    #[test]
    fn external_is_an_id_that_is_not_empty_or_the_type() {
        let external = |changes| read(Kind::Live, changes).unwrap().is_external();
        assert!(!external(json!({ "EKSTERN_ID": "", "DELTAKERTYPEKODE": "INNSOKT" })));
        assert!(!external(json!({ "DELTAKERTYPEKODE": "ekstern" })));
        assert!(external(json!({ "EKSTERN_ID": "e" })));
        assert!(external(json!({ "EKSTERN_ID": "", "DELTAKERTYPEKODE": "EKSTERN" })));
    }
}
