//! The producer of a cluster, and a batch's way through it: enqueued, reported, waited for. A producer that failed for good is replaced.
//! Knows nothing of targets.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::record;
use crate::source::KafkaConfig;
use crate::source::kafka::settings::{self, Quiet};
use crate::store::OutputRow;

/// How long a record may be on its way, in milliseconds: below a third of the default lease, so that a takeover need not wait long.
pub(super) const MESSAGE_TIMEOUT_MS: u64 = 5_000;
const FULL_PAUSE: Duration = Duration::from_millis(2);

const TUNED: [(&str, &str); 5] = [
    ("linger.ms", "5"),
    ("compression.type", "lz4"),
    ("queue.buffering.max.kbytes", "65536"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    // Whether an unknown topic is missing for good is confirmed here, not waited for there.
    ("topic.metadata.propagation.max.ms", "1000"),
];

const FIXED: [(&str, &str); 4] =
    [("enable.idempotence", "true"), ("acks", "all"), ("message.timeout.ms", "5000"), ("request.timeout.ms", "5000")];

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Done,
    /// Refused for good.
    Refused(String),
    /// Refused for good, it or another record that travelled with it.
    RefusedWithBatch(String),
    /// The topic is not known, now.
    Missing,
    Away(String),
}

/// The producer that all targets of a cluster use.
pub(super) struct SharedProducer {
    settings: ClientConfig,
    client: Mutex<Option<Arc<Client>>>,
}

type Client = ThreadedProducer<Reports>;
type Cluster = (String, BTreeMap<String, String>);
type Known = (Cluster, Weak<SharedProducer>);

// By what they connect to, so that two targets of a cluster, opened apart, still share one.
static PRODUCERS: LazyLock<Mutex<Vec<Known>>> = LazyLock::new(Mutex::default);

impl SharedProducer {
    /// The cluster's producer; made where there is none.
    pub(super) fn of(cluster: &str, config: &KafkaConfig) -> Result<Arc<Self>, String> {
        let settings = settings::client(cluster, config, &TUNED, &FIXED)?;
        settings.create_native_config().map_err(|error| settings::refused(cluster, &error))?;
        let name = (config.brokers.clone(), config.properties.clone());
        let mut producers = PRODUCERS.lock().expect("no holder panics");
        producers.retain(|(_, producer)| producer.strong_count() > 0);
        if let Some(producer) = producers.iter().find(|(other, _)| *other == name).and_then(|(_, producer)| producer.upgrade()) {
            return Ok(producer);
        }
        let producer = Arc::new(Self { settings, client: Mutex::default() });
        producers.push((name, Arc::downgrade(&producer)));
        Ok(producer)
    }

    /// A batch of `size` records, none of them enqueued.
    pub(super) fn begin(&self, size: usize) -> Result<Batch<'_>, String> {
        let (done, is_done) = oneshot::channel();
        let state = State { reports: vec![None; size], open: size, done: Some(done) };
        Ok(Batch { producer: self, client: self.client()?, pending: Arc::new(Pending(Mutex::new(state))), is_done })
    }

    /// Whether the topic stays unknown: a broker that has just started denies what it has.
    pub(super) async fn confirms_missing(&self, topic: &str) -> bool {
        let Ok(client) = self.client() else { return false };
        let topic = topic.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            (0..3).all(|_| {
                std::thread::sleep(Duration::from_millis(500));
                let metadata = client.client().fetch_metadata(Some(&topic), Duration::from_secs(5));
                let code = metadata.ok().and_then(|metadata| metadata.topics().first()?.error());
                code.map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
            })
        });
        asked.await.unwrap_or(false)
    }

    fn client(&self) -> Result<Arc<Client>, String> {
        let mut client = self.client.lock().expect("no holder panics");
        if let Some(client) = &*client {
            return Ok(Arc::clone(client));
        }
        let made: Client = self.settings.create_with_context(Reports).map_err(|error| error.to_string())?;
        Ok(Arc::clone(client.insert(Arc::new(made))))
    }

    /// Lets go of a client that can send no more; the next batch gets a new one.
    fn replace_failed(&self, failed: &Arc<Client>) {
        let Some((code, reason)) = failed.client().fatal_error() else { return };
        let mut client = self.client.lock().expect("no holder panics");
        if client.as_ref().is_some_and(|client| Arc::ptr_eq(client, failed)) {
            tracing::warn!(%code, reason, "the producer failed for good and is replaced");
            drop_aside(client.take());
        }
    }
}

impl Drop for SharedProducer {
    fn drop(&mut self) {
        drop_aside(self.client.get_mut().expect("no holder panics").take());
    }
}

/// Dropping a producer joins its thread and may take its time.
fn drop_aside(client: Option<Arc<Client>>) {
    // Where no thread can be had, the closure and with it the client are dropped here.
    let _ = std::thread::Builder::new().name("kafka end".to_owned()).spawn(move || drop(client));
}

/// Records on their way.
pub(super) struct Batch<'p> {
    producer: &'p SharedProducer,
    client: Arc<Client>,
    pending: Arc<Pending>,
    is_done: oneshot::Receiver<()>,
}

impl Batch<'_> {
    /// Enqueues an output as record `at`. A report where it is not even enqueued.
    pub(super) async fn enqueue(&self, topic: &str, output: &OutputRow, at: usize) -> Option<Report> {
        let until = Instant::now() + Duration::from_millis(MESSAGE_TIMEOUT_MS);
        loop {
            // Made again each time round: a full buffer is rare, and a record must not be held while waiting.
            let ticket = Box::new(Ticket { at, pending: Arc::clone(&self.pending) });
            let mut record = BaseRecord::with_opaque_to(topic, ticket).headers(record::headers(output));
            record.key = output.key.as_deref();
            record.payload = record::payload(output);
            match self.client.send(record) {
                Ok(()) => return None,
                Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) && Instant::now() < until => {}
                // A name or text that the library cannot even pass on: trying again changes nothing.
                Err((KafkaError::Nul(error), _)) => return Some(Report::Refused(error.to_string())),
                Err((error, _)) => {
                    return Some(match report_of(&error) {
                        Report::RefusedWithBatch(reason) => Report::Refused(reason),
                        report => report,
                    });
                }
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    /// Reports a record that was not enqueued.
    pub(super) fn decide(&self, at: usize, report: Report) {
        self.pending.decide(at, report);
    }

    /// Reports that this record and all later ones are not sent.
    pub(super) fn give_up_from(&self, at: usize, reason: &str) {
        let size = self.pending.0.lock().expect("no holder panics").reports.len();
        (at..size).for_each(|at| self.decide(at, Report::Away(reason.to_owned())));
    }

    /// The reports, when all are in: the message timeout bounds that.
    pub(super) async fn reports(self) -> Vec<Report> {
        if !self.pending.0.lock().expect("no holder panics").reports.is_empty() {
            self.is_done.await.expect("the sender is in the state that is kept here");
        }
        self.producer.replace_failed(&self.client);
        let mut state = self.pending.0.lock().expect("no holder panics");
        state.reports.iter_mut().map(|report| report.take().expect("none is open")).collect()
    }
}

/// What is still to be reported of a batch.
struct Pending(Mutex<State>);

struct State {
    reports: Vec<Option<Report>>,
    open: usize,
    done: Option<oneshot::Sender<()>>,
}

impl Pending {
    fn decide(&self, at: usize, report: Report) {
        let mut state = self.0.lock().expect("no holder panics");
        if state.reports[at].replace(report).is_none() {
            state.open -= 1;
        }
        if state.open == 0
            && let Some(done) = state.done.take()
        {
            // A sender that was given up does not wait any more.
            let _ = done.send(());
        }
    }
}

/// A record's way back to its batch.
struct Ticket {
    at: usize,
    pending: Arc<Pending>,
}

struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        Quiet.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let report = match result {
            Ok(_) => Report::Done,
            Err((error, _)) => report_of(error),
        };
        ticket.pending.decide(ticket.at, report);
    }
}

/// What an error says of the record: its own fault, the topic's, or nobody's that will last.
fn report_of(error: &KafkaError) -> Report {
    use RDKafkaErrorCode as Code;
    let reason = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    match error.rdkafka_error_code() {
        Some(
            Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::MessageBatchTooLarge
            | Code::InvalidRecord
            | Code::InvalidDifferentRecord
            | Code::InvalidTimestamp,
        ) => Report::RefusedWithBatch(reason),
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::PolicyViolation
            | Code::InvalidTopic
            | Code::InvalidArgument
            | Code::UnsupportedForMessageFormat,
        ) => Report::Refused(reason),
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => Report::Missing,
        _ => Report::Away(reason),
    }
}
