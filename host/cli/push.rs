//! `tolk push`: validates components, compiles them and stores both. Nothing becomes active by it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::shell::{self, Shell};
use crate::registry;
use crate::runtime::{Inspection, Runtime};

/// Arguments of `tolk push`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Components, as `tolk build` writes them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Who pushes; default: the user of this process
    #[arg(long)]
    by: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Pushed {
    file: PathBuf,
    #[serde(flatten)]
    inspection: Inspection,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let runtime = Runtime::new(&config.runtime)?;
    let by = shell::who(args.by);
    let mut pushed = Vec::new();
    for file in &args.files {
        let bytes = read(file, config.runtime.component_bytes_max)?;
        let inspection = registry::push(&*store, &runtime, &bytes, &by).await.with_context(|| format!("push {}", file.display()))?;
        if args.format.output == Output::Table {
            let description = &inspection.description;
            shell.say(format_args!("{}  {}@{}  {}", inspection.digest, description.name, description.version, file.display()))?;
        }
        pushed.push(Pushed { file: file.clone(), inspection });
    }
    match args.format.output {
        Output::Json => listing::json(shell, &pushed)?,
        Output::Table => {
            if let Some(last) = pushed.last() {
                let digest = listing::short(&last.inspection.digest);
                shell.note(format_args!("stored, not active; next: tolk activate {digest} --feed FEED --table TABLE"));
            }
        }
    }
    Ok(Exit::Ok)
}

/// Reads no more than the limit and a byte, so that a wrong file name cannot fill the memory.
fn read(file: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let open = || format!("read the component {}", file.display());
    let mut bytes = Vec::new();
    std::fs::File::open(file).with_context(open)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes).with_context(open)?;
    if bytes.len() > bytes_max {
        let stop =
            shell::Stop::refused(format!("push {}: it is larger than runtime.component_bytes_max, {bytes_max} bytes", file.display()));
        return Err(stop.next("is it the component that `tolk build` wrote? a release build is small").into());
    }
    Ok(bytes)
}
