//! Dates and times without a zone, read as Java's smart mode reads them. Knows no clock.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tolk_sdk::LocalTime;

/// A calendar day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// A calendar day and a time of it, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    date: Date,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Date {
    /// The day of a moment.
    pub fn of(time: LocalTime) -> Self {
        // Moments of messages lie in years that fit; a clock far beyond is pinned to the ends.
        Self { year: time.year.clamp(0, 9_999) as u16, month: time.month, day: time.day }
    }

    /// The day of a date text of a row (`yyyy-MM-dd HH:mm:ss`); its time part is dropped after it was read.
    pub fn from_row(text: &str) -> Option<Self> {
        DateTime::from_row(text).map(|time| time.date)
    }

    /// The day of `yyyy-MM-dd`.
    pub fn from_iso(text: &str) -> Option<Self> {
        // Only days that exist: smart mode is for rows.
        Self::smart(text.as_bytes()).filter(|date| date.to_string() == text)
    }

    /// The start of the day.
    pub fn midnight(self) -> DateTime {
        DateTime { date: self, hour: 0, minute: 0, second: 0 }
    }

    /// `yyyy-MM-dd`, where days up to the 31st that the month does not have become its last.
    fn smart(text: &[u8]) -> Option<Self> {
        let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
        let year = number(&[*y1, *y2, *y3, *y4])?;
        let (month, day) = (number(&[*m1, *m2])? as u8, number(&[*d1, *d2])? as u8);
        if year == 0 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        Some(Self { year, month, day: day.min(days(year, month)) })
    }

    fn next(self) -> Self {
        match self {
            Self { year, month, day } if day < days(year, month) => Self { year, month, day: day + 1 },
            Self { year, month: 12, .. } => Self { year: year + 1, month: 1, day: 1 },
            Self { year, month, .. } => Self { year, month: month + 1, day: 1 },
        }
    }
}

impl DateTime {
    /// The time of a date text of a row: exactly `yyyy-MM-dd HH:mm:ss`, where 24:00:00 is the start of the next day.
    pub fn from_row(text: &str) -> Option<Self> {
        Self::split(text.as_bytes(), b' ')
    }

    /// The time of an ISO text without offset; seconds may be missing, fractions of them are dropped.
    pub fn from_iso(text: &str) -> Option<Self> {
        match text.len() {
            16 => Self::split(format!("{text}:00").as_bytes(), b'T'),
            19 => Self::split(text.as_bytes(), b'T'),
            _ => {
                let (whole, fraction) = text.split_once('.')?;
                let digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
                if digits { Self::split(whole.as_bytes(), b'T') } else { None }
            }
        }
    }

    /// Its day.
    pub fn date(self) -> Date {
        self.date
    }

    fn split(text: &[u8], between: u8) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let [mark, h1, h2, b':', m1, m2, b':', s1, s2] = rest else { return None };
        if *mark != between {
            return None;
        }
        let date = Date::smart(date)?;
        let pair = |high: u8, low: u8| number(&[high, low]).map(|it| it as u8);
        match (pair(*h1, *h2)?, pair(*m1, *m2)?, pair(*s1, *s2)?) {
            (24, 0, 0) => Some(date.next().midnight()),
            (hour @ 0..=23, minute @ 0..=59, second @ 0..=59) => Some(Self { date, hour, minute, second }),
            _ => None,
        }
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')))
}

fn days(year: u16, month: u8) -> u8 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{:02}:{:02}:{:02}", self.date, self.hour, self.minute, self.second)
    }
}

macro_rules! as_text {
    ($time:ty, $what:literal) => {
        impl Serialize for $time {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $time {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::from_iso(&text).ok_or_else(|| D::Error::custom($what))
            }
        }
    };
}

as_text!(Date, "not a date in ISO form");
as_text!(DateTime, "not a date-time in ISO form");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_dates_are_read_as_smart_mode_does() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(DateTime::from_row(text).map(|it| it.to_string()).as_deref(), expected, "{text}");
        };
        check("2022-01-12 10:20:30", Some("2022-01-12T10:20:30"));
        check("2023-02-31 00:00:00", Some("2023-02-28T00:00:00"));
        check("2024-02-30 00:00:00", Some("2024-02-29T00:00:00"));
        check("1900-02-29 00:00:00", Some("1900-02-28T00:00:00"));
        check("2000-02-29 00:00:00", Some("2000-02-29T00:00:00"));
        check("2023-04-31 12:00:00", Some("2023-04-30T12:00:00"));
        check("2023-12-31 24:00:00", Some("2024-01-01T00:00:00"));
        check("2023-02-28 24:00:00", Some("2023-03-01T00:00:00"));
        check("2023-04-31 24:00:00", Some("2023-05-01T00:00:00"));
        let refused = [
            "2023-04-32 00:00:00",
            "2023-04-00 00:00:00",
            "2023-13-01 00:00:00",
            "2023-00-01 00:00:00",
            "0000-01-01 00:00:00",
            "2023-01-01 24:00:01",
            "2023-01-01 25:00:00",
            "2023-01-01 00:60:00",
            "2023-01-01 00:00:60",
            "2023-01-01T00:00:00",
            "2023-01-01 00:00:00.0",
            "2023-01-01",
            " 2023-01-01 00:00:00",
            "2023-01-01 00:00:00 ",
            "2023-1-1 00:00:00",
            "2023-01-01  0:00:00",
            "STRING_NOT_SET",
            "",
            "2023-01-0é 00:00:0",
        ];
        for text in refused {
            check(text, None);
        }
    }

    #[test]
    fn a_date_field_drops_the_time_after_reading_it() {
        assert_eq!(Date::from_row("2023-05-06 23:59:59").map(|it| it.to_string()).as_deref(), Some("2023-05-06"));
        assert_eq!(Date::from_row("2023-05-06 24:00:00").map(|it| it.to_string()).as_deref(), Some("2023-05-07"));
        assert_eq!(Date::from_row("2023-05-06 99:00:00"), None);
    }

    #[test]
    fn iso_forms() {
        let time = |text| DateTime::from_iso(text).map(|it| it.to_string());
        assert_eq!(time("2026-03-15T12:00").as_deref(), Some("2026-03-15T12:00:00"));
        assert_eq!(time("2026-03-15T12:00:01.250").as_deref(), Some("2026-03-15T12:00:01"));
        assert_eq!(time("2026-03-15T12:00:01Z"), None);
        assert_eq!(Date::from_iso("2026-02-30"), None);
        assert_eq!(Date::from_iso("2026-02-28").map(|it| it.to_string()).as_deref(), Some("2026-02-28"));
    }
}
