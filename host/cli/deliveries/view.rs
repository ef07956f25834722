//! Deliveries as people and programs see them.

use serde::Serialize;

use crate::cli::listing;
use crate::delivery::health;
use crate::store::{Account, Audited, Delivery};

/// The columns of [`Row::cells`].
pub(super) const COLUMNS: &[&str] = &["number", "feed", "id", "state", "params", "parts", "expected", "ordered", "closed", "reason"];

/// A delivery in a listing.
#[derive(Serialize)]
pub(super) struct Row {
    number: i64,
    feed: String,
    id: Option<String>,
    state: &'static str,
    params: Vec<(String, String)>,
    accepted: i64,
    expected: Option<i64>,
    opened_ms: i64,
    bound_ms: Option<i64>,
    started_ms: Option<i64>,
    ended_ms: Option<i64>,
    closed_ms: Option<i64>,
    due_ms: Option<i64>,
    code: String,
    reason: String,
}

impl Row {
    pub(super) fn new(feed: &str, delivery: &Delivery) -> Self {
        let tally = &delivery.tally;
        Self {
            number: delivery.number,
            feed: feed.to_owned(),
            id: delivery.id.clone(),
            state: tally.state.as_str(),
            params: delivery.params.clone(),
            accepted: tally.accepted,
            expected: tally.expected(),
            opened_ms: delivery.opened_ms,
            bound_ms: delivery.bound_ms,
            started_ms: tally.started_ms,
            ended_ms: tally.ended_ms,
            closed_ms: tally.closed_ms,
            due_ms: tally.due_ms,
            code: tally.code.clone(),
            reason: tally.reason.clone(),
        }
    }

    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.feed.clone(),
            self.id.clone().unwrap_or_else(|| "-".to_owned()),
            self.state.to_owned(),
            self.params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
            self.accepted.to_string(),
            self.expected.map_or_else(|| "-".to_owned(), |expected| expected.to_string()),
            listing::time(self.opened_ms),
            self.closed_ms.map(listing::time).unwrap_or_default(),
            listing::cut(&self.reason, 80),
        ]
    }
}

/// One delivery, whole.
#[derive(Serialize)]
pub(super) struct Whole {
    pub(super) delivery: Row,
    pub(super) account: Account,
    pub(super) adds_up: bool,
    pub(super) audit: Vec<Audited>,
}

impl Whole {
    pub(super) fn text(&self) -> String {
        let mut text: String = COLUMNS.iter().zip(self.delivery.cells()).map(|(name, cell)| format!("{name:<10}{cell}\n")).collect();
        let counts: Vec<String> = self.account.by_status.iter().map(|(status, count)| format!("{count} {status}")).collect();
        text += &format!("{:<10}{}\n", "statuses", counts.join(", "));
        if !self.adds_up {
            text += &format!("{:<10}the statuses do not add up to the {} parts accepted\n", "wrong", self.account.accepted);
        }
        for line in &self.audit {
            text += &format!("{:<10}{} at {} by {}: {}\n", "asked", line.kind, listing::time(line.at_ms), line.by, line.why);
        }
        text.trim_end().to_owned()
    }
}

/// How a feed's deliveries are.
#[derive(Serialize)]
pub(super) struct Health {
    pub(super) feed: String,
    pub(super) code: health::Code,
}
