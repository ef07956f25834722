//! The Kafka source: all partitions of a topic by one `assign` at the store's positions, read by a thread of its own. The group's offsets are
//! committed afterwards for lag tools and never read. Dropping a consumer can hang, so nobody waits for the thread: it ends by itself.

mod identity;
pub mod mock;
mod reader;
pub mod settings;
pub mod topics;

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use tokio::sync::oneshot;

use super::ahead::{self, Ahead};
use super::{Batch, Error, Source};
use crate::message::Position;
use crate::source::KafkaConfig;

/// Memory of prefetched messages, the pause when it is full, how soon a new partition is seen; and that what was spoilt on its way is not
/// taken for what was sent: the client says so, and the thread reads it again.
const TUNED: [(&str, &str); 7] = [
    ("fetch.queue.backoff.ms", "20"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.max.bytes", "16777216"),
    ("fetch.message.max.bytes", "4194304"),
    ("fetch.error.backoff.ms", "200"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("check.crcs", "true"),
];

/// Positions are the store's: no commit and no reset behind its back.
const FIXED: [(&str, &str); 5] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
];

/// A source that reads a topic.
pub struct KafkaSource {
    feed: String,
    topic: String,
    place: String,
    settings: ClientConfig,
    ahead: Ahead,
    committed: Arc<Mutex<Vec<Position>>>,
    partitions: Arc<AtomicI32>,
    identity: Option<String>,
}

impl KafkaSource {
    /// A source of a topic; nothing is connected yet. The group for lag tools is the property `group.id`, or `tolk-FEED`.
    pub fn new(feed: &str, cluster: &str, config: &KafkaConfig, topic: &str) -> Result<Self, Error> {
        let place = format!("topic {topic} of cluster {cluster}");
        let wrong = |reason: String| Error::Wrong { place: place.clone(), reason };
        let group = format!("tolk-{feed}");
        let mut tuned = TUNED.to_vec();
        tuned.push(("group.id", &group));
        let settings = settings::client(cluster, config, &tuned, &FIXED).map_err(wrong)?;
        settings.create_native_config().map_err(|error| wrong(settings::refused(cluster, &error)))?;
        let ahead = Ahead::closed(place.clone());
        Ok(Self {
            feed: feed.to_owned(),
            topic: topic.to_owned(),
            place,
            settings,
            ahead,
            committed: Arc::default(),
            partitions: Arc::default(),
            identity: None,
        })
    }

    fn away(&self, reason: String) -> Error {
        Error::Away { place: self.place.clone(), reason }
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn name(&self) -> &str {
        &self.topic
    }

    fn partitions(&self) -> i32 {
        self.partitions.load(Ordering::Relaxed)
    }

    fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    async fn open(&mut self, positions: &[Position]) -> Result<(), Error> {
        // Replacing the receiver is what tells an earlier thread to end.
        let (sender, ahead) = ahead::channel(self.place.clone());
        self.ahead = ahead;
        self.committed = Arc::default();
        let plan = reader::Plan {
            feed: self.feed.clone(),
            topic: self.topic.clone(),
            place: self.place.clone(),
            settings: self.settings.clone(),
            positions: positions.to_vec(),
            committed: Arc::clone(&self.committed),
            partitions: Arc::clone(&self.partitions),
        };
        let (started, is_started) = oneshot::channel();
        thread::Builder::new()
            .name(format!("kafka {}", self.topic))
            .spawn(move || reader::run(plan, started, &sender))
            .map_err(|error| self.away(format!("no thread: {error}")))?;
        let started = is_started.await.unwrap_or_else(|_| Err(self.away("the reading thread ended before it started".to_owned())));
        self.identity = started?;
        Ok(())
    }

    async fn next(&mut self, rows_max: usize, bytes_max: usize) -> Result<Batch, Error> {
        self.ahead.next(rows_max, bytes_max).await
    }

    fn committed(&mut self, positions: &[Position]) {
        let mut committed = self.committed.lock().expect("no holder panics");
        for position in positions {
            match committed.iter_mut().find(|known| known.partition == position.partition) {
                Some(known) => *known = *position,
                None => committed.push(*position),
            }
        }
    }
}
