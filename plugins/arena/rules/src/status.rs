//! The status rule: an Arena code, some dates and facts of the activity become a status and the time it holds from.

use serde::{Deserialize, Serialize};

use crate::time::{Date, DateTime};

/// Arena's status of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ArenaStatus {
    Aktuell,
    Infomoete,
    Venteliste,
    Feilreg,
    Gjenn,
    Tilbud,
    Jatakk,
    Delavb,
    Fullf,
    GjennAvb,
    GjennAvl,
    Ikkem,
    Ikkaktuell,
    Avslag,
    Neitakk,
}

/// What the codes have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Applied,
    Wrong,
    Running,
    Finishing,
    NotRelevant,
}

impl ArenaStatus {
    /// The status behind a code; codes are case-sensitive.
    pub fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "AKTUELL" => Self::Aktuell,
            "INFOMOETE" => Self::Infomoete,
            "VENTELISTE" => Self::Venteliste,
            "FEILREG" => Self::Feilreg,
            "GJENN" => Self::Gjenn,
            "TILBUD" => Self::Tilbud,
            "JATAKK" => Self::Jatakk,
            "DELAVB" => Self::Delavb,
            "FULLF" => Self::Fullf,
            "GJENN_AVB" => Self::GjennAvb,
            "GJENN_AVL" => Self::GjennAvl,
            "IKKEM" => Self::Ikkem,
            "IKKAKTUELL" => Self::Ikkaktuell,
            "AVSLAG" => Self::Avslag,
            "NEITAKK" => Self::Neitakk,
            _ => return None,
        })
    }

    /// Whether the person has only applied.
    pub fn is_applied(self) -> bool {
        self.class() == Class::Applied
    }

    fn class(self) -> Class {
        match self {
            Self::Aktuell | Self::Infomoete | Self::Venteliste => Class::Applied,
            Self::Feilreg => Class::Wrong,
            Self::Gjenn | Self::Tilbud | Self::Jatakk => Class::Running,
            Self::Delavb | Self::Fullf | Self::GjennAvb | Self::GjennAvl | Self::Ikkem => Class::Finishing,
            Self::Ikkaktuell | Self::Avslag | Self::Neitakk => Class::NotRelevant,
        }
    }
}

/// The status that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    VenterPaOppstart,
    Deltar,
    HarSluttet,
    IkkeAktuell,
    Feilregistrert,
    PabegyntRegistrering,
    SoktInn,
    Vurderes,
    Venteliste,
    Avbrutt,
    Fullfort,
}

impl Status {
    /// Whether nothing comes after it.
    pub fn is_ending(self) -> bool {
        matches!(self, Self::IkkeAktuell | Self::HarSluttet | Self::Feilregistrert | Self::Avbrutt | Self::Fullfort)
    }

    /// The word that is published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VenterPaOppstart => "VENTER_PA_OPPSTART",
            Self::Deltar => "DELTAR",
            Self::HarSluttet => "HAR_SLUTTET",
            Self::IkkeAktuell => "IKKE_AKTUELL",
            Self::Feilregistrert => "FEILREGISTRERT",
            Self::PabegyntRegistrering => "PABEGYNT_REGISTRERING",
            Self::SoktInn => "SOKT_INN",
            Self::Vurderes => "VURDERES",
            Self::Venteliste => "VENTELISTE",
            Self::Avbrutt => "AVBRUTT",
            Self::Fullfort => "FULLFORT",
        }
    }
}

/// The remote status of an activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ActivityStatus {
    Gjennomfores,
    Avbrutt,
    Avlyst,
    Avsluttet,
}

/// All that the rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Arena's status.
    pub code: ArenaStatus,
    /// The participation's first day.
    pub start: Option<Date>,
    /// Its last day.
    pub end: Option<Date>,
    /// When Arena's status changed.
    pub changed: Option<DateTime>,
    /// When the participant was registered.
    pub registered: DateTime,
    /// The activity's last day.
    pub activity_end: Option<Date>,
    /// Whether the activity has ended, independent of its status.
    pub activity_ended: bool,
    /// The activity's remote status.
    pub activity_status: Option<ActivityStatus>,
    /// Whether the activity is for single persons.
    pub single: bool,
    /// Whether taking part has an approved course.
    pub course: bool,
    /// The day of the attempt.
    pub today: Date,
}

/// The status and the time it holds from.
pub fn decide(situation: &Situation) -> (Status, Option<DateTime>) {
    let decided = by_code(situation);
    let still_running =
        situation.single && situation.activity_status == Some(ActivityStatus::Avsluttet) && situation.code == ArenaStatus::Gjenn;
    if situation.activity_ended && !decided.0.is_ending() && !still_running {
        return (Status::IkkeAktuell, situation.changed);
    }
    decided
}

/// The decision before the end of the activity is looked at.
fn by_code(it: &Situation) -> (Status, Option<DateTime>) {
    match (it.code.class(), it.code) {
        (_, ArenaStatus::Aktuell) => (Status::SoktInn, it.changed),
        (_, ArenaStatus::Infomoete) => (Status::Vurderes, it.changed),
        (_, ArenaStatus::Venteliste) => (Status::Venteliste, it.changed),
        (Class::Running, _) => running(it),
        (Class::Finishing, code) => finishing(it, code),
        (_, ArenaStatus::Ikkaktuell) if it.changed.is_some_and(|changed| changed.date() == it.registered.date()) => {
            (Status::Feilregistrert, it.changed)
        }
        (Class::NotRelevant, _) => (Status::IkkeAktuell, it.changed),
        (Class::Wrong | Class::Applied, _) => (Status::Feilregistrert, it.changed),
    }
}

fn running(it: &Situation) -> (Status, Option<DateTime>) {
    let start = it.start.filter(|start| *start <= it.today);
    let over = it.end.filter(|end| *end < it.today);
    match (start, over) {
        (Some(start), Some(end)) if start < it.today => {
            let left_early = it.activity_end.is_some_and(|activity_end| end < activity_end);
            let status = match (it.course, left_early) {
                (false, _) => Status::HarSluttet,
                (true, true) => Status::Avbrutt,
                (true, false) => Status::Fullfort,
            };
            (status, Some(end.midnight()))
        }
        (Some(start), _) => (Status::Deltar, Some(start.midnight())),
        (None, _) => (Status::VenterPaOppstart, it.changed),
    }
}

fn finishing(it: &Situation, code: ArenaStatus) -> (Status, Option<DateTime>) {
    let (Some(start), Some(changed)) = (it.start, it.changed) else { return (Status::IkkeAktuell, it.changed) };
    if changed <= start.midnight() {
        return (Status::IkkeAktuell, it.changed);
    }
    let status = match (it.course, code) {
        (false, _) => Status::HarSluttet,
        (true, ArenaStatus::Fullf) => Status::Fullfort,
        (true, _) => Status::Avbrutt,
    };
    let closed = it.end.map(Date::midnight).filter(|end| *end < changed);
    (status, Some(closed.unwrap_or(changed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YESTERDAY: &str = "2030-06-09";
    const TODAY: &str = "2030-06-10";
    const TOMORROW: &str = "2030-06-11";
    const CHANGED: &str = "2030-06-10T08:00:00";

    fn date(text: &str) -> Option<Date> {
        (!text.is_empty()).then(|| Date::from_iso(text).unwrap())
    }

    fn situation(code: &str, start: &str, end: &str, course: bool) -> Situation {
        Situation {
            code: ArenaStatus::from_code(code).unwrap(),
            start: date(start),
            end: date(end),
            changed: DateTime::from_iso(CHANGED),
            registered: DateTime::from_iso("2030-01-01T00:00:00").unwrap(),
            activity_end: None,
            activity_ended: false,
            activity_status: None,
            single: false,
            course,
            today: date(TODAY).unwrap(),
        }
    }

    #[track_caller]
    fn check(situation: Situation, status: Status, from: &str) {
        let (found, date) = decide(&situation);
        assert_eq!((found, date.map(|it| it.to_string()).unwrap_or_default().as_str()), (status, from), "{situation:?}");
    }

    #[test]
    fn applications_and_errors_keep_the_time_of_change() {
        for (code, status) in [
            ("AKTUELL", Status::SoktInn),
            ("INFOMOETE", Status::Vurderes),
            ("VENTELISTE", Status::Venteliste),
            ("FEILREG", Status::Feilregistrert),
        ] {
            check(situation(code, YESTERDAY, YESTERDAY, true), status, CHANGED);
            check(Situation { changed: None, ..situation(code, "", "", false) }, status, "");
        }
    }

    #[test]
    fn running_codes_follow_the_calendar() {
        for code in ["GJENN", "TILBUD", "JATAKK"] {
            let midnight = "2030-06-09T00:00:00";
            check(situation(code, "2030-06-01", YESTERDAY, false), Status::HarSluttet, midnight);
            check(situation(code, "2030-06-01", YESTERDAY, true), Status::Fullfort, midnight);
            let early = |day| Situation { activity_end: date(day), ..situation(code, "2030-06-01", YESTERDAY, true) };
            check(early(TODAY), Status::Avbrutt, midnight);
            check(early(YESTERDAY), Status::Fullfort, midnight);
            check(Situation { course: false, ..early(TODAY) }, Status::HarSluttet, midnight);
            check(situation(code, YESTERDAY, TODAY, true), Status::Deltar, midnight);
            check(situation(code, YESTERDAY, "", false), Status::Deltar, midnight);
            check(situation(code, TODAY, YESTERDAY, false), Status::Deltar, "2030-06-10T00:00:00");
            check(situation(code, TOMORROW, "", true), Status::VenterPaOppstart, CHANGED);
            check(situation(code, "", YESTERDAY, true), Status::VenterPaOppstart, CHANGED);
        }
    }

    #[test]
    fn finishing_codes_look_at_change_and_start_alone() {
        for code in ["DELAVB", "FULLF", "GJENN_AVB", "GJENN_AVL", "IKKEM"] {
            let course = if code == "FULLF" { Status::Fullfort } else { Status::Avbrutt };
            check(situation(code, YESTERDAY, "", false), Status::HarSluttet, CHANGED);
            check(situation(code, YESTERDAY, "", true), course, CHANGED);
            check(situation(code, TODAY, TODAY, true), course, "2030-06-10T00:00:00");
            check(situation(code, YESTERDAY, TOMORROW, true), course, CHANGED);
            check(situation(code, TOMORROW, "", true), Status::IkkeAktuell, CHANGED);
            check(situation(code, "", YESTERDAY, false), Status::IkkeAktuell, CHANGED);
            check(Situation { changed: None, ..situation(code, YESTERDAY, "", false) }, Status::IkkeAktuell, "");
            let at_midnight = Situation { changed: DateTime::from_iso("2030-06-10T00:00:00"), ..situation(code, TODAY, TODAY, true) };
            check(at_midnight, Status::IkkeAktuell, "2030-06-10T00:00:00");
            let end_at_change = Situation { start: date(YESTERDAY), ..at_midnight };
            check(end_at_change, course, "2030-06-10T00:00:00");
        }
    }

    #[test]
    fn not_relevant_on_the_day_of_registration_was_a_mistake() {
        let same_day =
            |code| Situation { registered: DateTime::from_iso("2030-06-10T23:00:00").unwrap(), ..situation(code, "", "", false) };
        check(same_day("IKKAKTUELL"), Status::Feilregistrert, CHANGED);
        check(situation("IKKAKTUELL", "", "", true), Status::IkkeAktuell, CHANGED);
        check(Situation { changed: None, ..same_day("IKKAKTUELL") }, Status::IkkeAktuell, "");
        for code in ["AVSLAG", "NEITAKK"] {
            check(same_day(code), Status::IkkeAktuell, CHANGED);
        }
    }

    #[test]
    fn the_end_of_an_activity_ends_what_has_no_end_yet() {
        let ended = |code, start| Situation { activity_ended: true, ..situation(code, start, "", false) };
        check(ended("VENTELISTE", ""), Status::IkkeAktuell, CHANGED);
        check(ended("GJENN", YESTERDAY), Status::IkkeAktuell, CHANGED);
        check(ended("DELAVB", YESTERDAY), Status::HarSluttet, CHANGED);
        let single = |code, status| Situation { single: true, activity_status: Some(status), ..ended(code, YESTERDAY) };
        check(single("GJENN", ActivityStatus::Avsluttet), Status::Deltar, "2030-06-09T00:00:00");
        check(single("TILBUD", ActivityStatus::Avsluttet), Status::IkkeAktuell, CHANGED);
        check(single("GJENN", ActivityStatus::Avlyst), Status::IkkeAktuell, CHANGED);
        check(Situation { single: false, ..single("GJENN", ActivityStatus::Avsluttet) }, Status::IkkeAktuell, CHANGED);
        let not_ended = Situation { activity_ended: false, ..single("TILBUD", ActivityStatus::Avsluttet) };
        check(not_ended, Status::Deltar, "2030-06-09T00:00:00");
    }
}
