//! Plays a scenario of Arena's: its world, its steps, its expectations.

use anyhow::{Context as _, bail};
use serde_json::Value;
use tolk::message::Place;

use super::rows::{Memory, Name, Row, operation, plain};
use super::{expect, seed};
use crate::bench::Bench;
use crate::diff::difference;
use crate::world::World;

/// The clock of a case that names none; no rule depends on it then.
const CLOCK: &str = "2026-01-01T12:00:00";

/// A case under way.
pub struct Scenario<'b> {
    /// The host.
    pub world: World,
    /// What is remembered between steps.
    pub memory: Memory,
    /// What was consumed, in order: where it stands, and its bytes.
    pub consumed: Vec<(Place, Option<String>)>,
    /// Differences so far.
    pub found: Vec<String>,
    bench: &'b Bench,
}

/// Plays a case; its differences.
pub async fn scenario(bench: &Bench, case: &Value) -> anyhow::Result<Vec<String>> {
    let case = seed::with_uuids(case);
    let zone = jiff::tz::TimeZone::get("Europe/Oslo")?;
    let now_ms = local_ms(case["clock"].as_str().unwrap_or(CLOCK), &zone)?;
    let world = World::open(bench, now_ms).await?;
    let mut scenario = Scenario { world, memory: Memory::default(), consumed: Vec::new(), found: Vec::new(), bench };
    let played = scenario.play(&case).await;
    let Scenario { world, found, .. } = scenario;
    world.close(bench).await?;
    played.map(|()| found)
}

/// A local time in milliseconds since 1970; one with an offset or `Z` means itself.
pub fn local_ms(text: &str, zone: &jiff::tz::TimeZone) -> anyhow::Result<i64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let local: jiff::civil::DateTime = text.parse().with_context(|| format!("\"{text}\" is no local time"))?;
    Ok(zone.to_timestamp(local)?.as_millisecond())
}

impl Scenario<'_> {
    async fn play(&mut self, case: &Value) -> anyhow::Result<()> {
        let given = &case["given"];
        if let Some(key) =
            given.as_object().and_then(|given| given.keys().find(|key| !["state", "messages", "http"].contains(&key.as_str())))
        {
            bail!("given.{key} is not played");
        }
        let steps = case["steps"].as_array().context("steps is a list")?;
        self.bench.remote.answer(&given["http"])?;
        seed::state(&self.world, &given["state"]).await?;
        seed::messages(&mut self.world, &mut self.memory, &given["messages"], steps).await?;
        self.world.start().await?;
        self.rows().await?;
        for (number, step) in steps.iter().enumerate() {
            self.step(step).await.with_context(|| format!("steps[{number}]"))?;
        }
        expect::check(self, &case["expect"]).await
    }

    async fn step(&mut self, step: &Value) -> anyhow::Result<()> {
        let fields = step.as_object().context("a step is an object")?;
        let (name, value) = fields.iter().next().context("a step has a name")?;
        match name.as_str() {
            "consume" => self.consume(value).await,
            "assert" => {
                let rows = self.rows().await?;
                expect::rows(&rows, value, "assert", &self.world, &mut self.found)
            }
            "replace_http" => self.bench.remote.answer(value),
            "advance_clock_ms" => {
                let by = value.as_i64().context("advance_clock_ms is a number")?;
                self.world.set_now_ms(self.world.now_ms() + by);
                Ok(())
            }
            "run" => {
                let word = match value.as_str().unwrap_or_default() {
                    "retry" => "RETRY",
                    name if name.contains("failed") => "FAILED",
                    other => bail!("run \"{other}\" is not played: it needs what no rule file says"),
                };
                for _ in 0..step["times"].as_u64().unwrap_or(1) {
                    self.run(word).await?;
                }
                Ok(())
            }
            other => bail!("the step `{other}` is not played"),
        }
    }

    /// The rows as they are now.
    pub async fn rows(&mut self) -> anyhow::Result<Vec<Row>> {
        self.memory.rows(&self.world).await
    }

    async fn row(&mut self, place: Place) -> anyhow::Result<Row> {
        self.rows().await?.into_iter().find(|row| row.place() == place).context("what was taken in is in the inbox")
    }

    // ------------------------------------------------------------ consume

    async fn consume(&mut self, record: &Value) -> anyhow::Result<()> {
        let payload = match (&record["value_raw"], &record["value"]) {
            (Value::String(raw), _) => Some(raw.clone()),
            (_, Value::Null) => None,
            (_, value) => Some(value.to_string()),
        };
        let place = self.world.append(plain(&record["key"]), payload.clone()).await?;
        self.consumed.push((place, payload));
        self.world.run_new().await?;
        let row = self.row(place).await?;
        if row.is_redelivery() {
            return self.redelivered(&row.name).await;
        }
        // Put off by the host, not yet run: its due time is when it is played.
        if let Some(due_ms) = put_off(&row) {
            self.world.set_now_ms(due_ms);
            self.again(place).await?;
        }
        self.rows().await.map(drop)
    }

    /// Runs a message; one that the host puts off is played at its due time.
    async fn again(&mut self, place: Place) -> anyhow::Result<()> {
        self.world.run_again(place).await?;
        let row = self.row(place).await?;
        if let Some(due_ms) = put_off(&row) {
            self.world.set_now_ms(due_ms);
            self.world.run_again(place).await?;
        }
        Ok(())
    }

    async fn redelivered(&mut self, name: &Name) -> anyhow::Result<()> {
        let rows = self.rows().await?;
        let first = rows.iter().find(|row| row.name == *name && !row.is_redelivery()).context("a redelivery repeats a message")?;
        if !first.is_done() && first.status.status != "behind" {
            let place = first.place();
            self.again(place).await?;
        }
        self.rows().await.map(drop)
    }

    // ------------------------------------------------------------ run

    /// One run over every row with this word, in the order of tables and positions, until none is left that it has not taken.
    async fn run(&mut self, word: &str) -> anyhow::Result<()> {
        let mut taken: Vec<Place> = Vec::new();
        loop {
            let before = taken.len();
            self.pass(word, &mut taken).await?;
            if taken.len() == before {
                break;
            }
        }
        // What stood behind another one all the time was looked at too, and failed there.
        for row in self.rows().await? {
            let stood = row.status.status == "behind" && !taken.contains(&row.place());
            if stood && row.word == Some(word) {
                self.memory.failed_run(row.message.id);
            }
        }
        Ok(())
    }

    async fn pass(&mut self, word: &str, taken: &mut Vec<Place>) -> anyhow::Result<()> {
        let mut last = (0, 0);
        loop {
            let mut rows = self.rows().await?;
            rows.sort_by_key(Row::order);
            let next = rows.iter().find(|row| {
                let fits = row.word == Some(word) && row.status.status != "behind";
                fits && row.order() >= last && !taken.contains(&row.place())
            });
            let Some(next) = next else { return Ok(()) };
            let (place, id) = (next.place(), next.message.id);
            last = next.order();
            taken.push(place);
            self.again(place).await?;
            if matches!(self.row(place).await?.word, Some("RETRY" | "FAILED")) {
                self.memory.failed_run(id);
            }
        }
    }
}

/// When a message may run that the host put off for pacing.
fn put_off(row: &Row) -> Option<i64> {
    let paced = row.status.code.as_deref() == Some("paced");
    row.status.due_ms.filter(|_| paced)
}

/// The name of a row, as a case writes it.
pub fn named(fields: &Value) -> Name {
    let op = plain(&fields["operation"]).map(|op| operation(&op).to_owned());
    Name { table: plain(&fields["table"]).unwrap_or_default(), operation: op, pos: plain(&fields["pos"]) }
}

/// A difference of a count.
pub fn count_difference(path: &str, expected: &Value, got: usize) -> String {
    difference(path, &expected.to_string(), &got.to_string())
}
