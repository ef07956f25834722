//! The doctor's look at plugins and messages: active for every feed, loadable here, fitting the config; and what waits for a person.

use std::sync::Arc;

use super::Report;
use crate::cli::plugins::label;
use crate::config::Config;
use crate::registry::Registry;
use crate::runtime::Runtime;
use crate::store::{self, Activation, Component, Store};

pub(super) async fn check(config: &Config, store: &Arc<dyn Store>, report: &mut Report) {
    let looked = async {
        let components = store.components().await?;
        let (_, active) = store.active().await?;
        Ok::<_, store::Error>((components, active))
    };
    let (components, active) = match looked.await {
        Ok(found) => found,
        Err(error) => return report.away("plugins", error.to_string(), "see the store's line above"),
    };
    for feed in config.feeds.keys() {
        let tables: Vec<&str> = active.iter().filter(|a| a.feed == *feed).map(|a| a.table.as_str()).collect();
        let what = format!("feed {feed}");
        if tables.is_empty() {
            let mend = format!("tolk activate REF --feed {feed} --table TABLE; until then its messages are kept and wait");
            report.warn(what, "no plugin is active", mend);
        } else {
            report.ok(what, format!("plugins are active for {}", tables.join(", ")));
        }
    }
    for activation in active.iter().filter(|a| !config.feeds.contains_key(&a.feed)) {
        let what = format!("plugin {}", label(&components, activation.digest));
        let text = format!("is active for {}/{}, but the config has no feed {}", activation.feed, activation.table, activation.feed);
        report.warn(what, text, format!("add [feeds.{}], or leave it: it does nothing here", activation.feed));
    }
    fitting(config, &components, &active, report);
    loadable(config, store, &components, &active, report).await;
    messages(store, report).await;
}

fn fitting(config: &Config, components: &[Component], active: &[Activation], report: &mut Report) {
    for activation in active.iter().filter(|a| config.feeds.contains_key(&a.feed)) {
        let Some(component) = components.iter().find(|c| c.digest == activation.digest) else { continue };
        let description = &component.description;
        let targets = description.targets.iter().filter(|name| !config.targets.contains_key(*name)).map(|name| format!("[targets.{name}]"));
        let endpoints =
            description.endpoints.iter().filter(|name| !config.endpoints.contains_key(*name)).map(|name| format!("[endpoints.{name}]"));
        for missing in targets.chain(endpoints) {
            let what = format!("plugin {}", label(components, activation.digest));
            report.fail(what, format!("names {missing}, which the config does not have"), format!("add {missing} to the config"));
        }
    }
}

/// Loads what is active, as `run` would.
async fn loadable(config: &Config, store: &Arc<dyn Store>, components: &[Component], active: &[Activation], report: &mut Report) {
    if active.is_empty() {
        return;
    }
    let opened = async {
        let runtime = Runtime::new(&config.runtime)?;
        Registry::open(store.clone(), runtime, config.limits.clone()).await
    };
    let snapshot = match opened.await {
        Ok(registry) => registry.snapshot(),
        Err(error) => {
            return report.away("plugins", error.to_string(), "see the store's line above; else this machine cannot run components");
        }
    };
    for (activation, reason) in snapshot.broken() {
        let what = format!("plugin {} ({})", label(components, activation.digest), activation.digest.short());
        let text = format!("cannot be loaded for {}/{}: {reason}", activation.feed, activation.table);
        report.fail(what, text, format!("tolk rollback --feed {} --table {}, or push it again", activation.feed, activation.table));
    }
    if snapshot.broken().is_empty() {
        report.ok("plugins", format!("all {} activations load", active.len()));
    }
}

async fn messages(store: &Arc<dyn Store>, report: &mut Report) {
    let counts = match store.counts().await {
        Ok(counts) => counts,
        Err(error) => return report.away("messages", error.to_string(), "see the store's line above"),
    };
    let of = |status: &str| counts.iter().filter(|count| count.status == status).map(|count| count.count).sum::<i64>();
    let all: i64 = counts.iter().map(|count| count.count).sum();
    match of("failed") {
        0 => report.ok("messages", format!("{all}, none failed")),
        failed => {
            report.warn("messages", format!("{all}, of which {failed} failed and wait for a person"), "tolk messages --status failed")
        }
    }
}
