//! `tolk plugins`: what is stored, where it is active, and what was active before.

use serde::Serialize;

use crate::cli::Exit;
use crate::cli::listing::{self, Format};
use crate::cli::shell::Shell;
use crate::plugin::Digest;
use crate::store::{Activation, Component, Store};

/// Arguments of `tolk plugins`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Show past and present activations, newest first, in place of the plugins
    #[arg(long)]
    history: bool,
    /// With --history: only of this feed
    #[arg(long, requires = "history")]
    feed: Option<String>,
    /// With --history: only of this table
    #[arg(long, requires = "history")]
    table: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct PluginRow {
    digest: String,
    name: String,
    version: String,
    summary: String,
    size: i64,
    imports: Vec<String>,
    pushed_ms: i64,
    pushed_by: String,
    active: Vec<String>,
}

#[derive(Serialize)]
struct ActivationRow {
    id: i64,
    feed: String,
    table: String,
    plugin: String,
    digest: String,
    active: bool,
    config: String,
    at_ms: i64,
    by: String,
    why: String,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let components = store.components().await?;
    let (_, active) = store.active().await?;
    if args.history {
        return history(&args, shell, &*store, &components, &active).await;
    }
    let rows: Vec<PluginRow> = components.into_iter().map(|component| plugin_row(component, &active)).collect();
    listing::print(
        shell,
        &args.format,
        &rows,
        &["digest", "plugin", "size", "pushed", "by", "active for"],
        |row| {
            let active = if row.active.is_empty() { "-".to_owned() } else { row.active.join(", ") };
            let label = format!("{}@{}", row.name, row.version);
            vec![
                listing::short(&row.digest).to_owned(),
                label,
                row.size.to_string(),
                listing::time(row.pushed_ms),
                row.pushed_by.clone(),
                active,
            ]
        },
        "no plugins are stored; push one with `tolk push FILE`",
    )?;
    Ok(Exit::Ok)
}

fn plugin_row(component: Component, active: &[Activation]) -> PluginRow {
    let places = active.iter().filter(|activation| activation.digest == component.digest);
    PluginRow {
        active: places.map(|activation| format!("{}/{}", activation.feed, activation.table)).collect(),
        digest: component.digest.to_string(),
        name: component.description.name,
        version: component.description.version,
        summary: component.description.summary,
        size: component.size,
        imports: component.imports,
        pushed_ms: component.pushed_ms,
        pushed_by: component.pushed_by,
    }
}

async fn history(args: &Args, shell: &Shell, store: &dyn Store, components: &[Component], active: &[Activation]) -> anyhow::Result<Exit> {
    let activations = store.activations(args.feed.as_deref(), args.table.as_deref()).await?;
    let rows: Vec<ActivationRow> = activations
        .into_iter()
        .map(|activation| ActivationRow {
            active: active.iter().any(|current| current.id == activation.id),
            plugin: label(components, activation.digest),
            id: activation.id,
            feed: activation.feed,
            table: activation.table,
            digest: activation.digest.to_string(),
            config: activation.config,
            at_ms: activation.at_ms,
            by: activation.by,
            why: activation.why,
        })
        .collect();
    listing::print(
        shell,
        &args.format,
        &rows,
        &["at", "feed", "table", "plugin", "digest", "active", "by", "why"],
        |row| {
            let active = if row.active { "yes" } else { "" };
            let digest = listing::short(&row.digest).to_owned();
            let why = listing::cut(&row.why, 60);
            vec![
                listing::time(row.at_ms),
                row.feed.clone(),
                row.table.clone(),
                row.plugin.clone(),
                digest,
                active.to_owned(),
                row.by.clone(),
                why,
            ]
        },
        "nothing was activated yet; activate a plugin with `tolk activate REF --feed FEED --table TABLE`",
    )?;
    Ok(Exit::Ok)
}

/// name@version of a digest; the digest itself where it is not stored.
pub(super) fn label(components: &[Component], digest: Digest) -> String {
    components
        .iter()
        .find(|component| component.digest == digest)
        .map_or_else(|| digest.short(), |component| format!("{}@{}", component.description.name, component.description.version))
}
