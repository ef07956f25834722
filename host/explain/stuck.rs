//! What is stuck in a whole store: counts by status and code with the oldest message of each, rings of waits, and what is paused.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Known, explain};
use crate::message::Status;
use crate::store::actions::{ENDPOINT_AWAY, away_reason};
use crate::store::{Filter, MessageStatus, Pausable, Result, Store};

/// Messages of a status that are looked at, the oldest ones.
const LOOKS_MAX: i64 = 500;
/// Waiting messages whose waits are followed.
const FOLLOWED_MAX: usize = 50;

/// The statuses of messages that have not come out.
const STATUSES: [Status; 6] = [Status::Failed, Status::Stopped, Status::Held, Status::Waiting, Status::Retry, Status::Behind];

/// What has not come out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stuck {
    /// Groups, those with the oldest message first.
    pub groups: Vec<Group>,
    /// Rings of messages that wait for one another.
    pub cycles: Vec<Vec<String>>,
}

/// Messages that are stuck for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// The status's word.
    pub status: String,
    /// The code.
    pub code: String,
    /// The oldest one: FEED/PARTITION/OFFSET.
    pub oldest: String,
    /// Its id.
    pub id: uuid::Uuid,
    /// When it came, milliseconds since 1970.
    pub received_ms: i64,
    /// Its reason.
    pub reason: String,
    /// How many of those looked at; at most 500 of a status are.
    pub messages: usize,
}

/// Looks for what is stuck.
pub async fn stuck(known: &Known, store: &dyn Store) -> Result<Stuck> {
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    let mut waiting = Vec::new();
    for status in STATUSES {
        let filter = Filter { status: Some(status), limit: LOOKS_MAX, oldest_first: true, ..Filter::default() };
        for row in store.messages(&filter).await? {
            if status == Status::Waiting && waiting.len() < FOLLOWED_MAX {
                waiting.push(row.id);
            }
            groups.entry((row.status.clone(), row.code.clone().unwrap_or_default())).or_insert_with(|| group(&row)).messages += 1;
        }
    }
    let mut cycles = BTreeSet::new();
    for id in waiting {
        if let Some(detail) = store.message(id).await? {
            cycles.extend(explain(known, store, &detail).await?.cycles);
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| group.received_ms);
    Ok(Stuck { groups, cycles: cycles.into_iter().collect() })
}

fn group(row: &MessageStatus) -> Group {
    Group {
        status: row.status.clone(),
        code: row.code.clone().unwrap_or_default(),
        oldest: format!("{}/{}/{}", row.feed, row.partition, row.offset),
        id: row.id,
        received_ms: row.received_ms,
        reason: row.reason.clone().unwrap_or_default(),
        messages: 0,
    }
}

/// Whether a pause holds a message.
pub(super) fn holds(of: &Pausable, row: &MessageStatus) -> bool {
    match of {
        Pausable::Feed { feed } => *feed == row.feed,
        Pausable::Table { feed, table } => *feed == row.feed && *table == row.table,
        Pausable::Endpoint { endpoint } => {
            let parked = row.code.as_deref() == Some(ENDPOINT_AWAY);
            parked && row.reason.as_deref().is_some_and(|reason| reason.starts_with(&away_reason(endpoint)))
        }
    }
}

/// What is paused, in words.
pub fn named(of: &Pausable) -> String {
    match of {
        Pausable::Feed { feed } => format!("feed {feed}"),
        Pausable::Table { feed, table } => format!("table {table} of feed {feed}"),
        Pausable::Endpoint { endpoint } => format!("endpoint {endpoint}"),
    }
}

/// The command that resumes it.
pub fn resume(of: &Pausable) -> String {
    match of {
        Pausable::Feed { feed } => format!("tolk resume --feed {feed}"),
        Pausable::Table { feed, table } => format!("tolk resume --feed {feed} --table {table}"),
        Pausable::Endpoint { endpoint } => format!("tolk resume --endpoint {endpoint}"),
    }
}
