//! Periods of care for one child, and the two things that are done with a list of them: merging, and finding what overlaps.

use serde::Serialize;

use crate::month::Month;

/// A period of care; `K` is what else is known of it: periods whose kinds differ never merge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Period<K> {
    /// Its first month.
    pub fom: Month,
    /// Its last month.
    pub tom: Month,
    /// The child's identity number.
    #[serde(rename = "omsorgsmottaker")]
    pub child: String,
    /// The rest.
    #[serde(flatten)]
    pub kind: K,
}

/// Where a decision stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Source {
    /// The new system.
    Barnetrygd,
    /// The old one.
    Infotrygd,
}

/// A child that has two periods in one month, by its identity number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap(pub String);

/// Sorts by child and first month, and joins what follows upon each other: same child and kind, a month in common or none between.
/// Only neighbours join: what differs is left as it is, and may overlap.
pub fn merged<K: PartialEq>(mut periods: Vec<Period<K>>) -> Vec<Period<K>> {
    sort(&mut periods);
    let mut kept: Vec<Period<K>> = Vec::with_capacity(periods.len());
    for period in periods {
        match kept.last_mut() {
            // Sorted, so the later one cannot begin before the kept one.
            Some(last) if last.child == period.child && last.kind == period.kind && period.fom <= last.tom.next() => {
                last.tom = last.tom.max(period.tom);
            }
            _ => kept.push(period),
        }
    }
    kept
}

/// Sorts by child, as text, and first month; equals stay in their order.
pub fn sort<K>(periods: &mut [Period<K>]) {
    periods.sort_by(|a, b| (&a.child, a.fom).cmp(&(&b.child, b.fom)));
}

/// Refuses a list in which a child has two periods in one month; the first such child, in the order in which children appear.
pub fn refuse_overlap<K>(periods: &[Period<K>]) -> Result<(), Overlap> {
    for (at, first) in periods.iter().enumerate() {
        if periods[..at].iter().any(|earlier| earlier.child == first.child) {
            continue;
        }
        let mut months: Vec<(Month, Month)> =
            periods[at..].iter().filter(|period| period.child == first.child).map(|period| (period.fom, period.tom)).collect();
        months.sort_unstable();
        if months.windows(2).any(|pair| pair[1].0 <= pair[0].1) {
            return Err(Overlap(first.child.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(child: &str, fom: i64, tom: i64, kind: char) -> Period<char> {
        Period { fom: Month::new(2020, fom), tom: Month::new(2020, tom), child: child.to_owned(), kind }
    }

    fn check(given: &[(&str, i64, i64, char)], expected: &[(&str, i64, i64, char)]) {
        let periods = |list: &[(&str, i64, i64, char)]| list.iter().map(|it| period(it.0, it.1, it.2, it.3)).collect::<Vec<_>>();
        assert_eq!(merged(periods(given)), periods(expected));
    }

    #[test]
    fn only_neighbours_of_one_child_and_kind_merge() {
        check(&[("1", 4, 6, 'a'), ("1", 1, 3, 'a')], &[("1", 1, 6, 'a')]);
        check(&[("1", 1, 6, 'a'), ("1", 2, 3, 'a')], &[("1", 1, 6, 'a')]);
        check(&[("1", 1, 6, 'a'), ("1", 1, 6, 'a')], &[("1", 1, 6, 'a')]);
        check(&[("1", 1, 3, 'a'), ("1", 5, 6, 'a')], &[("1", 1, 3, 'a'), ("1", 5, 6, 'a')]);
        check(&[("1", 1, 3, 'a'), ("1", 3, 6, 'b')], &[("1", 1, 3, 'a'), ("1", 3, 6, 'b')]);
        check(&[("2", 1, 3, 'a'), ("1", 4, 6, 'a')], &[("1", 4, 6, 'a'), ("2", 1, 3, 'a')]);
        // The one between parts them.
        check(&[("1", 1, 9, 'a'), ("1", 3, 4, 'b'), ("1", 5, 7, 'a')], &[("1", 1, 9, 'a'), ("1", 3, 4, 'b'), ("1", 5, 7, 'a')]);
        // As text: leading zeros count, and "10" comes before "9".
        check(&[("9", 1, 1, 'a'), ("10", 1, 1, 'a'), ("09", 1, 1, 'a')], &[("09", 1, 1, 'a'), ("10", 1, 1, 'a'), ("9", 1, 1, 'a')]);
    }

    #[test]
    fn the_first_child_with_a_month_twice_is_named() {
        let fine = [period("1", 1, 3, 'a'), period("2", 1, 3, 'a'), period("1", 4, 4, 'b')];
        assert_eq!(refuse_overlap(&fine), Ok(()));
        let one = [period("2", 1, 3, 'a'), period("1", 4, 9, 'a'), period("1", 9, 9, 'b'), period("2", 3, 5, 'a')];
        assert_eq!(refuse_overlap(&one), Err(Overlap("2".to_owned())));
        let inside = [period("1", 1, 12, 'a'), period("1", 2, 2, 'a'), period("1", 5, 6, 'a')];
        assert_eq!(refuse_overlap(&inside), Err(Overlap("1".to_owned())));
    }
}
