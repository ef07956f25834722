//! Rows of `work` as a settlement leaves them: removed, written with their waits, and the next row of a key let go.

use std::collections::HashSet;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::rows::key_hash;
use super::text::stored;
use super::{Try, uuid_of};
use crate::message::{FeedId, Status};
use crate::plugin::Cause;
use crate::store::actions::{SUPERSEDED, superseded_reason};
use crate::store::awaited::Awaited;
use crate::store::changes::Changes;
use crate::store::{BlockedKey, Settled, WorkRow};

/// The places of some messages as arrays.
pub(super) struct Places {
    pub(super) feeds: Vec<i32>,
    pub(super) lanes: Vec<i32>,
    pub(super) numbers: Vec<i64>,
    pub(super) runs: Vec<i32>,
}

impl Places {
    pub(super) fn of<'a>(messages: impl Iterator<Item = &'a Settled>) -> Self {
        let mut places = Self { feeds: Vec::new(), lanes: Vec::new(), numbers: Vec::new(), runs: Vec::new() };
        for message in messages {
            places.feeds.push(message.place.feed.0);
            places.lanes.push(message.place.lane);
            places.numbers.push(message.place.n);
            places.runs.push(message.run);
        }
        places
    }
}

/// Takes away the waits of messages that had a row, and the rows of those that are done.
pub(super) async fn remove(connection: &mut PgConnection, settled: &[Settled]) -> Try<()> {
    let known = Places::of(settled.iter().filter(|message| message.had_work));
    if known.feeds.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM wait USING unnest($1::int[], $2::int[], $3::bigint[], $4::int[]) r(feed, lane, n, run)
         WHERE wait.feed = r.feed AND wait.lane = r.lane AND wait.n = r.n AND wait.run = r.run",
    )
    .bind(known.feeds)
    .bind(known.lanes)
    .bind(known.numbers)
    .bind(known.runs)
    .execute(&mut *connection)
    .await?;
    let done = Places::of(settled.iter().filter(|message| message.had_work && message.work.is_none()));
    if done.feeds.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM work USING unnest($1::int[], $2::int[], $3::bigint[], $4::int[]) r(feed, lane, n, run)
         WHERE work.feed = r.feed AND work.lane = r.lane AND work.n = r.n AND work.run = r.run",
    )
    .bind(done.feeds)
    .bind(done.lanes)
    .bind(done.numbers)
    .bind(done.runs)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes the rows that stay; one that waits for what a later message of this settlement changed is due at once. Returns how many are.
pub(super) async fn store(
    connection: &mut PgConnection,
    number: i64,
    now_ms: i64,
    settled: &[Settled],
    changes: &Changes<'_>,
) -> Try<usize> {
    let rows: Vec<(&WorkRow, bool)> = settled
        .iter()
        .enumerate()
        .filter_map(|(index, message)| message.work.as_ref().map(|row| (row, changes.wakes(index, message))))
        .collect();
    if rows.is_empty() {
        return Ok(0);
    }
    sqlx::query(
        "INSERT INTO work (feed, lane, n, run, attempts, key_hash, status, cause, blocks, due_ms, waiting_since_ms, activation, settlement,
           pinned, code, reason, delivery)
         SELECT feed, lane, n, run, attempts, key_hash, status, cause, blocks, due_ms, waiting_since_ms, activation, $1, pinned, code, reason,
           delivery
         FROM unnest($2::int[], $3::int[], $4::bigint[], $5::int[], $6::int[], $7::uuid[], $8::smallint[], $9::smallint[], $10::boolean[],
           $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::text[],
           $17::bigint[])
           r(feed, lane, n, run, attempts, key_hash, status, cause, blocks, due_ms, waiting_since_ms, activation, pinned, code, reason,
             delivery)
         ON CONFLICT (feed, lane, n, run) DO UPDATE SET attempts = excluded.attempts, status = excluded.status, cause = excluded.cause,
           blocks = excluded.blocks, due_ms = excluded.due_ms, waiting_since_ms = excluded.waiting_since_ms,
           activation = excluded.activation, settlement = excluded.settlement, pinned = excluded.pinned, code = excluded.code,
           reason = excluded.reason",
    )
    .bind(number)
    .bind(rows.iter().map(|(row, _)| row.place.feed.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.place.lane).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.place.n).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.run).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.attempts).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| uuid_of(row.key_hash)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, woken)| if *woken { Status::Pending.code() } else { row.status.code() }).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, woken)| if *woken { Cause::Woken.code() } else { row.cause.code() }).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.blocks).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, woken)| if *woken { Some(now_ms) } else { row.due_ms }).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.waiting_since_ms).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.activation).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.pinned).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| stored(&row.code)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| stored(&row.reason)).collect::<Vec<_>>())
    .bind(settled.iter().filter(|message| message.work.is_some()).map(|message| message.delivery).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    store_waits(connection, rows.iter().filter(|(_, woken)| !woken).map(|(row, _)| *row)).await?;
    Ok(rows.iter().filter(|(_, woken)| *woken).count())
}

async fn store_waits(connection: &mut PgConnection, rows: impl Iterator<Item = &WorkRow>) -> Try<()> {
    let mut waits = Vec::new();
    for row in rows {
        for (ordinal, request) in (0_i32..).zip(&row.waits) {
            if let Some(awaited) = Awaited::of(request) {
                waits.push((row, ordinal, awaited, request));
            }
        }
    }
    if waits.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO wait (feed, lane, n, run, ordinal, hash, prefix, request)
         SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::int[], $5::int[], $6::uuid[], $7::text[], $8::text[])",
    )
    .bind(waits.iter().map(|(row, ..)| row.place.feed.0).collect::<Vec<_>>())
    .bind(waits.iter().map(|(row, ..)| row.place.lane).collect::<Vec<_>>())
    .bind(waits.iter().map(|(row, ..)| row.place.n).collect::<Vec<_>>())
    .bind(waits.iter().map(|(row, ..)| row.run).collect::<Vec<_>>())
    .bind(waits.iter().map(|(_, ordinal, ..)| *ordinal).collect::<Vec<_>>())
    .bind(waits.iter().map(|(_, _, awaited, _)| uuid_of(awaited.hash)).collect::<Vec<_>>())
    .bind(waits.iter().map(|(_, _, awaited, _)| awaited.prefix.as_deref().map(stored)).collect::<Vec<_>>())
    .bind(waits.iter().map(|(.., request)| serde_json::to_string(request).expect("a request is JSON")).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes out what is older than a handled message of its key, where the feed wants only the newest; returns the keys that lost something.
pub(super) async fn drop_older(connection: &mut PgConnection, number: i64, now_ms: i64, settled: &[Settled]) -> Try<Vec<BlockedKey>> {
    let newer: Vec<_> = settled.iter().filter(|message| message.drops_older).collect();
    if newer.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "WITH newer AS MATERIALIZED (SELECT feed, lane, key_hash, max(n) AS n
             FROM unnest($3::int[], $4::int[], $5::uuid[], $6::bigint[]) r(feed, lane, key_hash, n) GROUP BY feed, lane, key_hash),
           gone AS (DELETE FROM work w USING newer m
             WHERE w.feed = m.feed AND w.lane = m.lane AND w.key_hash = m.key_hash AND w.n < m.n
             RETURNING w.feed, w.lane, w.n, w.run, w.attempts, w.activation, w.key_hash, w.delivery, m.n AS newer),
           quiet AS (DELETE FROM wait x USING gone g WHERE x.feed = g.feed AND x.lane = g.lane AND x.n = g.n AND x.run = g.run),
           ended AS (INSERT INTO outcome (feed, lane, n, run, attempts, settlement, activation, now_ms, status, code, reason, delivery)
             SELECT g.feed, g.lane, g.n, g.run, g.attempts, $1, g.activation, $2, $7, $8, format($9, i.source_partition, i.source_offset),
               g.delivery
             FROM gone g JOIN inbox i ON i.feed = g.feed AND i.lane = g.lane AND i.n = g.newer
             ON CONFLICT (feed, lane, n, run) DO UPDATE SET attempts = excluded.attempts, settlement = excluded.settlement,
               activation = excluded.activation, now_ms = excluded.now_ms, status = excluded.status, code = excluded.code,
               reason = excluded.reason)
         SELECT DISTINCT feed, lane, key_hash FROM gone",
    )
    .bind(number)
    .bind(now_ms)
    .bind(newer.iter().map(|message| message.place.feed.0).collect::<Vec<_>>())
    .bind(newer.iter().map(|message| message.place.lane).collect::<Vec<_>>())
    .bind(newer.iter().map(|message| uuid_of(message.key_hash)).collect::<Vec<_>>())
    .bind(newer.iter().map(|message| message.place.n).collect::<Vec<_>>())
    .bind(Status::Ignored.code())
    .bind(SUPERSEDED)
    .bind(superseded_reason("%s", "%s"))
    .fetch_all(connection)
    .await?;
    rows.iter().map(blocked_key).collect()
}

fn blocked_key(row: &PgRow) -> Try<BlockedKey> {
    Ok(BlockedKey { feed: FeedId(row.try_get(0)?), lane: row.try_get(1)?, key_hash: key_hash(row.try_get(2)?) })
}

/// Lets go the head of each key that is only behind, and tells which keys that a blocking row left are blocked all the same.
///
/// Every key that this settlement touched in `work` is looked at, so that no head is ever left behind nothing.
pub(super) async fn release(
    connection: &mut PgConnection,
    now_ms: i64,
    settled: &[Settled],
    dropped: &[BlockedKey],
) -> Try<Vec<BlockedKey>> {
    let key = |message: &Settled| BlockedKey { feed: message.place.feed, lane: message.place.lane, key_hash: message.key_hash };
    let mut looked: HashSet<BlockedKey> = settled.iter().filter(|message| message.had_work || message.work.is_some()).map(key).collect();
    looked.extend(dropped);
    if looked.is_empty() {
        return Ok(Vec::new());
    }
    let left = |message: &&Settled| message.had_work && message.work.as_ref().is_none_or(|row| !row.blocks);
    let mut left: HashSet<BlockedKey> = settled.iter().filter(left).map(key).collect();
    left.extend(dropped);
    let rows = sqlx::query(
        "WITH head AS MATERIALIZED (SELECT k.feed, k.lane, k.key_hash, h.n, h.run, h.status, h.blocks
           FROM unnest($1::int[], $2::int[], $3::uuid[]) k(feed, lane, key_hash)
           CROSS JOIN LATERAL (SELECT w.n, w.run, w.status, w.blocks FROM work w
             WHERE w.feed = k.feed AND w.lane = k.lane AND w.key_hash = k.key_hash AND (w.blocks OR w.status = 8)
             ORDER BY w.n, w.run LIMIT 1) h),
           released AS (UPDATE work SET status = 0, due_ms = $4 FROM head h
             WHERE work.feed = h.feed AND work.lane = h.lane AND work.n = h.n AND work.run = h.run AND h.status = 8)
         SELECT h.feed, h.lane, h.key_hash FROM head h
         WHERE h.blocks OR EXISTS (SELECT 1 FROM work w WHERE w.feed = h.feed AND w.lane = h.lane AND w.key_hash = h.key_hash AND w.blocks)",
    )
    .bind(looked.iter().map(|key| key.feed.0).collect::<Vec<_>>())
    .bind(looked.iter().map(|key| key.lane).collect::<Vec<_>>())
    .bind(looked.iter().map(|key| uuid_of(key.key_hash)).collect::<Vec<_>>())
    .bind(now_ms)
    .fetch_all(connection)
    .await?;
    let mut blocked = Vec::new();
    for row in rows {
        let key = blocked_key(&row)?;
        if left.contains(&key) {
            blocked.push(key);
        }
    }
    Ok(blocked)
}
