//! Which topics a cluster has: for people who look, before anything is read.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::settings::{self, Quiet};
use crate::source::{Error, KafkaConfig};

/// How long a cluster may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The topics of a cluster and how many partitions each has.
pub async fn topics(cluster: &str, config: &KafkaConfig) -> Result<BTreeMap<String, usize>, Error> {
    let place = format!("cluster {cluster} at {}", config.brokers);
    let settings =
        settings::client(cluster, config, &[("group.id", "tolk")], &[]).map_err(|reason| Error::Wrong { place: place.clone(), reason })?;
    let asked = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer<Quiet> =
            settings.create_with_context(Quiet).map_err(|error| Error::Wrong { place: place.clone(), reason: error.to_string() })?;
        let metadata = consumer.fetch_metadata(None, ANSWER_MAX).map_err(|error| Error::Away { place, reason: error.to_string() })?;
        Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
    });
    asked.await.expect("asking a cluster does not panic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kafka::mock::Mock;

    #[tokio::test]
    async fn topics_are_listed_and_an_absent_cluster_is_away() {
        let kafka = Mock::start(&[("orders", 3)]).unwrap();
        let config = |brokers: &str| KafkaConfig { brokers: brokers.to_owned(), properties: BTreeMap::new() };
        let found = topics("main", &config(kafka.brokers())).await.unwrap();
        assert_eq!(found.get("orders"), Some(&3), "{found:?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = topics("main", &config(&closed)).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains(&closed), "{error}");
    }
}
