//! What makes a settlement void: lanes with another owner, reads written since, bindings bound otherwise.

use std::collections::{BTreeSet, HashMap};

use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::bulk::{Bulk, Values};
use super::{damaged, scan};
use crate::message::FeedId;
use crate::plugin::{Binding, Request, Scan};
use crate::store::{LaneStep, Settled, Stale};

const FENCED: Bulk = Bulk {
    before: "WITH r (feed, lane, epoch, host) AS (",
    columns: 4,
    after:
        ") SELECT r.feed, r.lane FROM r LEFT JOIN lane l ON l.feed = r.feed AND l.lane = r.lane AND l.epoch = r.epoch AND l.owner = r.host
     WHERE l.lane IS NULL",
};
const ENTRIES: Bulk = Bulk {
    before: "WITH r (i, j, collection, key, at) AS (",
    columns: 5,
    after: ") SELECT r.i, r.j FROM r CROSS JOIN entry e ON e.collection = r.collection AND e.key = r.key WHERE e.version > r.at",
};
const IDS: Bulk = Bulk {
    before: "WITH r (i, j, namespace, key, at) AS (",
    columns: 5,
    after: ") SELECT r.i, r.j FROM r CROSS JOIN id_binding b ON b.namespace = r.namespace AND b.key = r.key WHERE b.version > r.at",
};
const KEYS: Bulk = Bulk {
    before: "WITH r (i, j, namespace, id, at) AS (",
    columns: 5,
    after: ") SELECT r.i, r.j FROM r CROSS JOIN id_binding b ON b.namespace = r.namespace AND b.id = r.id WHERE b.version > r.at",
};
const BOUND: Bulk = Bulk {
    before: "WITH r (namespace, key, id) AS (",
    columns: 3,
    after: ") SELECT b.namespace, b.key, b.id FROM r CROSS JOIN id_binding b ON b.namespace = r.namespace AND b.key = r.key
     UNION SELECT b.namespace, b.key, b.id FROM r CROSS JOIN id_binding b ON b.namespace = r.namespace AND b.id = r.id",
};

/// What must find its rows by an index.
#[cfg(test)]
pub(super) const INDEXED: &[Bulk] = &[FENCED, ENTRIES, IDS, KEYS, BOUND];

/// The lanes of a settlement that have another owner.
pub(super) async fn fenced(connection: &mut SqliteConnection, host: Uuid, lanes: &[LaneStep]) -> sqlx::Result<Vec<(FeedId, i32)>> {
    let rows = FENCED
        .fetch(connection, lanes, |values, step| {
            values.add(step.feed.0).add(step.lane).add(step.epoch).add(host);
        })
        .await?;
    rows.iter().map(|row| Ok((FeedId(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// Every read that was written after the settlement it was read at; `last` is the last settlement before this one.
pub(super) async fn stale(connection: &mut SqliteConnection, settled: &[Settled], last: i64) -> sqlx::Result<Vec<Stale>> {
    let (mut entries, mut ids, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let mut scans: HashMap<(&Scan, i64), Vec<(i64, i64)>> = HashMap::new();
    for (settled, i) in settled.iter().zip(0_i64..) {
        for (read, j) in settled.reads.iter().zip(0_i64..) {
            // Nothing was written after the last settlement.
            if read.at >= last {
                continue;
            }
            match &read.request {
                Request::Entry { collection, key } => entries.push((i, j, collection, key, read.at)),
                Request::Entries(scan) => scans.entry((scan, read.at)).or_default().push((i, j)),
                Request::Id { namespace, key } | Request::KnownId { namespace, key } => ids.push((i, j, namespace, key, read.at)),
                Request::KeyOf { namespace, id } => {
                    keys.extend(Uuid::try_parse(id).ok().map(|id| (i, j, namespace, id, read.at)));
                }
                Request::Call(_) => return Err(damaged("a call is no read of the store")),
            }
        }
    }
    let mut stale = BTreeSet::new();
    let bind_texts = |values: &mut Values, (i, j, space, key, at): &(i64, i64, &String, &String, i64)| {
        values.add(i).add(j).add(space.as_str()).add(key.as_str()).add(at);
    };
    let bind_ids = |values: &mut Values, (i, j, space, id, at): &(i64, i64, &String, Uuid, i64)| {
        values.add(i).add(j).add(space.as_str()).add(id).add(at);
    };
    let mut rows = ENTRIES.fetch(connection, &entries, bind_texts).await?;
    rows.append(&mut IDS.fetch(connection, &ids, bind_texts).await?);
    rows.append(&mut KEYS.fetch(connection, &keys, bind_ids).await?);
    for row in rows {
        stale.insert((row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?));
    }
    for ((scan, at), readers) in scans {
        if scan::is_stale(connection, scan, at).await? {
            stale.extend(readers);
        }
    }
    Ok(stale.into_iter().map(|(i, j)| Stale { index: i as usize, read: Some(j as usize) }).collect())
}

/// Bindings of a settlement against what is bound.
#[derive(Debug, Default)]
pub(super) struct Bound<'a> {
    /// New ones, each once, with the index of the message that bound it first.
    pub(super) fresh: Vec<(usize, &'a Binding, Uuid)>,
    /// Messages whose bindings conflict, either way, with a stored one or with an earlier message's.
    pub(super) conflicts: Vec<usize>,
}

/// Sorts bindings into known, new and conflicting ones.
pub(super) async fn bindings<'a>(connection: &mut SqliteConnection, asked: Vec<(usize, &'a Binding)>) -> sqlx::Result<Bound<'a>> {
    let mut parsed = Vec::with_capacity(asked.len());
    for (index, binding) in asked {
        let id = Uuid::try_parse(&binding.id)
            .map_err(|_| damaged(format!("the binding of {}/{} is to no uuid", binding.namespace, binding.key)))?;
        parsed.push((index, binding, id));
    }
    let rows = BOUND
        .fetch(connection, &parsed, |values, (_, binding, id)| {
            values.add(binding.namespace.as_str()).add(binding.key.as_str()).add(id);
        })
        .await?;
    let (mut by_key, mut by_id) = (HashMap::<(String, String), Uuid>::new(), HashMap::<(String, Uuid), String>::new());
    for row in rows {
        let (namespace, key, id): (String, String, Uuid) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        by_id.insert((namespace.clone(), id), key.clone());
        by_key.insert((namespace, key), id);
    }
    let mut bound = Bound::default();
    for (index, binding, id) in parsed {
        let name = (binding.namespace.clone(), binding.key.clone());
        let back = (binding.namespace.clone(), id);
        match (by_key.get(&name), by_id.get(&back)) {
            (None, None) => {
                by_key.insert(name, id);
                by_id.insert(back, binding.key.clone());
                bound.fresh.push((index, binding, id));
            }
            (Some(known), Some(key)) if *known == id && *key == binding.key => {}
            _ => bound.conflicts.push(index),
        }
    }
    bound.conflicts.dedup();
    Ok(bound)
}
