//! What every subcommand is given: where the config is, and ways to the store and to stdout. Knows no subcommand.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::Exit;
use crate::config::{self, Config};
use crate::store::{self, Clock, Store};

/// What a subcommand is given beside its own arguments.
pub struct Shell {
    /// Where the config is.
    pub config_path: PathBuf,
}

impl Shell {
    /// The config, checked.
    pub fn config(&self) -> Result<Config, config::load::Error> {
        config::load::load(&self.config_path)
    }

    /// The store of a config, with tables of this version.
    pub async fn store(&self, config: &Config) -> anyhow::Result<Arc<dyn Store>> {
        if let Some(path) = config.store.absent_file() {
            return Err(Stop::environment(format!("open the store {}: there is no such file", path.display()))
                .next("run `tolk migrate`")
                .into());
        }
        let store = store::open(&config.store, Clock::Database).await?;
        let (found, known) = store.schema_version().await?;
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(store::Error::Schema { found, known, advice: "run `tolk migrate`" }.into()),
            std::cmp::Ordering::Equal => Ok(store),
            std::cmp::Ordering::Greater => Err(store::Error::Schema { found, known, advice: "use a newer tolk" }.into()),
        }
    }

    /// One line, or several, of data.
    pub fn say(&self, text: impl fmt::Display) -> io::Result<()> {
        writeln!(anstream::stdout().lock(), "{text}")
    }

    /// A word to the person, who may read it while data goes elsewhere.
    pub fn note(&self, text: impl fmt::Display) {
        // A closed stderr has nobody to tell.
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }
}

/// An end that is no success, said as a fragment that follows "failed to".
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Stop {
    /// The exit code it means.
    pub exit: Exit,
    /// What happened, and where.
    pub text: String,
    /// What to do next.
    pub next: Option<String>,
}

impl Stop {
    /// The command line is wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, text: text.into(), next: None }
    }

    /// The surroundings do not do what is needed.
    pub fn environment(text: impl Into<String>) -> Self {
        Self { exit: Exit::Environment, text: text.into(), next: None }
    }

    /// Policy says no.
    pub fn refused(text: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, text: text.into(), next: None }
    }

    /// With what to do next.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// Whose name stands in the history: the one given, or the user of this process.
pub fn who(given: Option<String>) -> String {
    let variables = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    given.or(variables).unwrap_or_else(|| "unknown".to_owned())
}
