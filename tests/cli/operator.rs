//! What an operator does with a store: make its tables, look at it, look at what is in it.

use serde_json::{Value, json};
use tolk::message::Captured;
use tolk::source::kafka::mock::Mock;

use super::tolk::{Tolk, closed_port};

#[test]
fn a_database_that_is_away_is_exit_code_3_and_says_where_it_was_looked_for() {
    let tolk = Tolk::new();
    let address = closed_port();
    tolk.write("tolk.toml", &format!("[store]\nurl = \"postgres://tolk@{address}/tolk\"\n"));
    let port = address.rsplit(':').next().unwrap();
    for command in ["migrate", "plugins", "messages"] {
        let said = tolk.run(&[command]).expect(3).complains(&["error: failed to", port, "next: check that the database runs"]);
        assert!(said.out.is_empty(), "{}", said.out);
    }
    tolk.run(&["doctor"]).expect(3).says(&["FAIL  store", port, "-> start the database"]);
}

#[test]
fn a_broker_that_is_away_is_found_by_doctor() {
    let tolk = Tolk::new();
    tolk.run(&["init", "--kafka"]).expect(0);
    let brokers = closed_port();
    let said = tolk.run_with(&["doctor", "--output", "json"], &[("KAFKA_BROKERS", &brokers)]).expect(3);
    let lines = said.json();
    let line = lines.as_array().unwrap().iter().find(|line| line["what"] == "kafka main").unwrap();
    assert_eq!(line["state"], "FAIL");
    assert!(line["text"].as_str().unwrap().contains(&brokers) && line["mend"].as_str().unwrap().contains("kafka.main.brokers"), "{line}");
}

#[test]
fn from_init_to_an_empty_store() {
    let tolk = Tolk::ready();
    tolk.run(&["messages"]).expect(3).complains(&["run `tolk migrate`"]);
    tolk.run(&["doctor"]).expect(1).says(&["OK    config", "FAIL  store", "-> tolk migrate", "OK    target out"]);
    assert!(!tolk.path("tolk.db").exists(), "whoever only looks makes nothing");
    tolk.write("tolk.db", "");
    tolk.run(&["doctor"]).expect(1).says(&["OK    store", "FAIL  tables", "-> tolk migrate"]);
    let first = tolk.run(&["migrate", "--output", "json"]).expect(0).json();
    assert!(first["version"].as_i64().unwrap() > 0 && !first["applied"].as_array().unwrap().is_empty(), "{first}");
    let again = tolk.run(&["migrate", "--output", "json"]).expect(0).json();
    assert_eq!(again, json!({ "applied": [], "version": first["version"] }));
    let said = tolk.run(&["migrate"]).expect(0).complains(&["already"]);
    assert!(said.out.is_empty(), "{}", said.out);
    tolk.run(&["doctor"]).expect(0).says(&["OK    tables", "WARN  feed example", "no plugin is active", "-> tolk activate"]);
    for listing in [&["plugins"][..], &["plugins", "--history"], &["messages"], &["messages", "--counts"]] {
        assert_eq!(tolk.run(&[listing, &["-o", "json"]].concat()).expect(0).json(), json!([]), "{listing:?}");
        let said = tolk.run(listing).expect(0);
        assert!(said.out.is_empty() && !said.err.is_empty(), "an empty table is said on stderr: {said:?}");
    }
    tolk.run(&["plugins"]).complains(&["tolk push FILE"]);
    tolk.run(&["messages", "show", "example/0/7"]).expect(1).complains(&["find the message example/0/7", "tolk messages"]);
    tolk.run(&["messages", "show", "8c5b3f5e-6d5c-5f6b-9c1b-0123456789ab"]).expect(1);
    tolk.run(&["activate", "nobody", "--feed", "example", "--table", "t"]).expect(2).complains(&["\"nobody\"", "tolk plugins"]);
    tolk.run(&["rollback", "--feed", "example", "--table", "t"]).expect(2).complains(&["nothing else was active", "--history"]);
    tolk.run(&["capture", "-o", "empty.jsonl"]).expect(0).complains(&["no such messages"]);
    assert_eq!(tolk.read("empty.jsonl"), "");
    tolk.run(&["capture", "-o", "empty.jsonl"]).expect(2).complains(&["exists already", "--force"]);
}

#[test]
fn topics_are_looked_at_and_captured() {
    let kafka = Mock::start(&[("example-in", 2)]).unwrap();
    let messages: Vec<Captured> = (0..5).map(|i| Captured { payload: Some(format!("m{i}").into()), ..Captured::default() }).collect();
    kafka.produce("example-in", &messages).unwrap();
    let tolk = Tolk::new();
    tolk.run(&["init", "--kafka"]).expect(0);
    let environment = [("KAFKA_BROKERS", kafka.brokers())];
    let said = tolk.run_with(&["doctor"], &environment).expect(3);
    said.says(&["OK    kafka main", "topic example-in has 2 partitions", "topic example-out does not exist", "-> create it"]);
    let said = tolk.run_with(&["capture", "--topic", "example-in", "-n", "5"], &environment).expect(0);
    let mut payloads: Vec<String> =
        said.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["payload"].as_str().unwrap().to_owned()).collect();
    payloads.sort();
    assert_eq!(payloads, ["m0", "m1", "m2", "m3", "m4"]);
    let part = ["capture", "--topic", "example-in", "--cluster", "main", "-n", "2", "-o", "two.jsonl"];
    tolk.run_with(&part, &environment).expect(0).complains(&["2 messages written to two.jsonl"]);
    assert_eq!(tolk.read("two.jsonl").lines().count(), 2);
    tolk.run_with(&["capture", "--topic", "example-in", "--cluster", "mian"], &environment).expect(2).complains(&["did you mean `main`?"]);
}

#[test]
fn what_is_no_component_is_refused() {
    let tolk = Tolk::ready();
    tolk.run(&["migrate"]).expect(0);
    tolk.write("words.wasm", "these are only words");
    tolk.run(&["push", "words.wasm"]).expect(4).complains(&["push words.wasm", "component"]);
    tolk.run(&["push", "none.wasm"]).expect(3).complains(&["none.wasm"]);
    let config = tolk.read("tolk.toml");
    tolk.write("tolk.toml", &format!("{config}\n[runtime]\ncomponent_bytes_max = 10\n"));
    tolk.run(&["push", "words.wasm"]).expect(4).complains(&["runtime.component_bytes_max", "10 bytes"]);
    assert_eq!(tolk.run(&["plugins", "-o", "json"]).expect(0).json(), json!([]));
}
