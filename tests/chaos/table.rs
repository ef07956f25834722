//! Runs experiments, some side by side, and says what became of each: a line when it ends, the whole table at the end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What an experiment works with.
#[derive(Clone, Copy)]
pub struct Case {
    /// Decides everything that is random.
    pub seed: u64,
    /// How many times the kill loop kills.
    pub kills: u64,
    /// Whether there is time for the long form.
    pub full: bool,
}

/// The figures of a green experiment; a red one panics.
pub type Run = fn(Case) -> Pin<Box<dyn Future<Output = String>>>;

/// An experiment.
pub struct Experiment {
    /// Its name in the reliability plan, or a word; several where one world shows several.
    pub id: &'static str,
    /// What is done.
    pub what: &'static str,
    /// Whether it is part of the short suite.
    pub short: bool,
    /// Whether nothing runs beside it, as it compares rates.
    pub alone: bool,
    /// How it is done.
    pub run: Run,
}

/// An experiment as a value of a list: `experiment!("F12", short, "what", function)`.
macro_rules! experiment {
    ($id:literal, short, $what:literal, $run:expr) => {
        crate::table::Experiment { id: $id, what: $what, short: true, alone: false, run: |case| Box::pin($run(case)) }
    };
    ($id:literal, alone, $what:literal, $run:expr) => {
        crate::table::Experiment { alone: true, ..experiment!($id, short, $what, $run) }
    };
    ($id:literal, long, $what:literal, $run:expr) => {
        crate::table::Experiment { id: $id, what: $what, short: false, alone: false, run: |case| Box::pin($run(case)) }
    };
}
pub(crate) use experiment;

struct Row {
    id: &'static str,
    what: &'static str,
    figures: String,
    green: bool,
    took: Duration,
}

/// What is to be run and how.
pub struct Suite {
    case: Case,
    only: Vec<String>,
    side_by_side: u32,
}

impl Suite {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let number = |name: &str| variable(name).and_then(|text| text.parse::<u64>().ok());
        let seed = number("SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 16);
        let only = variable("ONLY").map(|text| text.split(',').map(|id| id.trim().to_owned()).collect());
        Self {
            case: Case { seed, kills: number("KILLS").unwrap_or(50), full: variable("FULL").is_some() },
            only: only.unwrap_or_default(),
            side_by_side: number("SIDE_BY_SIDE").map_or(3, |count| u32::try_from(count.max(1)).unwrap_or(u32::MAX)),
        }
    }

    /// Runs what is chosen; returns how many are red.
    pub async fn run(&self, experiments: Vec<Experiment>) -> usize {
        let Case { seed, kills, full } = self.case;
        println!("chaos: SEED={seed} KILLS={kills}{}", if full { " FULL=1" } else { "" });
        // Panics are told in the table; the places they came from, here.
        let places: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = places.clone();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map_or_else(String::new, ToString::to_string);
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        }));
        let permits = Arc::new(Semaphore::new(self.side_by_side as usize));
        let mut running = JoinSet::new();
        let chosen = |experiment: &Experiment| match self.only.as_slice() {
            [] => full || experiment.short,
            only => only.iter().any(|id| experiment.id.split(' ').any(|own| own == id)),
        };
        for (order, experiment) in experiments.into_iter().filter(chosen).enumerate() {
            let (permits, case, side_by_side) = (permits.clone(), self.case, self.side_by_side);
            running.spawn(async move {
                let _permits = permits.acquire_many_owned(if experiment.alone { side_by_side } else { 1 }).await.unwrap();
                let began = Instant::now();
                // A thread and a runtime of its own: it may block, and what it panics with is told in its row.
                let alone = move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on((experiment.run)(case))
                };
                let result = tokio::task::spawn_blocking(alone).await;
                let (green, figures) = match result {
                    Ok(figures) => (true, figures),
                    Err(error) => (false, said(error)),
                };
                (order, Row { id: experiment.id, what: experiment.what, figures, green, took: began.elapsed() })
            });
        }
        let mut rows = Vec::new();
        while let Some(row) = running.join_next().await {
            let (order, row) = row.unwrap();
            println!("{}", line(&row));
            if !row.green {
                println!("       seed {seed}; stopped at {:?}", places.lock().unwrap_or_else(PoisonError::into_inner));
                println!("{}", row.figures);
            }
            rows.push((order, row));
        }
        rows.sort_by_key(|(order, _)| *order);
        println!("\n| experiment | what is done | figures | s | verdict |\n|---|---|---|---:|---|");
        for (_, row) in &rows {
            println!("{}", markdown(row));
        }
        let red = rows.iter().filter(|(_, row)| !row.green).count();
        println!("\n{} experiments, {red} red; SEED={seed}", rows.len());
        red
    }
}

fn said(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast::<&str>().map_or_else(|_| "it panicked".to_owned(), |text| (*text).to_owned()),
        },
        Err(error) => error.to_string(),
    }
}

fn line(row: &Row) -> String {
    let verdict = if row.green { "green" } else { "RED  " };
    let first = row.figures.lines().next().unwrap_or_default();
    format!("{verdict} {:<5} {:>5.1} s  {}: {first:.160}", row.id, row.took.as_secs_f64(), row.what)
}

fn markdown(row: &Row) -> String {
    let first: String = row.figures.lines().next().unwrap_or_default().chars().take(300).collect();
    let verdict = if row.green { "green" } else { "**red**" };
    format!("| {} | {} | {} | {:.0} | {verdict} |", row.id, row.what, first.replace('|', "\\|"), row.took.as_secs_f64())
}
