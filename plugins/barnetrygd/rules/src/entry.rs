//! What is known of one owner: the periods of benefit and of support. Entries of one owner are put together here.

use serde::Serialize;

use crate::benefit::Benefit;
use crate::period::{self, Overlap, Period};
use crate::support::Support;

/// An owner's periods, `persongrunnlag` of the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The owner's identity number.
    #[serde(rename = "omsorgsyter")]
    pub owner: String,
    /// Periods of benefit.
    #[serde(rename = "omsorgsperioder")]
    pub benefits: Vec<Period<Benefit>>,
    /// Periods of support.
    #[serde(rename = "hjelpestønadsperioder")]
    pub supports: Vec<Period<Support>>,
}

impl Entry {
    /// Both lists merged, unless one of them overlaps.
    pub fn merged(self) -> Result<Self, Overlap> {
        let merged = Self { owner: self.owner, benefits: period::merged(self.benefits), supports: period::merged(self.supports) };
        merged.refuse_overlap()?;
        Ok(merged)
    }

    /// Its children with a period of benefit, each once, in the order in which they appear.
    pub fn children(&self) -> Vec<&str> {
        let mut children: Vec<&str> = Vec::new();
        for period in &self.benefits {
            if !children.contains(&period.child.as_str()) {
                children.push(&period.child);
            }
        }
        children
    }

    /// Both lists sorted by child and first month.
    pub fn sort(&mut self) {
        period::sort(&mut self.benefits);
        period::sort(&mut self.supports);
    }

    fn refuse_overlap(&self) -> Result<(), Overlap> {
        period::refuse_overlap(&self.benefits)?;
        period::refuse_overlap(&self.supports)
    }
}

/// One entry for each owner, in the order in which owners appear: their lists put one after the other, exact copies once. Nothing merges
/// here, so what overlaps is refused even where all else is equal.
pub fn compressed(entries: Vec<Entry>) -> Result<Vec<Entry>, Overlap> {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let at = match kept.iter().position(|known| known.owner == entry.owner) {
            Some(at) => at,
            None => {
                kept.push(Entry { owner: entry.owner, benefits: Vec::new(), supports: Vec::new() });
                kept.len() - 1
            }
        };
        add_new(&mut kept[at].benefits, entry.benefits);
        add_new(&mut kept[at].supports, entry.supports);
    }
    kept.iter().try_for_each(Entry::refuse_overlap)?;
    Ok(kept)
}

fn add_new<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benefit::{Country, Share};
    use crate::month::Month;
    use crate::period::Source;

    fn case(owner: &str, year: i64, fom: i64, tom: i64) -> Entry {
        let kind = Benefit { share: Share::Full, source: Source::Barnetrygd, paid: 1, country: Country::Norge };
        let period = Period { fom: Month::new(year, fom), tom: Month::new(year, tom), child: "7".to_owned(), kind };
        Entry { owner: owner.to_owned(), benefits: vec![period], supports: vec![] }
    }

    #[test]
    fn one_entry_for_each_owner() {
        let (a, b) = (case("1", 2018, 1, 12), case("2", 2019, 1, 12));
        assert_eq!(compressed(vec![a.clone()]), Ok(vec![a.clone()]));
        assert_eq!(compressed(vec![a.clone(), a.clone()]), Ok(vec![a.clone()]));
        assert_eq!(compressed(vec![b.clone(), a.clone(), b.clone()]), Ok(vec![b, a]));
    }

    #[test]
    fn what_overlaps_in_part_is_refused_and_what_touches_is_left() {
        let overlap = compressed(vec![case("1", 2018, 1, 6), case("1", 2018, 6, 9)]);
        assert_eq!(overlap, Err(Overlap("7".to_owned())));
        let touching = compressed(vec![case("1", 2018, 1, 6), case("1", 2018, 7, 9)]).unwrap();
        assert_eq!((touching.len(), touching[0].benefits.len()), (1, 2));
        assert_eq!(touching[0].clone().merged().unwrap().benefits.len(), 1);
        let empty = Entry { owner: "1".to_owned(), benefits: vec![], supports: vec![] };
        assert_eq!(compressed(vec![empty.clone(), empty.clone()]), Ok(vec![empty]));
    }
}
