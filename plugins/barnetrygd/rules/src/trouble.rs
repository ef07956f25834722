//! What ends the steps of a recipient without a retry: information for people, which the outgoing message would carry as `feilinfo`.

use serde::Serialize;

use crate::period::Overlap;

/// Whose number was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Role {
    /// The recipient.
    #[serde(rename = "BARNETRYGDMOTTAKER")]
    Recipient,
    /// The owner of a benefit case.
    #[serde(rename = "OMSORGSYTER_BARNETRYGD")]
    BenefitOwner,
    /// The child of a benefit period.
    #[serde(rename = "OMSORGSMOTTAKER_BARNETRYGD")]
    BenefitChild,
    /// The child of a support period.
    #[serde(rename = "OMSORGSMOTTAKER_HJELPESTONAD")]
    SupportChild,
}

/// What is wrong with a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// A sentence for people.
    pub message: String,
    exception_type: &'static str,
    exception_message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ident: Option<String>,
    #[serde(rename = "identRolle", skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(rename = "omsorgsmottaker", skip_serializing_if = "Option::is_none")]
    child: Option<String>,
}

impl Trouble {
    /// A number that belongs to nobody, or to somebody without one current number.
    pub fn ident(ident: &str, role: Role, reason: &str) -> Self {
        let message = "Fant ikke én gjeldende ident".to_owned();
        let known = (Some(ident.to_owned()), Some(role));
        Self { ident: known.0, role: known.1, ..Self::new("UgyldigIdent", message, "PersonOppslagException", reason) }
    }

    /// A child with two periods of benefit in one month.
    pub fn benefit_overlap(overlap: Overlap) -> Self {
        Self::overlap("OverlappendeBarnetrygdperioder", "En måned finnes i flere barnetrygdperioder for samme barn", overlap)
    }

    /// A child with two periods of support in one month.
    pub fn support_overlap(overlap: Overlap) -> Self {
        Self::overlap("OverlappendeHjelpestønadperioder", "En måned finnes i flere hjelpestønadsperioder for samme barn", overlap)
    }

    /// A decision that cannot be true.
    pub fn data(reason: &str) -> Self {
        Self::new("FeilIDatagrunnlag", "Feil i datagrunnlaget".to_owned(), "FeilIDatagrunnlagException", reason)
    }

    fn overlap(kind: &'static str, message: &str, Overlap(child): Overlap) -> Self {
        Self { child: Some(child), ..Self::new(kind, message.to_owned(), "OverlappendePerioderException", message) }
    }

    fn new(kind: &'static str, message: String, exception_type: &'static str, exception_message: &str) -> Self {
        Self { kind, message, exception_type, exception_message: exception_message.to_owned(), ident: None, role: None, child: None }
    }
}
