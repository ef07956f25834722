//! `tolk test`: runs a component against captured messages, offline, and tells what differs from what was expected.

use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::check::attempt::Guest;
use crate::check::case::{self, Tables};
use crate::check::component::Component;
use crate::check::diff::Pattern;
use crate::check::{self, Options, Report, Verdict};
use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::shell::{Shell, Stop};
use crate::plugin::Limits;
use crate::runtime::{self, Runtime};

/// Arguments of `tolk test`.
#[derive(clap::Args)]
pub struct Args {
    /// The component, as `tolk build` writes it
    #[arg(value_name = "PLUGIN.wasm")]
    plugin: PathBuf,
    /// Files of captured messages, or folders of such files (*.jsonl, *.ndjson)
    #[arg(value_name = "CAPTURES", default_value = "captures")]
    captures: Vec<PathBuf>,
    /// Write what comes out into the files as what is expected
    #[arg(long)]
    bless: bool,
    /// Only cases whose name or FILE:LINE holds this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Paths that are not compared, such as '$.outputs[*].payload.id'; beside each line's own "ignore"
    #[arg(long, value_name = "PATH", value_parser = Pattern::parse)]
    ignore: Vec<Pattern>,
    /// Make each call on a fresh instance too, and compare
    #[arg(long)]
    determinism: bool,
    /// Cases without an expectation fail
    #[arg(long, conflicts_with = "bless")]
    strict: bool,
    /// Show what each case used, its log, and answers that nobody asked for
    #[arg(short, long)]
    verbose: bool,
    /// The table of lines that do not name theirs
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// A JSON pointer to the table in the payload, for lines that do not name theirs
    #[arg(long, value_name = "POINTER", conflicts_with = "table")]
    table_pointer: Option<String>,
    /// A file that holds the plugin's config
    #[arg(long, value_name = "FILE")]
    plugin_config: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// What became of all cases, for programs.
#[derive(Serialize)]
struct Whole<'a> {
    plugin: String,
    digest: String,
    passed: usize,
    failed: usize,
    new: usize,
    skipped: usize,
    /// Lines that were given a new expectation.
    blessed: usize,
    cases: &'a [Report],
}

pub(super) fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    // A thread of its own: CPU time is measured per thread, and guests must not run on the threads that wait for others.
    std::thread::scope(|scope| scope.spawn(|| work(&args, shell)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn work(args: &Args, shell: &Shell) -> anyhow::Result<Exit> {
    let start = std::time::Instant::now();
    let files = files(&args.captures)?;
    let mut component = load(args)?;
    let options = Options {
        tables: Tables { table: args.table.clone(), pointer: args.table_pointer.clone() },
        filter: args.filter.clone(),
        ignore: args.ignore.clone(),
    };
    let described = component.translator().description().tables.clone();
    let (mut reports, mut blessed) = (Vec::new(), 0);
    for path in &files {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut told = Ok(());
        let mut tell = |report: &Report| {
            if args.format.output == Output::Table && told.is_ok() {
                told = shell.say(line(report, args));
            }
        };
        let found = check::check(&mut component as &mut dyn Guest, &described, path, &text, &options, &mut tell);
        told?;
        if args.bless {
            blessed += bless(path, &text, &found)?;
        }
        reports.extend(found);
    }
    let count = |verdict: Verdict| reports.iter().filter(|report| outcome(report, args) == verdict).count();
    let description = component.translator().description();
    let whole = Whole {
        plugin: format!("{}@{}", description.name, description.version),
        digest: component.translator().digest().to_string(),
        passed: count(Verdict::Pass),
        failed: count(Verdict::Fail),
        new: count(Verdict::New),
        skipped: count(Verdict::Skip),
        blessed,
        cases: &reports,
    };
    match args.format.output {
        Output::Json => listing::json(shell, &whole)?,
        Output::Table => shell.say(summary(&whole, args, start.elapsed()))?,
    }
    Ok(if whole.failed > 0 { Exit::Findings } else { Exit::Ok })
}

fn load(args: &Args) -> anyhow::Result<Component> {
    let bytes = std::fs::read(&args.plugin).with_context(|| format!("read {}", args.plugin.display()))?;
    let config = match &args.plugin_config {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
        None => String::new(),
    };
    let runtime = Runtime::new(&runtime::Config { threads: 1, ..runtime::Config::default() })?;
    let loaded = Component::load(runtime, &bytes, Limits::default(), &config, args.determinism);
    loaded.with_context(|| format!("load {}", args.plugin.display()))
}

fn files(captures: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in captures {
        if !path.exists() {
            let stop = Stop::usage(format!("read captures: there is no {}", path.display()));
            return Err(stop.next("name files or folders of captured messages; `tolk capture` writes some").into());
        }
        files.extend(case::files(path).with_context(|| format!("read {}", path.display()))?);
    }
    if files.is_empty() {
        return Err(Stop::usage("read captures: the folder holds no *.jsonl or *.ndjson file").next("`tolk capture` writes one").into());
    }
    Ok(files)
}

/// Writes expectations; the number of lines that changed.
fn bless(path: &Path, text: &str, reports: &[Report]) -> anyhow::Result<usize> {
    let (new, changed) = check::blessed(text, reports);
    if changed > 0 {
        check::bless::replace(path, &new).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(changed)
}

/// What a case counts as: what was blessed has passed, and under `--strict` what is new has failed.
fn outcome(report: &Report, args: &Args) -> Verdict {
    match report.result {
        Verdict::New if args.strict => Verdict::Fail,
        Verdict::New | Verdict::Fail if args.bless && check::is_blessable(report) => Verdict::Pass,
        verdict => verdict,
    }
}

/// The line of a case, and what `--verbose` adds.
fn line(report: &Report, args: &Args) -> String {
    let blessed = args.bless && check::is_blessable(report);
    let (word, style) = match outcome(report, args) {
        _ if blessed => ("BLESS", AnsiColor::Cyan.on_default().bold()),
        Verdict::Pass => ("PASS", AnsiColor::Green.on_default().bold()),
        Verdict::Fail => ("FAIL", AnsiColor::Red.on_default().bold()),
        Verdict::New => ("NEW", AnsiColor::Yellow.on_default().bold()),
        Verdict::Skip => ("SKIP", Style::new().dimmed()),
    };
    let seconds = report.wall_us as f64 / 1e6;
    let mut text = format!("{style}{word:>8}{style:#} [{seconds:>7.3}s] {}:{} {}", report.file, report.line, report.name);
    if report.result == Verdict::New {
        text.push_str(&format!(" -> {}", report.actual.as_ref().map(in_short).unwrap_or_default()));
    }
    if blessed {
        report.differences.iter().for_each(|difference| text.push_str(&format!("\n           {difference}")));
    }
    if args.verbose && report.result != Verdict::Skip {
        let used = &report.used;
        text.push_str(&format!(
            "\n           {} µs CPU, {} KiB memory, {} rounds, {} needs, {} outputs, {} bytes",
            used.cpu_us,
            used.memory_bytes >> 10,
            used.rounds,
            used.needs,
            used.outputs,
            used.bytes
        ));
        report.log.iter().for_each(|line| text.push_str(&format!("\n           log: {line}")));
        report.unused.iter().for_each(|request| text.push_str(&format!("\n           never asked for: {request}")));
    }
    text
}

/// An outcome in a few words: `waiting (parent)`, `translated, 2 outputs`.
fn in_short(outcome: &Value) -> String {
    let word = outcome["outcome"].as_str().unwrap_or_default();
    match (outcome["code"].as_str(), outcome["outputs"].as_array().map(Vec::len)) {
        (Some(code), _) => format!("{word} ({code})"),
        (None, Some(1)) => format!("{word}, 1 output"),
        (None, outputs) => format!("{word}, {} outputs", outputs.unwrap_or(0)),
    }
}

fn summary(whole: &Whole<'_>, args: &Args, elapsed: std::time::Duration) -> String {
    let mut text = format!("{}\n", "─".repeat(12));
    let ran = whole.passed + whole.failed + whole.new;
    text.push_str(&format!("{:>8} [{:>7.3}s] {ran} cases: {} passed", "Summary", elapsed.as_secs_f64(), whole.passed));
    let style = AnsiColor::Red.on_default().bold();
    if whole.failed > 0 {
        text.push_str(&format!(", {style}{} failed{style:#}", whole.failed));
    }
    for (count, word) in [(whole.new, "new"), (whole.skipped, "skipped (other tables)"), (whole.blessed, "blessed")] {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    for report in whole.cases.iter().filter(|report| outcome(report, args) == Verdict::Fail) {
        text.push_str(&format!("\n{style}{:>8}{style:#} {}:{} {}", "FAIL", report.file, report.line, report.name));
        text.push_str(&why(report));
    }
    if whole.new > 0 && whole.failed == 0 {
        let captures: Vec<_> = args.captures.iter().map(|path| path.display().to_string()).collect();
        text.push_str(&format!(
            "\nnew cases have no expectation yet; look at them with --output json, then take them over with\n  tolk test {} {} --bless",
            args.plugin.display(),
            captures.join(" ")
        ));
    }
    text
}

/// Why a case failed, one line a reason.
fn why(report: &Report) -> String {
    let mut text = String::new();
    for difference in &report.differences {
        text.push_str(&format!("\n           {difference}"));
    }
    if let Some(trouble) = &report.trouble {
        text.push_str(&format!("\n           {}", trouble.replace('\n', "\n           ")));
    }
    if report.result == Verdict::New {
        text.push_str("\n           it has no expectation (--strict); write one with --bless");
    }
    text
}
