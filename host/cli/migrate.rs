//! `tolk migrate`: brings the tables of the store up to this version.

use serde::Serialize;

use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::shell::Shell;
use crate::store::{self, Clock};

/// Arguments of `tolk migrate`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Done {
    applied: Vec<String>,
    version: i64,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = store::open(&config.store, Clock::Database).await?;
    let applied = store.migrate().await?;
    let (version, _) = store.schema_version().await?;
    if args.format.output == Output::Json {
        listing::json(shell, &Done { applied, version })?;
        return Ok(Exit::Ok);
    }
    for name in &applied {
        shell.say(format_args!("applied {name}"))?;
    }
    let place = store::masked(&config.store.url);
    shell.note(match applied.len() {
        0 => format!("{place} was at version {version} already"),
        n => format!("{place} is at version {version}, {n} applied"),
    });
    Ok(Exit::Ok)
}
