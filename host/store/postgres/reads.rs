//! Entries and ids, many requests as of one settlement: one statement a kind, all under one snapshot.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::rows::bytes;
use super::text::{lower_bound, plain, stored, upper_bound};
use super::{Postgres, Try, retried};
use crate::plugin::{Request, Scan};
use crate::store::{Error, Found, Reads, Result, Snapshot};

/// Requests by kind, each with its place among all.
#[derive(Default)]
struct Kinds<'a> {
    entries: Vec<(usize, &'a str, &'a str)>,
    scans: Vec<(usize, &'a Scan)>,
    indexed: Vec<(usize, &'a Scan, &'a str)>,
    ids: Vec<(usize, &'a str, &'a str)>,
    keys: Vec<(usize, &'a str, Uuid)>,
}

impl<'a> Kinds<'a> {
    fn of(requests: &'a [Request]) -> Try<(Self, Vec<Found>)> {
        let mut kinds = Self::default();
        let mut found = Vec::with_capacity(requests.len());
        for (place, request) in requests.iter().enumerate() {
            found.push(match request {
                Request::Entry { collection, key } => {
                    kinds.entries.push((place, collection, key));
                    Found::Entry(None)
                }
                Request::Entries(scan) => {
                    match &scan.index {
                        None => kinds.scans.push((place, scan)),
                        Some(index) => kinds.indexed.push((place, scan, index)),
                    }
                    Found::Page { items: Vec::new(), more: false }
                }
                Request::Id { namespace, key } | Request::KnownId { namespace, key } => {
                    kinds.ids.push((place, namespace, key));
                    Found::Id(None)
                }
                Request::KeyOf { namespace, id } => {
                    if let Ok(id) = Uuid::try_parse(id) {
                        kinds.keys.push((place, namespace, id));
                    }
                    Found::Key(None)
                }
                Request::Call(call) => {
                    return Err(Error::Corrupt(format!("a call of endpoint {} is not the store's to answer", call.endpoint)).into());
                }
            });
        }
        Ok((kinds, found))
    }
}

impl Postgres {
    async fn read_once(&self, requests: &[Request]) -> Try<Snapshot> {
        let (kinds, mut found) = Kinds::of(requests)?;
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let (at,) = sqlx::query_as("SELECT number FROM settlement_guard").fetch_one(&mut *transaction).await?;
        read_entries(&mut transaction, &kinds.entries, &mut found).await?;
        read_scans(&mut transaction, &kinds.scans, &mut found).await?;
        read_indexed(&mut transaction, &kinds.indexed, &mut found).await?;
        read_ids(&mut transaction, &kinds.ids, &mut found).await?;
        read_keys(&mut transaction, &kinds.keys, &mut found).await?;
        super::commit(transaction, "read entries").await?;
        Ok(Snapshot { at, found })
    }
}

/// The place that a row's ordinality names.
pub(super) fn place(row: &sqlx::postgres::PgRow) -> Try<usize> {
    let ordinal: i64 = row.try_get(0)?;
    Ok(usize::try_from(ordinal - 1).map_err(|_| Error::Corrupt("an ordinality is not positive".to_owned()))?)
}

async fn read_entries(connection: &mut PgConnection, requests: &[(usize, &str, &str)], found: &mut [Found]) -> Try<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "SELECT r.ordinal, e.value FROM unnest($1::text[], $2::text[]) WITH ORDINALITY r(collection, key, ordinal)
         JOIN entry e ON e.collection = r.collection AND e.key = r.key WHERE e.value IS NOT NULL",
    )
    .bind(requests.iter().map(|(_, collection, _)| stored(collection)).collect::<Vec<_>>())
    .bind(requests.iter().map(|(.., key)| stored(key)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for row in rows {
        found[requests[place(&row)?].0] = Found::Entry(bytes(&row, 1)?);
    }
    Ok(())
}

async fn read_scans(connection: &mut PgConnection, requests: &[(usize, &Scan)], found: &mut [Found]) -> Try<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let bounds = requests.iter().map(|(_, scan)| bounds(scan));
    let (low, high): (Vec<String>, Vec<String>) = bounds.unzip();
    let rows = sqlx::query(
        "SELECT r.ordinal, e.key, e.value FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
           WITH ORDINALITY r(collection, low, high, most, ordinal)
         CROSS JOIN LATERAL (SELECT x.key, x.value FROM entry x
           WHERE x.collection = r.collection AND x.key >= r.low AND x.key < r.high AND x.value IS NOT NULL ORDER BY x.key LIMIT r.most) e
         ORDER BY r.ordinal, e.key",
    )
    .bind(requests.iter().map(|(_, scan)| stored(&scan.collection)).collect::<Vec<_>>())
    .bind(low)
    .bind(high)
    .bind(requests.iter().map(|(_, scan)| i64::from(scan.limit) + 1).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for row in rows {
        let (place, scan) = requests[place(&row)?];
        push(&mut found[place], scan.limit, row.try_get(1)?, bytes(&row, 2)?.unwrap_or_default());
    }
    Ok(())
}

async fn read_indexed(connection: &mut PgConnection, requests: &[(usize, &Scan, &str)], found: &mut [Found]) -> Try<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "SELECT r.ordinal, k.key, e.value FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
           WITH ORDINALITY r(collection, name, low, high, after, most, ordinal)
         CROSS JOIN LATERAL (SELECT DISTINCT x.key FROM entry_index x
           WHERE x.collection = r.collection AND x.name = r.name AND x.value >= r.low AND x.value < r.high
             AND (r.after IS NULL OR x.key > r.after) AND NOT x.removed ORDER BY x.key LIMIT r.most) k
         JOIN entry e ON e.collection = r.collection AND e.key = k.key WHERE e.value IS NOT NULL
         ORDER BY r.ordinal, k.key",
    )
    .bind(requests.iter().map(|(_, scan, _)| stored(&scan.collection)).collect::<Vec<_>>())
    .bind(requests.iter().map(|(.., index)| stored(index)).collect::<Vec<_>>())
    .bind(requests.iter().map(|(_, scan, _)| stored(&scan.prefix)).collect::<Vec<_>>())
    .bind(requests.iter().map(|(_, scan, _)| upper_bound(&stored(&scan.prefix))).collect::<Vec<_>>())
    .bind(requests.iter().map(|(_, scan, _)| scan.after.as_deref().map(stored)).collect::<Vec<_>>())
    .bind(requests.iter().map(|(_, scan, _)| i64::from(scan.limit) + 1).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for row in rows {
        let (place, scan, _) = requests[place(&row)?];
        push(&mut found[place], scan.limit, row.try_get(1)?, bytes(&row, 2)?.unwrap_or_default());
    }
    Ok(())
}

async fn read_ids(connection: &mut PgConnection, requests: &[(usize, &str, &str)], found: &mut [Found]) -> Try<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "SELECT r.ordinal, b.id FROM unnest($1::text[], $2::text[]) WITH ORDINALITY r(namespace, key, ordinal)
         JOIN id_binding b ON b.namespace = r.namespace AND b.key = r.key",
    )
    .bind(requests.iter().map(|(_, namespace, _)| stored(namespace)).collect::<Vec<_>>())
    .bind(requests.iter().map(|(.., key)| stored(key)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for row in rows {
        found[requests[place(&row)?].0] = Found::Id(Some(row.try_get(1)?));
    }
    Ok(())
}

async fn read_keys(connection: &mut PgConnection, requests: &[(usize, &str, Uuid)], found: &mut [Found]) -> Try<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "SELECT r.ordinal, b.key FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY r(namespace, id, ordinal)
         JOIN id_binding b ON b.namespace = r.namespace AND b.id = r.id",
    )
    .bind(requests.iter().map(|(_, namespace, _)| stored(namespace)).collect::<Vec<_>>())
    .bind(requests.iter().map(|(.., id)| *id).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for row in rows {
        found[requests[place(&row)?].0] = Found::Key(Some(plain(row.try_get(1)?)));
    }
    Ok(())
}

/// The keys from which and before which a scan by key reads.
pub(super) fn bounds(scan: &Scan) -> (String, String) {
    let prefix = stored(&scan.prefix);
    (lower_bound(&prefix, scan.after.as_deref().map(stored).as_deref()), upper_bound(&prefix))
}

/// One row more than the limit says that there are more.
fn push(page: &mut Found, limit: u32, key: String, value: Bytes) {
    let Found::Page { items, more } = page else { return };
    if items.len() < limit as usize {
        items.push((plain(key), value));
    } else {
        *more = true;
    }
}

#[async_trait]
impl Reads for Postgres {
    async fn read(&self, requests: &[Request]) -> Result<Snapshot> {
        retried!(self, "read entries", self.read_once(requests))
    }
}
