//! `tolk explain`: why a message has not come out, and what will wake it.

use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::messages::show;
use crate::cli::shell::Shell;
use crate::explain::{self, Known, text};

/// Arguments of `tolk explain`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The message's id, or where it stands: FEED/PARTITION/OFFSET
    message: String,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let detail = show::find(&config, &*store, &args.message).await?;
    let known = Known::read(&config, &*store, None).await?;
    let explanation = explain::explain(&known, &*store, &detail).await?;
    match args.format.output {
        Output::Json => listing::json(shell, &explanation)?,
        Output::Table => shell.say(text::lines(&explanation).trim_end())?,
    }
    Ok(Exit::Ok)
}
