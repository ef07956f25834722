//! Where messages come from. A source hands over bytes and positions; it never decides what is done with them.

mod ahead;
pub mod captured;
pub mod file;
pub mod kafka;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::feed::SourceConfig;
use crate::message::{Captured, Position};

/// A Kafka cluster: `[kafka.NAME]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `HOST:PORT`, comma-separated.
    pub brokers: String,
    /// librdkafka properties beside our own (TLS, SASL); what Tolk sets itself is refused.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers).field("properties (values hidden)", &names).finish()
    }
}

/// The source of a feed, not reading yet. `kafka` is the config's clusters.
pub fn open(feed: &str, config: &SourceConfig, kafka: &BTreeMap<String, KafkaConfig>) -> Result<Box<dyn Source>, Error> {
    match config {
        SourceConfig::File { path, follow } => Ok(Box::new(file::FileSource::new(path, *follow))),
        SourceConfig::Kafka { cluster, topic } => {
            let found = kafka.get(cluster).ok_or_else(|| Error::Wrong {
                place: format!("topic {topic}"),
                reason: format!("feeds.{feed}.source.cluster names `{cluster}`, but there is no [kafka.{cluster}]"),
            })?;
            Ok(Box::new(kafka::KafkaSource::new(feed, cluster, found, topic)?))
        }
    }
}

/// What a source can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker or file cannot be reached now.
    #[error("read {place}: {reason}")]
    Away { place: String, reason: String },
    /// The position the feed stands at is gone at the source, or the topic is another one than before.
    #[error("read {place} partition {partition} at offset {offset}: {reason}")]
    Gap { place: String, partition: i32, offset: i64, reason: String },
    /// A setting is wrong, the topic does not exist, a line is no captured message.
    #[error("read {place}: {reason}")]
    Wrong { place: String, reason: String },
}

impl Error {
    /// Whether waiting and trying again can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// Messages in the order of their partitions.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The messages; offsets grow per partition.
    pub messages: Vec<Captured>,
    /// The source has ended for good (a file that is not followed).
    pub ended: bool,
}

/// A source of one feed.
#[async_trait]
pub trait Source: Send {
    /// A stable name for ids: the topic, or the file's name.
    fn name(&self) -> &str;
    /// How many partitions it has, as far as known; 0: not known.
    fn partitions(&self) -> i32 {
        1
    }
    /// What is told apart from another thing of the same name, such as a topic that was made anew, once `open` has succeeded; `None`: the
    /// source cannot tell.
    fn identity(&self) -> Option<&str> {
        None
    }
    /// Starts to read: each partition at its position, unknown partitions at their beginning. May be called again after an error.
    async fn open(&mut self, positions: &[Position]) -> Result<(), Error>;
    /// The next batch: waits for a message, then takes what is there at once. Cancel-safe: a dropped call loses nothing.
    async fn next(&mut self, rows_max: usize, bytes_max: usize) -> Result<Batch, Error>;
    /// Tells the source what is safe in the store: informational, for lag tools; never awaited for truth.
    fn committed(&mut self, positions: &[Position]);
}
