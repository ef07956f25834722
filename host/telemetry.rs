//! Log lines: where they go, how they look, how many there are. Payloads and secrets are never in them.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The level without `TOLK_LOG` and `RUST_LOG`: our state changes, warnings of the crates below.
const DEFAULT_FILTER: &str = "warn,tolk=info,sqlx=error";

/// Starts logging to stderr, filtered by `TOLK_LOG`, else `RUST_LOG`. A second call does nothing.
pub fn start(format: LogFormat) {
    let wanted = ["TOLK_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.trim().is_empty()));
    let filter = wanted.as_deref().map(EnvFilter::try_new);
    let wrong = matches!(filter, Some(Err(_)));
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if started.is_ok() && wrong {
        tracing::warn!(filter = wanted.as_deref().unwrap_or_default(), "TOLK_LOG is no filter; logging as without it");
    }
}
