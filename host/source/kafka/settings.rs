//! A client's settings: a cluster's own, ours, and which of ours a person may change. For the source and the sink both.

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use crate::source::KafkaConfig;

/// What promises rest on: positions live in the store, sends are idempotent and bounded in time. Refused in `properties`.
const OURS: [&str; 24] = [
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.protocol",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "test.mock.num.brokers",
    "transactional.id",
];

/// Settings for a client of a cluster: first `tuned`, then the person's properties, then `fixed`, which nobody may set.
pub fn client(cluster: &str, config: &KafkaConfig, tuned: &[(&str, &str)], fixed: &[(&str, &str)]) -> Result<ClientConfig, String> {
    let mut settings = ClientConfig::new();
    settings.set("client.id", "tolk").set("socket.keepalive.enable", "true").set("reconnect.backoff.max.ms", "2000");
    for (name, value) in tuned {
        settings.set(*name, *value);
    }
    for (name, value) in &config.properties {
        if OURS.contains(&name.as_str()) {
            let instead = if name.contains("servers") || name.contains("broker") { "; use `brokers`" } else { "" };
            return Err(format!("kafka.{cluster}.properties must not set `{name}`: Tolk sets it itself{instead}"));
        }
        settings.set(name, value);
    }
    settings.set("bootstrap.servers", &config.brokers);
    for (name, value) in fixed {
        settings.set(*name, *value);
    }
    Ok(settings)
}

/// What is wrong with settings that the library refused, in the config's words.
pub fn refused(cluster: &str, error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, name, _) => format!("kafka.{cluster}.properties sets `{name}`: {reason}"),
        other => format!("kafka.{cluster}: {other}"),
    }
}

/// Sends the library's log to ours, at debug: what a person should know comes as an error of a call.
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "tolk::kafka", facility, "{text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tolk::kafka", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(name: &str) -> KafkaConfig {
        KafkaConfig { brokers: "localhost:1".to_owned(), properties: BTreeMap::from([(name.to_owned(), "1".to_owned())]) }
    }

    #[test]
    fn promises_cannot_be_configured_away() {
        assert!(OURS.is_sorted());
        for name in ["enable.auto.commit", "bootstrap.servers", "acks", "transactional.id"] {
            let error = client("main", &config(name), &[], &[]).unwrap_err();
            assert!(error.contains("kafka.main.properties") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_person_may_change_what_is_only_tuned() {
        let settings = client("main", &config("linger.ms"), &[("linger.ms", "5")], &[("acks", "all")]).unwrap();
        assert_eq!(settings.get("linger.ms"), Some("1"));
        assert_eq!(settings.get("acks"), Some("all"));
        assert_eq!(settings.get("bootstrap.servers"), Some("localhost:1"));
    }
}
