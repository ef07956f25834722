//! A barnetrygd case with a host: its deliveries and recipients, its steps one after the other.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tolk::message::Place;
use tolk::store::{ActionKind, ActionResult, Command, Done, MessageStatus, Ordered, Selection};
use uuid::Uuid;

use super::recipients::Recipient;
use super::remote::{self, Strangers};
use super::{TABLE, admin, deliveries, expect, token};
use crate::bench::Bench;
use crate::diff::difference;
use crate::world::{Record, World};

/// The moment of a case that names none.
pub const NOW_MS: i64 = 1_900_000_000_000;

/// The quarantine after an error, and a little more.
const QUARANTINE_MS: i64 = 5 * 3_600_000 + 1_000;

/// A case under way.
pub struct Scenario<'b> {
    /// The host.
    pub world: World,
    /// Everything that the system's cases share.
    pub bench: &'b Bench,
    /// Recipients, in the order in which they came.
    pub recipients: Vec<Recipient>,
    /// State and errors of the first recipient after each pass or event.
    pub passes: Vec<(&'static str, i32)>,
    /// What admin calls answered: status, and a text.
    pub answers: Vec<(u16, String)>,
    /// Result words of actions.
    pub results: Vec<&'static str>,
    /// The last refusal.
    pub error: Option<String>,
    /// The reason that was given with the last action.
    pub reason: Option<String>,
    /// Differences so far.
    pub found: Vec<String>,
    /// How many recipients the last rerun began anew.
    pub updated: Option<u64>,
    /// Parts of each delivery before the first step, by id.
    pub accepted_before: BTreeMap<String, i64>,
    /// Requests before the first step.
    pub requests_before: usize,
    http: Value,
    strangers: Strangers,
    last_poll: Vec<Record>,
    claims: BTreeMap<String, Vec<Place>>,
    of_outputs: bool,
    of_one: bool,
    fault: Option<Fault>,
}

/// How the store fails.
struct Fault {
    /// Tries that fail before it works again.
    tries: u64,
    /// Whether a later poll brings the records again, rather than the same one going on.
    once: bool,
}

/// Plays a case; its differences.
pub async fn scenario(bench: &Bench, case: &Value) -> anyhow::Result<Vec<String>> {
    let world = World::open(bench, NOW_MS).await?;
    let mut scenario = Scenario {
        world,
        bench,
        recipients: Vec::new(),
        passes: Vec::new(),
        answers: Vec::new(),
        results: Vec::new(),
        error: None,
        reason: None,
        found: Vec::new(),
        updated: None,
        accepted_before: BTreeMap::new(),
        requests_before: 0,
        http: case["given"]["http"].clone(),
        strangers: Strangers::default(),
        last_poll: Vec::new(),
        claims: BTreeMap::new(),
        of_outputs: case["given"].get("outbox_rows").is_some(),
        of_one: case["steps"].as_array().is_some_and(|steps| steps.iter().any(needs_recipient)),
        fault: None,
    };
    let played = scenario.play(case).await;
    let strangers = scenario.strangers.take();
    let Scenario { world, mut found, .. } = scenario;
    world.close(bench).await?;
    played?;
    found.extend(strangers.into_iter().map(|call| format!("a call that no stub is for: {call}")));
    Ok(found)
}

impl Scenario<'_> {
    async fn play(&mut self, case: &Value) -> anyhow::Result<()> {
        self.world.start().await?;
        self.given(&case["given"]).await?;
        self.fault = Fault::of(&case["given"], &case["expect"]);
        self.stubs(&self.http.clone())?;
        self.requests_before = self.bench.remote.count();
        for delivery in self.deliveries().await? {
            self.accepted_before.insert(delivery.id.clone().unwrap_or_default(), delivery.tally.accepted);
        }
        self.error = None;
        let steps = case["steps"].as_array().context("steps is a list")?;
        for (number, step) in steps.iter().enumerate() {
            self.step(step).await.with_context(|| format!("steps[{number}]"))?;
            self.look().await?;
        }
        expect::check(self, &case["expect"]).await
    }

    /// Answers of the remote systems from here on.
    pub fn stubs(&self, http: &Value) -> anyhow::Result<()> {
        self.bench.remote.decide_by(remote::decide(http, self.strangers.clone())?);
        Ok(())
    }

    async fn step(&mut self, step: &Value) -> anyhow::Result<()> {
        if let Some(event) = step.as_str() {
            return self.event(event).await;
        }
        let fields = step.as_object().context("a step is an object or a word")?;
        let (name, value) = fields.iter().next().context("a step has a name")?;
        match name.as_str() {
            "consume" => self.poll(&[value["value"].clone()]).await,
            "poll" => self.poll(value.as_array().context("poll is a list")?).await,
            // What the host has committed it has; it reads on from where its store says, whatever the broker knows.
            "redeliver" | "crash_before_ack" => self.deliver(self.last_poll.clone()).await,
            "run" if value == "process" => {
                for _ in 0..step["times"].as_u64().unwrap_or(1) {
                    self.process().await?;
                }
                Ok(())
            }
            // What was settled is on its way out; nothing holds it back.
            "run" if value == "send" => Ok(()),
            "admin" => self.call(step, value.as_str().context("a call is a method and a path")?).await,
            "http_in" => match token::status(self.world.config(), step["token"].as_str().unwrap_or("none")).await? {
                refused @ (401 | 403) => {
                    self.answers.push((refused, String::new()));
                    Ok(())
                }
                _ => self.call(step, value.as_str().context("a call is a method and a path")?).await,
            },
            "order" => self.order_delivery(&value.to_string(), step).await,
            "assert" => self.assert(value.as_str().context("assert is a text")?).await,
            // Opened first: a resume takes a while.
            "retry_at" => {
                self.open().await?;
                self.world.set_now_ms(moment(value)?);
                self.error().await
            }
            "pick_at" => {
                self.open().await?;
                self.world.set_now_ms(moment(value)?);
                let due = self.world.free(&[], usize::MAX).await?.len();
                self.count("pick_at", &step["expect"], due);
                Ok(())
            }
            "pick" => self.pick(step, usize::try_from(value.as_u64().context("pick is a number")?)?).await,
            "release" => {
                self.claims.remove(value.as_str().unwrap_or_default());
                Ok(())
            }
            other => bail!("the step `{other}` is not played"),
        }
    }

    /// A sentence about deliveries: each that it names is there, or none of them is.
    async fn assert(&mut self, sentence: &str) -> anyhow::Result<()> {
        let words = sentence.split(|c: char| !(c.is_ascii_hexdigit() || c == '-'));
        let ids: Vec<String> = words.filter_map(|word| Uuid::try_parse(word).ok()).map(|id| id.to_string()).collect();
        let gone = ["not", "gone", "deleted", "invalid", "no longer"].iter().any(|word| sentence.contains(word));
        if ids.is_empty() || !(gone || sentence.contains("exist")) {
            bail!("the sentence \"{sentence}\" is not played");
        }
        for id in ids {
            let there = self.state(&id).await?.is_some_and(|delivery| deliveries::word(delivery.tally.state).is_some());
            if there == gone {
                self.found.push(difference("assert", sentence, if there { "it exists" } else { "it does not exist" }));
            }
        }
        Ok(())
    }

    fn count(&mut self, path: &str, expected: &Value, got: usize) {
        if expected.as_u64().is_some_and(|expected| expected != got as u64) {
            self.found.push(difference(path, &expected.to_string(), &got.to_string()));
        }
    }

    // ------------------------------------------------------------ records

    /// Takes records in together, and lets the host judge them.
    pub async fn poll(&mut self, values: &[Value]) -> anyhow::Result<()> {
        let payload = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let records: Vec<Record> = values.iter().map(|value| self.world.record(None, Some(payload(value)))).collect();
        self.last_poll = records.clone();
        self.deliver(records).await
    }

    async fn deliver(&mut self, records: Vec<Record>) -> anyhow::Result<()> {
        let before = self.world.rows().await?.len();
        if let Some(fault) = self.fault.take() {
            self.world.break_inbox(true).await?;
            for _ in 0..fault.tries {
                let failed = self.world.append_all(records.clone()).await;
                anyhow::ensure!(failed.is_err(), "the store fails, and the records are taken in all the same");
            }
            self.world.break_inbox(false).await?;
            anyhow::ensure!(self.world.rows().await?.len() == before, "what failed left rows behind");
            if fault.once {
                return Ok(());
            }
        }
        self.world.append_all(records).await?;
        // Nobody runs between the steps of a case; what is refused or held is told all the same.
        self.world.pause(TABLE, true).await?;
        self.world.run_new().await?;
        self.read_records(before).await
    }

    /// Whether the case is about one recipient that it does not give.
    pub fn is_of_one_recipient(&self) -> bool {
        self.of_one
    }

    // ------------------------------------------------------------ runs

    /// Every due recipient is tried once; before a second pass the quarantine passes.
    pub async fn process(&mut self) -> anyhow::Result<()> {
        if !self.passes.is_empty() {
            self.world.set_now_ms(self.world.now_ms() + QUARANTINE_MS);
        }
        self.run().await
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        self.world.pause(TABLE, false).await?;
        self.world.tend().await?;
        self.world.run_due().await?;
        self.look().await?;
        let pass = self.recipients.first().and_then(|first| Some((*first.history.last()?, first.attempts)));
        self.passes.extend(pass);
        Ok(())
    }

    /// An event of the recipient's state machine.
    async fn event(&mut self, event: &str) -> anyhow::Result<()> {
        let recipient = self.recipients.first().context("there is a recipient")?.clone();
        match event.to_lowercase().as_str() {
            "ferdig" | "retry" => {
                let before = self.bench.remote.count();
                self.stubs(&if event == "retry" { broken() } else { well() })?;
                self.process().await?;
                // Who is not tried takes no event: its state does not allow it.
                if self.bench.remote.count() == before {
                    self.error = Some("IllegalArgumentException".to_owned());
                }
                Ok(())
            }
            "stoppet" | "stopp" => self.order(ActionKind::Stop, &[recipient.id], "").await,
            "avsluttet" | "avslutt" => self.order(ActionKind::Finish, &[recipient.id], "").await,
            "klar" | "restart" => self.order(ActionKind::Restart, &[recipient.id], "").await,
            other => bail!("the event \"{other}\" is not played"),
        }
    }

    async fn error(&mut self) -> anyhow::Result<()> {
        self.stubs(&broken())?;
        self.run().await
    }

    /// What is complete may be taken; nothing runs.
    async fn open(&mut self) -> anyhow::Result<()> {
        self.world.pause(TABLE, false).await?;
        self.world.tend().await
    }

    /// A worker claims recipients, or published messages; what others hold it does not get.
    async fn pick(&mut self, step: &Value, most: usize) -> anyhow::Result<()> {
        let held: Vec<Place> = self.claims.values().flatten().copied().collect();
        let free = match self.of_outputs {
            true => {
                let sent = self.world.sent().await?.into_iter().map(|sent| sent.row.place);
                sent.filter(|place| !held.contains(place)).take(most).collect()
            }
            false => {
                self.open().await?;
                self.world.free(&held, most).await?
            }
        };
        self.count("pick", &step["expect"], free.len());
        self.claims.insert(step["as"].as_str().unwrap_or_default().to_owned(), free);
        Ok(())
    }

    // ------------------------------------------------------------ recipients

    /// The statuses of all recipients, in their order, and what is to be noted of them.
    pub async fn look(&mut self) -> anyhow::Result<Vec<MessageStatus>> {
        let rows = self.world.rows().await?;
        let mut statuses = Vec::with_capacity(self.recipients.len());
        for recipient in &mut self.recipients {
            let (_, status) = rows.iter().find(|(message, _)| message.id == recipient.id).context("a recipient's message is there")?;
            recipient.note(status);
            statuses.push(status.clone());
        }
        Ok(statuses)
    }

    /// Brings a recipient into a state: by real runs against remote systems that fail or answer, and by actions.
    pub async fn bring(&mut self, at: usize, state: &str) -> anyhow::Result<()> {
        let Recipient { place, id, .. } = self.recipients[at].clone();
        let (stubs, runs) = match state {
            "Retry" => (broken(), 1),
            "Feilet" => (broken(), 4),
            "Ferdig" => (well(), 1),
            _ => (Value::Null, 0),
        };
        self.stubs(&stubs)?;
        self.open().await?;
        for _ in 0..runs {
            self.world.run_again(place).await?;
            self.look().await?;
        }
        match state {
            "Stoppet" => self.order(ActionKind::Stop, &[id], "given").await?,
            "Avsluttet" => self.order(ActionKind::Finish, &[id], "given").await?,
            _ => {}
        }
        let now = *self.recipients[at].history.last().context("it has a state")?;
        anyhow::ensure!(now == state, "a recipient that should be {state} is {now}");
        Ok(())
    }

    // ------------------------------------------------------------ operators

    async fn call(&mut self, step: &Value, call: &str) -> anyhow::Result<()> {
        let (method, path) = call.split_once(' ').context("a call is a method and a path")?;
        if let Some(kind) = admin::kind(path).filter(|_| method == "POST") {
            let first = self.recipients.first().map(|first| first.id.to_string()).unwrap_or_default();
            let list = step["form"]["uuidliste"].as_str().unwrap_or_default().replace("<id>", &first);
            let Some(ids) = admin::ids(&list) else {
                self.answers.push((400, String::new()));
                return Ok(());
            };
            return self.order(kind, &ids, step["form"]["begrunnelse"].as_str().unwrap_or_default()).await;
        }
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (method, words.as_slice()) {
            ("GET", ["innlesning", "start", year]) => self.order_delivery(year, step).await,
            ("GET", ["innlesning", id, "feilede"]) => self.rerun(id).await,
            _ => bail!("the call {call} is not played"),
        }
    }

    /// Orders a delivery by the host's own call.
    async fn order_delivery(&mut self, year: &str, step: &Value) -> anyhow::Result<()> {
        let http = match remote::has(&self.http, remote::ORDER) {
            true => self.http.clone(),
            false => with_order(&self.http, step, year),
        };
        self.stubs(&http)?;
        let params = vec![("year".to_owned(), year.to_owned())];
        let Ordered::Placed(number) = self.world.store.order_delivery(self.world.feed_id(), &params, &deliveries::by(), false).await?
        else {
            bail!("the order was not taken: another one with the same year is open");
        };
        anyhow::ensure!(self.world.duty()?.order().await?, "the order is called");
        let ordered = self.world.store.delivery(number).await?.context("an order leaves a row")?;
        match (&ordered.id, deliveries::word(ordered.tally.state)) {
            (Some(id), Some(_)) => self.answers.push((200, id.clone())),
            _ => {
                self.error = Some(ordered.tally.reason.clone());
                self.answers.push((500, ordered.tally.reason.clone()));
            }
        }
        if let Some(body) = step["expect_body"].as_str() {
            let got = self.answers.last().map(|(_, body)| body.clone()).unwrap_or_default();
            if got != body {
                self.found.push(difference("expect_body", body, &got));
            }
        }
        Ok(())
    }

    /// Begins the failed recipients of one delivery anew.
    async fn rerun(&mut self, name: &str) -> anyhow::Result<()> {
        let id = deliveries::id_of(name.trim_matches(['<', '>', '{', '}']));
        self.world.pause(TABLE, true).await?;
        let delivery = self.state(&id).await?.with_context(|| format!("there is no delivery {name}"))?;
        let Done::Parts(count) = self.world.store.rerun_delivery(delivery.number, &deliveries::by()).await? else {
            bail!("the delivery's parts cannot be run again");
        };
        self.world.settle_actions().await?;
        self.updated = Some(count);
        self.answers.push((200, format!("{count} {id}")));
        Ok(())
    }

    /// An action on each of these messages, one after the other, while nothing runs: what is ordered to run stays as it is.
    async fn order(&mut self, kind: ActionKind, ids: &[Uuid], why: &str) -> anyhow::Result<()> {
        self.world.pause(TABLE, true).await?;
        let mut lines = Vec::new();
        for id in ids {
            let before = self.recipients.iter().find(|recipient| recipient.id == *id).and_then(|it| it.history.last().copied());
            let result = self.act(kind, Selection::Ids(vec![*id]), why).await?;
            let word = admin::result(kind, before, result.first().copied())?;
            if word == "IllegalArgumentException" {
                self.error = Some(word.to_owned());
            }
            let line = match (kind, word) {
                (ActionKind::Stop, _) => word.to_owned(),
                (_, "IllegalArgumentException") => format!("{id}: Feilet, {word}"),
                _ => format!("{id}: {word}"),
            };
            lines.push(line);
            self.results.push(word);
            self.look().await?;
        }
        self.reason = Some(why.to_owned());
        self.answers.push((200, lines.join("\n")));
        Ok(())
    }

    /// One command, applied: what became of its messages.
    async fn act(&mut self, kind: ActionKind, selection: Selection, why: &str) -> anyhow::Result<Vec<ActionResult>> {
        let command = Command {
            id: Uuid::new_v4(),
            kind,
            by: "acceptance".to_owned(),
            why: why.to_owned(),
            object: "recipients of a case".to_owned(),
            force: false,
            pinned: None,
            per_second: None,
            pick: tolk::store::Pick::Each,
        };
        self.world.store.command(&command, &selection).await?;
        self.world.settle_actions().await?;
        let actions = self.world.store.actions(Some(command.id), None, 1_000).await?;
        actions.iter().map(|action| action.result.context("the action is applied")).collect()
    }
}

impl Fault {
    fn of(given: &Value, expect: &Value) -> Option<Self> {
        let times = ["failed_deliveries", "deliveries_failed"].into_iter().find_map(|key| expect[key].as_u64());
        match given.get("store_error_once_at") {
            Some(_) => Some(Self { tries: 1, once: true }),
            None => (given["store_error"] == true).then(|| Self { tries: times.unwrap_or(3), once: false }),
        }
    }
}

/// Whether a step is about a recipient that the case may not give: an event of its state machine, or an error at some time.
fn needs_recipient(step: &Value) -> bool {
    step.is_string() || step.get("retry_at").is_some()
}

/// The stubs of a case with an order that is taken: its answer is the body that is expected.
fn with_order(http: &Value, step: &Value, year: &str) -> Value {
    let body = step["expect_body"].as_str().map_or_else(|| Uuid::from_u128(9).to_string(), str::to_owned);
    let mut stubs = http.as_array().cloned().unwrap_or_default();
    stubs.push(json!({ "method": "GET", "url": format!("{}{year}", remote::ORDER), "status": 202, "body_text": body }));
    stubs.into()
}

/// Remote systems of which one is broken.
fn broken() -> Value {
    json!([{ "method": "POST", "url": "/api/ekstern/pensjon/hent-barnetrygd", "status": 500, "body_text": "" }])
}

/// Remote systems that know of no case: nothing goes out.
fn well() -> Value {
    json!([{ "method": "POST", "url": "/api/ekstern/pensjon/hent-barnetrygd", "status": 200, "body": { "fagsaker": [] } }])
}

/// A moment of a case.
fn moment(value: &Value) -> anyhow::Result<i64> {
    let text = value.as_str().context("a moment is a text")?;
    let zoned = if text.ends_with('Z') { text.to_owned() } else { format!("{text}Z") };
    let at: jiff::Timestamp = zoned.parse().with_context(|| format!("\"{text}\" is no moment"))?;
    Ok(at.as_millisecond())
}
