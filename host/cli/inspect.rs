//! `tolk inspect`: what a component is, found without trusting it and without running a message.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::shell::Shell;
use crate::runtime::{self, Inspection, Runtime};

/// Arguments of `tolk inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// The component, as `tolk build` writes it
    #[arg(value_name = "PLUGIN.wasm")]
    plugin: PathBuf,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &Args, shell: &Shell) -> anyhow::Result<Exit> {
    let inspection = inspect(&args.plugin)?;
    match args.format.output {
        Output::Json => listing::json(shell, &inspection)?,
        Output::Table => shell.say(shown(&inspection))?,
    }
    Ok(Exit::Ok)
}

fn inspect(plugin: &PathBuf) -> anyhow::Result<Inspection> {
    let bytes = std::fs::read(plugin).with_context(|| format!("read {}", plugin.display()))?;
    let runtime = Runtime::new(&runtime::Config::default())?;
    runtime.inspect(&bytes).with_context(|| format!("inspect {}", plugin.display()))
}

fn shown(inspection: &Inspection) -> String {
    let description = &inspection.description;
    let list = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    let imports = if inspection.imports.is_empty() { "none".to_owned() } else { format!("{} (inert)", inspection.imports.join(", ")) };
    let rows = [
        ("plugin", format!("{}@{}", description.name, description.version)),
        ("summary", description.summary.clone()),
        ("digest", inspection.digest.clone()),
        ("size", format!("{} bytes", inspection.size)),
        ("imports", imports),
        ("tables", list(&description.tables)),
        ("reads", list(&description.reads)),
        ("writes", list(&description.writes)),
        ("namespaces", list(&description.namespaces)),
        ("endpoints", list(&description.endpoints)),
        ("targets", list(&description.targets)),
    ];
    rows.iter().map(|(name, value)| format!("{name:<12}{}", value.replace(char::is_control, " "))).collect::<Vec<_>>().join("\n")
}
