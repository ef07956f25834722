//! Upkeep of the store, done by one host at a time, turn by turn: old messages and published outputs go, space is given back.
//! Decides when; how things go is the store's.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{self, Host, Retention, Step, Store, Turn};
use crate::trouble::Pause;

/// The duty's name.
const DUTY: &str = "upkeep";
/// How long a turn lasts after its host's last sign of life.
const LEASE_MS: i64 = 60_000;

/// The steps of a turn, in their order.
#[derive(Clone, Copy)]
enum Verb {
    Begin,
    Drop,
    Outputs,
    Provenance,
    Compact,
}

/// Upkeep as one host does it.
pub struct Upkeep {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Who does it.
    pub host: Host,
    /// How long things are kept.
    pub retention: Retention,
    /// How long a part of the inbox is filled, in milliseconds.
    pub part_ms: i64,
    /// How often it is done, in milliseconds.
    pub every_ms: u64,
}

impl Upkeep {
    /// Takes turns until told to stop. Trouble is waited out and logged.
    pub async fn run(&self, stop: &CancellationToken) {
        let (every_ms, mut pause) = (self.every_ms, Pause::default());
        let poll = Duration::from_millis(every_ms / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
        while !stop.is_cancelled() {
            let every_ms = i64::try_from(every_ms).unwrap_or(i64::MAX);
            let done = match self.store.take_turn(&self.host, DUTY, every_ms, LEASE_MS).await {
                Ok(Some(turn)) => self.turn(&turn, stop).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => pause.reset(),
                Err(error) => pause.wait(DUTY, &error, stop).await,
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    /// One turn; it ends early if another host has taken over.
    async fn turn(&self, turn: &Turn, stop: &CancellationToken) -> store::Result<()> {
        let mut whole = Step::default();
        for verb in [Verb::Begin, Verb::Drop, Verb::Outputs, Verb::Provenance, Verb::Compact] {
            loop {
                if stop.is_cancelled() {
                    break;
                }
                let Some(step) = self.step(verb, turn).await? else {
                    tracing::warn!("another host has taken over upkeep");
                    return Ok(());
                };
                whole.add(step);
                if !step.more {
                    break;
                }
            }
        }
        if whole.dropped + whole.pruned + whole.kept > 0 {
            tracing::info!(dropped = whole.dropped, kept = whole.kept, pruned = whole.pruned, "upkeep is done");
        }
        self.store.end_turn(turn).await
    }

    async fn step(&self, verb: Verb, turn: &Turn) -> store::Result<Option<Step>> {
        match verb {
            Verb::Begin => self.store.begin_part(turn, self.part_ms).await,
            Verb::Drop => self.store.drop_messages(turn, &self.retention).await,
            Verb::Outputs => self.store.prune_outputs(turn, &self.retention).await,
            Verb::Provenance => self.store.prune_provenance(turn, self.retention.rows_max).await,
            Verb::Compact => self.store.compact(turn).await,
        }
    }
}
