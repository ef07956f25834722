//! What the translators remember between messages: activities, and participants that hist rows are matched with.

use serde::{Deserialize, Serialize};
use tolk_sdk::{Scan, Write};

use crate::names::collection;
use crate::time::{Date, DateTime};

/// What is known of an activity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityState {
    /// The code of its first message.
    pub tiltak_kode: String,
    /// Whether its newest row was valid.
    pub is_valid: bool,
    /// Its remote uuid, once known.
    #[serde(default)]
    pub id: Option<String>,
}

impl ActivityState {
    /// The change of the entry.
    pub fn write(&self, activity_id: i64) -> Write {
        Write::set(collection::ACTIVITY, activity_id, json(self))
    }
}

/// What is known of a participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantState {
    /// Arena's person.
    pub person_id: i64,
    /// Arena's activity.
    pub gjennomforing_id: i64,
    /// The first day.
    #[serde(default)]
    pub dato_fra: Option<Date>,
    /// The last day.
    #[serde(default)]
    pub dato_til: Option<Date>,
    /// When the participant was registered.
    #[serde(default)]
    pub reg_dato: Option<DateTime>,
    /// Arena's code, or FEILREGISTRERT after a deletion.
    pub status: String,
    /// When the status changed.
    #[serde(default)]
    pub dato_statusendring: Option<DateTime>,
    /// The id of another system; participants of other systems are not stored, so none so far.
    #[serde(default)]
    pub ekstern_id: Option<String>,
}

impl ParticipantState {
    /// The change of the entry, indexed for matching.
    pub fn write(&self, arena_id: i64) -> Write {
        let value = Self::index_value(self.person_id, self.gjennomforing_id);
        Write::set(collection::PARTICIPANT, arena_id, json(self)).index(collection::BY_PERSON_AND_ACTIVITY, value)
    }

    /// The participants of a person on an activity.
    pub fn scan(person_id: i64, activity_id: i64) -> Scan {
        Scan::new(collection::PARTICIPANT).index(collection::BY_PERSON_AND_ACTIVITY, Self::index_value(person_id, activity_id))
    }

    /// The mark at the end keeps activity 12 apart from activity 123: scans go by the start of a value.
    fn index_value(person_id: i64, activity_id: i64) -> String {
        format!("{person_id}/{activity_id}/")
    }
}

fn json(state: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(state).expect("texts, numbers and truth values are always JSON")
}
