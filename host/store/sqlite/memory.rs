//! What plugins remember: entries with their indexes, and ids. Writes what `store::changes` worked out.

use std::collections::{HashMap, HashSet};

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::bulk::Bulk;
use super::rows::key_hash;
use crate::plugin::Binding;
use crate::store::changes::{Changes, Stored, Written};

const STORED: Bulk = Bulk {
    before: "WITH r (collection, key) AS (",
    columns: 2,
    after: ") SELECT e.collection, e.key, e.content, e.indexes, e.origin_ms FROM r CROSS JOIN entry e ON e.collection = r.collection AND e.key = r.key",
};
const ENTRY: Bulk =
    Bulk { before: "INSERT OR REPLACE INTO entry (collection, key, version, content, indexes, value, origin_ms)", columns: 7, after: "" };
const YOUNGER: Bulk = Bulk {
    before: "UPDATE entry SET origin_ms = r.column3 FROM (",
    columns: 3,
    after: ") AS r WHERE entry.collection = r.column1 AND entry.key = r.column2",
};
const INDEX: Bulk =
    Bulk { before: "INSERT OR REPLACE INTO entry_index (collection, name, value, key, version, removed)", columns: 6, after: "" };
const BINDING: Bulk = Bulk { before: "INSERT INTO id_binding (namespace, key, id, version)", columns: 4, after: "" };

/// What must find its rows by an index.
#[cfg(test)]
pub(super) const INDEXED: &[Bulk] = &[STORED, YOUNGER];

/// The stored forms of the entries that these writes are about.
pub(super) async fn stored(connection: &mut SqliteConnection, writes: &[Written<'_>]) -> sqlx::Result<HashMap<(String, String), Stored>> {
    let keys: HashSet<(&str, &str)> =
        writes.iter().map(|written| (written.write.collection.as_str(), written.write.key.as_str())).collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let rows = STORED
        .fetch(connection, &keys, |values, (collection, key)| {
            values.add(*collection).add(*key);
        })
        .await?;
    let form = |row: &SqliteRow| {
        let form = Stored { content: key_hash(row, 2)?, indexes: row.try_get(3)?, origin_ms: row.try_get(4)? };
        Ok(((row.try_get(0)?, row.try_get(1)?), form))
    };
    rows.iter().map(form).collect()
}

/// Stores the changed entries under a settlement.
pub(super) async fn store_changes(connection: &mut SqliteConnection, changes: &Changes<'_>, settlement: i64) -> sqlx::Result<()> {
    ENTRY
        .run(connection, &changes.entries, |values, change| {
            values
                .add(change.collection)
                .add(change.key)
                .add(settlement)
                .add(&change.content.0[..])
                .add(change.indexes.as_deref())
                .add(change.value.map(|value| &value[..]))
                .add(change.origin_ms);
        })
        .await?;
    YOUNGER
        .run(connection, &changes.younger, |values, entry| {
            values.add(entry.collection).add(entry.key).add(entry.origin_ms);
        })
        .await?;
    let pairs: Vec<_> =
        changes.entries.iter().flat_map(|change| change.pairs.iter().map(move |pair| (change.collection, change.key, pair))).collect();
    INDEX
        .run(connection, &pairs, |values, (collection, key, (name, value, removed))| {
            values.add(*collection).add(name.as_str()).add(value.as_str()).add(*key).add(settlement).add(*removed);
        })
        .await?;
    Ok(())
}

/// Stores new bindings under a settlement.
pub(super) async fn store_bindings(
    connection: &mut SqliteConnection,
    fresh: &[(usize, &Binding, Uuid)],
    settlement: i64,
) -> sqlx::Result<()> {
    BINDING
        .run(connection, fresh, |values, (_, binding, id)| {
            values.add(binding.namespace.as_str()).add(binding.key.as_str()).add(id).add(settlement);
        })
        .await?;
    Ok(())
}
