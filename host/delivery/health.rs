//! Whether a feed's deliveries are well: the newest one by its age and counts, and failed parts of any. Pure.

use serde::Serialize;

use super::judge::Tally;
use super::{HealthConfig, HealthCount, State};

/// How a feed's deliveries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// There was none ever.
    None,
    /// Nobody knows whether an order arrived.
    Unclear,
    /// The newest is older than it should be.
    TooOld,
    /// The newest should be complete by now.
    Incomplete,
    /// The parts of the newest should be handled or finished by now.
    Unfinished,
    /// Parts have failed, of whichever delivery.
    Failed,
    /// All is well.
    Ok,
}

impl Code {
    /// The word a person sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unclear => "unclear",
            Self::TooOld => "too-old",
            Self::Incomplete => "incomplete",
            Self::Unfinished => "unfinished",
            Self::Failed => "failed",
            Self::Ok => "ok",
        }
    }
}

/// The newest delivery that was not given up.
#[derive(Clone, Copy, Debug)]
pub struct Newest<'t> {
    /// How it stands.
    pub tally: &'t Tally,
    /// When it was ordered, or first seen.
    pub opened_ms: i64,
    /// Its parts that are handled or finished.
    pub done: i64,
}

/// The first trouble that holds. `unclear`: orders that nobody knows whether they arrived; `failed`: failed parts of all deliveries.
pub fn health(config: &HealthConfig, newest: Option<Newest<'_>>, unclear: usize, failed: i64, now_ms: i64) -> Code {
    if unclear > 0 {
        return Code::Unclear;
    }
    let Some(newest) = newest else { return Code::None };
    let age = now_ms.saturating_sub(newest.opened_ms);
    let over = |limit: Option<u64>| limit.is_some_and(|limit| age > i64::try_from(limit).unwrap_or(i64::MAX));
    if over(config.age_ms) {
        Code::TooOld
    } else if over(config.complete_within_ms) && newest.tally.state != State::Complete {
        Code::Incomplete
    } else if over(config.done_within_ms) && !is_done(config, &newest) {
        Code::Unfinished
    } else if failed > 0 {
        Code::Failed
    } else {
        Code::Ok
    }
}

fn is_done(config: &HealthConfig, newest: &Newest<'_>) -> bool {
    let (start, end) = (newest.tally.expected_start, newest.tally.expected_end);
    match config.count {
        HealthCount::Start => start == Some(newest.done),
        HealthCount::End => end == Some(newest.done),
        HealthCount::Known => start.or(end).is_some() && [start, end].into_iter().flatten().all(|count| count == newest.done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn of(age: i64, state: State, counts: (Option<i64>, Option<i64>), done: i64, failed: i64) -> Code {
        let config = HealthConfig {
            age_ms: Some(400 * 24 * 3_600_000),
            complete_within_ms: Some(2 * 3_600_000),
            done_within_ms: Some(3_600_000),
            count: HealthCount::Known,
        };
        let mut tally = Tally::new(state);
        (tally.expected_start, tally.expected_end) = counts;
        health(&config, Some(Newest { tally: &tally, opened_ms: 0, done }), 0, failed, age)
    }

    #[test]
    fn the_first_trouble_counts() {
        assert_eq!(health(&HealthConfig::default(), None, 0, 9, 0), Code::None);
        assert_eq!(health(&HealthConfig::default(), None, 1, 0, 0), Code::Unclear);
        assert_eq!(of(401 * 24 * HOUR, State::Complete, (Some(1), Some(1)), 1, 0), Code::TooOld);
        assert_eq!(of(4 * HOUR, State::Open, (None, None), 0, 0), Code::Incomplete);
        assert_eq!(of(5 * HOUR, State::Complete, (Some(1), Some(1)), 0, 1), Code::Unfinished);
        assert_eq!(of(5 * HOUR, State::Complete, (Some(2), Some(1)), 1, 0), Code::Unfinished);
        assert_eq!(of(5 * HOUR, State::Complete, (None, None), 0, 0), Code::Unfinished);
        assert_eq!(of(HOUR / 2, State::Started, (None, None), 0, 1), Code::Failed);
        assert_eq!(of(5 * HOUR, State::Complete, (None, Some(2)), 2, 0), Code::Ok);
    }
}
