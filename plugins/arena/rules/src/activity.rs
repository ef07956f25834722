//! Rules of activities: which codes are translated, what makes a row valid, what the remote codes mean.

use serde::Deserialize;
use serde_json::Value;
use tolk_sdk::Fault;

use crate::event::{required_id, required_text};
use crate::time::{Date, DateTime};

/// The codes that are translated.
const SUPPORTED: [&str; 12] = [
    "INDOPPFAG",
    "ARBFORB",
    "AVKLARAG",
    "VASV",
    "ARBRRHDAG",
    "DIGIOPPARB",
    "JOBBK",
    "GRUPPEAMO",
    "GRUFAGYRKE",
    "ENKELAMO",
    "ENKFAGYRKE",
    "HOYEREUTD",
];

/// Whether activities of a code are translated.
pub fn is_supported(code: &str) -> bool {
    SUPPORTED.contains(&code)
}

/// Whether an Arena code is of activities for single persons.
pub fn is_single(arena_code: &str) -> bool {
    matches!(arena_code, "ENKELAMO" | "ENKFAGYRKE" | "HOYEREUTD")
}

/// The Arena code behind the remote system's code.
pub fn arena_code(remote: &str) -> Option<&'static str> {
    Some(match remote {
        "ENKELTPLASS_ARBEIDSMARKEDSOPPLAERING" => "ENKELAMO",
        "ENKELTPLASS_FAG_OG_YRKESOPPLAERING" => "ENKFAGYRKE",
        "HOYERE_UTDANNING" => "HOYEREUTD",
        "ARBEIDSFORBEREDENDE_TRENING" => "ARBFORB",
        "ARBEIDSRETTET_REHABILITERING" => "ARBRRHDAG",
        "AVKLARING" => "AVKLARAG",
        "DIGITALT_OPPFOLGINGSTILTAK" => "DIGIOPPARB",
        "JOBBKLUBB" => "JOBBK",
        "OPPFOLGING" => "INDOPPFAG",
        "VARIG_TILRETTELAGT_ARBEID_SKJERMET" => "VASV",
        "GRUPPE_ARBEIDSMARKEDSOPPLAERING"
        | "ARBEIDSMARKEDSOPPLAERING"
        | "NORSKOPPLAERING_GRUNNLEGGENDE_FERDIGHETER_FOV"
        | "STUDIESPESIALISERING" => "GRUPPEAMO",
        "GRUPPE_FAG_OG_YRKESOPPLAERING" | "FAG_OG_YRKESOPPLAERING" | "HOYERE_YRKESFAGLIG_UTDANNING" => "GRUFAGYRKE",
        _ => return None,
    })
}

/// The columns of an activity that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
pub struct ActivityColumns {
    tiltakgjennomforing_id: Option<Value>,
    tiltakskode: Option<Value>,
    sak_id: Option<Value>,
    arbgiv_id_arrangor: Option<Value>,
    lokaltnavn: Option<Value>,
    tiltakstatuskode: Option<Value>,
    dato_fra: Option<Value>,
    dato_til: Option<Value>,
    reg_dato: Option<Value>,
}

/// An activity's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Arena's id.
    pub id: i64,
    /// Its code.
    pub code: String,
    /// Whether participants may refer to it.
    pub is_valid: bool,
}

impl Activity {
    /// Reads a row; one that is not valid is an activity all the same.
    pub fn read(columns: ActivityColumns) -> Result<Self, Fault> {
        let date = |value: &Option<Value>| match value {
            None => true,
            Some(Value::String(text)) => Date::from_row(text).is_some(),
            Some(_) => false,
        };
        let registered = matches!(&columns.reg_dato, Some(Value::String(text)) if DateTime::from_row(text).is_some());
        let present = [&columns.sak_id, &columns.arbgiv_id_arrangor, &columns.lokaltnavn, &columns.tiltakstatuskode];
        let is_valid = present.iter().all(|value| value.is_some()) && date(&columns.dato_fra) && date(&columns.dato_til) && registered;
        Ok(Self {
            id: required_id(columns.tiltakgjennomforing_id.as_ref(), "TILTAKGJENNOMFORING_ID")?,
            code: required_text(columns.tiltakskode, "TILTAKSKODE")?,
            is_valid,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(changes: Value) -> Result<Activity, Fault> {
        let mut row = json!({
            "TILTAKGJENNOMFORING_ID": 5_000_000_000_i64, "TILTAKSKODE": "JOBBK", "SAK_ID": 1, "ARBGIV_ID_ARRANGOR": 2, "LOKALTNAVN": "n",
            "TILTAKSTATUSKODE": "s", "DATO_FRA": null, "REG_DATO": "2030-01-01 00:00:00", "DATO_SVARFRIST": "STRING_NOT_SET",
        });
        for (key, value) in changes.as_object().unwrap() {
            row[key] = value.clone();
        }
        Activity::read(serde_json::from_value(row).unwrap())
    }

    #[test]
    fn validity_needs_four_values_and_dates_that_parse() {
        let valid = |changes| read(changes).unwrap().is_valid;
        assert!(valid(json!({})));
        assert!(valid(json!({ "DATO_FRA": "2030-02-31 00:00:00", "DATO_TIL": "2030-12-31 24:00:00", "LOKALTNAVN": "" })));
        for field in ["SAK_ID", "ARBGIV_ID_ARRANGOR", "LOKALTNAVN", "TILTAKSTATUSKODE", "REG_DATO"] {
            assert!(!valid(json!({ field: null })), "{field}");
        }
        for field in ["DATO_FRA", "DATO_TIL", "REG_DATO"] {
            assert!(!valid(json!({ field: "2030-01-01" })), "{field}");
            assert!(!valid(json!({ field: "" })), "{field}");
        }
    }

    #[test]
    fn the_id_may_be_absent_but_not_the_code() {
        assert_eq!(read(json!({ "TILTAKGJENNOMFORING_ID": null })).unwrap().id, 0);
        assert_eq!(read(json!({})).unwrap().id, 5_000_000_000);
        assert_eq!(read(json!({ "TILTAKSKODE": null })).unwrap_err().code, "missing-field");
    }

    #[test]
    fn every_remote_code_leads_to_a_supported_one() {
        let remote = ["OPPFOLGING", "HOYERE_UTDANNING", "STUDIESPESIALISERING", "FAG_OG_YRKESOPPLAERING", "AVKLARING"];
        let codes = remote.map(|code| arena_code(code).unwrap());
        assert_eq!(codes, ["INDOPPFAG", "HOYEREUTD", "GRUPPEAMO", "GRUFAGYRKE", "AVKLARAG"]);
        assert!(codes.iter().all(|code| is_supported(code)));
        assert_eq!(arena_code("TILPASSET_JOBBSTOTTE"), None);
        assert_eq!(SUPPORTED.map(is_single).iter().filter(|single| **single).count(), 3);
        assert!(!is_supported("jobbk"));
    }
}
