//! A host in this process with its door open, and an HTTP client in front of it.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tolk::admin::Door;
use tolk::app::{App, Progress, Until};
use tolk::config::{Config, load};

use crate::cli::tolk::Tolk;
use crate::support::guests;

/// How long a condition may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A host with an open door.
pub struct Rig {
    tolk: Tolk,
    pub url: String,
    client: reqwest::Client,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// What an answer was.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub kind: String,
    pub challenge: Option<String>,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// With this status; else the test shows the answer.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }
}

/// A config with a feed `f` from a file to a file, settings of the host and of `[admin]` as given.
pub fn config(tolk: &Tolk, admin: &str) -> Config {
    let text = format!(
        "[store]\nurl = \"sqlite://{}\"\n[feeds.f]\nsource = {{ kind = \"file\", path = \"{}\", follow = true }}\n\
         table = [\"/table\"]\ntable_name = \"t\"\nkey = [\"/key\", \"key\"]\nlanes = 4\nretry = {{ backoff_ms = [600000], attempts_max = 5 }}\n\
         [feeds.z]\nsource = {{ kind = \"file\", path = \"{}\", follow = true }}\ntable_name = \"t\"\nlanes = 1\n\
         [feeds.z.delivery]\nid = [\"/id\"]\nmark = [\"/kind\"]\nstart = \"START\"\nend = \"END\"\nexpected = [\"/count\"]\n[feeds.z.delivery.order]\nendpoint = \"e\"\nparams = [\"year\"]\n\
         [targets.out]\nkind = \"file\"\npath = \"{}\"\n[endpoints.e]\nbase_url = \"http://127.0.0.1:9\"\npath = \"/\"\n\
         [limits.default]\ncpu_ms_max = 1000\nmemory_bytes_max = 134217728\n[admin]\n{admin}\n",
        tolk.path("tolk.db").display(),
        tolk.path("in.jsonl").display(),
        tolk.path("z.jsonl").display(),
        tolk.path("out.jsonl").display(),
    );
    tolk.write("tolk.toml", &text);
    tolk.write("z.jsonl", "");
    load::parse(&text, &tolk.path("tolk.toml"), &|_| None).unwrap()
}

impl Rig {
    /// A door without a host behind it yet.
    pub async fn closed(admin: &str) -> Self {
        let tolk = Tolk::new();
        tolk.write("in.jsonl", "");
        let config = config(&tolk, admin);
        Self::open(tolk, &config).await.0
    }

    /// A host that runs with the scripted plugin on these messages, one script a line.
    pub async fn running(admin: &str, scripts: &[Value]) -> Self {
        let tolk = Tolk::new();
        let lines: String = scripts.iter().map(|script| format!("{}\n", serde_json::json!({ "payload": script }))).collect();
        tolk.write("in.jsonl", &lines);
        let config = config(&tolk, admin);
        tolk.run(&["migrate"]).expect(0);
        let component = guests::component_path("tests/guests/scripted");
        tolk.run(&["push", &component.display().to_string()]).expect(0);
        tolk.run(&["activate", "scripted", "--feed", "f", "--table", "*"]).expect(0);
        let (mut rig, inner) = Self::open(tolk, &config).await;
        let app = App::open(config, Progress::default(), &rig.stop).await.unwrap().unwrap();
        inner.opened(&app);
        let stop = rig.stop.clone();
        rig.tasks.push(tokio::spawn(async move { app.run(Until::Stopped, stop).await.unwrap() }));
        rig
    }

    /// Puts more messages where the source reads them.
    pub fn append(&self, scripts: &[Value]) {
        let lines: String = scripts.iter().map(|script| format!("{}\n", serde_json::json!({ "payload": script }))).collect();
        let mut file = std::fs::OpenOptions::new().append(true).open(self.tolk.path("in.jsonl")).unwrap();
        std::io::Write::write_all(&mut file, lines.as_bytes()).unwrap();
    }

    async fn open(tolk: Tolk, config: &Config) -> (Self, tolk::admin::Inner) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let stop = CancellationToken::new();
        let door = Door::bind(config).await.unwrap().unwrap();
        let url = format!("http://{}", door.address());
        let (inner, served) = door.serve(stop.clone());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        (Self { tolk, url, client, stop, tasks: vec![tokio::spawn(served)] }, inner)
    }

    /// Asks for a path with a token, if one is given.
    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.send(Method::GET, path, token, &[], None).await
    }

    /// Sends a request.
    pub async fn send(&self, method: Method, path: &str, token: Option<&str>, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (kind, challenge, status) = (header("content-type").unwrap_or_default(), header("www-authenticate"), response.status());
        Answer { status, kind, challenge, text: response.text().await.unwrap() }
    }

    /// Asks until the answer is as wanted.
    pub async fn until(&self, path: &str, token: Option<&str>, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let began = Instant::now();
        loop {
            let answer = self.get(path, token).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "{path} stays {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the messages have these statuses, in the order of their offsets.
    pub async fn until_statuses(&self, token: Option<&str>, words: &[&str]) -> Vec<Value> {
        let statuses = |answer: &Answer| -> Vec<String> {
            let items = answer.json()["items"].as_array().cloned().unwrap_or_default();
            items.iter().map(|item| item["status"].as_str().unwrap().to_owned()).collect()
        };
        let answer = self.until("/api/v1/messages?oldest_first=true", token, |answer| statuses(answer) == words).await;
        answer.json()["items"].as_array().unwrap().clone()
    }

    /// Ends the host and the door.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}
