//! The noun of sets: messages between a start and an end that count only together, and the settings by which a feed's are told.
//! Judging them is `delivery/judge.rs`. Knows nothing of stores, sources or plugins.

pub mod health;
pub mod judge;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The collection in which the states of deliveries are told to their parts, under [`entry_key`].
pub const DELIVERIES: &str = "tolk.deliveries";

/// The key of a delivery's entry.
pub fn entry_key(feed: i32, number: i64) -> String {
    format!("{feed}/{number}")
}

/// A delivery's id as it is kept: a uuid in its usual form, where ids are uuids.
pub fn id_of(config: &Config, text: &str) -> Option<String> {
    if config.id_is_uuid {
        return uuid::Uuid::try_parse(text).ok().map(|id| id.to_string());
    }
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// The settings of a feed's deliveries: `[feeds.NAME.delivery]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// JSON pointers to the delivery's id; the first that resolves wins.
    pub id: Vec<String>,
    /// Whether an id that is no uuid makes its message invalid.
    #[serde(default)]
    pub id_is_uuid: bool,
    /// JSON pointers to the word that tells starts, ends and parts apart.
    pub mark: Vec<String>,
    /// The words of a start; empty: deliveries have no start.
    #[serde(default)]
    pub start: Words,
    /// The words of an end; empty: a delivery is complete as soon as its start's count is reached.
    #[serde(default)]
    pub end: Words,
    /// The words of a part; empty: everything else, a missing word included.
    #[serde(default)]
    pub part: Words,
    /// JSON pointers to the number of parts, in starts and ends. The end's wins; empty: parts are not counted.
    #[serde(default)]
    pub expected: Vec<String>,
    /// Whether a part or end before the start is a violation at once; false: over partitions any order is right.
    #[serde(default)]
    pub strict_order: bool,
    /// How long after the end missing parts may still come, in milliseconds, where several partitions carry a delivery.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u64,
    /// Whether marks and parts of ids that nobody ordered are ignored.
    #[serde(default)]
    pub ordered_only: bool,
    /// How the host orders a delivery.
    #[serde(default)]
    pub order: Option<OrderConfig>,
    /// From which ages on the feed's deliveries are in trouble.
    #[serde(default)]
    pub health: HealthConfig,
}

/// How a delivery is ordered: one call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderConfig {
    /// The endpoint.
    pub endpoint: String,
    /// Names of parameters that an order must have; they fill the endpoint's templates, as does `order`, a uuid for each order, and are shown
    /// to translators.
    #[serde(default)]
    pub params: Vec<String>,
    /// JSON pointer to the delivery's id in the answer's body; empty: the whole body is the id.
    #[serde(default)]
    pub id: String,
    /// Statuses that mean the order was taken; empty: every 2xx.
    #[serde(default)]
    pub statuses: Vec<u16>,
}

/// From which ages, counted from the order, a feed's newest delivery is in trouble.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// The newest delivery must not be older, in milliseconds.
    pub age_ms: Option<u64>,
    /// It must be complete by then, in milliseconds.
    pub complete_within_ms: Option<u64>,
    /// All its parts must be handled or finished by then, in milliseconds.
    pub done_within_ms: Option<u64>,
    /// Whose count the parts that are done are compared with.
    pub count: HealthCount,
}

/// Whose count decides whether a delivery is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthCount {
    /// Each that is known.
    #[default]
    Known,
    /// The start's; unknown is not equal.
    Start,
    /// The end's; unknown is not equal.
    End,
}

/// One word or several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Spelled", into = "Vec<String>")]
pub struct Words(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelled {
    One(String),
    Many(Vec<String>),
}

impl From<Spelled> for Words {
    fn from(spelled: Spelled) -> Self {
        match spelled {
            Spelled::One(word) => Self(vec![word]),
            Spelled::Many(words) => Self(words),
        }
    }
}

impl From<Words> for Vec<String> {
    fn from(words: Words) -> Self {
        words.0
    }
}

impl Words {
    /// Whether a word is one of these.
    pub fn has(&self, word: &str) -> bool {
        self.0.iter().any(|known| known == word)
    }
}

fn default_grace_ms() -> u64 {
    600_000
}

/// What judging needs of the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether deliveries have a start.
    pub has_start: bool,
    /// Whether they have an end.
    pub has_end: bool,
    /// Whether parts are counted.
    pub counted: bool,
    /// As [`Config::strict_order`].
    pub strict_order: bool,
    /// As [`Config::grace_ms`].
    pub grace_ms: i64,
    /// As [`Config::ordered_only`].
    pub ordered_only: bool,
    /// Whether the source has several partitions: what lacks after an end may be on one that was not read yet.
    pub several: bool,
}

impl Rules {
    /// The rules of a feed's settings.
    pub fn of(config: &Config) -> Self {
        Self {
            has_start: !config.start.0.is_empty(),
            has_end: !config.end.0.is_empty(),
            counted: !config.expected.is_empty(),
            strict_order: config.strict_order,
            grace_ms: i64::try_from(config.grace_ms).unwrap_or(i64::MAX),
            ordered_only: config.ordered_only,
            several: false,
        }
    }
}

/// What a message on its way in is to a delivery.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The delivery's id.
    pub id: Arc<str>,
    /// Start, part or end.
    pub kind: Kind,
    /// The feed's rules.
    pub rules: Rules,
}

/// Start, part or end, with the count it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A start.
    Start(Option<i64>),
    /// A part.
    Part,
    /// An end.
    End(Option<i64>),
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// A person ordered it; the call is not made yet.
    Requested,
    /// The call is under way.
    Calling,
    /// Nobody knows whether the call arrived: its host died, or no answer came. Never made again by itself.
    Unclear,
    /// The order was refused; there is no such delivery.
    Refused,
    /// Its messages came while an order is in flight that may be its own: kept, not judged.
    Unbound,
    /// Known, not started.
    Open,
    /// Started, not complete.
    Started,
    /// Complete: its parts are translated.
    Complete,
    /// Never to be complete: nothing of it is translated.
    Invalid,
}

impl State {
    /// Every state, in the order of their codes.
    pub const ALL: [Self; 9] = [
        Self::Requested,
        Self::Calling,
        Self::Unclear,
        Self::Refused,
        Self::Unbound,
        Self::Open,
        Self::Started,
        Self::Complete,
        Self::Invalid,
    ];

    /// The word a person sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Calling => "calling",
            Self::Unclear => "unclear",
            Self::Refused => "refused",
            Self::Unbound => "unbound",
            Self::Open => "open",
            Self::Started => "started",
            Self::Complete => "complete",
            Self::Invalid => "invalid",
        }
    }

    /// The number the stores keep.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The state of a stored number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether an order is in flight whose id nobody knows.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Requested | Self::Calling | Self::Unclear)
    }

    /// Whether nothing can change it any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Complete | Self::Invalid | Self::Refused)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a delivery's entry says to its parts; absent: it is neither complete nor invalid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The delivery's id.
    pub id: String,
    /// `complete` or `invalid`.
    pub state: String,
    /// The parameters it was ordered with.
    pub params: Vec<(String, String)>,
    /// How many parts it should have.
    pub expected: Option<i64>,
    /// Why it is invalid.
    pub code: String,
    /// The same as a sentence.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_come_back() {
        for state in State::ALL {
            assert_eq!((State::from_code(state.code()), State::from_word(state.as_str())), (Some(state), Some(state)));
        }
    }

    #[test]
    fn words_are_one_or_several() {
        let config: Config = toml::from_str("id = [\"/id\"]\nmark = [\"/m\"]\nstart = \"S\"\nend = [\"E\", \"F\"]").unwrap();
        assert!(config.start.has("S") && config.end.has("F") && !config.part.has("S"));
        let rules = Rules::of(&config);
        assert!(rules.has_start && rules.has_end && !rules.counted && !rules.strict_order);
    }
}
