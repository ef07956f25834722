//! Deliveries whose parts come over several partitions while hosts are killed: each has its one end and the accounts add up. And what people
//! do with deliveries on the command line, from the order to the last part.

use serde_json::{Value, json};
use tolk::message::Captured;

use super::rig::{Rig, Running};
use super::script::{AT_MS, Dice, Message};
use crate::support::stub::{Reply, Stub};

const SETTINGS: &str = "[feeds.f.delivery]\nid = [\"/delivery\"]\nmark = [\"/mark\"]\nstart = \"start\"\nend = \"end\"\npart = \"part\"\n\
    expected = [\"/expected\"]\ngrace_ms = 600000\n\
    [feeds.f.delivery.order]\nendpoint = \"e\"\nparams = [\"year\"]\nstatuses = [202]\n";
/// Deliveries, and parts of each.
const DELIVERIES: usize = 6;
const PARTS: usize = 25;
const KILLS: usize = 5;

#[tokio::test]
async fn accounts_add_up_after_kills_on_postgres() {
    Parcel::new(Rig::shared_kafka().await).await.survives().await;
}

#[tokio::test]
async fn accounts_add_up_after_kills_on_sqlite() {
    Parcel::new(Rig::files().await).await.survives().await;
}

/// A rig with deliveries, and what was sent.
struct Parcel {
    rig: Rig,
    dice: Dice,
    offsets: Vec<i64>,
    sent: usize,
    _remote: Stub,
}

impl Parcel {
    async fn new(rig: Rig) -> Self {
        // The first order is taken, the second too, but nobody can tell under which id.
        let remote = Stub::start(|number, _| Reply::json(202, if number == 0 { "ordered" } else { "" })).await;
        let config = rig.tolk.read("tolk.toml");
        let endpoint = format!("base_url = \"{}\"\npath = \"/{{year}}\"", remote.url());
        let config = config.replace("base_url = \"http://127.0.0.1:9\"\npath = \"/\"", &endpoint);
        assert!(config.contains("{year}"), "{config}");
        rig.tolk.write("tolk.toml", &format!("{config}{SETTINGS}"));
        let offsets = vec![0; usize::try_from(rig.partitions).unwrap()];
        Self { rig, dice: Dice(41), offsets, sent: 0, _remote: remote }
    }

    fn piece(&mut self, delivery: &str, mark: &str, key: &str, more: Value) -> Message {
        let partition = self.dice.below(self.offsets.len() as u64) as usize;
        let offset = self.offsets[partition];
        self.offsets[partition] += 1;
        let mut payload = json!({ "table": "a", "key": key, "delivery": delivery, "mark": mark });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let captured = Captured {
            partition: i32::try_from(partition).unwrap(),
            offset,
            key: Some(key.to_owned().into()),
            payload: Some(payload.to_string().into()),
            timestamp_ms: Some(AT_MS),
            ..Captured::default()
        };
        Message { captured, status: "handled", code: None, outputs: Vec::new() }
    }

    /// The pieces of a delivery in their order; the last ones have no end. Two parts of the fourth fail.
    fn delivery(&mut self, number: usize) -> Vec<Message> {
        let id = format!("D{number}");
        let mut pieces = vec![self.piece(&id, "start", &id, json!({ "expected": PARTS }))];
        for part in 0..PARTS {
            let word = if number == 3 && part < 2 { "fail" } else { "put" };
            pieces.push(self.piece(&id, "part", &format!("{id}-{part}"), json!({ "do": word })));
        }
        if number < 4 {
            pieces.push(self.piece(&id, "end", &id, json!({ "expected": PARTS })));
        }
        pieces
    }

    fn produce(&mut self, pieces: &[Message]) {
        self.rig.produce(pieces);
        self.sent += pieces.len();
    }

    /// Waits until so many messages are in the store.
    async fn until_stored(&self, host: &Running, count: usize) {
        host.until("the messages are stored", async || {
            let stored: usize = self.rig.counts().await.values().sum();
            (stored >= count, format!("{stored} of {count}"))
        })
        .await;
    }

    fn json(&self, args: &[&str]) -> Value {
        self.rig.tolk.run(&[args, &["-o", "json"]].concat()).expect(0).json()
    }

    /// Waits until the account of a delivery is as it must be; every one on the way adds up.
    async fn until_account(&self, host: &Running, id: &str, field: &str, count: usize) {
        host.until(&format!("{count} {field} in {id}"), async || {
            let said = self.rig.tolk.run(&["deliveries", "show", id, "-o", "json"]);
            assert!(said.code == 0 || said.err.contains("find the delivery"), "{}\n{}", said.out, said.err);
            if said.code != 0 {
                return (false, said.err);
            }
            let shown = said.json();
            (shown["account"][field] == count, shown["account"].to_string())
        })
        .await;
    }

    async fn survives(mut self) {
        let mut waiting: Vec<Vec<Message>> = (0..DELIVERIES).map(|number| self.delivery(number)).collect();
        waiting.iter_mut().for_each(|pieces| pieces.reverse());
        let mut order = Vec::new();
        while let Some(some) = Some(self.dice.below(DELIVERIES as u64) as usize).filter(|_| waiting.iter().any(|left| !left.is_empty())) {
            order.extend(waiting[some].pop());
        }
        // Offsets stand as they are read.
        self.offsets.iter_mut().for_each(|next| *next = 0);
        for piece in &mut order {
            let next = &mut self.offsets[usize::try_from(piece.captured.partition).unwrap()];
            piece.captured.offset = *next;
            *next += 1;
        }
        let mut host = self.rig.start();
        for slice in order.chunks(order.len() / KILLS) {
            let before = self.sent;
            self.produce(slice);
            let some = self.dice.below(slice.len() as u64) as usize;
            self.until_stored(&host, before + some).await;
            host.kill();
            host = self.rig.start();
        }
        for id in ["D0", "D1", "D2"] {
            self.until_account(&host, id, "handled", PARTS).await;
        }
        self.until_account(&host, "D3", "failed", 2).await;
        self.until_account(&host, "D3", "handled", PARTS - 2).await;
        for id in ["D4", "D5"] {
            self.until_account(&host, id, "open", PARTS).await;
        }
        self.shown().await;
        self.told(&host).await;
        self.ordered(&host).await;
        host.terminate().await;
        let ledger = self.json(&["doctor", "--ledger"]);
        assert!(ledger.as_array().unwrap().iter().all(|equation| equation["left"] == equation["right"]), "{ledger}");
    }

    /// What a person sees.
    async fn shown(&self) {
        let rows = self.json(&["deliveries"]);
        let states: Vec<(&str, &str)> =
            rows.as_array().unwrap().iter().map(|row| (row["id"].as_str().unwrap(), row["state"].as_str().unwrap())).collect();
        assert_eq!(states.len(), DELIVERIES, "{states:?}");
        for (id, state) in [("D0", "complete"), ("D3", "complete"), ("D4", "started"), ("D5", "started")] {
            assert!(states.contains(&(id, state)), "{states:?}");
        }
        self.rig.tolk.run(&["deliveries", "list", "--feed", "f", "--limit", "1"]).expect(0).says(&["NUMBER", "STATE"]);
        self.rig.tolk.run(&["deliveries", "list", "--feed", "g"]).expect(2);
        self.rig.tolk.run(&["deliveries", "show", "D9"]).expect(2).complains(&["find the delivery \"D9\"", "tolk deliveries"]);
        self.rig.tolk.run(&["deliveries", "show", "D3"]).expect(0).says(&["complete", "2 failed", "23 handled"]);
        self.rig.tolk.run(&["deliveries", "health"]).expect(1).says(&["failed"]);
        let failed = self.json(&["messages", "--delivery", "f/D3", "--status", "failed"]);
        assert_eq!(failed.as_array().unwrap().len(), 2, "{failed}");
        self.rig.tolk.run(&["messages", "--delivery", "D3"]).expect(2).complains(&["FEED/ID"]);
        self.rig.tolk.run(&["messages", "--delivery", "g/D3"]).expect(2).complains(&["find the feed \"g\""]);
        let held = self.json(&["messages", "--delivery", "f/D4"]);
        assert_eq!(held.as_array().unwrap().len(), PARTS);
        let id = held[0]["id"].as_str().unwrap();
        let explained = self.rig.tolk.run(&["explain", id]).expect(0);
        explained.says(&["a part of delivery f/D4, which is started; that lacks its end", "tolk deliveries invalidate "]);
        let tried = self.json(&["replay", "--delivery", "f/D0", "--mode", "each", "--dry-run", "--reason", "a look"]);
        assert_eq!((&tried["messages"], &tried["changed"]), (&json!(PARTS), &json!(PARTS)), "{tried}");
        let paths: Vec<&Value> = tried["differences"].as_array().unwrap().iter().map(|it| &it["path"]).collect();
        assert_eq!(paths, ["outputs[*].payload.cause"], "the plugin says why it runs, and sees its delivery as before: {tried}");
        let tried = self.json(&["replay", "--delivery", "f/D4", "--mode", "each", "--dry-run", "--reason", "a look"]);
        assert_eq!(tried["unhandled"], json!({ "held": PARTS }), "{tried}");
    }

    /// Orders to deliveries that are there.
    async fn told(&self, host: &Running) {
        let tolk = |args: &[&str]| self.rig.tolk.run(&[args, &["--reason", "tried", "--by", "kari"]].concat());
        self.rig.tolk.run(&["deliveries", "stop", "D4"]).expect(2).complains(&["--reason"]);
        tolk(&["deliveries", "stop", "D4"]).expect(0).says(&["25 parts are asked to stop"]);
        self.until_account(host, "D4", "stopped", PARTS).await;
        tolk(&["retry", "--delivery", "f/D4", "--wait"]).expect(0);
        self.until_account(host, "D4", "open", PARTS).await;
        tolk(&["deliveries", "invalidate", "D5"]).expect(0).says(&["25 parts are not translated"]);
        self.until_account(host, "D5", "ignored", PARTS).await;
        tolk(&["deliveries", "invalidate", "D0"]).expect(4).complains(&["is complete"]);
        tolk(&["deliveries", "rerun", "D3"]).expect(0).says(&["2 parts begin anew"]);
        // They have failed before, too: first they must have begun.
        host.until("the rerun is applied", async || {
            let audit = self.json(&["deliveries", "show", "D3"])["audit"].clone();
            let line = audit.as_array().unwrap().iter().find(|line| line["kind"] == "rerun").cloned();
            (line.is_some_and(|line| line["open"] == 0), audit.to_string())
        })
        .await;
        self.until_account(host, "D3", "failed", 2).await;
        tolk(&["finish", "--delivery", "f/D3", "--status", "failed", "--wait"]).expect(0);
        self.until_account(host, "D3", "finished", 2).await;
        let shown = self.json(&["deliveries", "show", "D4"]);
        assert!(shown["audit"].to_string().contains("kari"), "{shown}");
        self.rig.tolk.run(&["deliveries", "health"]).expect(0).says(&["ok"]);
    }

    /// A delivery that we order, and one whose order has no clear answer.
    async fn ordered(&mut self, host: &Running) {
        let order = |rig: &Rig, year: &str, more: &[&str]| {
            rig.tolk.run(&[&["deliveries", "order", "--feed", "f", "--param", year, "--reason", "a new year"], more].concat())
        };
        let nameless = self.rig.tolk.run(&["deliveries", "order", "--feed", "f", "--reason", "x"]);
        nameless.expect(2).complains(&["without the parameter \"year\""]);
        let first = order(&self.rig, "year=2024", &[]).expect(0).out.trim().to_owned();
        self.until_state(host, &first, "open").await;
        order(&self.rig, "year=2024", &[]).expect(4).complains(&["ordered with the same parameters", "--force"]);
        let second = order(&self.rig, "year=2025", &[]).expect(0).out.trim().to_owned();
        self.until_state(host, &second, "unclear").await;
        self.rig.tolk.run(&["deliveries", "health"]).expect(1).says(&["unclear"]);
        self.rig.tolk.run(&["deliveries", "bind", &second, "bound", "--reason", "they told us"]).expect(0);
        self.until_state(host, &second, "open").await;
        for id in ["ordered", "bound"] {
            let mut pieces = vec![self.piece(id, "start", id, json!({ "expected": 1 })), self.piece(id, "part", id, json!({}))];
            pieces.push(self.piece(id, "end", id, json!({ "expected": 1 })));
            self.produce(&pieces);
            self.until_account(host, id, "handled", 1).await;
        }
        let shown = self.json(&["deliveries", "show", &first]);
        assert_eq!((&shown["delivery"]["id"], &shown["delivery"]["params"]), (&json!("ordered"), &json!([["year", "2024"]])), "{shown}");
    }

    async fn until_state(&self, host: &Running, number: &str, state: &str) {
        host.until(&format!("delivery {number} is {state}"), async || {
            let shown = self.json(&["deliveries", "show", number]);
            (shown["delivery"]["state"] == state, shown["delivery"].to_string())
        })
        .await;
    }
}
