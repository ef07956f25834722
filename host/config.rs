//! The config file: composes what each part of the house owns. Reading it, and saying what is wrong with it, is `config/load.rs`.

pub mod admin;
mod checks;
mod environment;
pub mod load;
pub mod nearest;
pub mod retention;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plugin::Limits;
pub use crate::source::KafkaConfig;
use crate::{endpoint, feed, runtime, sink, store};

/// A whole config, `tolk.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The host itself.
    #[serde(default)]
    pub host: HostConfig,
    /// Where the data is.
    pub store: store::Config,
    /// Kafka clusters by name.
    #[serde(default)]
    pub kafka: BTreeMap<String, KafkaConfig>,
    /// Feeds by name.
    #[serde(default)]
    pub feeds: BTreeMap<String, feed::Config>,
    /// Targets by name: what outputs name.
    #[serde(default)]
    pub targets: BTreeMap<String, sink::Config>,
    /// Endpoints by name: what calls name.
    #[serde(default)]
    pub endpoints: BTreeMap<String, endpoint::config::Config>,
    /// The engine.
    #[serde(default)]
    pub runtime: runtime::Config,
    /// Limits of plugins by plugin name; `default` holds for the rest.
    #[serde(default)]
    pub limits: BTreeMap<String, Limits>,
    /// What is kept, and for how long.
    #[serde(default)]
    pub retention: retention::RetentionConfig,
    /// The admin door.
    #[serde(default)]
    pub admin: admin::AdminConfig,
}

impl Config {
    /// The limits of a plugin.
    pub fn limits_of(&self, plugin: &str) -> Limits {
        self.limits.get(plugin).or_else(|| self.limits.get("default")).cloned().unwrap_or_default()
    }
}

/// `[host]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// A name for people; default: the machine's.
    pub name: String,
    /// How long a host that stopped renewing keeps what it owns, in milliseconds.
    pub lease_ms: u64,
    /// How often finished messages are gathered into a settlement, in milliseconds.
    pub settle_every_ms: u64,
    /// Messages of a settlement.
    pub settle_messages_max: usize,
    /// How often the store is asked for new rows when hints are missing, in milliseconds.
    pub poll_ms: u64,
    /// Bytes of messages, answers and outputs in flight, over all feeds.
    pub memory_bytes_max: usize,
    /// How long a graceful stop may take, in milliseconds.
    pub stop_ms_max: u64,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            lease_ms: 15_000,
            settle_every_ms: 20,
            settle_messages_max: 5_000,
            poll_ms: 100,
            memory_bytes_max: 256 << 20,
            stop_ms_max: 25_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let text = r#"
            [store]
            url = "postgres://u:hush1@h/d"
            [kafka.main]
            brokers = "a:1"
            properties = { "sasl.password" = "hush2" }
            [endpoints.e]
            base_url = "http://e"
            path = "/"
            headers = { "x-key" = "hush3" }
            auth = { kind = "bearer", token = "hush4" }
        "#;
        let config = load::parse(text, std::path::Path::new("tolk.toml"), &|_| None).unwrap();
        let debug = format!("{config:?}");
        assert!(!debug.contains("hush"), "{debug}");
        assert!(debug.contains("sasl.password") && debug.contains("x-key"), "{debug}");
    }
}
