//! Entries, scans and ids for plugins, all as of one settlement: one query per kind.

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::bulk::Bulk;
use super::rows::{bytes, id};
use super::{Sqlite, damaged, scan};
use crate::plugin::Request;
use crate::store::{Found, Reads, Result, Snapshot};

const ENTRIES: Bulk = Bulk {
    before: "WITH r (i, collection, key) AS (",
    columns: 3,
    after: ") SELECT r.i, e.value FROM r CROSS JOIN entry e ON e.collection = r.collection AND e.key = r.key WHERE e.value IS NOT NULL",
};
const IDS: Bulk = Bulk {
    before: "WITH r (i, namespace, key) AS (",
    columns: 3,
    after: ") SELECT r.i, b.id FROM r CROSS JOIN id_binding b ON b.namespace = r.namespace AND b.key = r.key",
};
const KEYS: Bulk = Bulk {
    before: "WITH r (i, namespace, id) AS (",
    columns: 3,
    after: ") SELECT r.i, b.key FROM r CROSS JOIN id_binding b ON b.namespace = r.namespace AND b.id = r.id",
};

/// What must find its rows by an index.
#[cfg(test)]
pub(super) const INDEXED: &[Bulk] = &[ENTRIES, IDS, KEYS];

#[async_trait]
impl Reads for Sqlite {
    async fn read(&self, requests: &[Request]) -> Result<Snapshot> {
        const VERB: &str = "read entries and ids";
        let mut reader = self.read_one_state(VERB).await?;
        let at = sqlx::query_scalar("SELECT number FROM settlement_guard").fetch_one(&mut *reader).await.map_err(self.failed(VERB))?;
        let found = read(&mut reader, requests).await.map_err(self.failed(VERB))?;
        Ok(Snapshot { at, found })
    }
}

async fn read(connection: &mut SqliteConnection, requests: &[Request]) -> sqlx::Result<Vec<Found>> {
    let (mut entries, mut ids, mut keys, mut scans) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut found = Vec::with_capacity(requests.len());
    for (request, i) in requests.iter().zip(0_i64..) {
        found.push(match request {
            Request::Entry { collection, key } => {
                entries.push((i, collection, key));
                Found::Entry(None)
            }
            Request::Entries(scan) => {
                scans.push((i, scan));
                Found::Page { items: Vec::new(), more: false }
            }
            Request::Id { namespace, key } | Request::KnownId { namespace, key } => {
                ids.push((i, namespace, key));
                Found::Id(None)
            }
            Request::KeyOf { namespace, id } => {
                keys.extend(Uuid::try_parse(id).ok().map(|id| (i, namespace, id)));
                Found::Key(None)
            }
            Request::Call(_) => return Err(damaged("a call is no question to the store")),
        });
    }
    let bind_texts = |values: &mut super::bulk::Values, (i, space, key): &(i64, &String, &String)| {
        values.add(i).add(space.as_str()).add(key.as_str());
    };
    for row in ENTRIES.fetch(connection, &entries, bind_texts).await? {
        found[row.try_get::<i64, _>(0)? as usize] = Found::Entry(bytes(&row, 1)?);
    }
    for row in IDS.fetch(connection, &ids, bind_texts).await? {
        found[row.try_get::<i64, _>(0)? as usize] = Found::Id(Some(id(&row, 1)?));
    }
    let bind_ids = |values: &mut super::bulk::Values, (i, namespace, id): &(i64, &String, Uuid)| {
        values.add(i).add(namespace.as_str()).add(id);
    };
    for row in KEYS.fetch(connection, &keys, bind_ids).await? {
        found[row.try_get::<i64, _>(0)? as usize] = Found::Key(Some(row.try_get(1)?));
    }
    for (i, scan) in scans {
        let mut items = scan::page(connection, scan, i64::from(scan.limit) + 1).await?;
        let more = items.len() > scan.limit as usize;
        items.truncate(scan.limit as usize);
        found[i as usize] = Found::Page { items, more };
    }
    Ok(found)
}
