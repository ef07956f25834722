//! Messages on their way out: outputs in the order of settlements, one cursor a target, and what a sink refused for good.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use super::rows::bytes;
use super::text::stored;
use super::{Postgres, Try, retried};
use crate::message::{FeedId, Place};
use crate::plugin::{Action, Digest};
use crate::store::{Error, OutputCursor, OutputRow, Outputs, Parked, Result, event_id, headers};

/// The columns that [`output_row`] reads: `s.number`, `output o`, `feed f`, `activation a`.
macro_rules! output_columns {
    () => {
        "s.number, o.position, o.message, o.run, o.ordinal, o.feed, o.lane, o.n, f.name, a.digest, o.action, o.key, o.payload, o.headers, \
         o.version"
    };
}
pub(super) use output_columns;

/// The places and sizes of outputs after a cursor, in order, at most so many.
macro_rules! reach {
    () => {
        "WITH looked AS MATERIALIZED (SELECT number, batch FROM settlement WHERE number >= $2 ORDER BY number LIMIT $5),
           found AS MATERIALIZED (SELECT l.number, o.position, o.size FROM looked l CROSS JOIN LATERAL (
             SELECT x.position, x.size FROM output x WHERE x.target = $1 AND x.batch = l.batch AND (l.number > $2 OR x.position > $3)
             ORDER BY x.position LIMIT $4) o ORDER BY l.number, o.position LIMIT $4)"
    };
}

/// Settlements looked at in one read: none of them need have an output for the target.
const SETTLEMENTS_MAX: i64 = 10_000;

pub(super) fn output_row(row: &PgRow) -> Try<OutputRow> {
    let (run, action): (i32, i16) = (row.try_get_unchecked(3)?, row.try_get_unchecked(10)?);
    let digest = match row.try_get_unchecked::<Option<Vec<u8>>, _>(9)? {
        None => None,
        Some(digest) => Some(Digest(digest.try_into().map_err(|_| Error::Corrupt("a digest is not 32 bytes".to_owned()))?)),
    };
    Ok(OutputRow {
        cursor: OutputCursor { settlement: row.try_get_unchecked(0)?, index: row.try_get_unchecked(1)? },
        event_id: event_id(row.try_get_unchecked(2)?, run, row.try_get_unchecked(4)?),
        place: Place { feed: FeedId(row.try_get_unchecked(5)?), lane: row.try_get_unchecked(6)?, n: row.try_get_unchecked(7)? },
        feed: row.try_get_unchecked(8)?,
        digest,
        action: action_of(action)?,
        key: bytes(row, 11)?,
        payload: bytes(row, 12)?,
        headers: headers::decode(bytes(row, 13)?)?,
        version: row.try_get_unchecked::<Option<i64>, _>(14)?.map(i64::cast_unsigned),
    })
}

fn action_of(code: i16) -> Try<Action> {
    let known = [Action::Put, Action::Merge, Action::Delete].into_iter().find(|action| *action as i16 == code);
    Ok(known.ok_or_else(|| Error::Corrupt(format!("an output has the action {code}")))?)
}

impl Postgres {
    async fn outputs_once(&self, target: &str, after: OutputCursor, rows_max: i64, bytes_max: i64) -> Try<(Vec<OutputRow>, i64)> {
        let Some(target) = self.target_ids(&[target]).await?.remove(target) else { return Ok((Vec::new(), after.settlement)) };
        let mut connection = self.pool().await?.acquire().await?;
        // How far the rows reach, and their bytes; then, if these are too many, the sizes one by one; then the rows.
        let row = sqlx::query(concat!(
            reach!(),
            " SELECT count(*), sum(size), max(number), (SELECT max(number) FROM looked),
               (SELECT position FROM found ORDER BY number DESC, position DESC LIMIT 1) FROM found"
        ))
        .bind(target)
        .bind(after.settlement)
        .bind(after.index)
        .bind(rows_max)
        .bind(SETTLEMENTS_MAX)
        .fetch_one(&mut *connection)
        .await?;
        let looked = row.try_get::<Option<i64>, _>(3)?.unwrap_or(after.settlement);
        let (count, Some(bytes), Some(settlement), Some(index)): (i64, Option<i64>, Option<i64>, Option<i32>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(4)?)
        else {
            return Ok((Vec::new(), looked));
        };
        let whole = OutputCursor { settlement, index };
        let last = if bytes > bytes_max { cut(&mut connection, target, after, rows_max, bytes_max).await? } else { whole };
        let outputs = read(&mut connection, target, after, last).await?;
        let reach = if last == whole && count < rows_max { looked } else { last.settlement };
        Ok((outputs, reach))
    }

    async fn published_once(&self, target: &str, epoch: i64, cursor: OutputCursor, parked: &[Parked]) -> Try<bool> {
        let Some(target) = self.target_ids(&[target]).await?.remove(target) else { return Ok(false) };
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        let moved = sqlx::query(
            "UPDATE target_cursor SET settlement = $3, position = $4
             WHERE target = $1 AND epoch = $2 AND owner IS NOT NULL AND (settlement, position) <= ($3, $4)",
        )
        .bind(target)
        .bind(epoch)
        .bind(cursor.settlement)
        .bind(cursor.index)
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        if !parked.is_empty() {
            sqlx::query(
                "INSERT INTO parked_output (target, settlement, position, n, feed, lane, run, at_ms, key, reason)
                 SELECT $1, p.settlement, p.position, o.n, o.feed, o.lane, o.run,
                   coalesce($2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), o.key, p.reason
                 FROM unnest($3::bigint[], $4::int[], $5::text[]) p(settlement, position, reason)
                 JOIN settlement s ON s.number = p.settlement
                 JOIN output o ON o.target = $1 AND o.batch = s.batch AND o.position = p.position
                 ON CONFLICT (target, settlement, position) DO UPDATE SET reason = excluded.reason",
            )
            .bind(target)
            .bind(self.clock.fixed_ms())
            .bind(parked.iter().map(|parked| parked.cursor.settlement).collect::<Vec<_>>())
            .bind(parked.iter().map(|parked| parked.cursor.index).collect::<Vec<_>>())
            .bind(parked.iter().map(|parked| stored(&parked.reason)).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
        }
        super::commit(transaction, "move the target's cursor").await?;
        Ok(true)
    }

    async fn parked_keys_once(&self, target: &str) -> Try<Vec<Option<Bytes>>> {
        let rows: Vec<(Option<Vec<u8>>,)> = sqlx::query_as(
            "SELECT DISTINCT p.key FROM parked_output p JOIN target t ON t.id = p.target WHERE t.name = $1 ORDER BY p.key NULLS FIRST",
        )
        .bind(target)
        .fetch_all(self.pool().await?)
        .await?;
        Ok(rows.into_iter().map(|(key,)| key.map(Bytes::from)).collect())
    }
}

/// The last output with which the bytes are full, or passed.
async fn cut(connection: &mut PgConnection, target: i32, after: OutputCursor, rows_max: i64, bytes_max: i64) -> Try<OutputCursor> {
    let sizes: Vec<(i64, i32, i32)> =
        sqlx::query_as(concat!(reach!(), " SELECT number, position, size FROM found ORDER BY number, position"))
            .bind(target)
            .bind(after.settlement)
            .bind(after.index)
            .bind(rows_max)
            .bind(SETTLEMENTS_MAX)
            .fetch_all(connection)
            .await?;
    let (mut last, mut bytes) = (after, 0_i64);
    for (settlement, index, size) in sizes {
        if bytes >= bytes_max.max(1) {
            break;
        }
        bytes = bytes.saturating_add(size.into());
        last = OutputCursor { settlement, index };
    }
    Ok(last)
}

/// The outputs of a target after one cursor up to another, in order.
async fn read(connection: &mut PgConnection, target: i32, after: OutputCursor, last: OutputCursor) -> Try<Vec<OutputRow>> {
    let mut rows = sqlx::query(concat!(
        "SELECT ",
        output_columns!(),
        " FROM (SELECT number, batch FROM settlement WHERE number BETWEEN $2 AND $4 ORDER BY number) s CROSS JOIN LATERAL (
           SELECT * FROM output x WHERE x.target = $1 AND x.batch = s.batch
             AND (s.number > $2 OR x.position > $3) AND (s.number < $4 OR x.position <= $5) ORDER BY x.position) o
         LEFT JOIN feed f ON f.id = o.feed LEFT JOIN activation a ON a.id = o.activation ORDER BY s.number, o.position"
    ))
    .bind(target)
    .bind(after.settlement)
    .bind(after.index)
    .bind(last.settlement)
    .bind(last.index)
    .fetch(connection);
    let mut outputs = Vec::new();
    while let Some(row) = rows.try_next().await? {
        outputs.push(output_row(&row)?);
    }
    Ok(outputs)
}

#[async_trait]
impl Outputs for Postgres {
    async fn outputs(&self, target: &str, after: OutputCursor, rows_max: i64, bytes_max: i64) -> Result<(Vec<OutputRow>, i64)> {
        retried!(self, "read outputs", self.outputs_once(target, after, rows_max, bytes_max))
    }

    async fn published(&self, target: &str, epoch: i64, cursor: OutputCursor, parked: &[Parked]) -> Result<bool> {
        retried!(self, "move the target's cursor", self.published_once(target, epoch, cursor, parked))
    }

    async fn parked_keys(&self, target: &str) -> Result<Vec<Option<Bytes>>> {
        retried!(self, "read parked keys", self.parked_keys_once(target))
    }
}
