//! A Kafka that lives in this process, for demonstrations and examples: librdkafka's mock cluster. It keeps at most 5 MiB of each partition,
//! dropping the oldest, and it ends with the process.

use std::sync::mpsc;
use std::thread;

use rdkafka::mocking::MockCluster;

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
}
