//! The doctor's look at what the host stands on: the store, the brokers with their topics, the files.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::Report;
use crate::config::Config;
use crate::source::kafka::topics::topics;
use crate::store::{self, Clock, Store};
use crate::{feed, sink};

/// Looks at the store; `Some` if its tables can be read.
pub(super) async fn store(config: &Config, report: &mut Report) -> Option<Arc<dyn Store>> {
    let place = store::masked(&config.store.url);
    if config.store.absent_file().is_some() {
        report.fail("store", format!("{place} is not there yet"), "tolk migrate");
        return None;
    }
    let looked = async {
        let store = store::open(&config.store, Clock::Database).await?;
        let about = store.about().await?;
        let versions = store.schema_version().await?;
        Ok::<_, store::Error>((store, about, versions))
    };
    match looked.await {
        Err(error) => {
            let mend = if error.is_transient() { "start the database, or mend store.url" } else { "mend [store] in the config" };
            report.away("store", error.to_string(), mend);
            None
        }
        Ok((store, about, (found, known))) => {
            report.ok("store", format!("{place}: {about}"));
            match found.cmp(&known) {
                Ordering::Equal => {
                    report.ok("tables", format!("at version {found}"));
                    return Some(store);
                }
                Ordering::Less if found == 0 => report.fail("tables", "are not there yet", "tolk migrate"),
                Ordering::Less => report.fail("tables", format!("are at version {found}, this binary needs {known}"), "tolk migrate"),
                Ordering::Greater => {
                    report.fail("tables", format!("are at version {found}, this binary knows {known}"), "use a newer tolk");
                }
            }
            None
        }
    }
}

/// Looks at each cluster and the topics that feeds and targets name.
pub(super) async fn brokers(config: &Config, report: &mut Report) {
    for (name, kafka) in &config.kafka {
        let what = format!("kafka {name}");
        let topics = match topics(name, kafka).await {
            Ok(topics) => topics,
            Err(error) => {
                report.away(what, error.to_string(), format!("start the broker, or mend kafka.{name}.brokers"));
                continue;
            }
        };
        report.ok(what, format!("{} answers, {} topics", kafka.brokers, topics.len()));
        for (role, topic) in wanted(config, name) {
            match topics.get(&topic) {
                Some(partitions) => report.ok(&*role, format!("topic {topic} has {partitions} partitions")),
                None => report.away(
                    role,
                    format!("topic {topic} does not exist at {}", kafka.brokers),
                    "create it, or mend its name in the config",
                ),
            }
        }
    }
}

/// Who needs which topic of a cluster.
fn wanted(config: &Config, name: &str) -> BTreeSet<(String, String)> {
    let feeds = config.feeds.iter().filter_map(|(feed, settings)| match &settings.source {
        feed::SourceConfig::Kafka { cluster, topic } if cluster == name => Some((format!("feed {feed}"), topic.clone())),
        _ => None,
    });
    let targets = config.targets.iter().filter_map(|(target, settings)| match settings {
        sink::Config::Kafka { cluster, topic, .. } if cluster == name => Some((format!("target {target}"), topic.clone())),
        _ => None,
    });
    feeds.chain(targets).collect()
}

/// Looks at the files of feeds and targets.
pub(super) fn files(config: &Config, report: &mut Report) {
    for (name, settings) in &config.feeds {
        let feed::SourceConfig::File { path, follow } = &settings.source else { continue };
        let what = format!("feed {name}");
        match std::fs::File::open(path) {
            Ok(_) => report.ok(what, format!("{} can be read", path.display())),
            Err(error) => {
                let mend = if *follow {
                    "put captured messages there, one a line; `run` waits for it"
                } else {
                    "put captured messages there, one a line"
                };
                report.away(what, format!("{} cannot be read: {error}", path.display()), mend);
            }
        }
    }
    for (name, settings) in &config.targets {
        let sink::Config::File { path, .. } = settings else { continue };
        let what = format!("target {name}");
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match std::fs::metadata(folder) {
            Ok(found) if found.is_dir() && !found.permissions().readonly() => {
                report.ok(what, format!("{} can be appended to", path.display()))
            }
            Ok(_) => report.away(
                what,
                format!("{} is no folder that can be written to", folder.display()),
                "mend its rights or the target's path",
            ),
            Err(error) => {
                report.away(what, format!("{} cannot be used: {error}", folder.display()), "make the folder, or mend the target's path")
            }
        }
    }
}
