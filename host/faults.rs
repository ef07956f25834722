//! Places where a test may make this process fail, by name. Without the feature `faults` they are nothing, and no release build takes it.
//! Knows nothing of what happens at its places.
//!
//! `TOLK_FAULTS` says what strikes: rules `PLACE=ACTION[@HIT][xTIMES][%PERCENT]`, joined by `;`. A place is `what/when` and may end in `*`;
//! an action is `abort` (`kill -9` of this process), `error`, `panic` or `sleep:MS`. A rule strikes from the HIT-th time on that its place
//! is passed (default 1), TIMES times (default 1; `x*`: always), each time with PERCENT (default 100) of chance, drawn from
//! `TOLK_FAULTS_SEED`. Some places are also named by a message's key: `what/key:KEY`. `TOLK_FAULTS_SEEN` names a file in which each place is noted when it is passed for the first and the second time;
//! `TOLK_MUTANT` names a guard that is left out.

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` is for tests: a release build must not contain it");

/// Whether this build contains faults.
pub const ON: bool = cfg!(feature = "faults");

#[cfg(feature = "faults")]
pub use on::{here, keyed, mutant, point, step};

#[cfg(not(feature = "faults"))]
pub use off::{here, keyed, mutant, point, step};

#[cfg(not(feature = "faults"))]
mod off {
    use std::future::{Ready, ready};

    /// A place where an error can come back.
    #[inline(always)]
    pub fn point(_what: &str, _when: &str) -> Ready<std::io::Result<()>> {
        ready(Ok(()))
    }

    /// A place where none can.
    #[inline(always)]
    pub fn step(_what: &str, _when: &str) -> Ready<()> {
        ready(())
    }

    /// A place on a thread of our own.
    #[inline(always)]
    pub fn here(_what: &str, _when: &str) {}

    /// A place on a thread of our own, with the key of the message that is there.
    #[inline(always)]
    pub fn keyed(_what: &str, _key: Option<&[u8]>) {}

    /// Whether a guard is left out.
    #[inline(always)]
    pub const fn mutant(_name: &str) -> bool {
        false
    }
}

#[cfg(feature = "faults")]
mod on {
    use std::collections::HashMap;
    use std::io::Write as _;
    use std::sync::{LazyLock, Mutex, PoisonError};
    use std::time::Duration;

    /// What strikes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Action {
        Abort,
        Error,
        Panic,
        Sleep(Duration),
    }

    /// A rule: what strikes where and when.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(super) struct Rule {
        place: String,
        pub(super) action: Action,
        from: u64,
        times: u64,
        percent: u64,
    }

    impl Rule {
        pub(super) fn parse(text: &str) -> Option<Self> {
            let (place, rest) = text.trim().split_once('=')?;
            let end = rest.find(['@', 'x', '%']).unwrap_or(rest.len());
            let (action, mut rest) = rest.split_at(end);
            let action = match action.split_once(':') {
                Some(("sleep", ms)) => Action::Sleep(Duration::from_millis(ms.parse().ok()?)),
                None if action == "abort" => Action::Abort,
                None if action == "error" => Action::Error,
                None if action == "panic" => Action::Panic,
                _ => return None,
            };
            let mut rule = Self { place: place.to_owned(), action, from: 1, times: 1, percent: 100 };
            while let Some(sign) = rest.chars().next() {
                let end = rest[1..].find(['@', 'x', '%']).map_or(rest.len(), |end| end + 1);
                let number = if &rest[1..end] == "*" { u64::MAX } else { rest[1..end].parse().ok()? };
                match sign {
                    '@' => rule.from = number,
                    'x' => rule.times = number,
                    _ => rule.percent = number,
                }
                rest = &rest[end..];
            }
            Some(rule)
        }

        fn is_for(&self, place: &str) -> bool {
            self.place.strip_suffix('*').map_or(self.place == place, |start| place.starts_with(start))
        }
    }

    /// How often a place was passed, and how often each rule has struck there.
    #[derive(Default)]
    struct Passed {
        count: u64,
        struck: HashMap<usize, u64>,
    }

    pub(super) struct Faults {
        rules: Vec<Rule>,
        seed: u64,
        seen: Option<String>,
        passed: Mutex<HashMap<String, Passed>>,
    }

    static FAULTS: LazyLock<Faults> = LazyLock::new(|| {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let rules = variable("TOLK_FAULTS").unwrap_or_default();
        let seed = variable("TOLK_FAULTS_SEED").and_then(|seed| seed.parse().ok()).unwrap_or(0);
        Faults::new(&rules, seed, variable("TOLK_FAULTS_SEEN"))
    });

    static MUTANT: LazyLock<String> = LazyLock::new(|| std::env::var("TOLK_MUTANT").unwrap_or_default());

    impl Faults {
        pub(super) fn new(rules: &str, seed: u64, seen: Option<String>) -> Self {
            let rule = |text| Rule::parse(text).unwrap_or_else(|| panic!("TOLK_FAULTS: \"{text}\" is no rule"));
            let rules = rules.split(';').filter(|text| !text.trim().is_empty()).map(rule).collect();
            Self { rules, seed, seen, passed: Mutex::default() }
        }

        /// What strikes at a place that is passed now.
        pub(super) fn pass(&self, what: &str, when: &str) -> Option<Action> {
            if self.rules.is_empty() && self.seen.is_none() {
                return None;
            }
            let place = format!("{what}/{when}");
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            let here = passed.entry(place.clone()).or_default();
            here.count += 1;
            if here.count <= 2 {
                self.note(&place);
            }
            for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.is_for(&place)) {
                let struck = here.struck.entry(index).or_default();
                if here.count >= rule.from && *struck < rule.times && self.draw(&place, here.count) < rule.percent {
                    *struck += 1;
                    return Some(rule.action);
                }
            }
            None
        }

        /// The same number below 100 for the same seed, place and hit.
        fn draw(&self, place: &str, hit: u64) -> u64 {
            let mut z = place.bytes().fold(self.seed ^ hit.rotate_left(32), |z, byte| (z ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % 100
        }

        fn note(&self, place: &str) {
            let Some(seen) = &self.seen else { return };
            let file = std::fs::OpenOptions::new().create(true).append(true).open(seen);
            file.and_then(|mut file| file.write_all(format!("{place}\n").as_bytes())).expect("TOLK_FAULTS_SEEN can be written");
        }
    }

    fn strike(what: &str, when: &str) -> Option<Action> {
        let action = FAULTS.pass(what, when)?;
        match action {
            Action::Abort => {
                // SAFETY: raise is safe to call in any state; with SIGKILL it does not return.
                #[expect(unsafe_code, reason = "std has no way to end a process without any of its own doing")]
                unsafe {
                    libc::raise(libc::SIGKILL)
                };
            }
            Action::Panic => panic!("a fault was asked for at {what}/{when}"),
            Action::Error | Action::Sleep(_) => tracing::warn!(what, when, ?action, "a fault strikes"),
        }
        Some(action)
    }

    /// A place where an error can come back.
    pub async fn point(what: &str, when: &str) -> std::io::Result<()> {
        match strike(what, when) {
            Some(Action::Sleep(time)) => tokio::time::sleep(time).await,
            Some(Action::Error) => return Err(std::io::Error::other(format!("a fault was asked for at {what}/{when}"))),
            _ => {}
        }
        Ok(())
    }

    /// A place where none can.
    pub async fn step(what: &str, when: &str) {
        if let Some(Action::Sleep(time)) = strike(what, when) {
            tokio::time::sleep(time).await;
        }
    }

    /// A place on a thread of our own.
    pub fn here(what: &str, when: &str) {
        if let Some(Action::Sleep(time)) = strike(what, when) {
            std::thread::sleep(time);
        }
    }

    /// A place on a thread of our own, with the key of the message that is there: nothing unless a rule is for a key.
    pub fn keyed(what: &str, key: Option<&[u8]>) {
        if let Some(key) = key.filter(|_| FAULTS.rules.iter().any(|rule| rule.place.contains("/key:"))) {
            here(what, &format!("key:{}", String::from_utf8_lossy(key)));
        }
    }

    /// Whether a guard is left out.
    pub fn mutant(name: &str) -> bool {
        *MUTANT == name
    }
}

#[cfg(all(test, feature = "faults"))]
mod tests {
    use std::time::Duration;

    use super::on::{Action, Faults, Rule};

    #[test]
    fn rules_strike_where_and_when_they_say() {
        let faults = Faults::new("settle/commit=abort@3;settle/*=sleep:20x2", 1, None);
        let sleep = Some(Action::Sleep(Duration::from_millis(20)));
        let struck: Vec<_> = (0..5).map(|_| faults.pass("settle", "commit")).collect();
        assert_eq!(struck, [sleep, sleep, Some(Action::Abort), None, None]);
        assert_eq!(faults.pass("fetch", "begin"), None);
    }

    #[test]
    fn chance_is_drawn_from_the_seed() {
        let run = |seed| {
            let faults = Faults::new("*=errorx*%30", seed, None);
            (0..1_000).filter(|_| faults.pass("settle", "begin").is_some()).count()
        };
        assert_eq!(run(7), run(7));
        assert!((200..400).contains(&run(7)), "{}", run(7));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["settle", "settle/commit=explode", "a/b=sleep", "a/b=abort@x"] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }
}
