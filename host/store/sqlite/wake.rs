//! Who is woken by a change, and which keys go on when their blocking row leaves.

use std::collections::{HashMap, HashSet};

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::bulk::{Bulk, Values};
use super::rows::key_hash;
use super::settle::{END, bind_end};
use crate::message::{FeedId, Status};
use crate::plugin::Cause;
use crate::store::actions::{SUPERSEDED, superseded_reason};
use crate::store::awaited::Touched;
use crate::store::{BlockedKey, End, Settled};

const WAKES: Bulk = Bulk {
    before: "WITH t (hash, value) AS (",
    columns: 2,
    after: ") SELECT DISTINCT w.feed, w.lane, w.n, w.run FROM t CROSS JOIN wait w ON w.hash = t.hash
     WHERE w.prefix IS NULL OR substr(CAST(t.value AS BLOB), 1, length(CAST(w.prefix AS BLOB))) = CAST(w.prefix AS BLOB)",
};
const WAKE: Bulk = Bulk {
    before: "UPDATE work SET status = 0, cause = r.column5, due_ms = r.column6 FROM (",
    columns: 6,
    after: ") AS r WHERE work.feed = r.column1 AND work.lane = r.column2 AND work.n = r.column3 AND work.run = r.column4
     AND work.status IN (3, 4)",
};
/// Takes away the waits of rows.
pub(super) const FORGET: Bulk = Bulk { before: "DELETE FROM wait WHERE (feed, lane, n, run) IN (SELECT * FROM (", columns: 4, after: "))" };
// The first row that holds the key back: where it is behind, it is the head now.
const HEADS: Bulk = Bulk {
    before: "WITH r (feed, lane, key_hash) AS (",
    columns: 3,
    after: ") SELECT w.feed, w.lane, w.n, w.run FROM r
     CROSS JOIN work w INDEXED BY work_key ON w.feed = r.feed AND w.lane = r.lane AND w.key_hash = r.key_hash
     WHERE w.status = 8 AND NOT EXISTS (
       SELECT 1 FROM work e INDEXED BY work_key WHERE e.feed = w.feed AND e.lane = w.lane AND e.key_hash = w.key_hash
         AND (e.n, e.run) < (w.n, w.run) AND (e.blocks OR e.status = 8))",
};
const GO_ON: Bulk = Bulk {
    before: "UPDATE work SET status = 0, due_ms = r.column5 FROM (",
    columns: 5,
    after: ") AS r WHERE work.feed = r.column1 AND work.lane = r.column2 AND work.n = r.column3 AND work.run = r.column4",
};
const STILL_BLOCKED: Bulk = Bulk {
    before: "WITH r (feed, lane, key_hash) AS (",
    columns: 3,
    after: ") SELECT r.feed, r.lane, r.key_hash FROM r WHERE EXISTS (
       SELECT 1 FROM work w INDEXED BY work_key WHERE w.feed = r.feed AND w.lane = r.lane AND w.key_hash = r.key_hash AND w.blocks)",
};

// What is older than a handled message of its key, where the feed wants only the newest.
const OLDER: Bulk = Bulk {
    before: "WITH r (feed, lane, key_hash, n) AS (",
    columns: 4,
    after: ") SELECT w.feed, w.lane, w.n, w.run, w.key_hash, w.attempts, w.activation, i.source_partition, i.source_offset,
       w.delivery FROM r
     CROSS JOIN work w INDEXED BY work_key ON w.feed = r.feed AND w.lane = r.lane AND w.key_hash = r.key_hash AND w.n < r.n
     CROSS JOIN inbox i ON i.feed = r.feed AND i.lane = r.lane AND i.n = r.n",
};
const DROP: Bulk = Bulk { before: "DELETE FROM work WHERE (feed, lane, n, run) IN (SELECT * FROM (", columns: 4, after: "))" };

/// What must find its rows by an index.
#[cfg(test)]
pub(super) const INDEXED: &[Bulk] = &[WAKES, WAKE, FORGET, HEADS, GO_ON, STILL_BLOCKED, OLDER, DROP];

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
    let mut places = places_of(&rows)?;
    // Found by several parts of what changed.
    places.sort_unstable();
    places.dedup();
    let woken = WAKE
        .run(connection, &places, |values, place| {
            bind_place(values, place);
            values.add(Cause::Woken.code()).add(now);
        })
        .await?;
    FORGET.run(connection, &places, bind_place).await?;
    Ok(woken as usize)
}

/// Lets the first row that holds a key back go on, if it was behind.
pub(super) async fn release(connection: &mut SqliteConnection, keys: &[BlockedKey], now: i64) -> sqlx::Result<()> {
    let rows = HEADS.fetch(connection, keys, bind_key).await?;
    GO_ON
        .run(connection, &places_of(&rows)?, |values, place| {
            bind_place(values, place);
            values.add(now);
        })
        .await?;
    Ok(())
}

/// Which of these keys have a blocking row.
pub(super) async fn still_blocked(connection: &mut SqliteConnection, keys: &[BlockedKey]) -> sqlx::Result<Vec<BlockedKey>> {
    let rows = STILL_BLOCKED.fetch(connection, keys, bind_key).await?;
    rows.iter().map(|row| Ok(BlockedKey { feed: FeedId(row.try_get(0)?), lane: row.try_get(1)?, key_hash: key_hash(row, 2)? })).collect()
}

/// Takes out what is older than a handled message that drops it, with an outcome each; the keys that lost something.
pub(super) async fn drop_older(
    connection: &mut SqliteConnection,
    settled: &[Settled],
    number: i64,
    now: i64,
) -> sqlx::Result<Vec<BlockedKey>> {
    let mut newest: HashMap<BlockedKey, i64> = HashMap::new();
    for message in settled.iter().filter(|message| message.drops_older) {
        let key = BlockedKey { feed: message.place.feed, lane: message.place.lane, key_hash: message.key_hash };
        let n = newest.entry(key).or_default();
        *n = message.place.n.max(*n);
    }
    let newest: Vec<_> = newest.into_iter().collect();
    let rows = OLDER
        .fetch(connection, &newest, |values, (key, n)| {
            bind_key(values, key);
            values.add(n);
        })
        .await?;
    let places = places_of(&rows)?;
    FORGET.run(connection, &places, bind_place).await?;
    DROP.run(connection, &places, bind_place).await?;
    let mut keys = HashSet::new();
    let mut ends = Vec::with_capacity(rows.len());
    for (row, place) in rows.iter().zip(places) {
        keys.insert(BlockedKey { feed: FeedId(place.0), lane: place.1, key_hash: key_hash(row, 4)? });
        let (partition, offset): (i32, i64) = (row.try_get(7)?, row.try_get(8)?);
        let end = End {
            status: Status::Ignored,
            code: SUPERSEDED.to_owned(),
            reason: superseded_reason(partition, offset),
            attempts: row.try_get(5)?,
            activation: row.try_get(6)?,
            now_ms: now,
        };
        ends.push((place, end, row.try_get::<Option<i64>, _>(9)?));
    }
    END.run(connection, &ends, |values, (place, end, delivery)| {
        bind_place(values, place);
        bind_end(values, end, number, *delivery);
    })
    .await?;
    Ok(keys.into_iter().collect())
}

/// Feed, lane, number and run of a row.
type RowPlace = (i32, i32, i64, i32);

fn places_of(rows: &[SqliteRow]) -> sqlx::Result<Vec<RowPlace>> {
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))).collect()
}

fn bind_place(values: &mut Values, (feed, lane, n, run): &RowPlace) {
    values.add(feed).add(lane).add(n).add(run);
}

fn bind_key(values: &mut Values, key: &BlockedKey) {
    values.add(key.feed.0).add(key.lane).add(&key.key_hash.0[..]);
}
