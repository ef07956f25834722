//! The moment of an attempt and its calendar form; no clock is read anywhere in a translator.

use std::fmt;

/// The moment of the attempt; the same in all its rounds and re-runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, UTC.
    pub ms: i64,
    /// The offset of the feed's time zone at this moment, in seconds east of UTC.
    pub utc_offset_s: i32,
}

impl Now {
    /// The calendar form in the feed's time zone.
    pub fn local(self) -> LocalTime {
        LocalTime::from_ms(self.ms.saturating_add(i64::from(self.utc_offset_s) * 1000))
    }

    /// The calendar form in UTC.
    pub fn utc(self) -> LocalTime {
        LocalTime::from_ms(self.ms)
    }
}

/// A calendar time without a zone. Its text is ISO 8601, with milliseconds where there are some: `2026-03-15T12:00:00.250`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime {
    /// The year, proleptic Gregorian.
    pub year: i64,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the month, from 1.
    pub day: u8,
    /// The hour, 0 to 23.
    pub hour: u8,
    /// The minute.
    pub minute: u8,
    /// The second.
    pub second: u8,
    /// The millisecond.
    pub millisecond: u16,
}

impl LocalTime {
    /// The calendar form of milliseconds since 1970-01-01T00:00:00.
    pub fn from_ms(ms: i64) -> Self {
        let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        // Days are counted from 0000-03-01, so that the leap day ends a year, and years in eras of 400.
        let z = days + 719_468;
        let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u8,
            day: (of_year - (153 * shifted + 2) / 5 + 1) as u8,
            hour: (of_day / 3_600_000) as u8,
            minute: (of_day / 60_000 % 60) as u8,
            second: (of_day / 1_000 % 60) as u8,
            millisecond: (of_day % 1_000) as u16,
        }
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second, millisecond } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if *millisecond > 0 { write!(f, ".{millisecond:03}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_forms() {
        let check = |ms: i64, text: &str| assert_eq!(LocalTime::from_ms(ms).to_string(), text);
        check(0, "1970-01-01T00:00:00");
        check(-1, "1969-12-31T23:59:59.999");
        check(951_782_400_000, "2000-02-29T00:00:00");
        check(4_107_542_400_000, "2100-03-01T00:00:00");
        check(1_709_164_800_250, "2024-02-29T00:00:00.250");
        assert_eq!(Now { ms: 1_767_222_000_000, utc_offset_s: 3_600 }.local().to_string(), "2026-01-01T00:00:00");
    }
}
