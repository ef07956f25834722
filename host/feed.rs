//! The noun of the path's start: a feed's settings, as a person writes them. Pointers are applied in `ingest`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The settings of one feed: `[feeds.NAME]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where messages come from.
    pub source: SourceConfig,
    /// JSON pointers to the table in the payload; the first that resolves wins. Empty: `table_name` is every message's table.
    #[serde(default)]
    pub table: Vec<String>,
    /// The table of messages for which no pointer resolves (tombstones, plain feeds).
    #[serde(default)]
    pub table_name: Option<String>,
    /// JSON pointers to the ordering key; `"key"` stands for the record's key. Empty: the record's key. Several parts: `keys`.
    #[serde(default)]
    pub key: Vec<String>,
    /// JSON pointers whose values together say that two messages are the same. Empty: no deduplication.
    #[serde(default)]
    pub dedupe: Vec<String>,
    /// Settings of single tables that differ from the feed's.
    #[serde(default)]
    pub tables: BTreeMap<String, TableConfig>,
    /// Remove NUL, raw and as `\u0000`, before pointers are read. The stored bytes stay as they came.
    #[serde(default)]
    pub strip_nul: bool,
    /// The number of lanes; fixed at the feed's first start.
    #[serde(default = "default_lanes")]
    pub lanes: u16,
    /// What holds back later messages of a key.
    #[serde(default)]
    pub policy: Policy,
    /// Retries of a message.
    #[serde(default)]
    pub retry: RetryConfig,
    /// How long a wait lasts that names no time of its own, in milliseconds.
    #[serde(default = "default_wait_timeout_ms")]
    pub wait_timeout_ms: u64,
    /// The time zone that `utc-offset-s` is taken from, an IANA name.
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
    /// Payload bytes kept whole; of a larger one a hash and the first 4 KiB are kept and the message is invalid.
    #[serde(default = "default_payload_bytes_max")]
    pub payload_bytes_max: usize,
    /// Rows of an ingest transaction.
    #[serde(default = "default_batch_rows_max")]
    pub batch_rows_max: usize,
    /// Bytes of an ingest transaction.
    #[serde(default = "default_batch_bytes_max")]
    pub batch_bytes_max: usize,
    /// Whose answers are kept as provenance.
    #[serde(default)]
    pub keep_answers: KeepAnswers,
    /// The least time between two settlements of a key, in milliseconds.
    #[serde(default)]
    pub min_key_interval_ms: u64,
    /// Messages between a start and an end that count only together.
    #[serde(default)]
    pub delivery: Option<crate::delivery::Config>,
}

/// Settings of one table of a feed; what is not set is the feed's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// As the feed's `key`.
    pub key: Option<Vec<String>>,
    /// As the feed's `dedupe`.
    pub dedupe: Option<Vec<String>>,
    /// As the feed's `policy`.
    pub policy: Option<Policy>,
    /// As the feed's `min_key_interval_ms`.
    pub min_key_interval_ms: Option<u64>,
}

/// Where a feed's messages come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum SourceConfig {
    /// A topic, all its partitions.
    Kafka {
        /// The cluster, a name under `[kafka]`.
        cluster: String,
        /// The topic.
        topic: String,
    },
    /// A file of captured messages, JSON Lines.
    File {
        /// The path.
        path: std::path::PathBuf,
        /// Go on reading as the file grows.
        #[serde(default)]
        follow: bool,
    },
}

/// What holds back later messages of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Retry, waiting, running, failed and stopped.
    #[default]
    Strict,
    /// As strict, but failed and stopped do not.
    Skip,
    /// Nothing: an older message is dropped once a newer one of its key is handled.
    NewestWins,
}

/// Whose answers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepAnswers {
    /// Every message's.
    All,
    /// Those of messages that did not end handled or ignored.
    #[default]
    Failed,
    /// Nobody's.
    None,
}

/// Retries of a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// The wait before each retry, in milliseconds; the last one repeats.
    pub backoff_ms: Vec<u64>,
    /// After this many tries that ended in retry the message is failed.
    pub attempts_max: u32,
    /// A failed message is tried once more every so many milliseconds; not set: a person must ask for it.
    pub quarantine_ms: Option<u64>,
    /// Other back-offs and limits by the code of what went wrong, such as `remote-status` or a code of the plugin's own. A trap or a limit
    /// (`trap`, `deadline`) is tried again only where its code stands here.
    pub classes: BTreeMap<String, RetryClass>,
}

/// Retries of messages that failed with one code; what is not set is the feed's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryClass {
    /// As `retry.backoff_ms`.
    pub backoff_ms: Option<Vec<u64>>,
    /// As `retry.attempts_max`.
    pub attempts_max: Option<u32>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { backoff_ms: vec![1_000, 5_000, 30_000, 120_000, 600_000], attempts_max: 10, quarantine_ms: None, classes: BTreeMap::new() }
    }
}

fn default_lanes() -> u16 {
    64
}
fn default_wait_timeout_ms() -> u64 {
    30 * 24 * 3_600_000
}
fn default_time_zone() -> String {
    "UTC".to_owned()
}
fn default_payload_bytes_max() -> usize {
    16 << 20
}
fn default_batch_rows_max() -> usize {
    5_000
}
fn default_batch_bytes_max() -> usize {
    16 << 20
}
