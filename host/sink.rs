//! Where outputs go. A sink sends in order and says of each output what became of it; it never decides what is tried again.

pub mod file;
pub mod kafka;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::source::KafkaConfig;
use crate::store::OutputRow;

/// A sink that cannot be used as it is configured: the target, and what to mend.
#[derive(Debug, thiserror::Error)]
#[error("open target {target}: {reason}")]
pub struct Error {
    /// The target's name.
    pub target: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// The sink of a target; nothing is sent yet. `kafka` is the config's clusters: targets of one cluster share a producer.
pub fn open(target: &str, config: &Config, kafka: &BTreeMap<String, KafkaConfig>) -> Result<Arc<dyn Sink>, Error> {
    let wrong = |reason: String| Error { target: target.to_owned(), reason };
    match config {
        Config::File { path, .. } => {
            let sink =
                file::FileSink::open(path).map_err(|error| wrong(format!("{}: {error}; see targets.{target}.path", path.display())))?;
            Ok(Arc::new(sink))
        }
        Config::Kafka { cluster, topic, .. } => {
            let found = kafka
                .get(cluster)
                .ok_or_else(|| wrong(format!("targets.{target}.cluster names `{cluster}`, but there is no [kafka.{cluster}]")))?;
            Ok(Arc::new(kafka::KafkaSink::new(cluster, found, topic).map_err(wrong)?))
        }
    }
}

/// A target: `[targets.NAME]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum Config {
    /// A topic.
    Kafka {
        /// The cluster, a name under `[kafka]`.
        cluster: String,
        /// The topic.
        topic: String,
        /// The least time between two outputs of a key, in milliseconds. Others pass those that wait, so that with it positions grow per
        /// key only.
        #[serde(default)]
        min_key_interval_ms: u64,
    },
    /// A file of JSON Lines, one output a line.
    File {
        /// The path; appended to.
        path: std::path::PathBuf,
        /// As a topic's.
        #[serde(default)]
        min_key_interval_ms: u64,
    },
}

impl Config {
    /// The least time between two outputs of a key, in milliseconds; 0: none.
    pub fn min_key_interval_ms(&self) -> u64 {
        match self {
            Self::Kafka { min_key_interval_ms, .. } | Self::File { min_key_interval_ms, .. } => *min_key_interval_ms,
        }
    }
}

/// What became of an output.
///
/// A refused output holds back later ones of its key: a sink reports these as refused too, where it has not sent them yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The sink has it, durably.
    Done,
    /// The sink will never take it: too large, no such topic.
    Refused(String),
    /// Not sent, or not known to be: from here on everything is to be sent again.
    Away(String),
}

/// A sink of one target.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Sends a batch in order and waits for all of it. One `Sent` per output; after the first `Away` nothing later counts as done.
    async fn send(&self, target: &str, outputs: &[OutputRow]) -> Vec<Sent>;
    /// How long a send of a process that died may still be under way, in milliseconds: what a takeover waits out.
    fn settle_ms(&self) -> u64;
}

/// The position header's value: `SETTLEMENT.INDEX` with fixed widths, so that it grows as text too.
pub fn position_header(row: &OutputRow) -> String {
    format!("{:019}.{:010}", row.cursor.settlement, row.cursor.index)
}

/// The names of the headers that every output carries.
pub mod header {
    /// uuid5 of the message's id, run and output index: the same on every re-send.
    pub const EVENT_ID: &str = "tolk-event-id";
    /// Only grows per target: consumers can drop what is not larger.
    pub const POSITION: &str = "tolk-position";
    /// The feed's name.
    pub const FEED: &str = "tolk-feed";
    /// The digest of the plugin that made the output.
    pub const DIGEST: &str = "tolk-digest";
}
