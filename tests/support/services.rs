//! Real services for tests: a PostgreSQL and a Kafka, each started by its script in `tests/services` when it is first asked for, once per
//! test process, unless the environment names one that runs already. A service lives as long as the pipe to its script is open, so it ends
//! with this process however this process ends.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

/// URL of the PostgreSQL, over its Unix socket where the tests started it.
pub fn postgres_url() -> &'static str {
    &POSTGRES.socket
}

/// URL of the same PostgreSQL over TCP.
pub fn postgres_tcp_url() -> &'static str {
    &POSTGRES.tcp
}

/// `HOST:PORT` of the Kafka that all tests share: each test makes topics of its own, none stops it.
pub fn kafka_brokers() -> &'static str {
    &KAFKA.brokers
}

/// A service started by its script; it ends when this value is dropped.
pub struct Service {
    script: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What the script printed before it said that it is ready.
    pub lines: Vec<String>,
}

impl Service {
    /// Starts `tests/services/NAME` and waits until it is ready.
    pub fn start(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/services").join(name);
        let mut script = Command::new(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not run: {error}", path.display()));
        let input = script.stdin.take();
        let output = BufReader::new(script.stdout.take().unwrap());
        let mut service = Self { script, input, output, lines: Vec::new() };
        service.lines = service.read_until("ready");
        service
    }

    /// Ends the server with SIGKILL; its data stay.
    pub fn kill(&mut self) {
        self.tell("kill");
        self.read_until("killed");
    }

    /// Starts a killed server again, on the same data and address.
    pub fn restart(&mut self) {
        self.tell("start");
        self.read_until("ready");
    }

    fn tell(&mut self, command: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{command}").and_then(|()| input.flush()).expect("the service's script runs");
    }

    fn read_until(&mut self, word: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("the service's script speaks UTF-8");
            assert!(read > 0, "the service did not become {word}: see its message above");
            match line.trim_end() {
                line if line == word => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.input = None;
        // The script removes its folder on the way out; a failing test must not hide that it hangs.
        self.script.wait().expect("the service's script ends");
    }
}

struct Postgres {
    socket: String,
    tcp: String,
    _service: Option<Service>,
}

struct Kafka {
    brokers: String,
    _service: Option<Service>,
}

// Statics are never dropped: these end when the process does, by the closing of their pipes.
static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    if let Some(socket) = variable("TOLK_TEST_POSTGRES_URL") {
        let tcp = variable("TOLK_TEST_POSTGRES_TCP_URL").unwrap_or_else(|| socket.clone());
        return Postgres { socket, tcp, _service: None };
    }
    let service = Service::start("postgres");
    Postgres { socket: service.lines[0].clone(), tcp: service.lines[1].clone(), _service: Some(service) }
});

static KAFKA: LazyLock<Kafka> = LazyLock::new(|| {
    if let Some(brokers) = variable("TOLK_TEST_KAFKA_BROKERS") {
        return Kafka { brokers, _service: None };
    }
    let service = Service::start("kafka");
    Kafka { brokers: service.lines[0].clone(), _service: Some(service) }
});

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
