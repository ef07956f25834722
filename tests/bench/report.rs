//! Figures: pairs of measurements become rows of a table for people and of a file for programs.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

/// One turn: what was measured and its ceiling, both in the row's unit.
#[derive(Clone, Copy)]
pub struct Pair {
    pub value: f64,
    pub ceiling: f64,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.value / self.ceiling
    }
}

/// How a row is judged.
#[derive(Clone, Copy)]
pub enum Need {
    /// The ratio must be at least this.
    Ratio(f64),
    /// The value must be at most this.
    Value(f64),
    /// It is there to be looked at.
    Nothing,
}

struct Row {
    name: String,
    unit: &'static str,
    pair: Pair,
    spread: (f64, f64),
    need: Need,
    note: String,
}

/// All rows so far.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a row: the turn with the median ratio stands for all of them, so that value, ceiling and ratio belong together.
    pub fn add(&mut self, name: String, unit: &'static str, mut turns: Vec<Pair>, need: Need, note: String) {
        turns.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        let pair = turns[turns.len() / 2];
        let spread = (turns[0].ratio(), turns[turns.len() - 1].ratio());
        note_row(&name, unit, pair);
        self.rows.push(Row { name, unit, pair, spread, need, note });
    }

    /// Prints the table.
    pub fn print(&self) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:<26} {:>12} {:>12} {:>9} {:>17} {:>9}  ceiling", "", "value", "ceiling", "ratio", "spread", "needs").unwrap();
        for row in &self.rows {
            let (need, met) = match row.need {
                Need::Ratio(least) => (format!("≥ {least}"), row.pair.ratio() >= least),
                Need::Value(most) => (format!("≤ {most}"), row.pair.value <= most),
                Need::Nothing => (String::new(), true),
            };
            let (value, ceiling, ratio) = (row.pair.value, row.pair.ceiling, row.pair.ratio());
            let spread = format!("{:.2}..{:.2}", row.spread.0, row.spread.1);
            let name = format!("{} ({})", row.name, row.unit);
            let missed = if met { "" } else { "  MISSED" };
            writeln!(out, "{name:<26} {value:>12.1} {ceiling:>12.1} {ratio:>9.2} {spread:>17} {need:>9}  {}{missed}", row.note).unwrap();
        }
    }

    /// Writes `bench.json` into cargo's target folder.
    pub fn write(&self) {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let folder = target.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"));
        let rows = self.rows.iter().map(|row| {
            let Row { name, unit, pair, .. } = row;
            json!({ "name": name, "unit": unit, "value": rounded(pair.value), "ceiling": rounded(pair.ceiling), "ratio": rounded(pair.ratio()) })
        });
        let text = serde_json::to_string_pretty(&rows.collect::<Vec<_>>()).unwrap();
        let path = folder.join("bench.json");
        std::fs::write(&path, text + "\n").unwrap();
        note(&format!("wrote {}", path.display()));
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

fn note_row(name: &str, unit: &str, pair: Pair) {
    note(&format!("{name}: {:.1} {unit}, ceiling {:.1}, ratio {:.3}", pair.value, pair.ceiling, pair.ratio()));
}

/// Says how far the run is.
pub fn note(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").unwrap();
}

/// Things a second.
pub fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// The turns of the variant whose median is the greatest: that one is the ceiling. `turns[round][variant]`.
pub fn fastest(turns: &[Vec<f64>]) -> usize {
    let median = |variant: usize| {
        let mut rates: Vec<f64> = turns.iter().map(|turn| turn[variant]).collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    (0..turns[0].len()).max_by(|a, b| median(*a).total_cmp(&median(*b))).unwrap()
}
