//! The thread that reads a topic: checks the positions it is given against what the broker holds, assigns once, then hands over what it
//! polls in bundles. A full channel stops the polling, and that stops the fetching. Knows nothing of the store.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::{mpsc, oneshot};

use super::super::ahead::Bundle;
use super::super::{Batch, Error};
use super::identity;
use super::settings::Quiet;
use crate::message::{Captured, Headers, Position};

const ASK_TIMEOUT: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(100);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// A broker that has just started may not know yet what it holds: what it denies is asked again.
const ASK_AGAIN: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1_500)];

/// What a thread is to read.
pub(super) struct Plan {
    pub(super) feed: String,
    pub(super) topic: String,
    pub(super) place: String,
    pub(super) settings: ClientConfig,
    pub(super) positions: Vec<Position>,
    pub(super) committed: Arc<Mutex<Vec<Position>>>,
    pub(super) partitions: Arc<AtomicI32>,
}

/// Reads until the receiver is gone or an error needs a new start.
pub(super) fn run(plan: Plan, started: oneshot::Sender<Result<Option<String>, Error>>, sender: &mpsc::Sender<Result<Batch, Error>>) {
    match Reader::start(plan) {
        Err(error) => {
            // Nobody listens any more: nobody is to be told.
            let _ = started.send(Err(error));
        }
        Ok(mut reader) => {
            if started.send(Ok(reader.identity.clone())).is_ok() {
                reader.read(sender);
            }
        }
    }
}

struct Reader {
    plan: Plan,
    consumer: BaseConsumer<Quiet>,
    partitions: i32,
    /// The topic's id, where the brokers tell it.
    identity: Option<String>,
    /// A broker that leads a partition.
    leader: Option<i32>,
    /// The offset that is due next, of each partition that has one.
    next: BTreeMap<i32, i64>,
    refresh_every: Duration,
    refreshed: Instant,
    committed: Instant,
    is_away: bool,
}

impl Reader {
    fn start(plan: Plan) -> Result<Self, Error> {
        let consumer: BaseConsumer<Quiet> = plan
            .settings
            .create_with_context(Quiet)
            .map_err(|error| Error::Wrong { place: plan.place.clone(), reason: format!("{error}; see the cluster's properties") })?;
        let refresh_ms = plan.settings.get("topic.metadata.refresh.interval.ms").and_then(|ms| ms.parse().ok()).unwrap_or(30_000);
        let now = Instant::now();
        let mut reader = Self {
            plan,
            consumer,
            partitions: 0,
            identity: None,
            leader: None,
            next: BTreeMap::new(),
            refresh_every: Duration::from_millis(refresh_ms),
            refreshed: now,
            committed: now,
            is_away: false,
        };
        let metadata = reader.describe()?;
        reader.partitions = count(&metadata);
        // Before the positions are looked at: what is made anew later has other errors.
        reader.leader = leader(&metadata);
        reader.identity = reader.ask_identity(&metadata)?;
        reader.plan.partitions.store(reader.partitions, Ordering::Relaxed);
        // Offset 0 was never passed: it is the beginning, wherever retention has moved that by now.
        reader.next = reader.plan.positions.iter().filter(|at| at.next_offset > 0).map(|at| (at.partition, at.next_offset)).collect();
        if crate::faults::mutant("group-offsets") {
            reader.next = reader.group_offsets();
        }
        reader.check_positions()?;
        reader.consumer.assign(&reader.list(0)).map_err(|error| reader.away(error.to_string()))?;
        Ok(reader)
    }

    fn read(&mut self, sender: &mpsc::Sender<Result<Batch, Error>>) {
        while !sender.is_closed() {
            let mut bundle = Bundle::default();
            let mut failed = self.look_for_partitions().err();
            let mut wait = POLL;
            while failed.is_none() && !bundle.is_full() {
                match self.consumer.poll(wait) {
                    None => break,
                    Some(Ok(message)) => {
                        let message = captured(&message);
                        self.is_away = false;
                        // The client may fetch twice around a reconnection.
                        if self.next.get(&message.partition).is_none_or(|next| message.offset >= *next) {
                            self.next.insert(message.partition, message.offset + 1);
                            bundle.push(message);
                        }
                    }
                    Some(Err(error)) => failed = self.judge(&error),
                }
                wait = Duration::ZERO;
            }
            if !bundle.is_empty()
                && let Err(error) = self.check_identity()
            {
                let _ = sender.blocking_send(Err(error));
                return;
            }
            if !bundle.is_empty() && sender.blocking_send(Ok(Batch { messages: bundle.take(), ended: false })).is_err() {
                return;
            }
            if let Some(error) = failed {
                let goes_on = matches!(error, Error::Away { .. }) && self.is_away;
                if sender.blocking_send(Err(error)).is_err() || !goes_on {
                    return;
                }
            }
            self.commit();
        }
    }

    /// What the loop must hear of an error event. After any but "all brokers down" the thread ends and is to be started again.
    fn judge(&mut self, error: &KafkaError) -> Option<Error> {
        use RDKafkaErrorCode as Code;
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Some(self.away(format!("the client has to be started again: {error}")));
        }
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => Some(
                self.check_positions().err().unwrap_or_else(|| self.away("a partition has to be read again from its position".to_owned())),
            ),
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
                Some(self.away("the broker no longer knows the topic".to_owned()))
            }
            Some(code @ (Code::Authentication | Code::SaslAuthenticationFailed | Code::TopicAuthorizationFailed)) => {
                Some(self.wrong(format!("{code}; see the cluster's properties and the topic's access list")))
            }
            Some(Code::AllBrokersDown) if self.is_away => None,
            Some(Code::AllBrokersDown) => {
                self.is_away = true;
                Some(self.away("no broker answers".to_owned()))
            }
            // The client mends these itself; when none is left it says that all are down.
            Some(Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut | Code::RequestTimedOut) => None,
            // Reading needs no group.
            Some(Code::GroupAuthorizationFailed | Code::CoordinatorNotAvailable | Code::NotCoordinator) => None,
            _ => Some(self.away(error.to_string())),
        }
    }

    /// The topic as the brokers describe it. One that stays unknown is a wrong setting.
    fn describe(&self) -> Result<Metadata, Error> {
        let mut again = ASK_AGAIN.iter();
        loop {
            let metadata = self.consumer.fetch_metadata(Some(&self.plan.topic), ASK_TIMEOUT);
            let topic = metadata.as_ref().ok().and_then(|metadata| metadata.topics().first());
            let code = match (&metadata, topic) {
                (Err(error), _) => error.rdkafka_error_code(),
                (Ok(_), Some(topic)) => topic.error().map(RDKafkaErrorCode::from),
                (Ok(_), None) => Some(RDKafkaErrorCode::UnknownTopicOrPartition),
            };
            let missing = match code {
                None => match topic.map_or(0, |topic| topic.partitions().len()) {
                    0 => true,
                    _ => return metadata.map_err(|error| self.away(error.to_string())),
                },
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::InvalidTopic) => true,
                Some(RDKafkaErrorCode::LeaderNotAvailable) => true,
                Some(code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::SaslAuthenticationFailed)) => {
                    return Err(self.wrong(format!("{code}; see the cluster's properties and the topic's access list")));
                }
                Some(code) => return Err(self.unreachable(code)),
            };
            match again.next() {
                Some(pause) if missing => thread::sleep(*pause),
                _ => {
                    let advice = format!("the topic does not exist; create it, or mend feeds.{}.source.topic", self.plan.feed);
                    return Err(self.wrong(advice));
                }
            }
        }
    }

    /// The reason why nothing answers, which the client tells only as events.
    fn unreachable(&self, code: RDKafkaErrorCode) -> Error {
        let told = std::iter::from_fn(|| self.consumer.poll(Duration::ZERO)).take(100).filter_map(Result::err);
        if let Some(denied) = told.filter_map(|error| error.rdkafka_error_code()).find(|code| *code == RDKafkaErrorCode::Authentication) {
            return self.wrong(format!("{denied}; see the cluster's properties"));
        }
        self.away(format!("no broker answers: {code}"))
    }

    /// Whether the broker still holds what is due next, in every partition that has been read before.
    fn check_positions(&self) -> Result<(), Error> {
        for (&partition, &due) in &self.next {
            let mut again = ASK_AGAIN.iter();
            loop {
                let (low, high) = if partition < self.partitions {
                    let held = self.consumer.fetch_watermarks(&self.plan.topic, partition, ASK_TIMEOUT);
                    held.map_err(|error| self.away(format!("partition {partition} does not tell what it holds: {error}")))?
                } else {
                    (0, 0)
                };
                if (low..=high).contains(&due) {
                    break;
                }
                match again.next() {
                    Some(pause) => thread::sleep(*pause),
                    None => return Err(self.gap(partition, due, low, high)),
                }
            }
        }
        Ok(())
    }

    fn gap(&self, partition: i32, due: i64, low: i64, high: i64) -> Error {
        let what = if due < low {
            format!("the topic begins at {low}: what lies between was deleted before it was read")
        } else {
            format!("the topic ends at {high}: it was made anew or cut")
        };
        let reason =
            format!("{what}; nothing is skipped by itself: restore the topic, or give the feed another name to read it from its beginning");
        Error::Gap { place: self.plan.place.clone(), partition, offset: due, reason }
    }

    /// Takes up partitions that were added, from their beginning.
    fn look_for_partitions(&mut self) -> Result<(), Error> {
        if self.refreshed.elapsed() < self.refresh_every {
            return Ok(());
        }
        self.refreshed = Instant::now();
        // Best effort: what goes wrong here shows where messages are read.
        let Ok(metadata) = self.consumer.fetch_metadata(Some(&self.plan.topic), ASK_TIMEOUT) else { return Ok(()) };
        if self.identity.is_some() && self.ask_identity(&metadata).is_ok_and(|now| now.is_some() && now != self.identity) {
            return Err(self.away("the topic was made anew".to_owned()));
        }
        let count = count(&metadata);
        if count > self.partitions {
            let from = std::mem::replace(&mut self.partitions, count);
            self.plan.partitions.store(count, Ordering::Relaxed);
            tracing::info!(
                feed = self.plan.feed,
                topic = self.plan.topic,
                from,
                to = count,
                "the topic has more partitions: read from their beginning"
            );
            self.consumer.incremental_assign(&self.list(from)).map_err(|error| self.away(error.to_string()))?;
        }
        Ok(())
    }

    fn ask_identity(&self, known: &Metadata) -> Result<Option<String>, Error> {
        let Some(leader) = leader(known) else { return Ok(None) };
        identity::topic_id(&self.consumer, &self.plan.topic, leader, ASK_TIMEOUT).map_err(|reason| self.away(reason))
    }

    /// Whether what was read so far is of the topic that the positions are of. Asked after it was read, as ids never come back: the client goes
    /// on in a topic that is made anew and filled quickly as if nothing had happened.
    fn check_identity(&self) -> Result<(), Error> {
        let (Some(known), Some(leader)) = (&self.identity, self.leader) else { return Ok(()) };
        let now = identity::topic_id(&self.consumer, &self.plan.topic, leader, ASK_TIMEOUT).map_err(|reason| self.away(reason))?;
        match now {
            Some(now) if now != *known => Err(self.away("the topic was made anew".to_owned())),
            _ => Ok(()),
        }
    }

    /// The assignment of the partitions from `first` on.
    fn list(&self, first: i32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in first..self.partitions {
            let offset = self.next.get(&partition).map_or(Offset::Beginning, |next| Offset::Offset(*next));
            list.add_partition_offset(&self.plan.topic, partition, offset).expect("an offset from 0 on is valid");
        }
        list
    }

    /// Commits what the store holds, for lag tools only: best effort.
    fn commit(&mut self) {
        if self.committed.elapsed() < COMMIT_EVERY {
            return;
        }
        self.committed = Instant::now();
        let positions = std::mem::take(&mut *self.plan.committed.lock().expect("no holder panics"));
        if positions.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for at in positions.iter().filter(|at| at.next_offset >= 0) {
            list.add_partition_offset(&self.plan.topic, at.partition, Offset::Offset(at.next_offset))
                .expect("an offset from 0 on is valid");
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(feed = self.plan.feed, %error, "group offsets are not committed");
        }
    }

    /// What the group has committed, which no guard of ours trusts: a mutant does.
    fn group_offsets(&self) -> BTreeMap<i32, i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.plan.topic, 0, self.partitions - 1);
        let committed = self.consumer.committed_offsets(list, ASK_TIMEOUT).unwrap_or_default();
        let known = committed.elements().into_iter().filter_map(|at| Some((at.partition(), at.offset().to_raw()?)));
        known.filter(|(_, offset)| *offset > 0).collect()
    }

    fn away(&self, reason: String) -> Error {
        Error::Away { place: self.plan.place.clone(), reason }
    }

    fn wrong(&self, reason: String) -> Error {
        Error::Wrong { place: self.plan.place.clone(), reason }
    }
}

/// Who leads a partition lives, which cannot be said of the others.
fn leader(metadata: &Metadata) -> Option<i32> {
    metadata.topics().first().and_then(|topic| topic.partitions().iter().map(|partition| partition.leader()).find(|id| *id >= 0))
}

fn count(metadata: &Metadata) -> i32 {
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    i32::try_from(count).expect("Kafka counts partitions in 32 bits")
}

fn captured(message: &BorrowedMessage<'_>) -> Captured {
    Captured {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        payload: message.payload().map(Bytes::copy_from_slice),
        headers: headers(message),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(headers) = message.headers() else { return Vec::new() };
    let one = |index| {
        let header = headers.get(index);
        (header.key.to_owned(), header.value.map(Bytes::copy_from_slice))
    };
    // The wrapper panics on a name that is not UTF-8, which Kafka's protocol forbids and some clients send all the same. Such a header is
    // unreadable; the message must not be.
    let read = |index| catch_unwind(AssertUnwindSafe(|| one(index))).unwrap_or_else(|_| ("\u{fffd}".to_owned(), None));
    (0..headers.count()).map(read).collect()
}
