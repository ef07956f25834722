//! The support decisions of an identity number: what is read of the answer, and the periods of care they become.

use serde::{Deserialize, Serialize};
use tolk_sdk::Response;

use crate::month::{Month, Window};
use crate::period::{Period, Source};
use crate::raw;

/// What is known of a period of support beside child and months.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Support {
    /// Its rate.
    #[serde(rename = "omsorgstype")]
    pub rate: Rate,
    /// Where the decision stands: always the old system.
    #[serde(rename = "kilde")]
    pub source: Source,
}

/// The rate of a support; written as a type of care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rate {
    /// Rate 3.
    #[serde(rename(deserialize = "FORHØYET_SATS_3", serialize = "HJELPESTØNAD_FORHØYET_SATS_3"))]
    Three,
    /// Rate 4.
    #[serde(rename(deserialize = "FORHØYET_SATS_4", serialize = "HJELPESTØNAD_FORHØYET_SATS_4"))]
    Four,
}

/// A decision as the remote system writes it.
#[derive(Clone, Debug, Deserialize)]
pub struct Decision {
    ident: String,
    fom: Month,
    tom: Option<Month>,
    omsorgstype: Rate,
}

/// The decisions of an answer, or why the attempt failed. An empty body says that there is none, as `[]` does.
pub fn read(response: &Response) -> Result<Vec<Decision>, String> {
    if response.status != 200 {
        return Err(format!("hjelpestonad answered with status {}: {}", response.status, raw::text(response)));
    }
    if response.body.is_empty() {
        return Ok(Vec::new());
    }
    response.json().map_err(|error| format!("hjelpestonad: {error}"))
}

impl Decision {
    /// What the window leaves of it.
    pub fn map(&self, window: Window) -> Option<Period<Support>> {
        let (fom, tom) = window.cut(self.fom, self.tom);
        let kind = Support { rate: self.omsorgstype, source: Source::Infotrygd };
        (fom <= tom).then(|| Period { fom, tom, child: self.ident.clone(), kind })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mapped(decision: Value) -> Option<Value> {
        let decisions = read(&Response::new(200, json!([decision]).to_string())).unwrap();
        decisions[0].map(Window::new(2020)).map(|period| serde_json::to_value(period).unwrap())
    }

    #[test]
    fn decisions_are_cut_to_the_window() {
        let of =
            |fom: &str, tom: Value| mapped(json!({ "id": "1", "ident": "5", "fom": fom, "tom": tom, "omsorgstype": "FORHØYET_SATS_4" }));
        let whole = json!({
            "fom": "2020-01", "tom": "2021-12", "omsorgsmottaker": "5", "omsorgstype": "HJELPESTØNAD_FORHØYET_SATS_4", "kilde": "INFOTRYGD",
        });
        assert_eq!(of("2019-06", json!(null)), Some(whole));
        assert_eq!(of("2020-06", json!("2020-06")).map(|period| period["tom"].clone()), Some(json!("2020-06")));
        for (fom, tom) in [("2022-01", json!(null)), ("2010-01", json!("2019-12")), ("2020-06", json!("2020-05"))] {
            assert_eq!(of(fom, tom), None);
        }
    }

    #[test]
    fn an_answer_is_a_list_or_an_error() {
        for none in ["[]", ""] {
            assert_eq!(read(&Response::new(200, none)).unwrap().len(), 0);
        }
        let numbered = r#"[{"id":7,"ident":"5","fom":"2020-01","omsorgstype":"FORHØYET_SATS_3","more":1}]"#;
        assert_eq!(read(&Response::new(200, numbered)).unwrap().len(), 1);
        for body in ["{}", "null", "<html>", r#"[{"id":7,"ident":"5","fom":"2020-01","omsorgstype":"FORHØYET_SATS_5"}]"#] {
            assert!(read(&Response::new(200, body)).is_err(), "{body}");
        }
        for (status, body) in [(500, ""), (500, "[]"), (404, "[]"), (202, "[]")] {
            assert!(read(&Response::new(status, body)).unwrap_err().contains(&status.to_string()));
        }
    }
}
