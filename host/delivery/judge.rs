//! The state machine of deliveries: a state and the marks and parts of a batch make a new state and a verdict for each of them. Pure.

use super::{Kind, Rules, State};

/// Code of a message whose id nobody ordered.
pub const UNKNOWN: &str = "delivery-unknown";
/// Code of a message of a delivery that is invalid.
pub const INVALID: &str = "delivery-invalid";
/// Code of a mark or part that comes after its delivery was complete.
pub const COMPLETE: &str = "delivery-complete";
/// Code of a mark or part that its delivery's state does not take.
pub const STATE: &str = "delivery-state";
/// Code of a count that does not agree.
pub const MISMATCH: &str = "delivery-mismatch";

/// What is known of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Where it stands.
    pub state: State,
    /// Starts seen.
    pub starts: i32,
    /// Ends seen.
    pub ends: i32,
    /// The start's count.
    pub expected_start: Option<i64>,
    /// The end's count.
    pub expected_end: Option<i64>,
    /// Parts accepted.
    pub accepted: i64,
    /// The partition that carried its first message.
    pub partition: Option<i32>,
    /// Whether other partitions carry some too, or may.
    pub spread: bool,
    /// When missing parts are final, milliseconds since 1970.
    pub due_ms: Option<i64>,
    /// When it started.
    pub started_ms: Option<i64>,
    /// When its end came.
    pub ended_ms: Option<i64>,
    /// When it became complete, invalid or refused.
    pub closed_ms: Option<i64>,
    /// Why it is invalid, refused or unclear.
    pub code: String,
    /// The same as a sentence.
    pub reason: String,
}

/// What becomes of a mark or part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A part of the delivery.
    Part,
    /// A start that counts.
    Start,
    /// An end that counts.
    End,
    /// Its delivery is invalid: kept, ignored, with its code.
    Ignored(String),
    /// Its delivery is complete and stays so.
    Refused,
    /// It made its delivery invalid.
    Violation(&'static str, String),
}

impl Tally {
    /// A delivery of which nothing came yet.
    pub fn new(state: State) -> Self {
        Self {
            state,
            starts: 0,
            ends: 0,
            expected_start: None,
            expected_end: None,
            accepted: 0,
            partition: None,
            spread: false,
            due_ms: None,
            started_ms: None,
            ended_ms: None,
            closed_ms: None,
            code: String::new(),
            reason: String::new(),
        }
    }

    /// How many parts it should have, as far as known: the end's word wins.
    pub fn expected(&self) -> Option<i64> {
        self.expected_end.or(self.expected_start)
    }

    /// Takes the marks and parts of one batch, each with its partition: starts first, then parts, then ends. A verdict for each, in the
    /// order given.
    pub fn take(&mut self, rules: &Rules, pieces: &[(Kind, i32)], now_ms: i64) -> Vec<Verdict> {
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_by_key(|i| match pieces[*i].0 {
            Kind::Start(_) => 0,
            Kind::Part => 1,
            Kind::End(_) => 2,
        });
        let mut verdicts = vec![Verdict::Refused; pieces.len()];
        let mut last_mark = None;
        for i in order {
            let (kind, partition) = pieces[i];
            verdicts[i] = self.step(rules, kind, partition, now_ms);
            if matches!(verdicts[i], Verdict::Start | Verdict::End) {
                last_mark = Some(i);
            }
        }
        if let Some((code, reason)) = self.weigh(rules, now_ms)
            && let Some(mark) = last_mark
        {
            verdicts[mark] = Verdict::Violation(code, reason);
        }
        verdicts
    }

    /// An order was bound to it whose messages came before: judges them all.
    pub fn bind(&mut self, rules: &Rules, now_ms: i64) {
        if self.state != State::Unbound {
            return;
        }
        self.state = if self.starts > 0 { State::Started } else { State::Open };
        let untimely = rules.strict_order && rules.has_start && self.starts == 0 && (self.accepted > 0 || self.ends > 0);
        if self.starts > 1 || self.ends > 1 {
            self.invalidate(STATE, "it has more than one start or end".to_owned(), now_ms);
        } else if untimely {
            self.invalidate(STATE, "parts or its end came before its start".to_owned(), now_ms);
        } else {
            self.weigh(rules, now_ms);
        }
    }

    /// Its time is up: what is missing now is missing for good.
    pub fn expire(&mut self, now_ms: i64) {
        if self.due_ms.is_some_and(|due| due <= now_ms) && !self.state.is_over() {
            let reason = format!("{}, and nothing more came in time", self.counts());
            self.invalidate(MISMATCH, reason, now_ms);
        }
    }

    /// Makes it invalid as a whole, unless it is over.
    pub fn invalidate(&mut self, code: &str, reason: String, now_ms: i64) {
        if !self.state.is_over() {
            (self.state, self.code, self.reason) = (State::Invalid, code.to_owned(), reason);
            (self.due_ms, self.closed_ms) = (None, Some(now_ms));
        }
    }

    fn violation(&mut self, code: &'static str, reason: &str, now_ms: i64) -> Verdict {
        self.invalidate(code, reason.to_owned(), now_ms);
        Verdict::Violation(code, reason.to_owned())
    }

    fn step(&mut self, rules: &Rules, kind: Kind, partition: i32, now_ms: i64) -> Verdict {
        match self.state {
            State::Complete => return Verdict::Refused,
            State::Invalid | State::Refused => {
                return Verdict::Ignored(if self.code == UNKNOWN { UNKNOWN } else { INVALID }.to_owned());
            }
            _ => {}
        }
        let kept = self.state == State::Unbound;
        self.spread |= rules.several || self.partition.is_some_and(|first| first != partition);
        self.partition.get_or_insert(partition);
        let untimely = !kept && rules.strict_order && rules.has_start && self.starts == 0;
        match kind {
            Kind::Start(_) if !kept && self.starts > 0 => self.violation(STATE, "a second start", now_ms),
            Kind::Start(expected) => {
                self.starts += 1;
                self.expected_start = self.expected_start.or(expected);
                self.started_ms.get_or_insert(now_ms);
                if !kept {
                    self.state = State::Started;
                }
                Verdict::Start
            }
            Kind::Part if untimely => self.violation(STATE, "a part before the start", now_ms),
            Kind::Part if !kept && self.is_full(rules) => {
                let reason = format!("one part more than the {} expected", self.expected().unwrap_or_default());
                self.violation(MISMATCH, &reason, now_ms)
            }
            Kind::Part => {
                self.accepted += 1;
                if !kept && !rules.has_start {
                    self.state = State::Started;
                    self.started_ms.get_or_insert(now_ms);
                }
                Verdict::Part
            }
            Kind::End(_) if untimely => self.violation(STATE, "an end before the start", now_ms),
            Kind::End(_) if !kept && self.ends > 0 => self.violation(STATE, "a second end", now_ms),
            Kind::End(expected) => {
                self.ends += 1;
                self.expected_end = self.expected_end.or(expected);
                self.ended_ms.get_or_insert(now_ms);
                Verdict::End
            }
        }
    }

    /// Whether no more parts fit: the count that decides is known and reached.
    fn is_full(&self, rules: &Rules) -> bool {
        let decided = self.ends > 0 || !rules.has_end;
        rules.counted && decided && self.expected().is_some_and(|expected| self.accepted >= expected)
    }

    /// Whether it is complete now, or never will be; the violation, if the counts make it invalid.
    fn weigh(&mut self, rules: &Rules, now_ms: i64) -> Option<(&'static str, String)> {
        if !matches!(self.state, State::Open | State::Started) || (rules.has_end && self.ends == 0) {
            return None;
        }
        if rules.has_start && self.starts == 0 {
            return if rules.has_end { self.lacks(rules, STATE, "its end came without a start".to_owned(), now_ms) } else { None };
        }
        let expected = match (rules.counted, self.expected()) {
            (false, _) if rules.has_end => self.accepted,
            (true, Some(expected)) => expected,
            // Without an end the count of a start alone can say when it is complete.
            _ if !rules.has_end => return None,
            _ => return self.refute("neither start nor end has a count".to_owned(), now_ms),
        };
        if self.accepted == expected {
            (self.state, self.due_ms, self.closed_ms) = (State::Complete, None, Some(now_ms));
            return None;
        }
        if self.accepted > expected {
            return self.refute(self.counts(), now_ms);
        }
        if rules.has_end { self.lacks(rules, MISMATCH, self.counts(), now_ms) } else { None }
    }

    fn refute(&mut self, reason: String, now_ms: i64) -> Option<(&'static str, String)> {
        self.invalidate(MISMATCH, reason.clone(), now_ms);
        Some((MISMATCH, reason))
    }

    /// Something is missing after the end: for good if one partition carried it all, else once the grace is over.
    fn lacks(&mut self, rules: &Rules, code: &'static str, reason: String, now_ms: i64) -> Option<(&'static str, String)> {
        if self.spread && rules.grace_ms > 0 {
            self.due_ms.get_or_insert(now_ms.saturating_add(rules.grace_ms));
            return None;
        }
        self.invalidate(code, reason.clone(), now_ms);
        Some((code, reason))
    }

    fn counts(&self) -> String {
        let expected = self.expected().map_or_else(|| "an unknown number".to_owned(), |expected| expected.to_string());
        format!("{} parts came, {expected} are expected", self.accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::Kind::{End, Part, Start};
    use super::*;

    const STRICT: Rules =
        Rules { has_start: true, has_end: true, counted: true, strict_order: true, grace_ms: 1_000, ordered_only: true, several: false };
    const LOOSE: Rules = Rules { strict_order: false, ..STRICT };

    fn fed(rules: &Rules, state: State, batches: &[&[(Kind, i32)]]) -> (Tally, Vec<Vec<Verdict>>) {
        let mut tally = Tally::new(state);
        let verdicts = batches.iter().map(|batch| tally.take(rules, batch, 5)).collect();
        (tally, verdicts)
    }

    fn on_one(kinds: &[Kind]) -> Vec<(Kind, i32)> {
        kinds.iter().map(|kind| (*kind, 0)).collect()
    }

    #[test]
    fn a_batch_is_taken_start_first_whatever_its_order() {
        let (tally, verdicts) = fed(&STRICT, State::Open, &[&on_one(&[End(Some(2)), Part, Start(Some(9)), Part])]);
        assert_eq!((tally.state, tally.accepted, tally.expected()), (State::Complete, 2, Some(2)));
        assert_eq!(verdicts[0], [Verdict::End, Verdict::Part, Verdict::Start, Verdict::Part]);
        assert_eq!((tally.started_ms, tally.ended_ms, tally.closed_ms), (Some(5), Some(5), Some(5)));
    }

    #[test]
    fn the_table_of_states() {
        // State before, what comes, state after, code of the violation.
        let rows: [(&[Kind], Kind, State, Option<&str>); 9] = [
            (&[], Start(None), State::Started, None),
            (&[], Part, State::Invalid, Some(STATE)),
            (&[], End(Some(0)), State::Invalid, Some(STATE)),
            (&[Start(None)], Start(None), State::Invalid, Some(STATE)),
            (&[Start(None)], Part, State::Started, None),
            (&[Start(None), Part], End(Some(1)), State::Complete, None),
            (&[Start(None), Part], End(Some(2)), State::Invalid, Some(MISMATCH)),
            (&[Start(None), Part], End(Some(0)), State::Invalid, Some(MISMATCH)),
            (&[Start(None), Part], End(None), State::Invalid, Some(MISMATCH)),
        ];
        for (before, comes, after, code) in rows {
            let mut batches: Vec<Vec<(Kind, i32)>> = before.iter().map(|kind| on_one(&[*kind])).collect();
            batches.push(on_one(&[comes]));
            let batches: Vec<&[(Kind, i32)]> = batches.iter().map(Vec::as_slice).collect();
            let (tally, verdicts) = fed(&STRICT, State::Open, &batches);
            assert_eq!(tally.state, after, "{before:?} {comes:?}");
            let found = match verdicts.last().unwrap().last().unwrap() {
                Verdict::Violation(code, _) => Some(*code),
                _ => None,
            };
            assert_eq!(found, code, "{before:?} {comes:?}");
        }
    }

    #[test]
    fn complete_ones_are_never_invalidated_and_invalid_ones_ignore() {
        let whole = on_one(&[Start(None), Part, End(Some(1))]);
        let more = on_one(&[Start(None), Part, End(Some(7))]);
        let (tally, verdicts) = fed(&STRICT, State::Open, &[&whole, &more]);
        assert_eq!((tally.state, tally.accepted), (State::Complete, 1));
        assert!(verdicts[1].iter().all(|verdict| *verdict == Verdict::Refused));
        let (tally, verdicts) = fed(&STRICT, State::Open, &[&on_one(&[Part]), &more]);
        assert_eq!((tally.state, tally.accepted), (State::Invalid, 0));
        assert!(verdicts[1].iter().all(|verdict| *verdict == Verdict::Ignored(INVALID.to_owned())));
    }

    #[test]
    fn over_partitions_any_order_is_right_and_what_lacks_has_time() {
        let (mut tally, _) = fed(&LOOSE, State::Open, &[&[(Part, 1)], &[(End(Some(3)), 0)], &[(Part, 1)]]);
        assert_eq!((tally.state, tally.due_ms), (State::Open, Some(1_005)));
        let mut late = tally.clone();
        late.expire(1_004);
        assert_eq!(late.state, State::Open);
        late.expire(1_005);
        assert_eq!((late.state, late.code.as_str()), (State::Invalid, MISMATCH));
        tally.take(&LOOSE, &[(Part, 2), (Start(Some(1)), 2)], 6);
        assert_eq!((tally.state, tally.due_ms, tally.accepted), (State::Complete, None, 3));
        // Strict: only what is missing after the end has time.
        let (tally, _) = fed(&STRICT, State::Open, &[&[(Start(None), 0)], &[(End(Some(1)), 0), (Part, 1)], &[(Part, 1)]]);
        assert_eq!((tally.state, tally.accepted), (State::Complete, 1));
        let (tally, _) = fed(&STRICT, State::Open, &[&[(Start(None), 0)], &[(End(Some(2)), 0), (Part, 1)], &[(Part, 1)]]);
        assert_eq!((tally.state, tally.accepted), (State::Complete, 2));
        // Where there are several partitions, what lacks may be on another one that was not read yet.
        let several = Rules { several: true, ..STRICT };
        let (tally, _) = fed(&several, State::Open, &[&on_one(&[Start(None), End(Some(1))])]);
        assert_eq!((tally.state, tally.due_ms), (State::Started, Some(1_005)));
    }

    #[test]
    fn too_many_are_final_at_once() {
        let batches: [&[(Kind, i32)]; 3] = [&[(Part, 0)], &[(Part, 1)], &[(End(Some(1)), 0)]];
        let (tally, _) = fed(&LOOSE, State::Open, &batches);
        // Its start has not come: more than enough parts are a mismatch at the next one.
        assert_eq!((tally.state, tally.due_ms), (State::Open, Some(1_005)));
        let (tally, verdicts) = fed(&LOOSE, State::Open, &[batches[0], batches[1], batches[2], &[(Part, 1)]]);
        assert_eq!((tally.state, tally.accepted), (State::Invalid, 2));
        assert!(matches!(verdicts[3][0], Verdict::Violation(MISMATCH, _)));
    }

    #[test]
    fn without_an_end_the_starts_count_completes() {
        let rules = Rules { has_end: false, ..LOOSE };
        let (tally, _) = fed(&rules, State::Open, &[&on_one(&[Part, Start(Some(2))]), &on_one(&[Part])]);
        assert_eq!(tally.state, State::Complete);
        let uncounted = Rules { counted: false, ..LOOSE };
        let (tally, _) = fed(&uncounted, State::Open, &[&on_one(&[Part, Start(None)]), &on_one(&[End(None)])]);
        assert_eq!(tally.state, State::Complete);
    }

    #[test]
    fn what_came_before_its_order_was_bound_is_judged_then() {
        let whole = on_one(&[Start(None), Part, End(Some(1))]);
        let (mut tally, verdicts) = fed(&STRICT, State::Unbound, &[&whole]);
        assert_eq!((tally.state, &verdicts[0][1]), (State::Unbound, &Verdict::Part));
        tally.bind(&STRICT, 9);
        assert_eq!((tally.state, tally.closed_ms), (State::Complete, Some(9)));
        for (kinds, code) in [(vec![Start(None), Start(None)], STATE), (vec![Part], STATE), (vec![Start(None), End(Some(1))], MISMATCH)] {
            let (mut tally, _) = fed(&STRICT, State::Unbound, &[&on_one(&kinds)]);
            tally.bind(&STRICT, 9);
            assert_eq!((tally.state, tally.code.as_str()), (State::Invalid, code), "{kinds:?}");
        }
        let (mut tally, _) = fed(&STRICT, State::Unbound, &[&on_one(&[Start(Some(4))])]);
        tally.bind(&STRICT, 9);
        assert_eq!((tally.state, tally.expected()), (State::Started, Some(4)));
    }
}
