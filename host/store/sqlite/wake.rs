//! Who is woken by a change, and which keys go on when their blocking row leaves.

use std::collections::HashMap;

use sqlx::{Row as _, SqliteConnection};

use super::bulk::{Bulk, Values};
use super::rows::key_hash;
use crate::message::FeedId;
use crate::plugin::Cause;
use crate::store::BlockedKey;
use crate::store::awaited::Touched;

const WAKES: Bulk = Bulk {
    before: "WITH t (hash, value) AS (",
    columns: 2,
    after: ") SELECT DISTINCT w.feed, w.lane, w.n, w.run FROM t CROSS JOIN wait w ON w.hash = t.hash
     WHERE w.prefix IS NULL OR substr(CAST(t.value AS BLOB), 1, length(CAST(w.prefix AS BLOB))) = CAST(w.prefix AS BLOB)",
};
const WAKE: Bulk = Bulk {
    before: "UPDATE work SET status = 0, cause = r.column5, due_ms = r.column6 FROM (",
    columns: 6,
    after: ") AS r WHERE work.feed = r.column1 AND work.lane = r.column2 AND work.n = r.column3 AND work.run = r.column4 AND work.status = 3",
};
const FORGET: Bulk = Bulk { before: "DELETE FROM wait WHERE (feed, lane, n, run) IN (", columns: 4, after: ")" };
// The first row that holds the key back: where it is behind, it is the head now.
const RELEASE: Bulk = Bulk {
    before: "UPDATE work SET status = 0, due_ms = r.column4 FROM (",
    columns: 4,
    after: ") AS r WHERE work.feed = r.column1 AND work.lane = r.column2 AND work.key_hash = r.column3 AND work.status = 8 AND NOT EXISTS (
       SELECT 1 FROM work e WHERE e.feed = work.feed AND e.lane = work.lane AND e.key_hash = work.key_hash AND (e.blocks OR e.status = 8)
         AND (e.n < work.n OR (e.n = work.n AND e.run < work.run)))",
};
const STILL_BLOCKED: Bulk = Bulk {
    before: "WITH r (feed, lane, key_hash) AS (",
    columns: 3,
    after: ") SELECT r.feed, r.lane, r.key_hash FROM r WHERE EXISTS (
       SELECT 1 FROM work w WHERE w.feed = r.feed AND w.lane = r.lane AND w.key_hash = r.key_hash AND w.blocks)",
};

/// Wakes whoever waits for what changed; how many.
pub(super) async fn wake(connection: &mut SqliteConnection, touched: &HashMap<Touched, usize>, now: i64) -> sqlx::Result<usize> {
    if touched.is_empty() || !sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT 1 FROM wait)").fetch_one(&mut *connection).await? {
        return Ok(0);
    }
    let touched: Vec<_> = touched.keys().collect();
    let rows = WAKES
        .fetch(connection, &touched, |values, touched| {
            values.add(&touched.hash.0[..]).add(touched.value.as_deref());
        })
        .await?;
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        places.push((row.try_get::<i32, _>(0)?, row.try_get::<i32, _>(1)?, row.try_get::<i64, _>(2)?, row.try_get::<i32, _>(3)?));
    }
    // Found by several parts of what changed.
    places.sort_unstable();
    places.dedup();
    let bind = |values: &mut Values, (feed, lane, n, run): &(i32, i32, i64, i32)| {
        values.add(feed).add(lane).add(n).add(run);
    };
    let woken = WAKE
        .run(connection, &places, |values, place| {
            bind(values, place);
            values.add(Cause::Woken.code()).add(now);
        })
        .await?;
    FORGET.run(connection, &places, bind).await?;
    Ok(woken as usize)
}

/// Lets the first row that holds a key back go on, if it was behind.
pub(super) async fn release(connection: &mut SqliteConnection, keys: &[BlockedKey], now: i64) -> sqlx::Result<()> {
    RELEASE
        .run(connection, keys, |values, key| {
            values.add(key.feed.0).add(key.lane).add(&key.key_hash.0[..]).add(now);
        })
        .await?;
    Ok(())
}

/// Which of these keys have a blocking row.
pub(super) async fn still_blocked(connection: &mut SqliteConnection, keys: &[BlockedKey]) -> sqlx::Result<Vec<BlockedKey>> {
    let rows = STILL_BLOCKED
        .fetch(connection, keys, |values, key| {
            values.add(key.feed.0).add(key.lane).add(&key.key_hash.0[..]);
        })
        .await?;
    rows.iter().map(|row| Ok(BlockedKey { feed: FeedId(row.try_get(0)?), lane: row.try_get(1)?, key_hash: key_hash(row, 2)? })).collect()
}
