//! Months, and the two years of a delivery that periods are cut to.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected};
use serde::{Serialize, Serializer};

/// The longest year that is read, in digits.
const YEAR_DIGITS_MAX: usize = 9;

/// A month of a year; its text is `yyyy-MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i64);

impl Month {
    /// A month by year and number, 1 to 12.
    pub fn new(year: i64, month: i64) -> Self {
        Self(year * 12 + month - 1)
    }

    /// Reads `yyyy-MM`. Far years stand for an open end: they have more digits, with or without a plus before them.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.strip_prefix('+').unwrap_or(text).split_once('-')?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = (4..=YEAR_DIGITS_MAX).contains(&year.len()) && month.len() == 2 && digits(year) && digits(month);
        let month: i64 = month.parse().ok().filter(|month| fits && (1..=12).contains(month))?;
        Some(Self::new(year.parse().ok()?, month))
    }

    /// Its year.
    pub fn year(self) -> i64 {
        self.0.div_euclid(12)
    }

    /// The month after it.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.0.rem_euclid(12) + 1)
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a month, yyyy-MM"))
    }
}

/// The months that a delivery is about: its year and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    year: i64,
}

impl Window {
    /// The two years from `year`.
    pub fn new(year: i64) -> Self {
        Self { year }
    }

    /// Its first month.
    pub fn first(self) -> Month {
        Month::new(self.year, 1)
    }

    /// Its last month.
    pub fn last(self) -> Month {
        Month::new(self.year + 1, 12)
    }

    /// Its first day, as the remote systems write it.
    pub fn first_day(self) -> String {
        format!("{}-01", self.first())
    }

    /// Its last day.
    pub fn last_day(self) -> String {
        format!("{}-31", self.last())
    }

    /// Whether any whole year from `from` to `to` is one of its two.
    pub fn touches(self, from: Month, to: Option<Month>) -> bool {
        let years = from.year()..=to.map_or(i64::MAX, Month::year);
        years.contains(&self.year) || years.contains(&(self.year + 1))
    }

    /// What it leaves of a period; an open end is cut to its last month. First after last: nothing is left.
    pub fn cut(self, from: Month, to: Option<Month>) -> (Month, Month) {
        (from.max(self.first()), to.map_or(self.last(), |to| to.min(self.last())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_read_and_written() {
        for (text, written) in
            [("2020-01", "2020-01"), ("0999-12", "0999-12"), ("+999999-12", "999999-12"), ("999999999-06", "999999999-06")]
        {
            assert_eq!(Month::parse(text).map(|month| month.to_string()).as_deref(), Some(written));
        }
        for text in ["", "2020", "2020-13", "2020-00", "2020-1", "20-01", "2020-01-01", "-2020-01", "20 0-01", "2020-+1", "9999999999-01"] {
            assert_eq!(Month::parse(text), None, "{text}");
        }
        assert_eq!(Month::new(2020, 12).next(), Month::new(2021, 1));
    }

    #[test]
    fn a_window_is_two_years() {
        let window = Window::new(2020);
        assert_eq!((window.first_day().as_str(), window.last_day().as_str()), ("2020-01-01", "2021-12-31"));
        let month = |text: &str| Month::parse(text).unwrap();
        for (from, to, touches) in [
            ("2010-01", Some("2019-12"), false),
            ("2010-01", Some("2020-01"), true),
            ("2021-12", Some("2030-01"), true),
            ("2022-01", None, false),
            ("2010-01", None, true),
            ("2010-01", Some("2030-01"), true),
            ("2021-03", Some("2020-10"), false),
            ("2020-10", Some("2020-03"), true),
        ] {
            assert_eq!(window.touches(month(from), to.map(month)), touches, "{from} {to:?}");
        }
        assert_eq!(window.cut(month("2019-05"), None), (month("2020-01"), month("2021-12")));
        assert_eq!(window.cut(month("2020-05"), Some(month("2020-06"))), (month("2020-05"), month("2020-06")));
    }
}
