//! omsorgsopptjening-start-innlesning (barnetrygd): how its cases are played.
//!
//! `translate` and `lookup` run the translator's component alone against the real endpoints, in a delivery of the case's year; a look-up
//! ends where the translator goes on to something else. `map` and `table` go through a small component around the same rule code.
//!
//! Everything else has a host. `consume` and `poll` go through the real ingest, as one partition; the table is paused between steps, so that
//! nothing runs but in `run` "process": the quarantine passes, what is held of complete deliveries is let go, every due recipient is tried
//! once. `run` "send" has nothing left to do: what is settled is on its way. `redeliver` hands over the same offsets again;
//! `crash_before_ack` as well, since positions are the store's. A store error is a trigger in the database that refuses rows of the inbox for
//! as many tries as the case counts; the counts themselves are the original's. `recovered` is the position behind the last record, `retries`
//! the attempts of its rows. `pick` claims due recipients as a worker fetches them, those of others left out, or published messages.
//! Admin calls are the host's own actions and orders, with the words of `admin.rs`; states, refusals and alarms are in `deliveries.rs` and
//! `recipients.rs`. Given states are come to by real runs and actions. A history is what was seen of a recipient from step to step.
//! `http_in` knocks at the real admin door with a token of a real issuer; who is let in makes the call of the case. Nothing is skipped.

mod admin;
mod alone;
mod deliveries;
mod expect;
mod form;
mod outputs;
mod parts;
mod play;
mod recipients;
mod remote;
mod token;

use anyhow::Context as _;

use crate::bench::{Bench, Kind, Plugin};
use crate::files::{self, Case};
use alone::Alone;
use parts::Parts;
use remote::Strangers;

/// The host's config for this system.
const CONFIG: &str = include_str!("barnetrygd.toml");

/// The feed of that config.
const FEED: &str = "barnetrygd";

/// The only table.
const TABLE: &str = "DATA";

/// The token of that config.
const TOKEN: &str = "token-of-the-cases";

/// The translator's crate.
const MOTTAKER: &str = "plugins/barnetrygd/mottaker";

/// The crate of the component for single rules.
const PARTS: &str = "tests/guests/barnetrygd-parts";

/// Whether a file's system is this one.
pub fn is(system: &str) -> bool {
    system.contains("barnetrygd")
}

/// Everything that this system's cases are played with.
pub struct Barnetrygd {
    bench: Bench,
    alone: Alone,
    parts: Parts,
}

impl Barnetrygd {
    /// Builds the translator and the component for single rules.
    pub async fn new(kind: Kind) -> anyhow::Result<Self> {
        let plugins = [Plugin { folder: MOTTAKER, feed: FEED, table: TABLE, config: "" }];
        let bench = Bench::new(kind, CONFIG, &plugins).await?;
        let (alone, parts) = (Alone::new(&bench, MOTTAKER)?, Parts::new(&bench.runtime, PARTS)?);
        Ok(Self { bench, alone, parts })
    }

    /// Plays one case; the differences.
    pub async fn play(&self, case: &Case) -> anyhow::Result<Vec<String>> {
        anyhow::ensure!(case.kind == files::Kind::Scenario, "a case of barnetrygd has steps and expectations");
        let (given, expect) = (&case.whole["given"], &case.whole["expect"]);
        let steps = case.whole["steps"].as_array().context("steps is a list")?;
        let strangers = Strangers::default();
        self.bench.remote.decide_by(remote::decide(&given["http"], strangers.clone())?);
        let mut found = match steps.as_slice() {
            [] if expect.get("table").is_some() => self.parts.table(&expect["table"])?,
            [step] if step.get("map").is_some() => self.parts.map(&given["fagsaker"], &step["map"]["year"], expect)?,
            [step] if step.get("lookup").is_some() => {
                let ident = step["lookup"].as_str().context("lookup names a number")?;
                self.alone.play(&self.bench, ident, None, expect).await?
            }
            [step] if step.get("translate").is_some() => {
                let (ident, year) = (&step["translate"]["ident"], &step["translate"]["year"]);
                let ident = ident.as_str().context("translate names a number")?;
                self.alone.play(&self.bench, ident, Some(year.as_i64().unwrap_or(2020)), expect).await?
            }
            _ => play::scenario(&self.bench, &case.whole).await?,
        };
        found.extend(strangers.take().into_iter().map(|call| format!("a call that no stub is for: {call}")));
        Ok(found)
    }

    /// Removes what outlives the process.
    pub async fn end(&self) -> anyhow::Result<()> {
        self.bench.end().await
    }
}
