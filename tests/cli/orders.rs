//! Orders on the command line: what is refused, what is told, and what stays in the audit trail.

use serde_json::json;

use super::tolk::Tolk;

const REASON: [&str; 2] = ["--reason", "tried it"];

/// A store with two messages that wait for a plugin, and no host.
fn waiting() -> Tolk {
    let tolk = Tolk::ready();
    let lines = [json!({ "key": "a", "payload": { "n": 1 } }), json!({ "key": "b", "payload": { "n": 2 } })];
    tolk.write("messages.jsonl", &lines.map(|line| format!("{line}\n")).concat());
    let config = tolk.read("tolk.toml").replace("follow = true", "follow = false").replace("#: table_name", "table_name");
    tolk.write("tolk.toml", &config);
    tolk.run(&["run", "--until-done"]).expect(0);
    tolk
}

#[test]
fn an_order_names_its_messages_and_its_reason() {
    let tolk = Tolk::ready();
    tolk.run(&["migrate"]).expect(0);
    for verb in ["retry", "restart", "ignore", "stop", "finish"] {
        tolk.run(&[verb]).expect(2).complains(&["--reason"]);
        tolk.run(&[&[verb], &REASON[..]].concat()).expect(2).complains(&["choose messages", "--all means every message"]);
        tolk.run(&[verb, "--all", "--reason", " "]).expect(2).complains(&["without a reason"]);
        tolk.run(&[&[verb, "--feed", "exmaple"], &REASON[..]].concat()).expect(2).complains(&["did you mean `example`?"]);
        tolk.run(&[&[verb, "x/0/1", "--feed", "example"], &REASON[..]].concat()).expect(2);
        tolk.run(&[&[verb, "example/0/7"], &REASON[..]].concat()).expect(1).complains(&["find the message example/0/7"]);
        tolk.run(&[&[verb, "--all"], &REASON[..]].concat()).expect(0).complains(&["no such messages"]);
        tolk.run(&[&[verb, "8c5b3f5e-6d5c-5f6b-9c1b-0123456789ab"], &REASON[..]].concat()).expect(1).says(&["not-found"]);
    }
}

#[test]
fn an_order_without_a_host_waits_and_says_for_whom() {
    let tolk = waiting();
    let said = tolk.run(&["stop", "example/0/0", "--reason", "not now", "--by", "kari", "--wait", "--timeout-s", "1"]);
    let said = said.expect(1).says(&["ordered"]).complains(&["after 1 s", "no living host owns all lanes of example", "tolk run"]);
    assert!(said.err.contains("tolk audit "), "{}", said.err);
    let trail = tolk.run(&["audit", "--message", "example/0/0", "-o", "json"]).expect(0).json();
    let line = &trail[0];
    assert_eq!((&line["by"], &line["why"], &line["kind"]), (&json!("kari"), &json!("not now"), &json!("stop")), "{trail}");
    assert_eq!((&line["messages"], &line["open"]), (&json!(1), &json!(1)));
    let order = line["id"].as_str().unwrap();
    tolk.run(&["audit", order]).expect(0).says(&["stop of example/0/0 by kari", "not now", "open"]);
    assert_eq!(tolk.run(&["audit", order, "-o", "json"]).expect(0).json()["actions"][0]["result"], json!(null));
    assert_eq!(tolk.run(&["audit", "--message", "example/0/1", "-o", "json"]).expect(0).json(), json!([]));
    tolk.run(&["audit", "8c5b3f5e-6d5c-5f6b-9c1b-0123456789ab"]).expect(1).complains(&["find the order"]);
    let filter = tolk.run(&[&["ignore", "--feed", "example", "--status", "waiting", "-o", "json"], &REASON[..]].concat()).expect(0).json();
    assert_eq!(filter["messages"], 2, "{filter}");
    tolk.run(&["audit"]).expect(0).says(&["feed example, status waiting", "tried it"]);
}

#[test]
fn a_pause_says_who_why_and_how_to_go_on() {
    let tolk = waiting();
    tolk.run(&["pause"]).expect(2);
    tolk.run(&["pause", "--feed", "example"]).expect(2).complains(&["without a reason"]);
    tolk.run(&["pause", "--feed", "exmaple", "--reason", "x"]).expect(2).complains(&["did you mean `example`?"]);
    tolk.run(&["pause", "--endpoint", "person", "--reason", "x"]).expect(2).complains(&["find the endpoint \"person\""]);
    let pause = ["pause", "--feed", "example", "--reason", "the receiver moves", "--by", "kari"];
    tolk.run(&pause).expect(0).complains(&["feed example is paused", "tolk resume --feed example"]);
    tolk.run(&pause).expect(0).complains(&["was paused already"]);
    for command in [&["explain", "example/0/0"][..], &["messages", "show", "example/0/0"]] {
        tolk.run(command).expect(0).says(&[
            "feed example is paused by kari since",
            "the receiver moves",
            "next: tolk resume --feed example",
        ]);
    }
    tolk.run(&["doctor"]).says(&["WARN  feed example", "paused by kari", "-> tolk resume --feed example"]);
    tolk.run(&["resume", "--feed", "example"]).expect(0).complains(&["goes on"]);
    tolk.run(&["resume", "--feed", "example"]).expect(0).complains(&["was not paused"]);
    tolk.run(&["audit"]).expect(0).says(&["pause", "resume", "the receiver moves"]);
    let explained = tolk.run(&["explain", "example/0/0", "-o", "json"]).expect(0).json();
    assert_eq!(explained["why"]["status"], "waiting", "{explained}");
    assert!(explained["why"]["next"][0].as_str().unwrap().starts_with("tolk activate REF --feed example"), "{explained}");
    tolk.run(&["doctor"]).says(&["WARN  waiting no-translator", "2 messages, the oldest example/0/0", "-> tolk explain"]);
}

#[test]
fn the_ledger_balances() {
    let tolk = waiting();
    let said = tolk.run(&["doctor", "--ledger"]).expect(0).says(&["EQUATION", "lane-rows", "passed", "outputs-once"]);
    assert!(said.err.is_empty(), "{}", said.err);
    let equations = tolk.run(&["doctor", "--ledger", "-o", "json"]).expect(0).json();
    assert!(equations.as_array().unwrap().iter().all(|equation| equation["left"] == equation["right"]), "{equations}");
    let database = sqlx::sqlite::SqliteConnectOptions::new().filename(tolk.path("tolk.db"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut connection = sqlx::ConnectOptions::connect(&database).await.unwrap();
        sqlx::raw_sql("DELETE FROM inbox WHERE n = 1").execute(&mut connection).await.unwrap();
    });
    tolk.run(&["doctor", "--ledger"]).expect(1).says(&["lane-rows"]).complains(&["equations do not hold"]);
}

#[test]
fn a_replay_chooses_and_a_dry_run_orders_nothing() {
    let tolk = waiting();
    let run = |more: &[&str]| tolk.run(&[&["replay", "--reason", "the rules changed"], more].concat());
    run(&[]).expect(2).complains(&["choose messages"]);
    run(&["--all", "--sample", "5"]).expect(2);
    run(&["--all", "--keys-file", "none.txt"]).expect(3).complains(&["none.txt"]);
    run(&["--all", "--plugin", "arena"]).expect(2).complains(&["--feed and --table"]);
    let dry = run(&["--feed", "example", "--dry-run"]).expect(0);
    dry.says(&["2 messages would run", "no plugin is active for its table"]).complains(&["dry run"]);
    assert_eq!(run(&["--all", "--dry-run", "-o", "json"]).expect(0).json()["messages"], 2);
    tolk.run(&["audit"]).expect(0).complains(&["nothing was ordered"]);
    tolk.write("keys.txt", "b\n\nnobody\n");
    let ordered = run(&["--keys-file", "keys.txt", "--mode", "newest", "-o", "json"]).expect(0).json();
    assert_eq!(ordered["messages"], 1, "{ordered}");
    tolk.run(&["audit"]).expect(0).says(&["replay", "2 keys (b, nobody)", "the rules changed"]);
}
