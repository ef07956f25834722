//! What is kept, and for how long: `[retention]` of the config. Nothing is dropped that it does not name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::message::Status;
use crate::store::Retention;

/// Rows of one step: so few that nobody waits for long.
const ROWS_MAX: i64 = 2_000;
const DAY_MS: f64 = 86_400_000.0;

/// What is kept, and for how long: `[retention]`. Days may be fractions; 0 means for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// How long messages are kept after they came, in days. What is not finished, failed, waited for or ordered is kept on.
    pub payload_days: f64,
    /// How long messages with these ends are kept, in days, where that is longer: ignored, invalid, finished.
    pub statuses_days: BTreeMap<String, f64>,
    /// How long outputs are kept once they are published, in days.
    pub outputs_days: f64,
    /// In how many parts PostgreSQL keeps the messages of `payload_days`: each is dropped whole, and looked into by whoever looks for a message.
    pub parts: u32,
    /// How often upkeep is done, in milliseconds.
    pub every_ms: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { payload_days: 0.0, statuses_days: BTreeMap::new(), outputs_days: 0.0, parts: 4, every_ms: 60_000 }
    }
}

impl RetentionConfig {
    /// What is wrong with it: keys below `retention`, and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let days = |days: f64| (0.0..=36_500.0).contains(&days);
        for (key, value) in [("payload_days", self.payload_days), ("outputs_days", self.outputs_days)] {
            if !days(value) {
                found.push((key.to_owned(), "must be days from 0 (for ever) to 36500".to_owned()));
            }
        }
        for (word, value) in &self.statuses_days {
            let key = format!("statuses_days.{word}");
            if !matches!(Status::from_word(word), Some(Status::Ignored | Status::Invalid | Status::Finished)) {
                found.push((
                    key,
                    "must be ignored, invalid or finished: others are kept until they are done, or go with their time".to_owned(),
                ));
            } else if !days(*value) {
                found.push((key, "must be days from 0 (for ever) to 36500".to_owned()));
            }
        }
        if !(1..=64).contains(&self.parts) {
            found.push(("parts".to_owned(), "must be from 1 to 64: each look for a message goes through all of them".to_owned()));
        }
        if self.every_ms == 0 {
            found.push(("every_ms".to_owned(), "must be greater than 0".to_owned()));
        }
        found
    }

    /// How long a part of the inbox is filled, in milliseconds.
    pub fn part_ms(&self) -> i64 {
        (milliseconds(self.payload_days) / i64::from(self.parts.max(1))).max(1)
    }

    /// The same as the store takes it.
    pub fn retention(&self) -> Retention {
        let status = |(word, days): (&String, &f64)| Some((Status::from_word(word)?, milliseconds(*days)));
        Retention {
            payload_ms: milliseconds(self.payload_days),
            statuses_ms: self.statuses_days.iter().filter_map(status).collect(),
            outputs_ms: milliseconds(self.outputs_days),
            rows_max: ROWS_MAX,
        }
    }
}

/// Days as milliseconds; 0 days are so many that nothing is that old.
fn milliseconds(days: f64) -> i64 {
    if days <= 0.0 { i64::MAX / 4 } else { (days * DAY_MS).ceil() as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_milliseconds_and_none_is_for_ever() {
        let statuses_days = BTreeMap::from([("invalid".to_owned(), 90.0)]);
        let config = RetentionConfig { payload_days: 0.5, statuses_days, ..RetentionConfig::default() };
        let retention = config.retention();
        assert_eq!(retention.payload_ms, 43_200_000);
        assert_eq!(config.part_ms(), 10_800_000);
        assert!(retention.outputs_ms > 1 << 60, "nothing is that old");
        assert_eq!(retention.statuses_ms, [(Status::Invalid, 90 * 86_400_000)]);
        let config = RetentionConfig::default();
        assert!(config.problems().is_empty());
        assert!(config.retention().payload_ms > 1 << 60, "without a word of it nothing is dropped");
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let statuses_days = BTreeMap::from([("failed".to_owned(), 1.0), ("ignored".to_owned(), -1.0), ("finished".to_owned(), 2.0)]);
        let config = RetentionConfig { payload_days: f64::NAN, statuses_days, parts: 0, every_ms: 0, ..RetentionConfig::default() };
        let keys: Vec<String> = config.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["payload_days", "statuses_days.failed", "statuses_days.ignored", "parts", "every_ms"]);
    }
}
