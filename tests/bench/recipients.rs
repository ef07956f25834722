//! A delivery of barnetrygd through a host of its own: every recipient takes five calls of 50 ms in four rounds. Beside it the same calls made
//! by a plain client, as many at a time, with nothing stored: what this machine can talk.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::remote::{CALLS, Remote};
use crate::report::{Need, Pair, Report, note, rate};
use crate::schema::{self, Schema};

const RECIPIENTS: usize = 20_000;
const LATENCY: Duration = Duration::from_millis(50);
/// Calls under way at one time to one system; a host has three of them.
const CONCURRENCY: usize = 512;
const ROUNDS: usize = 3;
/// A turn that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures `recipients`.
pub async fn measure(url: &str, report: &mut Report) {
    schema::must_be_durable(url).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/barnetrygd/mottaker");
    let component = tolk::cli::build::build(&folder, &|text| note(text)).unwrap().path;
    let (mut turns, mut memory, mut most) = (Vec::new(), 0, 0);
    for _ in 0..ROUNDS {
        let turn = through_the_host(url, &component).await;
        note(&format!("  host: {:.0} recipients/s, {} MiB at most, {} calls at one time", turn.rate, turn.memory_mib, turn.most));
        turns.push(Pair { value: turn.rate, ceiling: plainly().await });
        (memory, most) = (memory.max(turn.memory_mib), most.max(turn.most));
    }
    let figures = format!("a plain client's calls; the host took {memory} MiB at most and had {most} calls under way");
    report.add("recipients".to_owned(), "recipients/s", turns, Need::Nothing, figures);
}

struct Turn {
    rate: f64,
    memory_mib: usize,
    most: usize,
}

/// A host from its order to the last message it publishes.
async fn through_the_host(url: &str, component: &Path) -> Turn {
    let delivery = Uuid::new_v4();
    let remote = Remote::start(LATENCY, delivery.to_string());
    let schema = Schema::make(url).await;
    let place = Place { folder: tempfile::tempdir().unwrap(), store: (url.to_owned(), schema.config.schema.clone()), remote: remote.url() };
    std::fs::write(place.path("tolk.toml"), include_str!("recipients.toml")).unwrap();
    std::fs::write(place.path("messages.jsonl"), "").unwrap();
    place.tolk(&["migrate"]);
    place.tolk(&["push", component.to_str().unwrap()]);
    place.tolk(&["activate", "barnetrygd-mottaker", "--feed", "barnetrygd", "--table", "DATA"]);
    let host = place.host();
    place.tolk(&["deliveries", "order", "--feed", "barnetrygd", "--param", "year=2020", "--reason", "to be measured"]);
    wait_until("the order is called", || remote.orders() == 1);
    std::fs::write(place.path("messages.jsonl"), messages(delivery)).unwrap();
    let started = Instant::now();
    wait_until("every recipient is published", || lines(&place.path("out.jsonl")) >= RECIPIENTS);
    let took = started.elapsed();
    let memory_mib = host.memory_mib();
    drop(host);
    assert_eq!(lines(&place.path("out.jsonl")), RECIPIENTS, "each recipient is published once");
    assert_eq!((remote.calls(), remote.orders()), (RECIPIENTS * CALLS, 1), "each recipient takes five calls, the delivery one");
    schema.drop().await;
    Turn { rate: rate(RECIPIENTS, took), memory_mib, most: remote.most() }
}

/// The same calls in the same order, by as many workers as the host may have calls to one system.
async fn plainly() -> f64 {
    let remote = Remote::start(LATENCY, String::new());
    let next = Arc::<AtomicUsize>::default();
    let started = Instant::now();
    let workers: Vec<_> = (0..CONCURRENCY * 3)
        .map(|_| {
            let (next, address) = (next.clone(), remote.address);
            tokio::spawn(async move {
                let mut lines = Lines::open(address).await;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= RECIPIENTS {
                        return;
                    }
                    lines.complete(&ident(n)).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let took = started.elapsed();
    assert_eq!(remote.calls(), RECIPIENTS * CALLS, "as many calls as the host makes");
    rate(RECIPIENTS, took)
}

/// Two connections: the last round makes its calls side by side.
struct Lines(Line, Line);

impl Lines {
    async fn open(address: SocketAddr) -> Self {
        Self(Line::open(address).await, Line::open(address).await)
    }

    async fn complete(&mut self, ident: &str) {
        let child = format!("5{ident}");
        let person = |ident: &str| json!({ "query": "", "variables": { "ident": ident } });
        self.0.call("/graphql", &person(ident)).await;
        self.0.call("/api/ekstern/pensjon/hent-barnetrygd", &json!({ "ident": ident, "fraDato": "2019-01-01" })).await;
        self.0.call("/graphql", &person(&child)).await;
        let (first, second) = (json!({ "fnr": child }), json!({ "fnr": format!("6{ident}") }));
        tokio::join!(self.0.call("/api/hjelpestonad/hent", &first), self.1.call("/api/hjelpestonad/hent", &second));
    }
}

/// A connection that is kept.
struct Line(BufReader<TcpStream>);

impl Line {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    async fn call(&mut self, path: &str, body: &Value) {
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.write_all((head + &body).as_bytes()).await.unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "it answers {line}");
        loop {
            line.clear();
            self.0.read_line(&mut line).await.unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name == "content-length" {
                length = value.trim().parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; length]).await.unwrap();
    }
}

fn ident(n: usize) -> String {
    (10_000_000_000 + n).to_string()
}

/// The delivery as a file of captured messages.
fn messages(delivery: Uuid) -> String {
    let mut text = String::new();
    let marks = |kind: &str| json!({ "meldingstype": kind, "requestId": delivery, "personident": null, "antallIdenterTotalt": RECIPIENTS });
    let mut put = |key: Option<String>, payload: &Value| {
        let line = json!({ "feed": "barnetrygd", "key": key, "payload": payload.to_string() });
        writeln!(text, "{line}").unwrap();
    };
    put(None, &marks("START"));
    for n in 0..RECIPIENTS {
        let ident = ident(n);
        let part = json!({ "meldingstype": "DATA", "requestId": delivery, "personident": ident, "antallIdenterTotalt": RECIPIENTS });
        put(Some(ident), &part);
    }
    put(None, &marks("SLUTT"));
    text
}

/// A folder with a host's config.
struct Place {
    folder: tempfile::TempDir,
    store: (String, String),
    remote: String,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tolk"));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("STORE_URL", &self.store.0).env("STORE_SCHEMA", &self.store.1).env("REMOTE_URL", &self.remote);
        command.env("TOLK_CONFIG", self.path("tolk.toml"));
        command
    }

    fn tolk(&self, words: &[&str]) {
        let status = self.command().args(words).status().unwrap();
        assert!(status.success(), "tolk {} ends with {status}", words.join(" "));
    }

    fn host(&self) -> Host {
        let log = std::fs::File::create(self.path("host.log")).unwrap();
        Host(self.command().arg("run").stderr(log).spawn().unwrap())
    }
}

/// A running host; it is killed when this value goes.
struct Host(Child);

impl Host {
    /// The most it has had in memory.
    fn memory_mib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1_024
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read(path).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
}
