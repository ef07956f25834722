//! How an error is told: what happened and where, why, what to do next; and which exit code it means.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::Exit;
use crate::cli::shell::Stop;
use crate::{config, registry, runtime, source, store};

/// Tells the error on stderr; the exit code it means.
pub(super) fn failed(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let mut stderr = anstream::stderr().lock();
    // A closed stderr has nobody to tell.
    let _ = writeln!(stderr, "{red}error{red:#}: failed to {}", told(error).join("\n  because: "));
    if let Some(next) = next(error) {
        let _ = writeln!(stderr, "  next: {next}");
    }
    ExitCode::from(exit(error).code())
}

/// Whoever read our output has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The chain, without those causes that the line before already holds.
fn told(error: &anyhow::Error) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !lines.iter().any(|line| line.contains(&text)) {
            lines.push(text);
        }
    }
    lines
}

fn exit(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(stop) = cause.downcast_ref::<Stop>() {
            return stop.exit;
        }
        if let Some(error) = cause.downcast_ref::<config::load::Error>() {
            return if matches!(error, config::load::Error::Read { .. }) { Exit::Environment } else { Exit::Usage };
        }
        if let Some(error) = of_store(cause) {
            return if matches!(error, store::Error::Config(_)) { Exit::Usage } else { Exit::Environment };
        }
        if let Some(error) = of_runtime(cause) {
            return if matches!(error, runtime::Error::Engine(_)) { Exit::Environment } else { Exit::Refused };
        }
        if cause.is::<source::Error>() || cause.is::<io::Error>() {
            return Exit::Environment;
        }
    }
    Exit::Findings
}

// The registry's error shows through: in the chain it stands in place of what it holds.
fn of_store<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e store::Error> {
    match cause.downcast_ref() {
        Some(registry::Error::Store(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}

fn of_runtime<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e runtime::Error> {
    match cause.downcast_ref() {
        Some(registry::Error::Runtime(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}

fn next(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(stop) = cause.downcast_ref::<Stop>() {
            return stop.next.clone();
        }
        match of_store(cause)? {
            store::Error::Away { .. } => {
                Some("check that the database runs and that store.url is right; `tolk doctor` looks at everything".to_owned())
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_nothing_twice_and_keeps_its_exit_code() {
        let in_use = || store::Error::InUse { path: "tolk.db".to_owned(), other: "h1".to_owned() };
        let error = anyhow::Error::new(registry::Error::Store(in_use())).context(format!("look: {}", in_use())).context("list plugins");
        assert_eq!(told(&error).len(), 2, "{:?}", told(&error));
        assert!(told(&error)[1].contains("open tolk.db"), "{:?}", told(&error));
        assert_eq!(exit(&error), Exit::Environment);
        let stop = anyhow::Error::new(Stop::refused("activate it").next("ask"));
        assert_eq!((exit(&stop), next(&stop).as_deref()), (Exit::Refused, Some("ask")));
    }
}
