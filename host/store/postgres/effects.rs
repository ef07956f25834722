//! What a settlement changes for others: entries, index rows, bindings, and who is woken by them. All in bulk, under the guard.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::rows::key_hash;
use super::text::{plain, stored};
use super::validate::NewBinding;
use super::{Try, uuid_of};
use crate::store::awaited::Touched;
use crate::store::changes::{Changes, Stored, Written, Younger};

/// The stored forms of the entries that some writes go to.
pub(super) async fn stored_entries(connection: &mut PgConnection, writes: &[Written<'_>]) -> Try<HashMap<(String, String), Stored>> {
    let (collections, keys): (Vec<_>, Vec<_>) =
        writes.iter().map(|written| (stored(&written.write.collection), stored(&written.write.key))).unzip();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "SELECT e.collection, e.key, e.content, e.indexes, e.origin_ms FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::text[]) u(collection, key)) r
         JOIN entry e ON e.collection = r.collection AND e.key = r.key",
    )
    .bind(collections)
    .bind(keys)
    .fetch_all(connection)
    .await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in rows {
        let place = (plain(row.try_get(0)?), plain(row.try_get(1)?));
        known.insert(place, Stored { content: key_hash(row.try_get(2)?), indexes: row.try_get(3)?, origin_ms: row.try_get(4)? });
    }
    Ok(known)
}

/// Stores changed entries and their index rows under a version.
pub(super) async fn store_entries(connection: &mut PgConnection, version: i64, changes: &Changes<'_>) -> Try<()> {
    let entries = &changes.entries;
    grow_younger(connection, &changes.younger).await?;
    if entries.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO entry (collection, key, version, content, indexes, value, origin_ms)
         SELECT collection, key, $1, content, indexes, value, origin_ms
         FROM unnest($2::text[], $3::text[], $4::uuid[], $5::text[], $6::bytea[], $7::bigint[])
           r(collection, key, content, indexes, value, origin_ms)
         ON CONFLICT (collection, key) DO UPDATE SET version = excluded.version, content = excluded.content, indexes = excluded.indexes,
           value = excluded.value, origin_ms = excluded.origin_ms",
    )
    .bind(version)
    .bind(entries.iter().map(|entry| stored(entry.collection)).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| stored(entry.key)).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| uuid_of(entry.content)).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.indexes.as_deref()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.value.map(|value| &value[..])).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.origin_ms).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    let pairs: Vec<_> = entries.iter().flat_map(|entry| entry.pairs.iter().map(move |pair| (entry, pair))).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO entry_index (collection, name, value, key, version, removed)
         SELECT collection, name, value, key, $1, removed
         FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[]) r(collection, name, value, key, removed)
         ON CONFLICT (collection, name, value, key) DO UPDATE SET version = excluded.version, removed = excluded.removed",
    )
    .bind(version)
    .bind(pairs.iter().map(|(entry, _)| stored(entry.collection)).collect::<Vec<_>>())
    .bind(pairs.iter().map(|(_, (name, ..))| stored(name)).collect::<Vec<_>>())
    .bind(pairs.iter().map(|(_, (_, value, _))| stored(value)).collect::<Vec<_>>())
    .bind(pairs.iter().map(|(entry, _)| stored(entry.key)).collect::<Vec<_>>())
    .bind(pairs.iter().map(|(_, (.., removed))| *removed).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn grow_younger(connection: &mut PgConnection, younger: &[Younger<'_>]) -> Try<()> {
    if younger.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE entry e SET origin_ms = r.origin_ms FROM unnest($1::text[], $2::text[], $3::bigint[]) r(collection, key, origin_ms)
         WHERE e.collection = r.collection AND e.key = r.key",
    )
    .bind(younger.iter().map(|entry| stored(entry.collection)).collect::<Vec<_>>())
    .bind(younger.iter().map(|entry| stored(entry.key)).collect::<Vec<_>>())
    .bind(younger.iter().map(|entry| entry.origin_ms).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores bindings that [`super::validate::bindings`] found new.
pub(super) async fn store_bindings(connection: &mut PgConnection, version: i64, bindings: &[NewBinding<'_>]) -> Try<()> {
    if bindings.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO id_binding (namespace, key, id, version)
         SELECT namespace, key, id, $1 FROM unnest($2::text[], $3::text[], $4::uuid[]) r(namespace, key, id)",
    )
    .bind(version)
    .bind(bindings.iter().map(|binding| stored(binding.namespace)).collect::<Vec<_>>())
    .bind(bindings.iter().map(|binding| stored(binding.key)).collect::<Vec<_>>())
    .bind(bindings.iter().map(|binding| binding.id).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes every message due that waits for a thing that was touched, or is to try again when it is; returns how many.
pub(super) async fn wake<'a>(connection: &mut PgConnection, now_ms: i64, touched: impl Iterator<Item = &'a Touched>) -> Try<u64> {
    let (hashes, values): (Vec<Uuid>, Vec<_>) =
        touched.map(|touched| (uuid_of(touched.hash), touched.value.as_deref().map(stored))).unzip();
    if hashes.is_empty() {
        return Ok(0);
    }
    let woken = sqlx::query(
        "WITH woken AS MATERIALIZED (SELECT DISTINCT w.feed, w.lane, w.n, w.run
           FROM unnest($1::uuid[], $2::text[]) t(hash, value) JOIN wait w ON w.hash = t.hash
           WHERE w.prefix IS NULL OR starts_with(t.value, w.prefix)),
           gone AS (DELETE FROM wait USING woken w
             WHERE wait.feed = w.feed AND wait.lane = w.lane AND wait.n = w.n AND wait.run = w.run)
         UPDATE work SET status = 0, cause = 2, due_ms = $3 FROM woken w
         WHERE work.feed = w.feed AND work.lane = w.lane AND work.n = w.n AND work.run = w.run AND work.status IN (3, 4)",
    )
    .bind(hashes)
    .bind(values)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(woken.rows_affected())
}
