//! omsorgsopptjening-start-innlesning (barnetrygd): how its cases are played.
//!
//! `translate` and `lookup` run the translator's component alone against the real endpoints, in a delivery of the case's year; a look-up
//! ends where the translator goes on to something else. `map` and `table` go through a small component around the same rule code.

mod alone;
mod expect;
mod form;
mod parts;
mod remote;

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
            _ => anyhow::bail!("needs deliveries"),
        };
        found.extend(strangers.take().into_iter().map(|call| format!("a call that no stub is for: {call}")));
        Ok(found)
    }

    /// Removes what outlives the process.
    pub async fn end(&self) -> anyhow::Result<()> {
        self.bench.end().await
    }
}
