//! Messages parked because an endpoint is away or paused, and what brings them on early: once it answers again an entry of its name is
//! written, which all of them wait for, whichever host has them. Their own time stands in case that is missed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::engine::{Engine, Event};
use super::guests::PAUSED_MS;
use super::judge::Said;
use super::run::Seq;
use crate::endpoint::{Called, RECOVERED};
use crate::plugin::{Call, Request, Write};
use crate::store::actions::{ENDPOINT_AWAY, away_reason};
use crate::store::{Pausable, Settled};

/// Endpoints that come and go are told of this many times at most...
const TELLS_MAX: usize = 5;
/// ...in this time: each is a settlement of its own.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// Endpoints that messages of this host have parked for.
#[derive(Default)]
pub(super) struct Away {
    endpoints: BTreeSet<String>,
    /// Whether an entry is being written.
    telling: bool,
    /// When it was told lately.
    told: Vec<Instant>,
}

impl Away {
    /// Whether something is under way.
    pub(super) fn is_telling(&self) -> bool {
        self.telling
    }
}

impl Engine {
    /// What a call of an endpoint that an operator has paused comes to.
    pub(super) fn paused(&self, endpoint: &str) -> Option<Called> {
        let pauses = self.parts.pauses.load();
        let paused = pauses.iter().find(|paused| matches!(&paused.of, Pausable::Endpoint { endpoint: name } if name == endpoint))?;
        let of = away_reason(endpoint);
        let reason = format!("{of}{} paused it: {}; `tolk resume --endpoint {endpoint}`", paused.by, paused.why);
        Some(Called::Away { reason, after_ms: PAUSED_MS })
    }

    /// Parks a message whose call could not be made.
    pub(super) fn park(&mut self, seq: Seq, call: Call, reason: String, after_ms: u64) {
        // Whoever resumes an endpoint makes the messages of that code due.
        let on = match self.paused(&call.endpoint) {
            Some(_) => Vec::new(),
            None => vec![Request::Entry { collection: RECOVERED.to_owned(), key: call.endpoint }],
        };
        self.finish(seq, Said::Parked { code: ENDPOINT_AWAY, reason, after_ms, on });
    }

    /// Remembers the endpoint that a settled message is parked for: not earlier, for what is not in the store cannot be woken there.
    pub(super) fn parked(&mut self, settled: &Settled) {
        let Some(row) = settled.work.as_ref().filter(|row| row.code == ENDPOINT_AWAY) else { return };
        for request in &row.waits {
            if let Request::Entry { key, .. } = request {
                self.away.endpoints.insert(key.clone());
            }
        }
    }

    /// Tells of endpoints that answer again.
    pub(super) fn tell_recovered(&mut self) {
        if self.away.endpoints.is_empty() || self.away.telling {
            return;
        }
        self.away.told.retain(|told| told.elapsed() < TELLS_WITHIN);
        if self.away.told.len() >= TELLS_MAX {
            return;
        }
        let back: Vec<String> = self.away.endpoints.iter().filter(|endpoint| !self.parts.caller.is_away(endpoint)).cloned().collect();
        if back.is_empty() {
            return;
        }
        tracing::info!(endpoints = back.join(", "), "endpoints answer again; what has parked for them goes on");
        back.iter().for_each(|endpoint| {
            self.away.endpoints.remove(endpoint);
        });
        self.away.telling = true;
        self.away.told.push(Instant::now());
        // An entry that is written anew with the same bytes is no change.
        let since = format!("answers again since {}", jiff::Timestamp::now());
        let write = |endpoint: &String| Write {
            collection: RECOVERED.to_owned(),
            key: endpoint.clone(),
            value: Some(since.clone().into()),
            indexes: Vec::new(),
        };
        let writes: Vec<Write> = back.iter().map(write).collect();
        let (store, sender) = (self.parts.store.clone(), self.sender.clone());
        tokio::spawn(async move {
            let told = store.put_entries(&writes, &[]).await;
            let _ = sender.send(Event::Told(back, told));
        });
    }

    /// The entries are written, or not.
    pub(super) fn told(&mut self, endpoints: Vec<String>, told: crate::store::Result<()>) {
        self.away.telling = false;
        match told {
            Ok(()) => self.ask_due = true,
            Err(error) => {
                self.away.endpoints.extend(endpoints);
                self.failed(error, false, false);
            }
        }
    }
}
