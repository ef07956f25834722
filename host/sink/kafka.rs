//! The Kafka sink: an idempotent producer for each cluster, shared by its targets. A batch is enqueued in order and answered when every
//! delivery report is in. Knows what a broker refuses for good, and nothing of what is then done about it.

mod producer;
mod record;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use self::producer::{Report, SharedProducer};
use super::{Sent, Sink};
use crate::source::KafkaConfig;
use crate::store::OutputRow;

const HELD_BACK: &str = "an earlier output of its key was refused";

/// A sink that sends to a topic.
pub struct KafkaSink {
    topic: String,
    producer: Arc<SharedProducer>,
}

impl KafkaSink {
    /// A sink of a topic; nothing is connected yet. The error says which setting is wrong.
    pub fn new(cluster: &str, config: &KafkaConfig, topic: &str) -> Result<Self, String> {
        Ok(Self { topic: topic.to_owned(), producer: SharedProducer::of(cluster, config)? })
    }

    /// Sends the outputs at `which` in order and waits for all of their reports.
    async fn send_some(&self, outputs: &[OutputRow], which: &[usize]) -> Vec<Report> {
        let batch = match self.producer.begin(which.len()) {
            Ok(batch) => batch,
            Err(reason) => return vec![Report::Away(reason); which.len()],
        };
        let mut refused_keys: HashSet<&Bytes> = HashSet::new();
        for (at, &index) in which.iter().enumerate() {
            let key = outputs[index].key.as_ref();
            let report = if key.is_some_and(|key| refused_keys.contains(key)) {
                Some(Report::Refused(HELD_BACK.to_owned()))
            } else {
                batch.enqueue(&self.topic, &outputs[index], at).await
            };
            match report {
                None => {}
                Some(Report::Away(reason)) => {
                    batch.give_up_from(at, &reason);
                    break;
                }
                Some(report) => {
                    refused_keys.extend(key);
                    batch.decide(at, report);
                }
            }
        }
        crate::faults::step("sink", "enqueued").await;
        batch.reports().await
    }

    /// A broker refuses a whole record batch for one record in it. So what it refused is sent again one by one; and where an innocent one
    /// had to be, those of its key that had overtaken it follow it once more, so that the last one stays the last one.
    async fn find_culprits(&self, outputs: &[OutputRow], reports: &mut [Report]) {
        let mut refused_keys: HashSet<&Bytes> = HashSet::new();
        let mut resent_keys: HashSet<&Bytes> = HashSet::new();
        for index in 0..reports.len() {
            let key = outputs[index].key.as_ref();
            let again = match &reports[index] {
                Report::Away(_) => return,
                Report::RefusedWithBatch(_) if key.is_some_and(|key| refused_keys.contains(key)) => {
                    reports[index] = Report::Refused(HELD_BACK.to_owned());
                    continue;
                }
                Report::RefusedWithBatch(_) => true,
                Report::Done => key.is_some_and(|key| resent_keys.contains(key)),
                Report::Refused(_) | Report::Missing => false,
            };
            if !again {
                continue;
            }
            reports[index] = self.send_some(outputs, &[index]).await.remove(0);
            match &reports[index] {
                Report::Done => resent_keys.extend(key),
                Report::Away(_) => return,
                _ => refused_keys.extend(key),
            }
        }
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn send(&self, _target: &str, outputs: &[OutputRow]) -> Vec<Sent> {
        let all: Vec<usize> = (0..outputs.len()).collect();
        let mut reports = self.send_some(outputs, &all).await;
        if reports.iter().any(|report| matches!(report, Report::RefusedWithBatch(_))) {
            self.find_culprits(outputs, &mut reports).await;
        }
        let missing = reports.contains(&Report::Missing) && self.producer.confirms_missing(&self.topic).await;
        let mut away = None;
        let mut judge = |report| {
            if let Some(reason) = &away {
                return Sent::Away(format!("an earlier output is not sent: {reason}"));
            }
            let reason = match report {
                Report::Done => return Sent::Done,
                Report::Refused(reason) | Report::RefusedWithBatch(reason) => return Sent::Refused(reason),
                Report::Missing if missing => {
                    return Sent::Refused(format!("topic {} does not exist; create it, or mend the target's `topic`", self.topic));
                }
                Report::Missing => format!("the broker does not know topic {} yet", self.topic),
                Report::Away(reason) => reason,
            };
            away = Some(reason.clone());
            Sent::Away(reason)
        };
        reports.into_iter().map(&mut judge).collect()
    }

    fn settle_ms(&self) -> u64 {
        producer::MESSAGE_TIMEOUT_MS
    }
}
