//! The life of a plugin in an operator's hands: pushed, activated, swapped while messages flow, taken back; and what became of the messages.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tolk::Tolk;
use crate::sandbox::guest;

/// How long a host may take for what usually takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts out what it is given, as version 1.0.0, which reads and writes the collection `seen-`.
fn first() -> Vec<u8> {
    guest::identity().component()
}

/// The same as version 2.0.0.
fn second() -> Vec<u8> {
    replaced(first(), "1.0.0", "2.0.0")
}

/// The same, but it reads and writes another collection.
fn wider() -> Vec<u8> {
    replaced(first(), "seen-", "more-")
}

fn replaced(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    bytes
}

/// A store with tables, a feed of one table, and a plugin pushed under this file name; its digest.
fn pushed(tolk: &Tolk, name: &str, component: Vec<u8>) -> String {
    std::fs::write(tolk.path(name), component).unwrap();
    let said = tolk.run(&["push", name, "--by", "ann"]).expect(0).complains(&["stored, not active", "tolk activate"]);
    let digest = said.out.split_whitespace().next().unwrap().to_owned();
    assert_eq!(digest.len(), 64, "{}", said.out);
    digest
}

fn ready(follow: bool) -> Tolk {
    let tolk = Tolk::ready();
    let source = if follow { ", follow = true }" } else { " }" };
    let config = tolk.read("tolk.toml").replace(", follow = true }", source).replace("#: table_name = \"unknown\"", "table_name = \"t\"");
    tolk.write("tolk.toml", &config);
    tolk.run(&["migrate"]).expect(0);
    tolk
}

fn activate(tolk: &Tolk, reference: &str, more: &[&str], code: i32) -> super::tolk::Said {
    tolk.run(&[&["activate", reference, "--feed", "example", "--table", "t"], more].concat()).expect(code)
}

fn active_digest(tolk: &Tolk) -> String {
    let history = tolk.run(&["plugins", "--history", "-o", "json"]).expect(0).json();
    let active: Vec<&Value> = history.as_array().unwrap().iter().filter(|row| row["active"] == true).collect();
    assert_eq!(active.len(), 1, "{history:#}");
    active[0]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn a_version_is_pushed_activated_swapped_and_taken_back() {
    let tolk = ready(false);
    let one = pushed(&tolk, "one.wasm", first());
    let two = pushed(&tolk, "two.wasm", second());
    assert_ne!(one, two);
    assert_eq!(pushed(&tolk, "again.wasm", first()), one, "a known component stays what it is");

    let said = activate(&tolk, "guest@1.0.0", &["--why", "a start", "--by", "ann"], 0).says(&["example/t: guest@1.0.0"]);
    assert!(said.err.contains("no host runs now"), "{}", said.err);
    activate(&tolk, &two[..8], &["--why", "the new rules"], 0).says(&["guest@2.0.0", &two[..12]]);
    assert_eq!(active_digest(&tolk), two);

    tolk.run(&["rollback", "--feed", "example", "--table", "t"]).expect(0).says(&["guest@1.0.0", &one[..12]]);
    assert_eq!(active_digest(&tolk), one);
    let history = tolk.run(&["plugins", "--history", "-o", "json"]).expect(0).json();
    let whys: Vec<&str> = history.as_array().unwrap().iter().map(|row| row["why"].as_str().unwrap()).collect();
    assert_eq!(whys, ["rollback from guest@2.0.0 (activation 2)", "the new rules", "a start"]);

    let plugins = tolk.run(&["plugins", "-o", "json"]).expect(0).json();
    let plugins = plugins.as_array().unwrap();
    assert_eq!(plugins.len(), 2, "{plugins:#?}");
    let row = plugins.iter().find(|row| row["digest"] == one.as_str()).unwrap();
    assert_eq!((&row["active"], &row["pushed_by"], &row["imports"]), (&json!(["example/t"]), &json!("ann"), &json!([])));
    tolk.run(&["plugins"]).expect(0).says(&["guest@1.0.0", "example/t", &one[..12]]);
    tolk.run(&["doctor"]).expect(0).says(&["plugins are active for t", "all 1 activations load"]);
}

#[test]
fn wider_capabilities_need_a_word() {
    let tolk = ready(false);
    let one = pushed(&tolk, "one.wasm", first());
    let more = pushed(&tolk, "more.wasm", wider());
    activate(&tolk, &one, &[], 0);
    activate(&tolk, &more, &[], 4).complains(&["asks for more", "reads \"more-\"", &one[..12], "--allow-widening"]);
    assert_eq!(active_digest(&tolk), one, "a refusal changes nothing");
    activate(&tolk, &more, &["--allow-widening"], 0);
    assert_eq!(active_digest(&tolk), more);
}

#[test]
fn a_plugin_must_fit_the_config() {
    let tolk = ready(false);
    pushed(&tolk, "one.wasm", first());
    tolk.write("tolk.toml", &tolk.read("tolk.toml").replace("[targets.out]", "[targets.elsewhere]"));
    activate(&tolk, "guest", &[], 2).complains(&["guest@1.0.0", "the config has no [targets.out]"]);
    assert_eq!(tolk.run(&["plugins", "--history", "-o", "json"]).expect(0).json(), json!([]));
    activate(&tolk, "guets", &[], 2).complains(&["did you mean `guest`?"]);
}

#[test]
fn messages_are_found_shown_and_captured() {
    let tolk = ready(false);
    let digest = pushed(&tolk, "one.wasm", first());
    activate(&tolk, "guest", &[], 0);
    let lines = [
        json!({ "key": "k1", "payload": "{\"table\":\"t\",\"name\":\"Kari\"}", "headers": [["trace", "7"]] }),
        json!({ "key": "k2", "payload": "{broken" }),
    ];
    tolk.write("messages.jsonl", &lines.map(|line| format!("{line}\n")).concat());
    tolk.run(&["run", "--until-done"]).expect(0).complains(&["stopped"]);

    let all = tolk.run(&["messages", "-o", "json"]).expect(0).json();
    let statuses: Vec<(&str, &str)> =
        all.as_array().unwrap().iter().map(|row| (row["key"].as_str().unwrap(), row["status"].as_str().unwrap())).collect();
    assert_eq!(statuses, [("k2", "invalid"), ("k1", "handled")], "newest first");
    let only = tolk.run(&["messages", "--status", "handled", "--key", "k1", "--table", "t", "-o", "json"]).expect(0).json();
    assert_eq!(only.as_array().unwrap().len(), 1, "{only}");
    tolk.run(&["messages", "--limit", "1"]).expect(0).says(&["example/0/1", "broken-json"]).complains(&["--limit"]);
    let counts = tolk.run(&["messages", "--counts", "--status", "handled", "-o", "json"]).expect(0).json();
    assert_eq!(counts, json!([{ "feed": "example", "table": "t", "status": "handled", "count": 1 }]));

    let shown = tolk.run(&["messages", "show", "example/0/0"]).expect(0);
    let shown = shown.says(&[
        "status      handled",
        &digest,
        "\"name\": \"Kari\"",
        "header      trace: 7",
        "Output 1 of 1",
        "target      out",
        "published   yes",
    ]);
    let id = shown.out.lines().find_map(|line| line.strip_prefix("id          ")).unwrap();
    let whole = tolk.run(&["messages", "show", id, "-o", "json"]).expect(0).json();
    assert_eq!(whole["input"]["payload"], json!({ "table": "t", "name": "Kari" }));
    assert_eq!(whole["outputs"][0]["digest"], digest.as_str());
    assert_eq!(whole["outputs"][0]["payload"], whole["input"]["payload"]);
    assert_eq!(tolk.read("out.jsonl").lines().count(), 1);

    tolk.run(&["capture", "--status", "invalid", "-o", "wrong.jsonl"]).expect(0).complains(&["1 message written to wrong.jsonl"]);
    let captured: Value = serde_json::from_str(&tolk.read("wrong.jsonl")).unwrap();
    assert_eq!((&captured["key"], &captured["payload"], &captured["feed"]), (&json!("k2"), &json!("{broken"), &json!("example")));
    tolk.run(&["capture", "-n", "1"]).expect(0).says(&["\"k1\"", id]);
    tolk.run(&["doctor"]).expect(0).says(&["messages      2, none failed"]);
}

/// A host that runs until the test ends, whatever happens.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until the messages with this key are handled; the digest of their plugin.
fn handled_by(tolk: &Tolk, key: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = tolk.run(&["messages", "--key", key, "-o", "json"]).expect(0).json();
        if let Some(row) = rows.as_array().unwrap().iter().find(|row| row["status"] == "handled") {
            return row["digest"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "{key} is not handled: {rows:#}");
    }
}

#[test]
fn a_version_is_swapped_while_a_host_runs() {
    let tolk = ready(true);
    let one = pushed(&tolk, "one.wasm", first());
    let two = pushed(&tolk, "two.wasm", second());
    let append = |key: &str| {
        let mut file = OpenOptions::new().append(true).open(tolk.path("messages.jsonl")).unwrap();
        writeln!(file, "{}", json!({ "key": key, "payload": { "table": "t" } })).unwrap();
    };
    append("before-any");
    let log = std::fs::File::create(tolk.path("run.log")).unwrap();
    let mut host = Host(tolk.command().args(["run", "--log-format", "json"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());

    let deadline = Instant::now() + PATIENCE;
    while tolk.run(&["messages", "--status", "waiting", "-o", "json"]).expect(0).json() == json!([]) {
        assert!(Instant::now() < deadline, "a message without a plugin waits: {}", tolk.read("run.log"));
    }
    activate(&tolk, &one, &[], 0).complains(&["every host runs on it"]);
    assert_eq!(handled_by(&tolk, "before-any"), one, "activation wakes what waited for it");
    append("with-one");
    assert_eq!(handled_by(&tolk, "with-one"), one);
    activate(&tolk, &two, &[], 0).complains(&["every host runs on it"]);
    append("with-two");
    assert_eq!(handled_by(&tolk, "with-two"), two);

    tolk.run(&["run"]).expect(3).complains(&["already runs"]);

    let pid = host.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(host.0.wait().unwrap().code(), Some(0), "{}", tolk.read("run.log"));
    for line in tolk.read("run.log").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert_eq!(tolk.read("out.jsonl").lines().count(), 3);
}
