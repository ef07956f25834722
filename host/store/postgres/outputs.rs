//! Messages on their way out: outputs in the order of settlements, one cursor a target, and what a sink refused for good.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::PgRow;
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

/// Settlements looked at in one read: none of them need have an output for the target.
const SETTLEMENTS_MAX: i64 = 10_000;

pub(super) fn output_row(row: &PgRow) -> Try<OutputRow> {
    let (run, action): (i32, i16) = (row.try_get(3)?, row.try_get(10)?);
    let digest = match row.try_get::<Option<Vec<u8>>, _>(9)? {
        None => None,
        Some(digest) => Some(Digest(digest.try_into().map_err(|_| Error::Corrupt("a digest is not 32 bytes".to_owned()))?)),
    };
    Ok(OutputRow {
        cursor: OutputCursor { settlement: row.try_get(0)?, index: row.try_get(1)? },
        event_id: event_id(row.try_get(2)?, run, row.try_get(4)?),
        place: Place { feed: FeedId(row.try_get(5)?), lane: row.try_get(6)?, n: row.try_get(7)? },
        feed: row.try_get(8)?,
        digest,
        action: action_of(action)?,
        key: bytes(row, 11)?,
        payload: bytes(row, 12)?,
        headers: headers::decode(bytes(row, 13)?)?,
        version: row.try_get::<Option<i64>, _>(14)?.map(i64::cast_unsigned),
    })
}

fn action_of(code: i16) -> Try<Action> {
    let known = [Action::Put, Action::Merge, Action::Delete].into_iter().find(|action| *action as i16 == code);
    Ok(known.ok_or_else(|| Error::Corrupt(format!("an output has the action {code}")))?)
}

impl Postgres {
    async fn outputs_once(&self, target: &str, after: OutputCursor, rows_max: i64, bytes_max: i64) -> Try<(Vec<OutputRow>, i64)> {
        let Some(target) = self.target_ids(&[target]).await?.remove(target) else { return Ok((Vec::new(), after.settlement)) };
        // Places and sizes first, cut by rows and bytes, then the rows that remain. The last row says how far was looked.
        let rows = sqlx::query(concat!(
            "WITH looked AS MATERIALIZED (SELECT number, batch FROM settlement WHERE number >= $2 ORDER BY number LIMIT $6),
               found AS MATERIALIZED (SELECT l.number, l.batch, o.position, o.size FROM looked l CROSS JOIN LATERAL (
                   SELECT x.position, x.size FROM output x WHERE x.target = $1 AND x.batch = l.batch AND (l.number > $2 OR x.position > $3)
                   ORDER BY x.position LIMIT $4) o ORDER BY l.number, o.position LIMIT $4),
               sized AS (SELECT *, sum(size) OVER (ORDER BY number, position) AS so_far FROM found),
               cut AS MATERIALIZED (SELECT * FROM sized WHERE so_far - size < $5),
               reach AS (SELECT CASE WHEN (SELECT count(*) FROM cut) < (SELECT count(*) FROM found) OR (SELECT count(*) FROM found) >= $4
                   THEN (SELECT max(number) FROM cut) ELSE (SELECT max(number) FROM looked) END AS number)
             SELECT ",
            output_columns!(),
            ", reach.number FROM reach LEFT JOIN cut s ON true LEFT JOIN output o ON o.target = $1 AND o.batch = s.batch AND o.position = s.position
             LEFT JOIN feed f ON f.id = o.feed LEFT JOIN activation a ON a.id = o.activation ORDER BY s.number, s.position"
        ))
        .bind(target)
        .bind(after.settlement)
        .bind(after.index)
        .bind(rows_max)
        .bind(bytes_max.max(1))
        .bind(SETTLEMENTS_MAX)
        .fetch_all(self.pool().await?)
        .await?;
        let (mut outputs, mut reach) = (Vec::with_capacity(rows.len()), after.settlement);
        for row in &rows {
            reach = row.try_get::<Option<i64>, _>(15)?.unwrap_or(reach);
            if row.try_get::<Option<i64>, _>(0)?.is_some() {
                outputs.push(output_row(row)?);
            }
        }
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
        transaction.commit().await?;
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
