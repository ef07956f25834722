//! The flow on SQLite, beside the same rows written by a plain loop of prepared inserts.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tolk::store::{Clock, Config};

use crate::house::{self, Guest, House};
use crate::input;
use crate::report::{Need, Pair, Report, fastest, note, rate};

const MESSAGES: usize = 40_000;
const ROUNDS: usize = 5;
const KEYS: usize = 10_000;
/// Rows of a transaction of the loop.
const BATCHES: [usize; 2] = [1_000, 5_000];

/// All values of the rows of both tables.
struct Rows {
    inbox: Vec<Vec<Value>>,
    outputs: Vec<Vec<Value>>,
}

impl Rows {
    fn read(path: &Path) -> Self {
        let connection = Connection::open(path).unwrap();
        let read = |sql: &str| -> Vec<Vec<Value>> {
            let mut statement = connection.prepare(sql).unwrap();
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
            rows.map(Result::unwrap).collect()
        };
        Self { inbox: read("SELECT * FROM inbox ORDER BY source_offset"), outputs: read("SELECT * FROM output ORDER BY batch, position") }
    }

    /// The loop, on a file with our tables and our settings.
    fn write(&self, path: &Path, batch: usize) -> Duration {
        let connection = Connection::open(path).unwrap();
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("cache_size", "-32000"), ("wal_autocheckpoint", "4000")] {
            connection.pragma_update(None, name, value).unwrap();
        }
        let prepare = |table: &str, rows: &[Vec<Value>]| {
            let marks = vec!["?"; rows[0].len()].join(", ");
            connection.prepare(&format!("INSERT INTO {table} VALUES ({marks})")).unwrap()
        };
        let (mut inbox, mut output) = (prepare("inbox", &self.inbox), prepare("output", &self.outputs));
        let started = Instant::now();
        for (messages, outputs) in self.inbox.chunks(batch).zip(self.outputs.chunks(batch)) {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            messages.iter().for_each(|row| assert_eq!(inbox.execute(params_from_iter(row)).unwrap(), 1));
            outputs.iter().for_each(|row| assert_eq!(output.execute(params_from_iter(row)).unwrap(), 1));
            connection.execute_batch("COMMIT").unwrap();
        }
        started.elapsed()
    }
}

fn config(path: &Path) -> Config {
    serde_json::from_value(serde_json::json!({ "url": format!("sqlite://{}", path.display()) })).unwrap()
}

/// The file must hold what was sent.
fn check(path: &Path, bytes: usize) {
    let connection = Connection::open(path).unwrap();
    let two = |sql: &str| connection.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap();
    let inbox = two("SELECT count(DISTINCT id), sum(length(payload)) FROM inbox");
    assert_eq!(inbox, (MESSAGES as i64, bytes as i64), "the inbox holds what was sent");
    let outputs = two("SELECT count(*), count(DISTINCT message) FROM output");
    assert_eq!(outputs, (MESSAGES as i64, MESSAGES as i64), "each message has one output");
}

/// Measures `flow-sqlite`.
pub async fn measure(guest: &Guest, report: &mut Report) {
    note("flow-sqlite");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("many.jsonl");
    let messages = input::events(MESSAGES, KEYS);
    input::write(&file, &messages);
    let bytes = messages.iter().map(|message| message.payload.as_ref().map_or(0, |payload| payload.len())).sum();
    let mut rows = None;
    let (mut ours, mut loops) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let path = folder.path().join(format!("ours-{round}.db"));
        let house = House::open(&config(&path), guest).await;
        let took = house.flow(house::file(&file), MESSAGES).await;
        drop(house);
        check(&path, bytes);
        let rows = rows.get_or_insert_with(|| Rows::read(&path));
        // The first turn warms up.
        if round > 0 {
            ours.push(rate(MESSAGES, took));
            loops.push(raw(rows, folder.path(), round, bytes).await);
        }
        std::fs::remove_file(&path).unwrap();
    }
    let ceiling = fastest(&loops);
    let turns = ours.iter().zip(&loops).map(|(ours, loops)| Pair { value: *ours, ceiling: loops[ceiling] }).collect();
    let note = format!("prepared inserts, {} a transaction", BATCHES[ceiling]);
    report.add("flow-sqlite".to_owned(), "messages/s", turns, Need::Ratio(0.6), note);
}

async fn raw(rows: &Rows, folder: &Path, round: usize, bytes: usize) -> Vec<f64> {
    let mut rates = Vec::new();
    for batch in BATCHES {
        let path = folder.join(format!("loop-{round}-{batch}.db"));
        let store = tolk::store::open(&config(&path), Clock::Database).await.unwrap();
        store.migrate().await.unwrap();
        drop(store);
        let took = rows.write(&path, batch);
        check(&path, bytes);
        std::fs::remove_file(&path).unwrap();
        rates.push(rate(MESSAGES, took));
    }
    rates
}
