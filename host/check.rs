//! The plugin harness: runs one component against captured messages and stored answers, offline, and compares what it makes of them with
//! what was expected. A file of captures is one small world: later messages see what earlier ones wrote.

pub mod attempt;
pub mod bless;
pub mod case;
pub mod component;
pub mod diff;
pub mod fields;
pub mod form;
pub mod world;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::plugin::{Outcome, Request};
use attempt::{Attempt, End, Guest};
use case::{ANY_TABLE, Case, Tables};
use diff::{Difference, Pattern};
use world::World;

/// How a check is done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How tables are found on lines that do not name theirs.
    pub tables: Tables,
    /// Report only cases whose name or `FILE:LINE` holds this text; the others still leave their entries behind.
    pub filter: Option<String>,
    /// Paths that are not compared, beside those of the lines.
    pub ignore: Vec<Pattern>,
}

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Not as expected, or no outcome at all.
    Fail,
    /// Nobody has said what is expected.
    New,
    /// Of a table that the plugin does not translate.
    Skip,
}

/// What a case took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Used {
    /// CPU time over all rounds, in microseconds.
    pub cpu_us: u64,
    /// The largest memory of the instance so far, in bytes.
    pub memory_bytes: usize,
    /// Rounds.
    pub rounds: usize,
    /// Requests.
    pub needs: usize,
    /// Outputs.
    pub outputs: usize,
    /// Bytes of outputs and writes.
    pub bytes: usize,
}

/// A case and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What people call it.
    pub name: String,
    /// What became of it.
    pub result: Verdict,
    /// Wall-clock time in microseconds.
    pub wall_us: u64,
    /// Where it differs from what was expected.
    pub differences: Vec<Difference>,
    /// Why there is no outcome: a trap, a limit, a missing answer, a line that cannot be read; what to do about it.
    pub trouble: Option<String>,
    /// The outcome; a trouble of the plugin is `{"outcome": "trouble", "code": ..}`.
    pub actual: Option<Value>,
    /// What it took.
    pub used: Used,
    /// The guest's log.
    pub log: Vec<String>,
    /// Stored answers that nobody asked for.
    pub unused: Vec<Value>,
}

/// Checks the lines of one file in a world of their own, and tells each report as soon as it is there.
pub fn check(
    guest: &mut dyn Guest,
    described: &[String],
    path: &Path,
    text: &str,
    options: &Options,
    tell: &mut dyn FnMut(&Report),
) -> Vec<Report> {
    let mut world = World::default();
    let mut reports = Vec::new();
    for (number, line) in case::lines(text) {
        let mut report = report(path, number);
        match Case::read(line, number, &options.tables, described) {
            Err(error) => report.trouble = Some(format!("it cannot be read: {error}")),
            Ok(case) => {
                report.name.clone_from(&case.name);
                let translated = described.iter().any(|table| *table == *case.message.table || table == ANY_TABLE);
                if translated {
                    run(guest, &case, &mut world, options, &mut report);
                } else {
                    report.result = Verdict::Skip;
                }
            }
        }
        let is_wanted = |filter: &String| report.name.contains(filter) || format!("{}:{number}", report.file).contains(filter);
        if options.filter.as_ref().is_none_or(is_wanted) {
            tell(&report);
            reports.push(report);
        }
    }
    reports
}

fn report(path: &Path, line: usize) -> Report {
    Report {
        file: path.display().to_string(),
        line,
        name: String::new(),
        result: Verdict::Fail,
        wall_us: 0,
        differences: Vec::new(),
        trouble: None,
        actual: None,
        used: Used::default(),
        log: Vec::new(),
        unused: Vec::new(),
    }
}

fn run(guest: &mut dyn Guest, case: &Case, world: &mut World, options: &Options, report: &mut Report) {
    let start = Instant::now();
    let attempt = attempt::run(guest, case, world);
    report.wall_us = micros(start.elapsed());
    report.used = used(&attempt);
    report.unused = attempt.unused.iter().map(form::request).collect();
    report.log = attempt.log;
    match attempt.end {
        End::Outcome(outcome) => report.actual = Some(form::outcome(&outcome)),
        End::Trouble { code, text } => {
            report.actual = Some(json!({"outcome": "trouble", "code": code}));
            report.trouble = Some(format!("{code}: {text}"));
        }
        End::Unanswered(calls) => report.trouble = Some(unanswered(&calls)),
    }
    let Some(actual) = &report.actual else { return };
    report.result = match &case.expected {
        None if report.trouble.is_some() => Verdict::Fail,
        None => Verdict::New,
        Some(expected) => {
            let ignore: Vec<_> = case.ignore.iter().chain(&options.ignore).cloned().collect();
            report.differences = diff::differences(expected, actual, &ignore);
            if report.differences.is_empty() { Verdict::Pass } else { Verdict::Fail }
        }
    };
}

fn unanswered(calls: &[Request]) -> String {
    let answers = calls.iter().map(|call| {
        let reply = json!({"response": {"status": 200, "body": {}}});
        format!("\n  {}", json!({"request": form::request(call), "reply": reply}))
    });
    format!(
        "no stored answer for {} call(s); add to \"answers\" of its line, with what was answered:{}",
        calls.len(),
        answers.collect::<String>()
    )
}

fn used(attempt: &Attempt) -> Used {
    let (outputs, writes) = match &attempt.end {
        End::Outcome(Outcome::Translated(translation)) => (translation.outputs.as_slice(), translation.writes.as_slice()),
        End::Outcome(Outcome::Ignored(dismissal)) => (&[][..], dismissal.writes.as_slice()),
        _ => (&[][..], &[][..]),
    };
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let bytes = outputs.iter().map(|output| length(&output.key) + length(&output.payload)).sum::<usize>()
        + writes.iter().map(|write| write.key.len() + length(&write.value)).sum::<usize>();
    Used {
        cpu_us: micros(attempt.cpu),
        memory_bytes: attempt.memory_bytes,
        rounds: attempt.rounds,
        needs: attempt.needs,
        outputs: outputs.len(),
        bytes,
    }
}

/// The text of a file with what came out as what is expected, and how many lines changed; lines that pass, or have no outcome, stay.
pub fn blessed(text: &str, reports: &[Report]) -> (String, usize) {
    let mut changed = 0;
    let lines = text.split_inclusive('\n').enumerate().map(|(i, line)| {
        let report = reports.iter().find(|report| report.line == i + 1 && is_blessable(report));
        match report.and_then(|report| report.actual.as_ref()) {
            Some(actual) => {
                changed += 1;
                let end = line.trim_end_matches(['\n', '\r']).len();
                format!("{}{}", bless::with_expected(&line[..end], actual), &line[end..])
            }
            None => line.to_owned(),
        }
    });
    (lines.collect(), changed)
}

/// Whether what came out may become what is expected: a trouble never does by itself.
pub fn is_blessable(report: &Report) -> bool {
    report.trouble.is_none() && matches!(report.result, Verdict::New | Verdict::Fail)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::plugin::{self, Context, Limits, Output, Translation};
    use crate::runtime::Trouble;

    /// Puts each payload out as it came; traps on a tombstone.
    struct Echo(Limits);

    impl Guest for Echo {
        fn translate(&mut self, message: &Message, _feed: &str, _context: &Context) -> Result<plugin::Verdict, Trouble> {
            let Some(payload) = &message.captured.payload else { return Err(Trouble { code: "trap", text: "unreachable".into() }) };
            let output = Output { target: "t".into(), payload: Some(payload.clone()), ..Output::default() };
            let outcome = Outcome::Translated(Translation { outputs: vec![output], ..Translation::default() });
            Ok(plugin::Verdict { outcome, log: vec![] })
        }
        fn limits(&self) -> &Limits {
            &self.0
        }
        fn used(&self) -> (Duration, usize) {
            (Duration::ZERO, 0)
        }
    }

    fn checked(text: &str, options: &Options) -> Vec<Report> {
        let mut told = 0;
        let reports = check(&mut Echo(Limits::default()), &["T".to_owned()], Path::new("a.jsonl"), text, options, &mut |_| told += 1);
        assert_eq!(told, reports.len());
        reports
    }

    const LINES: &str = "{\"payload\": {\"a\": 1}, \"expected\": {\"outcome\": \"translated\", \"outputs\": [{\"target\": \"t\", \"action\": \"put\", \"key\": null, \"payload\": {\"a\": 1}}]}}\r
{\"payload\": {\"a\": 2}, \"expected\": {\"outcome\": \"translated\", \"outputs\": [{\"target\": \"t\", \"action\": \"put\", \"key\": null, \"payload\": {\"a\": 1}}]}}

{\"name\": \"fresh\", \"payload\": 3.50}
{\"table\": \"U\", \"payload\": 4}
{\"payload\": null}
{\"payload\": null, \"expected\": {\"outcome\": \"trouble\", \"code\": \"trap\"}}
nonsense";

    #[test]
    fn each_line_gets_a_verdict() {
        let reports = checked(LINES, &Options::default());
        let results: Vec<_> = reports.iter().map(|report| (report.line, report.result)).collect();
        let expected = [
            (1, Verdict::Pass),
            (2, Verdict::Fail),
            (4, Verdict::New),
            (5, Verdict::Skip),
            (6, Verdict::Fail),
            (7, Verdict::Pass),
            (8, Verdict::Fail),
        ];
        assert_eq!(results, expected);
        assert_eq!(reports[1].differences[0].to_string(), "outputs[0].payload.a: 1 -> 2");
        assert_eq!(reports[4].trouble.as_deref(), Some("trap: unreachable"));
        assert!(reports[6].trouble.as_ref().unwrap().contains("cannot be read"));
    }

    #[test]
    fn blessing_turns_new_and_different_into_passed() {
        let options = Options::default();
        let (text, changed) = blessed(LINES, &checked(LINES, &options));
        assert_eq!(changed, 2);
        let kept = |number: usize| LINES.split('\n').nth(number - 1) == text.split('\n').nth(number - 1);
        assert!(kept(1) && kept(3) && kept(5) && kept(6) && kept(7) && kept(8), "{text}");
        assert!(text.contains("\"payload\": 3.50, \"expected\": "), "{text}");
        let results: Vec<_> = checked(&text, &options).iter().map(|report| report.result).collect();
        assert_eq!(results[..3], [Verdict::Pass; 3]);
        assert_eq!(blessed(&text, &checked(&text, &options)), (text, 0));
    }

    #[test]
    fn filters_and_ignored_paths() {
        let options = Options { filter: Some("fresh".into()), ..Options::default() };
        assert_eq!(checked(LINES, &options).iter().map(|report| report.line).collect::<Vec<_>>(), [4]);
        let options = Options {
            filter: Some("a.jsonl:2".into()),
            ignore: vec![Pattern::parse("$.outputs[*].payload.a").unwrap()],
            ..Options::default()
        };
        assert_eq!(checked(LINES, &options)[0].result, Verdict::Pass);
    }
}
