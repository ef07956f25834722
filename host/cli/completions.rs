//! `tolk completions`: a script for a shell.

use std::io::{self, Write as _};

use clap_complete::Shell;

use crate::cli::Exit;

/// Arguments of `tolk completions`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args, command: &mut clap::Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "tolk", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Exit::Ok)
}
