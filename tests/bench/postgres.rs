//! The rows on PostgreSQL: ingest and flow beside the raw bulk writes, and beside the design of one transaction a message.

use std::path::Path;

use tolk::message::Captured;

use crate::house::{Guest, House, file};
use crate::input::{self, Memory};
use crate::raw::{Rows, Variant};
use crate::report::{Need, Pair, Report, fastest, note, rate};
use crate::schema::{self, Schema};
use crate::single;

/// Messages of one turn.
const MESSAGES: usize = 160_000;
/// Turns, fewer for the rows that nothing is asked of; an odd number has a median.
const ROUNDS: usize = 5;
const ROUNDS_FEW: usize = 3;
/// Ordering keys of an ordinary turn, and of one with hot keys.
const KEYS: usize = 10_000;
const HOT_KEYS: usize = 50;
/// Messages of a turn of the design of one transaction a message.
const SINGLE: usize = 1_000;

/// What is sent in a turn.
struct Input<'a> {
    guest: &'a Guest,
    url: &'a str,
    messages: Vec<Captured>,
    bytes: usize,
    file: &'a Path,
}

impl<'a> Input<'a> {
    fn new(guest: &'a Guest, url: &'a str, file: &'a Path, keys: usize) -> Self {
        let messages = input::events(MESSAGES, keys);
        input::write(file, &messages);
        let bytes = messages.iter().map(|message| message.payload.as_ref().map_or(0, |payload| payload.len())).sum();
        Self { guest, url, messages, bytes, file }
    }

    /// Our ingest: messages a second. The rows it made, where they are wanted.
    async fn ingest(&self, rows: Option<&mut Rows>) -> f64 {
        let mut schema = Schema::make(self.url).await;
        let house = House::open(&schema.config, self.guest).await;
        let took = house.ingest(Box::new(Memory::new(self.messages.clone()))).await;
        schema.check(MESSAGES, self.bytes, 0).await;
        if let Some(rows) = rows {
            *rows = Rows::read(&mut schema.connection).await;
        }
        schema.drop().await;
        rate(MESSAGES, took)
    }

    /// Our flow: messages a second. The rows it made, where they are wanted.
    async fn flow(&self, rows: Option<&mut Rows>) -> f64 {
        let mut schema = Schema::make(self.url).await;
        let house = House::open(&schema.config, self.guest).await;
        let took = house.flow(file(self.file), MESSAGES).await;
        schema.check(MESSAGES, self.bytes, MESSAGES).await;
        if let Some(rows) = rows {
            *rows = Rows::read(&mut schema.connection).await;
        }
        schema.drop().await;
        rate(MESSAGES, took)
    }

    /// A raw bulk write: messages a second.
    async fn raw(&self, rows: &Rows, variant: Variant) -> f64 {
        let mut schema = Schema::make(self.url).await;
        schema.migrate().await;
        let took = rows.write(&mut schema.connection, variant).await;
        schema.check(MESSAGES, self.bytes, rows.outputs.len()).await;
        schema.drop().await;
        rate(MESSAGES, took)
    }

    async fn all_raw(&self, rows: &Rows) -> Vec<f64> {
        let mut rates = Vec::new();
        for variant in Variant::ALL {
            rates.push(self.raw(rows, variant).await);
        }
        rates
    }

    /// One transaction a message: messages a second.
    async fn single(&self, rows: &Rows) -> f64 {
        let mut schema = Schema::make(self.url).await;
        let house = House::open(&schema.config, self.guest).await;
        let rows = &rows.inbox[..SINGLE];
        let took = single::run(&mut schema.connection, rows, &house, &self.guest.runtime).await;
        let bytes = rows.iter().map(|row| row.payload.as_ref().map_or(0, Vec::len)).sum();
        schema.check(SINGLE, bytes, SINGLE).await;
        schema.drop().await;
        rate(SINGLE, took)
    }
}

/// Measures `ingest-postgres`, `flow-postgres`, and over the socket `flow-vs-row-transactions` and `hot-keys`.
pub async fn measure(guest: &Guest, url: &str, suffix: &str, report: &mut Report) {
    schema::must_be_durable(url).await;
    let folder = tempfile::tempdir().unwrap();
    let (many, hot) = (folder.path().join("many.jsonl"), folder.path().join("hot.jsonl"));
    let input = Input::new(guest, url, &many, KEYS);
    ingest(&input, suffix, report).await;
    let hot = suffix.is_empty().then(|| Input::new(guest, url, &hot, HOT_KEYS));
    flow(&input, hot.as_ref(), suffix, report).await;
}

fn rounds(suffix: &str) -> usize {
    if suffix.is_empty() { ROUNDS } else { ROUNDS_FEW }
}

async fn ingest(input: &Input<'_>, suffix: &str, report: &mut Report) {
    note(&format!("ingest{suffix}"));
    let mut rows = Rows { inbox: Vec::new(), outputs: Vec::new() };
    input.ingest(Some(&mut rows)).await;
    input.raw(&rows, Variant::ALL[0]).await;
    let (mut ours, mut raws) = (Vec::new(), Vec::new());
    for _ in 0..rounds(suffix) {
        ours.push(input.ingest(None).await);
        raws.push(input.all_raw(&rows).await);
    }
    add(report, &format!("ingest-postgres{suffix}"), &ours, &raws, if suffix.is_empty() { Need::Ratio(0.6) } else { Need::Nothing });
}

async fn flow(input: &Input<'_>, hot: Option<&Input<'_>>, suffix: &str, report: &mut Report) {
    note(&format!("flow{suffix}"));
    let mut rows = Rows { inbox: Vec::new(), outputs: Vec::new() };
    input.flow(Some(&mut rows)).await;
    let (mut ours, mut raws, mut singles, mut hots) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds(suffix) {
        ours.push(input.flow(None).await);
        raws.push(input.all_raw(&rows).await);
        if let Some(hot) = hot {
            singles.push(input.single(&rows).await);
            hots.push(hot.flow(None).await);
        }
    }
    add(report, &format!("flow-postgres{suffix}"), &ours, &raws, if suffix.is_empty() { Need::Ratio(0.5) } else { Need::Nothing });
    if hot.is_none() {
        return;
    }
    let times = ours.iter().zip(&singles).map(|(ours, single)| Pair { value: ours / single, ceiling: 1.0 });
    let note = format!("one transaction a message: {:.0}/s", singles[ROUNDS / 2]);
    report.add("flow-vs-row-transactions".to_owned(), "times", times.collect(), Need::Ratio(20.0), note);
    let turns = hots.iter().zip(&ours).map(|(hot, many)| Pair { value: *hot, ceiling: *many });
    let note = format!("the flow with {KEYS} keys in place of {HOT_KEYS}");
    report.add("hot-keys".to_owned(), "messages/s", turns.collect(), Need::Ratio(0.9), note);
}

fn add(report: &mut Report, name: &str, ours: &[f64], raws: &[Vec<f64>], need: Need) {
    let ceiling = fastest(raws);
    for (variant, raw) in Variant::ALL.iter().enumerate() {
        let rates: Vec<String> = raws.iter().map(|turn| format!("{:.0}", turn[variant])).collect();
        note(&format!("  {}: {}", raw.name(), rates.join(" ")));
    }
    let turns = ours.iter().zip(raws).map(|(ours, raws)| Pair { value: *ours, ceiling: raws[ceiling] }).collect();
    report.add(name.to_owned(), "messages/s", turns, need, Variant::ALL[ceiling].name());
}
