//! Pairs of input and result of Arena's inner rules, through a small component around the same rule code.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use tolk::message::{Captured, FeedId, KeyHash, Message, Place};
use tolk::plugin::{Context, Limits, Outcome};
use tolk::runtime::{Runtime, Translator};
use uuid::Uuid;

use super::play::local_ms;
use crate::bench;
use crate::diff::{Placeholders, difference};

/// The component, loaded.
pub struct Pairs {
    /// The engine it is loaded in.
    pub runtime: Arc<Runtime>,
    /// The component.
    pub translator: Arc<Translator>,
}

impl Pairs {
    /// Builds and loads the component of a folder.
    pub fn new(runtime: &Arc<Runtime>, folder: &str) -> anyhow::Result<Self> {
        let component = bench::build(&[folder])?.pop().context("one folder makes one component")?;
        let translator = runtime.load_component(&component, Limits::default(), "")?;
        Ok(Self { runtime: runtime.clone(), translator })
    }

    /// Runs one pair; its differences.
    pub fn play(&self, pair: &Value) -> anyhow::Result<Vec<String>> {
        let zone = jiff::tz::TimeZone::get("Europe/Oslo")?;
        let now_ms = pair["now"].as_str().map(|now| local_ms(now, &zone)).transpose()?.unwrap_or(0);
        let offset = zone.to_offset(jiff::Timestamp::from_millisecond(now_ms)?);
        // The reason rule alone is given a final status; the status rule makes one.
        let rule = if pair["input"].get("amtStatus").is_some() { "reason" } else { "status" };
        let message = message(rule, &json!({ "now": pair["now"], "input": pair["input"] }));
        let context = Context { now_ms, utc_offset_s: offset.seconds(), ..Context::default() };
        let verdict = self.translator.translate(&mut self.runtime.here(), &message, "pairs", &context);
        let verdict = verdict.map_err(|trouble| anyhow::anyhow!("{}: {}", trouble.code, trouble.text))?;
        let Outcome::Translated(translation) = verdict.outcome else {
            return Ok(vec![difference("expected", "a result", &format!("{:?}", verdict.outcome))]);
        };
        let payload = translation.outputs.into_iter().next().and_then(|output| output.payload).context("the result is put out")?;
        let result: Value = serde_json::from_slice(&payload)?;
        let mut found = Vec::new();
        Placeholders::default().compare("", "expected", &pair["expected"], Some(&result), &mut found);
        Ok(found)
    }
}

/// A message for a table of the component.
pub fn message(table: &str, payload: &Value) -> Message {
    Message {
        place: Place { feed: FeedId(0), lane: 0, n: 1 },
        id: Uuid::nil(),
        table: table.into(),
        key_hash: KeyHash::of(table, b""),
        captured: Captured { payload: Some(payload.to_string().into()), ..Captured::default() },
        received_ms: 0,
        prejudged: None,
        delivery: None,
    }
}
