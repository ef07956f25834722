//! Scans as ranges: a prefix of a key or index value is a range of bytes, because text compares bytewise.

use bytes::Bytes;
use sqlx::{Row as _, SqliteConnection};

use super::rows::bytes;
use crate::plugin::Scan;

/// The ranges of a scan. An upper bound of `None` is none: `coalesce(?, x'')`, as every text stands before every blob.
pub(super) struct Ranges {
    /// The first key.
    pub(super) key_from: String,
    /// The key after the last.
    pub(super) key_to: Option<String>,
    /// The first index value, with an index.
    pub(super) value_from: String,
    /// The index value after the last.
    pub(super) value_to: Option<String>,
}

impl Ranges {
    /// The ranges of a scan.
    pub(super) fn of(scan: &Scan) -> Self {
        // Nothing stands between a key and the same key followed by NUL.
        let after = scan.after.as_ref().map(|key| format!("{key}\0")).unwrap_or_default();
        if scan.index.is_some() {
            return Self { key_from: after, key_to: None, value_from: scan.prefix.clone(), value_to: behind(&scan.prefix) };
        }
        Self { key_from: after.max(scan.prefix.clone()), key_to: behind(&scan.prefix), value_from: String::new(), value_to: None }
    }
}

/// The first text behind all texts that start with a prefix; `None` where there is none.
fn behind(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = match last {
            '\u{10ffff}' => continue,
            '\u{d7ff}' => '\u{e000}',
            other => char::from_u32(u32::from(other) + 1).expect("only surrogates and the end have no next, and both are handled"),
        };
        text.push(next);
        return Some(text);
    }
    None
}

/// Entries of a scan in key order, at most `limit` of them.
pub(super) async fn page(connection: &mut SqliteConnection, scan: &Scan, limit: i64) -> sqlx::Result<Vec<(String, Bytes)>> {
    const BY_KEY: &str = "SELECT key, value FROM entry
         WHERE collection = ?1 AND key >= ?2 AND key < coalesce(?3, x'') AND value IS NOT NULL ORDER BY key LIMIT ?4";
    const BY_INDEX: &str = "SELECT key, value FROM entry WHERE collection = ?1 AND key >= ?2 AND value IS NOT NULL AND key IN (
           SELECT key FROM entry_index WHERE collection = ?1 AND name = ?5 AND value >= ?6 AND value < coalesce(?7, x'') AND NOT removed)
         ORDER BY key LIMIT ?4";
    let ranges = Ranges::of(scan);
    let query = sqlx::query(if scan.index.is_some() { BY_INDEX } else { BY_KEY })
        .bind(&scan.collection)
        .bind(ranges.key_from)
        .bind(ranges.key_to)
        .bind(limit);
    let query = match &scan.index {
        Some(index) => query.bind(index).bind(ranges.value_from).bind(ranges.value_to),
        None => query,
    };
    query.fetch_all(connection).await?.iter().map(|row| Ok((row.try_get(0)?, bytes(row, 1)?.unwrap_or_default()))).collect()
}

/// Whether an entry that the scan covers, or covered, was written after a settlement.
pub(super) async fn is_stale(connection: &mut SqliteConnection, scan: &Scan, at: i64) -> sqlx::Result<bool> {
    const BY_KEY: &str = "SELECT EXISTS (SELECT 1 FROM entry
         WHERE collection = ?1 AND key >= ?2 AND key < coalesce(?3, x'') AND version > ?4)";
    const BY_INDEX: &str = "SELECT EXISTS (SELECT 1 FROM entry_index
         WHERE collection = ?1 AND key >= ?2 AND name = ?5 AND value >= ?6 AND value < coalesce(?7, x'') AND version > ?4)";
    let ranges = Ranges::of(scan);
    let query = sqlx::query_scalar(if scan.index.is_some() { BY_INDEX } else { BY_KEY })
        .bind(&scan.collection)
        .bind(ranges.key_from)
        .bind(ranges.key_to)
        .bind(at);
    let query = match &scan.index {
        Some(index) => query.bind(index).bind(ranges.value_from).bind(ranges.value_to),
        None => query,
    };
    query.fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_text_begins() {
        for (prefix, expected) in [
            ("", None),
            ("a", Some("b")),
            ("az", Some("a{")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{7f}", Some("\u{80}")),
        ] {
            assert_eq!(behind(prefix).as_deref(), expected, "{prefix:?}");
        }
    }
}
