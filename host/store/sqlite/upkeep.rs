//! Upkeep of one file: messages go in pieces, in the order in which they came; what is still needed of a piece is marked and stays; space is
//! given back. One connection writes, so pieces are small and nothing can become needed while it is looked at.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{Sqlite, duties};
use crate::store::Result;
use crate::store::upkeep::{Retention, Step, Turn, Upkeep, open_deliveries};

/// Settlements of one target whose outputs are looked at in one step.
const SETTLEMENTS: i64 = 50;
/// Pages given back in one step.
const PAGES: i64 = 1_000;
/// A file keeps one free page of so many for what comes next.
const FREE_SHARE: i64 = 10;

/// Whether a row of the inbox `i` must stay. ?1: now; ?2: statuses kept longer, JSON pairs of code and time; ?3: the states in which a delivery
/// needs its parts, JSON.
const NEEDED: &str = "(
    i.n > (SELECT l.cursor FROM lane l WHERE l.feed = i.feed AND l.lane = i.lane)
    OR EXISTS (SELECT 1 FROM work w WHERE w.feed = i.feed AND w.lane = i.lane AND w.n = i.n)
    OR EXISTS (SELECT 1 FROM action a WHERE a.feed = i.feed AND a.lane = i.lane AND a.n = i.n AND a.result IS NULL)
    OR EXISTS (SELECT 1 FROM parked_output p WHERE p.feed = i.feed AND p.lane = i.lane AND p.n = i.n)
    OR EXISTS (SELECT 1 FROM delivery d WHERE d.number = i.delivery AND (d.release OR d.state IN (SELECT value FROM json_each(?3))))
    OR EXISTS (SELECT 1 FROM json_each(?2) s WHERE i.received_ms >= ?1 - json_extract(s.value, '$[1]') AND json_extract(s.value, '$[0]') = (
      SELECT o.status FROM outcome o WHERE o.feed = i.feed AND o.lane = i.lane AND o.n = i.n ORDER BY o.run DESC LIMIT 1)))";

/// A kept message whose key has a later handled one among what is dropped would not know of it any more.
const SUPERSEDED: &str = "
    UPDATE inbox SET newer = m.n FROM (
      SELECT x.feed, x.lane, x.key_hash, max(x.n) AS n FROM inbox x WHERE x.rowid BETWEEN ?1 AND ?2 AND x.part IS NULL
        AND coalesce((SELECT o.status FROM outcome o WHERE o.feed = x.feed AND o.lane = x.lane AND o.n = x.n ORDER BY o.run DESC LIMIT 1), 1) = 1
      GROUP BY x.feed, x.lane, x.key_hash) AS m
    WHERE inbox.part = 0 AND inbox.feed = m.feed AND inbox.lane = m.lane AND inbox.key_hash = m.key_hash AND inbox.n < m.n
      AND coalesce(inbox.newer, 0) < m.n";

/// The books of what is dropped now: the rows of the inbox `x` that `WHICH` names.
const BOOKS: [&str; 3] = [
    "INSERT INTO lane_floor (feed, lane, floor, dropped) SELECT x.feed, x.lane, max(x.n), count(*) FROM inbox x WHERE WHICH GROUP BY x.feed, x.lane
     ON CONFLICT DO UPDATE SET floor = max(floor, excluded.floor), dropped = dropped + excluded.dropped",
    "INSERT INTO partition_floor (feed, source_partition, dropped) SELECT x.feed, x.source_partition, count(*) FROM inbox x WHERE WHICH
     GROUP BY x.feed, x.source_partition ON CONFLICT DO UPDATE SET dropped = dropped + excluded.dropped",
    "UPDATE dropped SET rows = rows + (SELECT count(*) FROM inbox x WHERE WHICH),
       until_ms = max(until_ms, coalesce((SELECT max(x.received_ms) + 1 FROM inbox x WHERE WHICH), 0)) WHERE what = 'message'",
];
const DROP: &str = "DELETE FROM inbox AS x WHERE WHICH";

/// Messages that are dropped and still have an end.
const ENDED: &str = "
    SELECT DISTINCT o.feed, o.lane, o.n, o.delivery FROM lane_floor f
    CROSS JOIN outcome o ON o.feed = f.feed AND o.lane = f.lane AND o.n <= f.floor
    WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = o.feed AND i.lane = o.lane AND i.n = o.n) LIMIT ?1";

/// The rest of what tells of dropped messages.
const TRACES: [&str; 3] = [
    "DELETE FROM answers WHERE (feed, lane, n, run) IN (SELECT x.feed, x.lane, x.n, x.run FROM lane_floor f
       CROSS JOIN answers x ON x.feed = f.feed AND x.lane = f.lane AND x.n <= f.floor
       WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = x.feed AND i.lane = x.lane AND i.n = x.n) LIMIT ?1)",
    "DELETE FROM action WHERE id IN (SELECT x.id FROM lane_floor f
       CROSS JOIN action x ON x.feed = f.feed AND x.lane = f.lane AND x.n <= f.floor AND x.result IS NOT NULL
       WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = x.feed AND i.lane = x.lane AND i.n = x.n) LIMIT ?1)",
    "DELETE FROM settled_range WHERE (feed, lane, to_n, settlement, from_n, now_ms) IN (
       SELECT x.feed, x.lane, x.to_n, x.settlement, x.from_n, x.now_ms FROM lane_floor f
       CROSS JOIN settled_range x ON x.feed = f.feed AND x.lane = f.lane AND x.to_n <= f.floor
       WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = x.feed AND i.lane = x.lane AND i.n BETWEEN x.from_n AND x.to_n) LIMIT ?1)",
];

/// Settlements older than the messages that are left, without outputs; the newest stays, and those that kept messages were settled at.
const SETTLED: &str = "
    DELETE FROM settlement WHERE number IN (SELECT s.number FROM settlement s
      WHERE s.at_ms < (SELECT until_ms FROM dropped WHERE what = 'message') AND s.number < (SELECT max(number) FROM settlement)
        AND NOT EXISTS (SELECT 1 FROM target t CROSS JOIN output o ON o.target = t.id AND o.batch = s.batch)
        AND s.number NOT IN (SELECT settlement FROM work UNION SELECT o.settlement FROM inbox k
          CROSS JOIN outcome o ON o.feed = k.feed AND o.lane = k.lane AND o.n = k.n WHERE k.part = 0)
      ORDER BY s.number LIMIT ?)";

/// What decides over a row: statuses that are kept longer, and the states of deliveries, as JSON.
fn conditions(retention: &Retention) -> (String, String) {
    let (codes, times) = retention.statuses();
    let pairs: Vec<(i16, i64)> = codes.into_iter().zip(times).collect();
    let json = |value: serde_json::Result<String>| value.expect("numbers are JSON");
    (json(serde_json::to_string(&pairs)), json(serde_json::to_string(&open_deliveries())))
}

/// Drops the rows that a condition names, with its two values; how many.
async fn drop_rows(connection: &mut SqliteConnection, which: &str, values: (i64, &str, &str, i64)) -> sqlx::Result<i64> {
    let mut dropped = 0;
    for text in BOOKS.into_iter().chain([DROP]) {
        let text = sqlx::AssertSqlSafe(text.replace("WHICH", which));
        let done = sqlx::query(text).bind(values.0).bind(values.1).bind(values.2).bind(values.3).execute(&mut *connection).await?;
        dropped = done.rows_affected();
    }
    crate::faults::point("drop messages", "dropped").await?;
    Ok(dropped.cast_signed())
}

/// One piece of the inbox, in the order in which rows came.
async fn sweep(connection: &mut SqliteConnection, retention: &Retention, now: i64) -> sqlx::Result<Option<Step>> {
    let before_ms = now - retention.payload_ms;
    let swept: i64 = sqlx::query_scalar("SELECT swept FROM dropped WHERE what = 'message'").fetch_one(&mut *connection).await?;
    let rows: Vec<(i64, i64)> = sqlx::query_as("SELECT rowid, received_ms FROM inbox WHERE rowid > ? ORDER BY rowid LIMIT ?")
        .bind(swept)
        .bind(retention.rows_max)
        .fetch_all(&mut *connection)
        .await?;
    let old = rows.iter().take_while(|(_, received_ms)| *received_ms < before_ms);
    let Some(last) = old.map(|(row, _)| *row).last() else { return Ok(None) };
    let (statuses, states) = conditions(retention);
    let kept =
        sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE inbox AS i SET part = 0 WHERE i.rowid > ?4 AND i.rowid <= ?5 AND {NEEDED}")))
            .bind(now)
            .bind(&statuses)
            .bind(&states)
            .bind(swept)
            .bind(last)
            .execute(&mut *connection)
            .await?
            .rows_affected();
    sqlx::query(SUPERSEDED).bind(swept + 1).bind(last).execute(&mut *connection).await?;
    let dropped = drop_rows(connection, "x.rowid > ?1 AND x.rowid <= ?4 AND x.part IS NULL", (swept, "", "", last)).await?;
    // A number of a row that was the last is given again, so the mark never stands above what is left.
    sqlx::query("UPDATE dropped SET swept = min(?, coalesce((SELECT max(rowid) FROM inbox), 0)) WHERE what = 'message'")
        .bind(last)
        .execute(connection)
        .await?;
    Ok(Some(Step { dropped, kept: kept.cast_signed(), more: true, ..Step::default() }))
}

/// Rows that were kept and are not needed any more.
async fn release(connection: &mut SqliteConnection, retention: &Retention, now: i64) -> sqlx::Result<Step> {
    let (statuses, states) = conditions(retention);
    let before_ms = now - retention.payload_ms;
    let (limit, payload_ms) = (retention.rows_max, retention.payload_ms);
    let some =
        format!("SELECT i.rowid FROM inbox i WHERE i.part = 0 AND i.received_ms < ?1 - ?4 AND NOT {NEEDED} ORDER BY i.rowid LIMIT {limit}");
    let there = format!("SELECT count(*) FROM inbox i WHERE i.part = 0 AND i.received_ms < {before_ms} AND NOT {NEEDED}");
    let waiting: i64 =
        sqlx::query_scalar(sqlx::AssertSqlSafe(there)).bind(now).bind(&statuses).bind(&states).fetch_one(&mut *connection).await?;
    if waiting == 0 {
        return Ok(Step::default());
    }
    let dropped = drop_rows(connection, &format!("x.rowid IN ({some})"), (now, &statuses, &states, payload_ms)).await?;
    Ok(Step { dropped, more: waiting > dropped, ..Step::default() })
}

async fn prune_outputs(connection: &mut SqliteConnection, retention: &Retention, now: i64) -> sqlx::Result<Step> {
    let (mut pruned, mut more) = (0, false);
    let targets: Vec<(i32, i64, i64)> = sqlx::query_as(
        "SELECT c.target, coalesce(f.floor, 0), c.settlement FROM target_cursor c LEFT JOIN target_floor f ON f.target = c.target",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (target, floor, cursor) in targets {
        let upto: Option<i64> = sqlx::query_scalar(
            "SELECT max(number) FROM (SELECT number FROM settlement WHERE number > ? AND number < ? AND at_ms < ? ORDER BY number LIMIT ?)",
        )
        .bind(floor)
        .bind(cursor)
        .bind(now - retention.outputs_ms)
        .bind(SETTLEMENTS)
        .fetch_one(&mut *connection)
        .await?;
        let Some(upto) = upto else { continue };
        let gone = sqlx::query(
            "DELETE FROM output WHERE (target, batch, position) IN (SELECT o.target, o.batch, o.position FROM settlement s
               CROSS JOIN output o ON o.target = ?1 AND o.batch = s.batch WHERE s.number > ?2 AND s.number <= ?3
                 AND NOT EXISTS (SELECT 1 FROM parked_output p WHERE p.target = o.target AND p.settlement = s.number AND p.position = o.position))",
        )
        .bind(target)
        .bind(floor)
        .bind(upto)
        .execute(&mut *connection)
        .await?
        .rows_affected()
        .cast_signed();
        sqlx::query("INSERT INTO target_floor (target, floor) VALUES (?, ?) ON CONFLICT DO UPDATE SET floor = excluded.floor")
            .bind(target)
            .bind(upto)
            .execute(&mut *connection)
            .await?;
        count(connection, "output", gone).await?;
        (pruned, more) = (pruned + gone, true);
    }
    let gone = sqlx::query(SETTLED).bind(retention.rows_max).execute(&mut *connection).await?.rows_affected().cast_signed();
    count(connection, "settlement", gone).await?;
    Ok(Step { pruned: pruned + gone, more: more || gone >= retention.rows_max, ..Step::default() })
}

async fn count(connection: &mut SqliteConnection, what: &str, rows: i64) -> sqlx::Result<()> {
    if rows > 0 {
        sqlx::query("UPDATE dropped SET rows = rows + ? WHERE what = ?").bind(rows).bind(what).execute(connection).await?;
    }
    Ok(())
}

async fn prune_provenance(connection: &mut SqliteConnection, rows_max: i64) -> sqlx::Result<Step> {
    let ended: Vec<(i32, i32, i64, Option<i64>)> = sqlx::query_as(ENDED).bind(rows_max).fetch_all(&mut *connection).await?;
    let ends = i64::try_from(ended.len()).unwrap_or(i64::MAX);
    for (feed, lane, n, delivery) in ended {
        // All runs of a message go together, and its delivery counts it once.
        sqlx::query("DELETE FROM outcome WHERE feed = ? AND lane = ? AND n = ?")
            .bind(feed)
            .bind(lane)
            .bind(n)
            .execute(&mut *connection)
            .await?;
        if let Some(delivery) = delivery {
            sqlx::query("UPDATE delivery SET dropped = dropped + 1 WHERE number = ?").bind(delivery).execute(&mut *connection).await?;
        }
    }
    let (mut pruned, mut more) = (ends, ends >= rows_max);
    for sql in TRACES {
        let gone = sqlx::query(sql).bind(rows_max).execute(&mut *connection).await?.rows_affected().cast_signed();
        (pruned, more) = (pruned + gone, more || gone >= rows_max);
    }
    Ok(Step { pruned, more, ..Step::default() })
}

/// Gives back pages, but for some that the next messages fill anyway.
async fn compact(connection: &mut SqliteConnection) -> sqlx::Result<Step> {
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *connection).await?;
    let all: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await?;
    let spare = free - all / FREE_SHARE;
    if spare <= 0 {
        return Ok(Step::default());
    }
    let pages = spare.min(PAGES);
    // Each row that it gives is a page.
    sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({pages})"))).fetch_all(&mut *connection).await?;
    let left: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(connection).await?;
    let given = free - left;
    Ok(Step { pruned: given, more: given > 0 && spare > pages, ..Step::default() })
}

/// Runs a step under its turn.
macro_rules! step {
    ($store:expr, $verb:literal, $turn:expr, |$transaction:ident, $now:ident| $step:expr) => {{
        let mut transaction = $store.write($verb).await?;
        let $now = $store.now();
        if !duties::hold(&mut transaction, $turn, $now).await.map_err($store.failed($verb))? {
            return Ok(None);
        }
        let $transaction = &mut *transaction;
        let step: Step = $step.await.map_err($store.failed($verb))?;
        $store.commit(transaction, step.called($verb)).await?;
        Ok(Some(step))
    }};
}

#[async_trait]
impl Upkeep for Sqlite {
    async fn begin_part(&self, turn: &Turn, _part_ms: i64) -> Result<Option<Step>> {
        step!(self, "begin a part", turn, |_transaction, _now| async { Ok::<_, sqlx::Error>(Step::default()) })
    }

    async fn drop_messages(&self, turn: &Turn, retention: &Retention) -> Result<Option<Step>> {
        step!(self, "drop messages", turn, |transaction, now| async {
            let swept = sweep(transaction, retention, now).await?;
            match swept {
                Some(step) => Ok(step),
                None => release(transaction, retention, now).await,
            }
        })
    }

    async fn prune_outputs(&self, turn: &Turn, retention: &Retention) -> Result<Option<Step>> {
        step!(self, "prune outputs", turn, |transaction, now| prune_outputs(transaction, retention, now))
    }

    async fn prune_provenance(&self, turn: &Turn, rows_max: i64) -> Result<Option<Step>> {
        step!(self, "prune provenance", turn, |transaction, _now| prune_provenance(transaction, rows_max))
    }

    async fn compact(&self, turn: &Turn) -> Result<Option<Step>> {
        step!(self, "give back space", turn, |transaction, _now| compact(transaction))
    }

    async fn dropped_until(&self) -> Result<Option<i64>> {
        self.fault("ask what is dropped", "begin").await?;
        sqlx::query_scalar("SELECT until_ms FROM dropped WHERE what = 'message' AND until_ms > 0")
            .fetch_optional(&self.readers)
            .await
            .map_err(self.failed("ask what is dropped"))
    }
}
