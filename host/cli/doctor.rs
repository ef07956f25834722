//! `tolk doctor`: looks at config, store, brokers, files, plugins and endpoints, and says how to mend what is wrong. Changes nothing.

mod endpoints;
mod ledger;
mod plugins;
mod stuck;
mod surroundings;

use serde::Serialize;

use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::shell::Shell;

/// Arguments of `tolk doctor`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Check the store's equations in place of all else: nothing lost, nothing twice, nothing held by the dead
    #[arg(long)]
    ledger: bool,
    #[command(flatten)]
    format: Format,
}

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    state: State,
    text: String,
    /// How to mend it.
    mend: Option<String>,
    /// A failure of the surroundings, not of what is configured or stored.
    #[serde(skip)]
    environment: bool,
}

/// What was looked at so far.
#[derive(Default)]
struct Report(Vec<Line>);

impl Report {
    fn ok(&mut self, what: impl Into<String>, text: impl Into<String>) {
        self.0.push(Line { what: what.into(), state: State::Ok, text: text.into(), mend: None, environment: false });
    }

    fn warn(&mut self, what: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Line { what: what.into(), state: State::Warn, text: text.into(), mend: Some(mend.into()), environment: false });
    }

    fn fail(&mut self, what: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Line { what: what.into(), state: State::Fail, text: text.into(), mend: Some(mend.into()), environment: false });
    }

    fn away(&mut self, what: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Line { what: what.into(), state: State::Fail, text: text.into(), mend: Some(mend.into()), environment: true });
    }

    fn exit(&self) -> Exit {
        let failed: Vec<&Line> = self.0.iter().filter(|line| line.state == State::Fail).collect();
        match failed.iter().any(|line| line.environment) {
            true => Exit::Environment,
            false if failed.is_empty() => Exit::Ok,
            false => Exit::Findings,
        }
    }
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    if args.ledger {
        return ledger::run(&args.format, shell).await;
    }
    let config = shell.config()?;
    let mut report = Report::default();
    let (feeds, targets, calls) = (config.feeds.len(), config.targets.len(), config.endpoints.len());
    let path = shell.config_path.display();
    if feeds == 0 {
        report.warn("config", format!("{path} has no feeds"), "add [feeds.NAME] with a source; `tolk init` writes an example");
    } else {
        report.ok("config", format!("{path}: feeds {feeds}, targets {targets}, endpoints {calls}"));
    }
    let store = surroundings::store(&config, &mut report).await;
    surroundings::brokers(&config, &mut report).await;
    surroundings::files(&config, &mut report);
    if let Some(store) = store {
        plugins::check(&config, &store, &mut report).await;
        stuck::check(&config, &*store, &mut report).await;
    }
    endpoints::check(&config, &mut report).await;
    match args.format.output {
        Output::Json => listing::json(shell, &report.0)?,
        Output::Table => show(shell, &report)?,
    }
    Ok(report.exit())
}

fn show(shell: &Shell, report: &Report) -> std::io::Result<()> {
    let width = report.0.iter().map(|line| line.what.chars().count()).max().unwrap_or_default();
    for line in &report.0 {
        let (word, color) = match line.state {
            State::Ok => ("OK  ", anstyle::AnsiColor::Green),
            State::Warn => ("WARN", anstyle::AnsiColor::Yellow),
            State::Fail => ("FAIL", anstyle::AnsiColor::Red),
        };
        let style = color.on_default().bold();
        shell.say(format_args!("{style}{word}{style:#}  {:<width$}  {}", line.what, line.text))?;
        if let Some(mend) = &line.mend {
            shell.say(format_args!("      {:<width$}  -> {mend}", ""))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_line_decides_the_exit_code() {
        let mut report = Report::default();
        report.ok("a", "");
        report.warn("b", "", "");
        assert_eq!(report.exit(), Exit::Ok);
        report.fail("c", "", "");
        assert_eq!(report.exit(), Exit::Findings);
        report.away("d", "", "");
        assert_eq!(report.exit(), Exit::Environment);
    }
}
