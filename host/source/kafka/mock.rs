//! A Kafka that lives in this process, for demonstrations and examples: librdkafka's mock cluster. It keeps at most 5 MiB of each partition,
//! dropping the oldest, and it ends with the process.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::message::Captured;

/// A running mock cluster; it ends when this is dropped.
pub struct Mock {
    brokers: String,
    _alive: mpsc::Sender<()>,
}

impl Mock {
    /// Starts a cluster of one broker with some topics, each a name and a number of partitions.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, String> {
        let topics: Vec<(String, i32)> = topics.iter().map(|(name, partitions)| ((*name).to_owned(), *partitions)).collect();
        let (alive, ended) = mpsc::channel();
        let (started, is_started) = mpsc::channel();
        // The cluster's handle cannot leave its thread.
        thread::Builder::new()
            .name("kafka mock".to_owned())
            .spawn(move || {
                let cluster = MockCluster::new(1).and_then(|cluster| {
                    topics.iter().try_for_each(|(name, partitions)| cluster.create_topic(name, *partitions, 1))?;
                    Ok(cluster)
                });
                let told = started.send(cluster.as_ref().map(MockCluster::bootstrap_servers).map_err(ToString::to_string));
                if told.is_ok() && cluster.is_ok() {
                    // Returns when the sender is dropped.
                    let _ = ended.recv();
                }
            })
            .map_err(|error| format!("no thread: {error}"))?;
        let brokers = is_started.recv().map_err(|_| "the mock cluster did not start".to_owned())??;
        Ok(Self { brokers, _alive: alive })
    }

    /// `HOST:PORT` of the broker.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Produces messages to a topic, spread by their keys, and waits until the cluster has them.
    pub fn produce(&self, topic: &str, messages: &[Captured]) -> Result<(), String> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("linger.ms", "5")
            .create()
            .map_err(|error| format!("no producer for the mock cluster: {error}"))?;
        for message in messages {
            let mut record = BaseRecord::<[u8], [u8]>::to(topic);
            record.key = message.key.as_deref();
            record.payload = message.payload.as_deref();
            record.timestamp = message.timestamp_ms;
            while let Err((error, back)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(format!("produce to {topic}: {error}"));
                }
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        producer.flush(Duration::from_secs(30)).map_err(|error| format!("produce to {topic}: {error}"))
    }
}
