//! A test's own hands on a Kafka: makes and changes topics, produces and consumes without going through Tolk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tolk::config::KafkaConfig;
use tolk::message::Captured;

const PATIENCE: Duration = Duration::from_secs(120);

/// A Kafka by its address.
pub struct Kafka {
    pub brokers: String,
}

impl Kafka {
    /// The one that all tests share.
    pub fn shared() -> Self {
        Self { brokers: super::kafka_brokers().to_owned() }
    }

    /// `[kafka.test]` of a config that names it.
    pub fn config(&self, properties: &[(&str, &str)]) -> BTreeMap<String, KafkaConfig> {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        BTreeMap::from([("test".to_owned(), KafkaConfig { brokers: self.brokers.clone(), properties })])
    }

    /// Makes a topic with a name that no other test has.
    pub async fn topic(&self, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = format!("test-{}", uuid::Uuid::new_v4());
        self.make_topic(&name, partitions, settings).await;
        name
    }

    /// Makes a topic.
    pub async fn make_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        // Tests send old timestamps: half a minute after its start the broker would begin to delete what is older than a week.
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        for made in self.admin().create_topics([&topic], &options()).await.unwrap() {
            made.unwrap();
        }
        self.until_known(name, |known| known == Some(partitions));
    }

    /// Deletes a topic and waits until it is gone.
    pub async fn delete_topic(&self, name: &str) {
        for deleted in self.admin().delete_topics(&[name], &options()).await.unwrap() {
            deleted.unwrap();
        }
        self.until_known(name, |known| known.is_none());
    }

    /// Gives a topic more partitions.
    pub async fn grow_topic(&self, name: &str, partitions: i32) {
        let grown = NewPartitions::new(name, usize::try_from(partitions).unwrap());
        for grown in self.admin().create_partitions([&grown], &options()).await.unwrap() {
            grown.unwrap();
        }
        self.until_known(name, |known| known == Some(partitions));
    }

    /// Deletes the records of partition 0 before an offset.
    pub async fn delete_records(&self, name: &str, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, 0, Offset::Offset(before)).unwrap();
        self.admin().delete_records(&list, &options()).await.unwrap();
    }

    /// Produces messages, each to its partition, in order, and waits until they are there. Their offsets are the broker's to give.
    pub fn produce(&self, topic: &str, messages: &[Captured]) {
        self.produce_with(topic, messages, &[]);
    }

    /// The same with properties of the producer.
    pub fn produce_with(&self, topic: &str, messages: &[Captured], properties: &[(&str, &str)]) {
        let mut config = self.client();
        config.set("message.max.bytes", "20000000").set("linger.ms", "1");
        properties.iter().for_each(|(name, value)| {
            config.set(*name, *value);
        });
        let producer: BaseProducer = config.create().unwrap();
        send(&producer, topic, messages);
        producer.flush(PATIENCE).unwrap();
    }

    /// Produces messages in a transaction, and aborts or commits it.
    pub fn produce_in_transaction(&self, topic: &str, messages: &[Captured], commit: bool) {
        let id = uuid::Uuid::new_v4().to_string();
        let producer: BaseProducer = self.client().set("transactional.id", id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, topic, messages);
        producer.flush(PATIENCE).unwrap();
        if commit { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) }.unwrap();
    }

    /// Everything that a topic holds now, in the order of its partitions.
    pub fn consume(&self, topic: &str) -> Vec<Captured> {
        let consumer = self.consumer("reader");
        let partitions = self.partitions_of(topic).unwrap();
        let mut ends = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
            if low < high {
                ends.insert(partition, high);
                list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&list).unwrap();
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        // The end of a partition is an event, since its last offsets may be markers of transactions.
        while !ends.is_empty() {
            assert!(Instant::now() < until, "topic {topic} is not read to its end");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => seen.push(captured(&message)),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                    ends.remove(&partition);
                }
                Some(Err(error)) => panic!("topic {topic}: {error}"),
                None => {}
            }
        }
        seen.sort_by_key(|message| (message.partition, message.offset));
        seen
    }

    /// How many records a topic holds.
    pub fn size(&self, topic: &str) -> usize {
        let consumer = self.consumer("reader");
        let size = |partition| {
            let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
            usize::try_from(high - low).unwrap()
        };
        (0..self.partitions_of(topic).unwrap()).map(size).sum()
    }

    /// What a group has committed, by partition.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, self.partitions_of(topic).unwrap() - 1);
        let committed = self.consumer(group).committed_offsets(list, PATIENCE).unwrap();
        let known = |at: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Some((at.partition(), at.offset().to_raw()?));
        committed.elements().iter().filter_map(known).filter(|(_, offset)| *offset >= 0).collect()
    }

    fn partitions_of(&self, topic: &str) -> Option<i32> {
        let metadata = self.consumer("asker").fetch_metadata(Some(topic), PATIENCE).unwrap();
        let topic = metadata.topics().first()?;
        topic.error().is_none().then(|| i32::try_from(topic.partitions().len()).unwrap())
    }

    /// The broker answers an administrator before it acts everywhere.
    fn until_known(&self, topic: &str, is_so: impl Fn(Option<i32>) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self.partitions_of(topic)) {
            assert!(Instant::now() < until, "the broker does not show the change of topic {topic}");
        }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", group).set("enable.partition.eof", "true").set("enable.auto.commit", "false");
        config.create().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

fn send(producer: &BaseProducer, topic: &str, messages: &[Captured]) {
    for message in messages {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(message.partition);
        record.key = message.key.as_deref();
        record.payload = message.payload.as_deref();
        record.timestamp = message.timestamp_ms;
        let headers = message
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (name, value)| headers.insert(Header { key: name, value: value.as_deref() }));
        producer.send(record.headers(headers)).map_err(|(error, _)| error).unwrap();
    }
}

fn captured(message: &BorrowedMessage<'_>) -> Captured {
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice))).collect());
    Captured {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        payload: message.payload().map(Bytes::copy_from_slice),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}
