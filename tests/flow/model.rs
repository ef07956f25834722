//! The lane state machine against a small model: random messages of few keys, worked on, waited for and crashed over at random, come out as if
//! each key's messages had been run one after the other.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::host::TestHost;

/// What a message does.
#[derive(Clone, Debug)]
enum Kind {
    Put,
    Ignore,
    Reject,
    Retry(u64),
    /// Waits in vain until its time is up.
    TimeOut,
    /// Reads what the last such message of its key wrote, and writes its own number.
    Chain,
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u8, Kind)>),
    Work,
    Later(i64),
    Crash,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Put),
        1 => Just(Kind::Ignore),
        1 => Just(Kind::Reject),
        2 => (1..3_u64).prop_map(Kind::Retry),
        1 => Just(Kind::TimeOut),
        3 => Just(Kind::Chain),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((0..5_u8, kind()), 1..12).prop_map(Step::Append),
        3 => Just(Step::Work),
        2 => (1..400_i64).prop_map(Step::Later),
        1 => Just(Step::Crash),
    ]
}

/// What one serial execution gives.
#[derive(Default)]
struct Model {
    seqs: BTreeMap<u8, u64>,
    entries: BTreeMap<u8, u64>,
    outputs: BTreeMap<String, Vec<(u64, u64, Value)>>,
    statuses: Vec<&'static str>,
}

impl Model {
    /// The script of the next message of a key; keeps the books.
    fn message(&mut self, key: u8, kind: &Kind) -> Value {
        let seq = self.seqs.entry(key).or_default();
        *seq += 1;
        let (seq, name) = (*seq, format!("k{key}"));
        let (more, status, attempt, saw) = match kind {
            Kind::Put => (json!({}), "handled", 0, json!([])),
            Kind::Ignore => (json!({ "do": "ignore" }), "ignored", 0, json!([])),
            Kind::Reject => (json!({ "do": "reject" }), "invalid", 0, json!([])),
            Kind::Retry(times) => (json!({ "do": "retry", "times": times }), "handled", *times, json!([])),
            Kind::TimeOut => (json!({ "do": "wait", "on": ["never"], "timeout": 150, "times": 1 }), "handled", 1, json!([])),
            Kind::Chain => {
                let saw = self.entries.insert(key, seq).map_or(Value::Null, |seq| seq.to_string().into());
                (json!({ "read": [name], "write": [[name, seq.to_string()]] }), "handled", 0, json!([saw]))
            }
        };
        self.statuses.push(status);
        if status == "handled" {
            self.outputs.entry(name.clone()).or_default().push((seq, attempt, saw));
        }
        let mut script = json!({ "key": name, "seq": seq });
        script.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        script
    }
}

async fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut host = TestHost::new("retry = { backoff_ms = [20, 70], attempts_max = 10 }").await;
    let mut model = Model::default();
    for step in &steps {
        match step {
            Step::Append(messages) => {
                let scripts: Vec<Value> = messages.iter().map(|(key, kind)| model.message(*key, kind)).collect();
                host.append(&scripts).await;
            }
            Step::Work => host.work().await,
            Step::Later(ms) => host.later(*ms).await,
            Step::Crash => host.crash().await,
        }
    }
    // A key needs at most so many times as it has messages that wait or retry twice.
    for _ in 0..3 * model.statuses.len() + 2 {
        host.later(400).await;
        if host.words().await == model.statuses {
            break;
        }
    }
    prop_assert_eq!(host.words().await, model.statuses);
    let mut outputs: BTreeMap<String, Vec<(u64, u64, Value)>> = BTreeMap::new();
    for output in host.outputs().await {
        let number = |name: &str| output[name].as_u64().unwrap();
        let key = output["key"].as_str().unwrap().to_owned();
        outputs.entry(key).or_default().push((number("seq"), number("attempt"), output["saw"].clone()));
    }
    prop_assert_eq!(outputs, model.outputs);
    Ok(())
}

#[test]
fn histories_come_out_as_one_serial_execution() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    let mut runner = TestRunner::new(Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() });
    runner.run(&prop::collection::vec(step(), 2..14), |steps| runtime.block_on(play(steps))).unwrap();
}
