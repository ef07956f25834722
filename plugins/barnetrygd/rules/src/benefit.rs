//! The benefit cases of an identity number: what is read of the answer, and the periods of care they become.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tolk_sdk::Response;

use crate::entry::Entry;
use crate::month::{Month, Window};
use crate::period::{Period, Source};
use crate::raw;

/// What is known of a period of benefit beside child and months.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Benefit {
    /// The owner's part.
    #[serde(rename = "omsorgstype")]
    pub share: Share,
    /// Where the decision stands.
    #[serde(rename = "kilde")]
    pub source: Source,
    /// What is paid a month.
    #[serde(rename = "utbetalt")]
    pub paid: i64,
    /// Which countries have a part in it.
    #[serde(rename = "landstilknytning")]
    pub country: Country,
}

/// The owner's part of a benefit; written as a type of care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// All of it.
    #[serde(rename(deserialize = "FULL", serialize = "FULL_BARNETRYGD"))]
    Full,
    /// Half.
    #[serde(rename(deserialize = "DELT", serialize = "DELT_BARNETRYGD"))]
    Shared,
    /// Nobody knows.
    #[serde(rename(deserialize = "USIKKER", serialize = "USIKKER_BARNETRYGD"))]
    Unsure,
}

/// Which countries have a part in a benefit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Country {
    /// Norway alone.
    #[serde(rename = "NORGE")]
    Norge,
    /// Norway is the second and pays nothing.
    #[serde(rename = "EØS_NORGE_SEKUNDÆR")]
    NorwaySecond,
    /// Nobody knows which is the first.
    #[serde(rename = "EØS_UKJENT_PRIMÆR_OG_SEKUNDÆR_LAND")]
    Unknown,
}

/// A case as the remote system writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    #[serde(rename = "fagsakEiersIdent")]
    owner: String,
    #[serde(rename = "barnetrygdPerioder")]
    periods: Vec<CasePeriod>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CasePeriod {
    person_ident: String,
    delingsprosent_ytelse: Share,
    ytelse_type_ekstern: Kind,
    utbetalt_per_mnd: i64,
    #[serde(rename = "stønadFom")]
    from: Month,
    #[serde(rename = "stønadTom")]
    to: Option<Month>,
    sakstype_ekstern: CaseKind,
    kildesystem: System,
    #[serde(rename = "norgeErSekundærlandMedNullUtbetaling")]
    norway_second: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Kind {
    #[serde(rename = "ORDINÆR_BARNETRYGD")]
    Ordinary,
    #[serde(rename = "UTVIDET_BARNETRYGD")]
    Extended,
    #[serde(rename = "SMÅBARNSTILLEGG")]
    Infants,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum CaseKind {
    #[serde(rename = "NASJONAL")]
    National,
    #[serde(rename = "EØS")]
    Eea,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum System {
    #[serde(rename = "BA")]
    New,
    Infotrygd,
}

/// Why a case gives no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The attempt failed.
    Error(String),
    /// The decision cannot be true, and will stay so.
    Impossible(String),
}

/// The cases of an answer, or why the attempt failed, with status and body where the remote system refused.
pub fn read(response: &Response) -> Result<Vec<Case>, String> {
    if response.status != 200 {
        return Err(format!("hent-barnetrygd answered with status {}: {}", response.status, raw::text(response)));
    }
    let body: Value = response.json().map_err(|error| format!("hent-barnetrygd: {error}"))?;
    if !body.is_object() {
        return Err("hent-barnetrygd: the answer is no object".to_owned());
    }
    if body["fagsaker"].is_null() {
        return Err("Liste med barnetrygdsaker mangler".to_owned());
    }
    cases(&body["fagsaker"])
}

/// The cases of a list.
pub fn cases(list: &Value) -> Result<Vec<Case>, String> {
    Vec::<Case>::deserialize(list).map_err(|error| format!("hent-barnetrygd: fagsaker cannot be read: {error}"))
}

impl Case {
    /// The case's periods within the window. Neither merged nor checked.
    pub fn map(&self, window: Window) -> Result<Entry, Refused> {
        let kept = self.periods.iter().filter(|period| period.counts(&self.owner, window));
        let benefits = kept.map(|period| period.map(window)).collect::<Result<_, _>>()?;
        Ok(Entry { owner: self.owner.clone(), benefits, supports: Vec::new() })
    }
}

impl CasePeriod {
    fn counts(&self, owner: &str, window: Window) -> bool {
        let for_owner = match self.ytelse_type_ekstern {
            Kind::Ordinary => false,
            // To the owner it is paid for being alone, not for a child.
            Kind::Extended => self.person_ident == owner,
            Kind::Infants => true,
        };
        !for_owner && window.touches(self.from, self.to)
    }

    fn map(&self, window: Window) -> Result<Period<Benefit>, Refused> {
        let (fom, tom) = window.cut(self.from, self.to);
        if fom > tom {
            let to = self.to.map(|to| to.to_string()).unwrap_or_default();
            return Err(Refused::Impossible(format!("stønadTom {to} is before stønadFom {}", self.from)));
        }
        let country = match (self.sakstype_ekstern, self.norway_second) {
            (CaseKind::National, _) => Country::Norge,
            (CaseKind::Eea, Some(true)) if self.utbetalt_per_mnd == 0 => Country::NorwaySecond,
            (CaseKind::Eea, Some(true)) => {
                return Err(Refused::Error("norgeErSekundærlandMedNullUtbetaling although utbetaltPerMnd is not 0".to_owned()));
            }
            (CaseKind::Eea, _) => Country::Unknown,
        };
        let source = match self.kildesystem {
            System::New => Source::Barnetrygd,
            System::Infotrygd => Source::Infotrygd,
        };
        let kind = Benefit { share: self.delingsprosent_ytelse, source, paid: self.utbetalt_per_mnd, country };
        Ok(Period { fom, tom, child: self.person_ident.clone(), kind })
    }
}

#[cfg(test)]
mod tests;
