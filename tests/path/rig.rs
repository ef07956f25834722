//! A world for the real binary: a folder with its config, a store, a source and a sink, and the hosts that run in it. Waits for conditions,
//! never for time alone.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tolk::feed::Config as FeedConfig;
use tolk::ingest::route::Router;
use tolk::source::captured::{Line, from_line, to_line};
use tolk::store::{self, Clock, Store};

use super::script::{Message, TABLES};
use crate::cli::tolk::Tolk;
use crate::support::kafka::Kafka;
use crate::support::{self, guests};

/// How long a condition may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Where messages come from and where outputs go.
enum Ways {
    Kafka { kafka: Kafka, input: String, output: String },
    Files,
}

/// A world.
pub(super) struct Rig {
    pub(super) tolk: Tolk,
    pub(super) store: Arc<dyn Store>,
    /// Partitions of the source.
    pub(super) partitions: i32,
    /// The digest of the scripted plugin.
    pub(super) digest: String,
    ways: Ways,
    router: Router,
}

/// An output as a consumer sees it.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) partition: i32,
    pub(super) key: Bytes,
    pub(super) payload: Value,
    pub(super) event_id: String,
    pub(super) position: String,
    pub(super) feed: String,
    pub(super) digest: String,
}

impl Rig {
    /// On a PostgreSQL, in a schema of its own, between two topics of a Kafka.
    pub(super) async fn kafka(postgres: &str, kafka: Kafka) -> Self {
        let any_time = ("message.timestamp.after.max.ms", "9223372036854775807");
        let input = kafka.topic(4, &[("max.message.bytes", "11000000"), any_time]).await;
        let output = kafka.topic(3, &[]).await;
        let store = format!("url = {postgres:?}\nschema = \"path_{}\"", uuid::Uuid::new_v4().simple());
        let source = format!("{{ kind = \"kafka\", cluster = \"test\", topic = {input:?} }}");
        let target = format!("kind = \"kafka\"\ncluster = \"test\"\ntopic = {output:?}");
        let cluster = format!("[kafka.test]\nbrokers = {:?}", kafka.brokers);
        Self::new(&store, &source, &target, &cluster, &input.clone(), Ways::Kafka { kafka, input, output }, 4).await
    }

    /// On the services that all tests share.
    pub(super) async fn shared_kafka() -> Self {
        Self::kafka(support::postgres_url(), Kafka::shared()).await
    }

    /// On SQLite, from a growing file into a file.
    pub(super) async fn files() -> Self {
        let source = "{ kind = \"file\", path = \"in.jsonl\", follow = true }";
        Self::new("", source, "kind = \"file\"\npath = \"out.jsonl\"", "", "in.jsonl", Ways::Files, 1).await
    }

    async fn new(store: &str, source: &str, target: &str, cluster: &str, name: &str, ways: Ways, partitions: i32) -> Self {
        let tolk = Tolk::new();
        tolk.write("in.jsonl", "");
        let sqlite = format!("url = \"sqlite://{}\"", tolk.path("tolk.db").display());
        let store = if store.is_empty() { sqlite } else { store.to_owned() };
        let tables: String = TABLES.iter().map(|table| format!("[feeds.f.tables.{table}]\n")).collect();
        let feed = format!(
            "source = {source}\ntable = [\"/table\"]\nkey = [\"/key\", \"key\"]\nlanes = 8\n\
             retry = {{ backoff_ms = [20, 50], attempts_max = 10 }}\n"
        );
        tolk.write(
            "tolk.toml",
            &format!(
                "[host]\nlease_ms = 2000\n[store]\n{store}\n{cluster}\n[feeds.f]\n{feed}{tables}[targets.out]\n{target}\n\
                 [endpoints.e]\nbase_url = \"http://127.0.0.1:9\"\npath = \"/\"\n\
                 [limits.default]\ncpu_ms_max = 1000\nmemory_bytes_max = 134217728\n"
            ),
        );
        tolk.run(&["migrate"]).expect(0);
        let component = guests::component_path("tests/guests/scripted");
        let said = tolk.run(&["push", &component.display().to_string()]).expect(0);
        let digest = said.out.split_whitespace().next().unwrap().to_owned();
        let config: store::Config = toml::from_str(&store).unwrap();
        let store = store::open(&config, Clock::Database).await.unwrap();
        let config: FeedConfig = toml::from_str(&feed).unwrap();
        let rig = Self { tolk, store, partitions, digest, ways, router: Router::new(&config, name) };
        for table in TABLES {
            rig.activate(&rig.digest, table, "");
        }
        rig
    }

    /// Makes a plugin active and returns when nothing runs on the one before.
    pub(super) fn activate(&self, digest: &str, table: &str, config: &str) {
        self.tolk.run(&["activate", digest, "--feed", "f", "--table", table, "--config-text", config, "--timeout-s", "200"]).expect(0);
    }

    /// The event id of an output.
    pub(super) fn event_id(&self, message: &Message, i: u64) -> String {
        self.event_id_of(message, 0, i)
    }

    /// The event id of an output of a run.
    pub(super) fn event_id_of(&self, message: &Message, run: i32, i: u64) -> String {
        let id = self.router.message_id(message.captured.partition, message.captured.offset);
        store::event_id(id, run, i32::try_from(i).unwrap()).to_string()
    }

    /// Puts messages where the source reads them; they are there when this returns.
    pub(super) fn produce(&self, messages: &[Message]) {
        self.produce_with(messages, &[]);
    }

    /// The Kafka and the topic that the feed reads.
    pub(super) fn input(&self) -> (&Kafka, &str) {
        match &self.ways {
            Ways::Kafka { kafka, input, .. } => (kafka, input),
            Ways::Files => panic!("this world has no Kafka"),
        }
    }

    /// The same with properties of the producer, where it is Kafka's.
    pub(super) fn produce_with(&self, messages: &[Message], properties: &[(&str, &str)]) {
        let captured = messages.iter().map(|message| message.captured.clone());
        match &self.ways {
            Ways::Kafka { .. } => {
                let (kafka, topic) = self.input();
                kafka.produce_with(topic, &captured.collect::<Vec<_>>(), properties);
            }
            Ways::Files => {
                let lines: String = captured.map(|captured| to_line(&Line { captured, ..Line::default() }) + "\n").collect();
                let mut file = std::fs::OpenOptions::new().append(true).open(self.tolk.path("in.jsonl")).unwrap();
                file.write_all(lines.as_bytes()).unwrap();
            }
        }
    }

    /// How many outputs the sink has, those that were sent twice counted twice.
    pub(super) fn published(&self) -> usize {
        match &self.ways {
            Ways::Kafka { kafka, output, .. } => kafka.size(output),
            // Nothing is there before the first output.
            Ways::Files => std::fs::read(self.tolk.path("out.jsonl")).map_or(0, |all| all.iter().filter(|byte| **byte == b'\n').count()),
        }
    }

    /// What the sink has, in the order of its partitions.
    pub(super) fn outputs(&self) -> Vec<Out> {
        match &self.ways {
            Ways::Kafka { kafka, output, .. } => kafka.consume(output).iter().map(out_of_record).collect(),
            Ways::Files => self.tolk.read("out.jsonl").lines().map(out_of_line).collect(),
        }
    }

    /// How many messages have each status.
    pub(super) async fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for count in self.store.counts().await.unwrap() {
            *counts.entry(count.status).or_default() += usize::try_from(count.count).unwrap();
        }
        counts
    }

    /// How many messages have come to an end.
    pub(super) async fn ended(&self) -> usize {
        let ends = ["handled", "ignored", "invalid", "failed"];
        self.counts().await.iter().filter(|(status, _)| ends.contains(&status.as_str())).map(|(_, count)| count).sum()
    }

    /// Waits until a host has brought all of these to their ends and published what came of them.
    pub(super) async fn until_done(&self, host: &Running, sent: &[Message]) {
        let mut expected = BTreeMap::new();
        for message in sent {
            *expected.entry(message.status.to_owned()).or_default() += 1_usize;
        }
        host.until(&format!("the statuses {expected:?}"), async || {
            let (counts, unpublished) = (self.counts().await, self.store.unpublished().await.unwrap());
            let done = counts == expected && unpublished.iter().all(|(_, count)| *count == 0);
            (done, format!("{counts:?}, unpublished {unpublished:?}"))
        })
        .await;
    }

    /// Waits until a host has brought so many messages in all to an end.
    pub(super) async fn until_ended(&self, host: &Running, count: usize) {
        host.until(&format!("{count} ends"), async || {
            let ended = self.ended().await;
            (ended >= count, format!("{ended}"))
        })
        .await;
    }

    /// Waits until the sink has so many outputs.
    pub(super) async fn until_published(&self, host: &Running, count: usize) {
        host.until(&format!("{count} outputs"), async || {
            let published = self.published();
            (published >= count, format!("{published}"))
        })
        .await;
    }

    /// Starts a host.
    pub(super) fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// Starts a host in an environment.
    pub(super) fn start_with(&self, environment: &[(&str, &str)]) -> Running {
        let mut command = self.tolk.command();
        command.arg("run").envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), said.clone());
        let listener = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Running { child: Mutex::new(child), said, listener: Some(listener) }
    }
}

fn out_of_record(record: &tolk::message::Captured) -> Out {
    use tolk::sink::header;
    let header = |wanted: &str| {
        let mut all = record.headers.iter().filter(|(name, _)| name == wanted);
        let value = all.next().and_then(|(_, value)| value.clone()).unwrap_or_else(|| panic!("no header {wanted}: {record:?}"));
        assert!(all.next().is_none(), "two headers {wanted}");
        String::from_utf8(value.to_vec()).unwrap()
    };
    Out {
        partition: record.partition,
        key: record.key.clone().unwrap(),
        payload: serde_json::from_slice(record.payload.as_ref().unwrap()).unwrap(),
        event_id: header(header::EVENT_ID),
        position: header(header::POSITION),
        feed: header(header::FEED),
        digest: header(header::DIGEST),
    }
}

fn out_of_line(line: &str) -> Out {
    let fields: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    let text = |name: &str| fields[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}")).to_owned();
    Out {
        partition: 0,
        key: text("key").into(),
        payload: serde_json::from_str(&text("payload")).unwrap(),
        event_id: text("event_id"),
        position: text("position"),
        feed: text("feed"),
        digest: text("digest"),
    }
}

/// Reads a file of captured messages.
pub(super) fn captures(text: &str) -> Vec<Line> {
    text.lines().map(|line| from_line(line.as_bytes()).unwrap()).collect()
}

/// A host that runs; killed where a test forgets it.
pub(super) struct Running {
    child: Mutex<Child>,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Running {
    /// Whether it has not ended.
    pub(super) fn lives(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until a condition holds, which tells how things stand; the host must live on.
    pub(super) async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> (bool, String)) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (holds, state) = condition().await;
            if holds {
                return;
            }
            let dead = self.child.lock().unwrap().try_wait().unwrap();
            assert!(dead.is_none(), "the host ended with {dead:?} before {what}; it said:\n{}", self.said());
            assert!(Instant::now() < deadline, "not in time: {what}; now: {state}; the host said:\n{}", self.said());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until it says something, from a place in what it says on.
    pub(super) async fn until_said(&self, from: usize, text: &str) {
        self.until(text, async || (self.said()[from..].contains(text), String::new())).await;
    }

    /// `kill -9`.
    pub(super) fn kill(self) {
        drop(self);
    }

    /// Sends it a signal by name.
    pub(super) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// SIGTERM; it must end by itself, with exit code 0. What it has said.
    pub(super) async fn terminate(mut self) -> String {
        self.signal("TERM");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the host does not stop; it said:\n{}", self.said());
            tokio::time::sleep(POLL).await;
        };
        self.listener.take().unwrap().join().unwrap();
        assert_eq!(status.code(), Some(0), "the host said:\n{}", self.said());
        self.said()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}
