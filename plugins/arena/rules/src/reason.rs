//! The reason rule: why a participation ended, for statuses that end one.

use serde::{Deserialize, Serialize};

use crate::status::{ArenaStatus, Status};

/// Arena's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ArenaReason {
    Henlu,
    Syk,
    Frism,
    Ann,
    Bega,
    Utv,
    Ftoat,
}

impl ArenaReason {
    /// The reason behind a code; codes are case-sensitive, empty text is none of them.
    pub fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "HENLU" => Self::Henlu,
            "SYK" => Self::Syk,
            "FRISM" => Self::Frism,
            "ANN" => Self::Ann,
            "BEGA" => Self::Bega,
            "UTV" => Self::Utv,
            "FTOAT" => Self::Ftoat,
            _ => return None,
        })
    }
}

/// The reason that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    Syk,
    FattJobb,
    TrengerAnnenStotte,
    FikkIkkePlass,
    AvlystKontrakt,
    IkkeMott,
    Annet,
}

/// The reason for a final status.
pub fn decide(code: ArenaStatus, status: Status, reason: Option<ArenaReason>, activity_ended: bool) -> Option<Reason> {
    if !status.is_ending() {
        return None;
    }
    match (code, reason) {
        (ArenaStatus::Ikkem, _) => Some(Reason::IkkeMott),
        (code, _) if activity_ended && code.is_applied() => Some(Reason::FikkIkkePlass),
        (_, Some(ArenaReason::Syk)) => Some(Reason::Syk),
        (_, Some(ArenaReason::Bega)) => Some(Reason::FattJobb),
        (_, Some(ArenaReason::Ftoat)) => Some(Reason::TrengerAnnenStotte),
        (ArenaStatus::Fullf, _) => None,
        (ArenaStatus::GjennAvb | ArenaStatus::GjennAvl, _) => Some(Reason::AvlystKontrakt),
        (ArenaStatus::Avslag, _) => Some(Reason::FikkIkkePlass),
        _ => Some(Reason::Annet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_that_fits_decides() {
        let check = |code: &str, status, reason: &str, ended, expected| {
            let code = ArenaStatus::from_code(code).unwrap();
            assert_eq!(decide(code, status, ArenaReason::from_code(reason), ended), expected, "{code:?} {status:?} {reason} {ended}");
        };
        use Status::{Avbrutt, Deltar, Feilregistrert, Fullfort, HarSluttet, IkkeAktuell, VenterPaOppstart};
        check("GJENN", Deltar, "SYK", false, None);
        check("IKKEM", VenterPaOppstart, "", true, None);
        check("IKKEM", IkkeAktuell, "SYK", true, Some(Reason::IkkeMott));
        for code in ["AKTUELL", "INFOMOETE", "VENTELISTE"] {
            check(code, IkkeAktuell, "SYK", true, Some(Reason::FikkIkkePlass));
            check(code, IkkeAktuell, "SYK", false, Some(Reason::Syk));
        }
        check("FULLF", Fullfort, "SYK", false, Some(Reason::Syk));
        check("DELAVB", Avbrutt, "BEGA", true, Some(Reason::FattJobb));
        check("NEITAKK", IkkeAktuell, "FTOAT", false, Some(Reason::TrengerAnnenStotte));
        check("FULLF", HarSluttet, "ANN", true, None);
        check("GJENN_AVB", Avbrutt, "", false, Some(Reason::AvlystKontrakt));
        check("GJENN_AVL", HarSluttet, "UTV", false, Some(Reason::AvlystKontrakt));
        check("AVSLAG", IkkeAktuell, "HENLU", false, Some(Reason::FikkIkkePlass));
        for reason in ["HENLU", "FRISM", "ANN", "UTV", ""] {
            check("GJENN", HarSluttet, reason, true, Some(Reason::Annet));
        }
        check("FEILREG", Feilregistrert, "", false, Some(Reason::Annet));
    }

    #[test]
    fn codes_are_exact() {
        assert_eq!((ArenaReason::from_code("syk"), ArenaReason::from_code("")), (None, None));
    }
}
