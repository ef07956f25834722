//! amt-arena-acl: its words for what becomes of a message, and how its cases are played.
//!
//! Words. HANDLED, INVALID and FAILED are the host's own. EXTERNAL_SOURCE is an ignored message with one of the external guard's codes; IGNORED
//! any other one, but for an activity that is not translated, of which the system keeps no row. WAITING is a wait for an activity that is
//! known and invalid. RETRY is everything else that is not done: a retry, a wait for an activity that is missing or for a hist row, a
//! message behind an earlier one of its key, and one that was woken or freed and has not run yet. A redelivery is no row.
//!
//! Steps. `consume` takes one record in by the real ingest and runs that message alone; what it wakes waits for `run`. A redelivery runs
//! the message that it repeats, if that one is not done. A message that the host puts off (pacing) is played at its due time. `run` "retry"
//! takes every RETRY row, due or not, table by table in the order of `pos`, one after the other; rows that came free behind their page come
//! in another pass of the same run. `batch_size` is a page's size: all pages are run, so it changes nothing. `run` "failed" does the same
//! with FAILED rows. A call without a stub is a transport error.
//!
//! Exchanges. The clients of that system are endpoints here, and what they make of an answer is the translators' own reading code: each
//! request is made by a component around that code, through the endpoint whose templates it fits, and must arrive as the case writes it.
//! What a client returns is what the component puts out; null is "no such person" or "no id yet"; every other end is an error.
//!
//! Attempts. There they are failed retry runs, the first consumption not among them, and waking a WAITING message starts them anew. The host
//! counts another thing, tries that ended in retry or in a wait's time-out, so runs are counted here, as they are played. A message that
//! failed in ten runs is FAILED there, whatever it waits for here; the host's own limit is `attempts_max` of arena.toml.

mod clients;
mod expect;
pub mod pairs;
mod play;
mod rows;
mod seed;

use crate::bench::{Bench, Kind, Plugin};
use crate::files::{self, Case};

pub use pairs::Pairs;

/// The host's config for this system.
const CONFIG: &str = include_str!("arena.toml");

/// The feed of that config.
const FEED: &str = "arena";

/// A run after which a message is FAILED.
const RUNS_MAX: i64 = 10;

/// The tables, in the order of a retry run, each with its own id's fields and its plugin.
struct Table {
    name: &'static str,
    ids: &'static [&'static str],
    plugin: &'static str,
}

const ACTIVITY: &str = "SIAMO.TILTAKGJENNOMFORING";
const PARTICIPANT: &str = "SIAMO.TILTAKDELTAKER";
const HIST: &str = "SIAMO.HIST_TILTAKDELTAKER";

const TABLES: [Table; 3] = [
    Table { name: ACTIVITY, ids: &["TILTAKGJENNOMFORING_ID"], plugin: "plugins/arena/gjennomforing" },
    Table { name: PARTICIPANT, ids: &["TILTAKDELTAKER_ID"], plugin: "plugins/arena/deltaker" },
    Table { name: HIST, ids: &["HIST_TILTAKDELTAKER_ID", "TILTAKDELTAKER_ID"], plugin: "plugins/arena/hist-deltaker" },
];

/// The crate of the pairs' test component.
const PAIRS: &str = "tests/guests/arena-pairs";

/// Whether a file's system is this one.
pub fn is(system: &str) -> bool {
    system.contains("arena")
}

/// Everything that this system's cases are played with.
pub struct Arena {
    bench: Bench,
    pairs: Pairs,
}

impl Arena {
    /// Builds the translators and the pairs' component.
    pub async fn new(kind: Kind) -> anyhow::Result<Self> {
        let plugins = TABLES.map(|table| Plugin { folder: table.plugin, feed: FEED, table: table.name, config: "" });
        let bench = Bench::new(kind, CONFIG, &plugins).await?;
        let pairs = Pairs::new(&bench.runtime, PAIRS)?;
        Ok(Self { bench, pairs })
    }

    /// Plays one case; the differences.
    pub async fn play(&self, case: &Case) -> anyhow::Result<Vec<String>> {
        match case.kind {
            files::Kind::Pair => self.pairs.play(&case.whole),
            files::Kind::Exchange => clients::play(&self.bench, &self.pairs, &case.whole).await,
            files::Kind::Scenario => play::scenario(&self.bench, &case.whole).await,
        }
    }

    /// Removes what outlives the process.
    pub async fn end(&self) -> anyhow::Result<()> {
        self.bench.end().await
    }
}
