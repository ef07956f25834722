//! `tolk activate`: makes a plugin the active one of a feed and table, and returns once nothing runs on the old one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cli::Exit;
use crate::cli::plugins::label;
use crate::cli::shell::{self, Shell, Stop};
use crate::cli::{messages, reference};
use crate::config::Config;
use crate::plugin::Description;
use crate::registry;
use crate::runtime::Runtime;
use crate::store::{Activation, Component, Store};

/// How often living hosts are asked what they run on.
const POLL: Duration = Duration::from_millis(100);

/// Arguments of `tolk activate`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The plugin: the start of its digest, its name (the newest pushed), or name@version
    #[arg(value_name = "REF")]
    reference: String,
    #[command(flatten)]
    place: Place,
    /// The plugin's config: a text, or @FILE
    #[arg(long, default_value = "", value_name = "TEXT|@FILE", hide_default_value = true)]
    config_text: String,
    /// Let it read, write, call and put out to more than the version that is active now
    #[arg(long)]
    allow_widening: bool,
    #[command(flatten)]
    switch: Switch,
}

/// Where a plugin is active.
#[derive(clap::Args)]
pub(super) struct Place {
    /// The feed
    #[arg(long)]
    pub(super) feed: String,
    /// The table; * stands for every table without a plugin of its own
    #[arg(long)]
    pub(super) table: String,
}

/// How the switch is made.
#[derive(clap::Args)]
pub(super) struct Switch {
    /// Why, for the history
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) why: String,
    /// Who does it; default: the user of this process
    #[arg(long)]
    by: Option<String>,
    /// Do not wait until every host runs on it
    #[arg(long)]
    no_wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 60, conflicts_with = "no_wait")]
    timeout_s: u64,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    messages::known_feed(&config, &args.place.feed)?;
    let plugin_config = plugin_config(&args.config_text)?;
    let store = shell.store(&config).await?;
    let components = store.components().await?;
    let component = reference::resolve(&args.reference, &components)?;
    let (_, active) = store.active().await?;
    let current = active.iter().find(|a| a.feed == args.place.feed && a.table == args.place.table);
    fits(component, &args.place, &config)?;
    if !args.allow_widening {
        let before = current.and_then(|current| components.iter().find(|component| component.digest == current.digest));
        narrow_enough(component, before, &args.place)?;
    }
    starts(&*store, &config, component, &plugin_config).await?;
    switch(shell, &*store, &components, component, &args.place, plugin_config, &args.switch).await
}

fn plugin_config(text: &str) -> anyhow::Result<String> {
    match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("read the plugin's config {file}")),
        None => Ok(text.to_owned()),
    }
}

/// What the plugin names must exist here, or every message would fail.
fn fits(component: &Component, place: &Place, config: &Config) -> Result<(), Stop> {
    let Description { name, version, tables, targets, endpoints, .. } = &component.description;
    let whom = format!("activate {name}@{version} ({}) for {}/{}", component.digest.short(), place.feed, place.table);
    if place.table != "*" && !tables.is_empty() && !tables.iter().any(|table| *table == place.table || table == "*") {
        return Err(Stop::refused(format!("{whom}: it translates {}, not this table", quoted(tables))));
    }
    let targets: Vec<&String> = targets.iter().filter(|target| !config.targets.contains_key(*target)).collect();
    let endpoints: Vec<&String> = endpoints.iter().filter(|endpoint| !config.endpoints.contains_key(*endpoint)).collect();
    let missing = targets.iter().map(|name| format!("[targets.{name}]")).chain(endpoints.iter().map(|name| format!("[endpoints.{name}]")));
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Stop::usage(format!("{whom}: the config has no {}", missing.join(" and no ")))
        .next("add it to the config of every host, then activate again"))
}

/// What the plugin may do must not grow unless a person says so.
fn narrow_enough(component: &Component, before: Option<&Component>, place: &Place) -> Result<(), Stop> {
    let Some(before) = before else { return Ok(()) };
    let wider = widened(&before.description, &component.description);
    if wider.is_empty() {
        return Ok(());
    }
    let Description { name, version, .. } = &component.description;
    let text = format!(
        "activate {name}@{version} ({}) for {}/{}: it asks for more than {}, which is active: {}",
        component.digest.short(),
        place.feed,
        place.table,
        before.digest.short(),
        wider.join("; ")
    );
    Err(Stop::refused(text).next("look at it with `tolk plugins --output json`; if that is wanted, add --allow-widening"))
}

/// Capabilities that the new description has and the old one has not.
fn widened(old: &Description, new: &Description) -> Vec<String> {
    [
        ("reads", &old.reads, &new.reads),
        ("writes", &old.writes, &new.writes),
        ("namespaces", &old.namespaces, &new.namespaces),
        ("endpoints", &old.endpoints, &new.endpoints),
        ("targets", &old.targets, &new.targets),
    ]
    .into_iter()
    .filter_map(|(what, old, new)| {
        let old: BTreeSet<&String> = old.iter().collect();
        let more: Vec<String> = new.iter().filter(|name| !old.contains(name)).cloned().collect();
        (!more.is_empty()).then(|| format!("{what} {}", quoted(&more)))
    })
    .collect()
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// Loads the plugin and gives it its config, as the hosts will.
async fn starts(store: &dyn Store, config: &Config, component: &Component, plugin_config: &str) -> anyhow::Result<()> {
    let digest = component.digest;
    let runtime = Runtime::new(&config.runtime)?;
    let secret = store.secret().await?;
    let artefact = match store.artefact(digest, &runtime.engine_key()).await? {
        Some(artefact) => artefact,
        None => {
            let bytes = store.component_bytes(digest).await?;
            let bytes = bytes.ok_or_else(|| Stop::environment(format!("find the bytes of plugin {}", digest.short())))?;
            let artefact = runtime.compile(&bytes, &secret).await?;
            store.put_artefact(digest, &runtime.engine_key(), &artefact).await?;
            artefact.into()
        }
    };
    runtime.load(digest, &artefact, &secret, config.limits_of(&component.description.name), plugin_config)?;
    Ok(())
}

/// Moves the pointer, and waits until every living host runs on it.
pub(super) async fn switch(
    shell: &Shell,
    store: &dyn Store,
    components: &[Component],
    component: &Component,
    place: &Place,
    config: String,
    switch: &Switch,
) -> anyhow::Result<Exit> {
    let at_ms = store.now_ms().await?;
    let by = shell::who(switch.by.clone());
    let Place { feed, table } = place;
    let activation = Activation {
        id: 0,
        feed: feed.clone(),
        table: table.clone(),
        digest: component.digest,
        config,
        at_ms,
        by,
        why: switch.why.clone(),
    };
    let id = crate::registry::activate(store, &activation).await?;
    shell.say(format_args!(
        "{feed}/{table}: {} {} is active (activation {id})",
        label(components, component.digest),
        component.digest.short()
    ))?;
    if switch.no_wait {
        return Ok(Exit::Ok);
    }
    let (revision, _) = store.active().await?;
    let deadline = Instant::now() + Duration::from_secs(switch.timeout_s);
    loop {
        match store.oldest_revision().await? {
            None => {
                shell.note("no host runs now; the next one starts with it");
                return Ok(Exit::Ok);
            }
            Some(oldest) if oldest >= revision => {
                // A host that did not know of it yet may have let a message wait in the meantime.
                registry::wake(store, feed, table, &format!("activation {id} on every host")).await?;
                shell.note("every host runs on it; nothing is in flight on the one before");
                return Ok(Exit::Ok);
            }
            Some(_) if Instant::now() >= deadline => {
                let text = format!("see every host run on activation {id} within {} s; it stays active", switch.timeout_s);
                return Err(Stop::environment(text)
                    .next("a host may be busy or unable to load it: `tolk doctor`, and the hosts' logs")
                    .into());
            }
            Some(_) => tokio::time::sleep(POLL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_is_wider() {
        let old = Description { reads: vec!["a".into()], targets: vec!["out".into(), "log".into()], ..Description::default() };
        let new = Description {
            reads: vec!["a".into(), "b".into()],
            endpoints: vec!["person".into()],
            targets: vec!["out".into()],
            ..old.clone()
        };
        assert_eq!(widened(&old, &new), ["reads \"b\"", "endpoints \"person\""]);
        assert_eq!(widened(&new, &new), Vec::<String>::new());
    }
}
