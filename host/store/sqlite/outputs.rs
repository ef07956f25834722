//! Messages on their way out, in the order of (settlement, position), and where publishing of each target stands.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::rows::{bytes, id, place};
use super::{Sqlite, carried, damaged};
use crate::plugin::{Action, Digest};
use crate::store::{OutputCursor, OutputRow, Outputs, Parked, Result, event_id, headers};

/// The columns of an output, from a settlement `s`, an output `o`, a feed `f` and an activation `a`.
macro_rules! output_columns {
    () => {
        "o.feed, o.lane, o.n, o.run, o.ordinal, o.message, s.number, o.position, f.name, a.digest, o.action, o.key, o.payload, o.headers, \
         o.version, o.size"
    };
}
pub(super) use output_columns;

#[async_trait]
impl Outputs for Sqlite {
    async fn outputs(&self, target: &str, after: OutputCursor, rows_max: i64, bytes_max: i64) -> Result<(Vec<OutputRow>, i64)> {
        const VERB: &str = "read outputs";
        let mut reader = self.read_one_state(VERB).await?;
        outputs(&mut reader, target, after, rows_max, bytes_max).await.map_err(self.failed(VERB))
    }

    async fn published(&self, target: &str, epoch: i64, cursor: OutputCursor, parked: &[Parked]) -> Result<bool> {
        const VERB: &str = "move a target's cursor";
        let mut transaction = self.write(VERB).await?;
        let moved = published(&mut transaction, target, epoch, cursor, parked, self.now()).await.map_err(self.failed(VERB))?;
        if moved {
            self.commit(transaction, VERB).await?;
        }
        Ok(moved)
    }

    async fn parked_keys(&self, target: &str) -> Result<Vec<Option<Bytes>>> {
        const VERB: &str = "read parked keys";
        self.fault(VERB, "begin").await?;
        let keys: Vec<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT DISTINCT p.key FROM parked_output p JOIN target t ON t.id = p.target WHERE t.name = ?")
                .bind(target)
                .fetch_all(&self.readers)
                .await
                .map_err(self.failed(VERB))?;
        Ok(keys.into_iter().map(|key| key.map(Bytes::from)).collect())
    }
}

async fn outputs(
    connection: &mut SqliteConnection,
    target: &str,
    after: OutputCursor,
    rows_max: i64,
    bytes_max: i64,
) -> sqlx::Result<(Vec<OutputRow>, i64)> {
    // The joins go in this order: settlements by number, then their outputs by position, so that nothing is sorted.
    const AFTER: &str = concat!(
        "SELECT ",
        output_columns!(),
        " FROM settlement s CROSS JOIN output o ON o.target = ?1 AND o.batch = s.batch CROSS JOIN feed f ON f.id = o.feed
         LEFT JOIN activation a ON a.id = o.activation
         WHERE s.number >= ?2 AND (s.number > ?2 OR o.position > ?3) ORDER BY s.number, o.position LIMIT ?4"
    );
    let last: i64 = sqlx::query_scalar("SELECT number FROM settlement_guard").fetch_one(&mut *connection).await?;
    let target: Option<i32> =
        sqlx::query_scalar("SELECT id FROM target WHERE name = ?").bind(target).fetch_optional(&mut *connection).await?;
    let Some(target) = target else { return Ok((Vec::new(), last)) };
    let query = sqlx::query(AFTER).bind(target).bind(after.settlement).bind(after.index).bind(rows_max);
    let mut rows = query.fetch(connection);
    let mut found: Vec<OutputRow> = Vec::new();
    let mut room = bytes_max;
    let mut cut = false;
    while let Some(row) = rows.try_next().await? {
        room -= row.try_get::<i64, _>(15)?;
        cut = room < 0 && !found.is_empty();
        if cut {
            break;
        }
        found.push(output(&row)?);
    }
    cut |= found.len() as i64 >= rows_max;
    let looked = found.last().filter(|_| cut).map_or(last, |row| row.cursor.settlement);
    Ok((found, looked))
}

/// The output of a row whose first columns are `output_columns`.
pub(super) fn output(row: &SqliteRow) -> sqlx::Result<OutputRow> {
    let (run, ordinal): (i32, i32) = (row.try_get(3)?, row.try_get(4)?);
    let digest: Option<&[u8]> = row.try_get(9)?;
    let digest = digest.map(|bytes| bytes.try_into().map(Digest).map_err(|_| damaged("a digest has not 32 bytes"))).transpose()?;
    let action = match row.try_get::<i32, _>(10)? {
        0 => Action::Put,
        1 => Action::Merge,
        2 => Action::Delete,
        other => return Err(damaged(format!("no action has the code {other}"))),
    };
    Ok(OutputRow {
        cursor: OutputCursor { settlement: row.try_get(6)?, index: row.try_get(7)? },
        event_id: event_id(id(row, 5)?, run, ordinal),
        place: place(row, 0)?,
        feed: row.try_get(8)?,
        digest,
        action,
        key: bytes(row, 11)?,
        payload: bytes(row, 12)?,
        headers: headers::decode(bytes(row, 13)?).map_err(carried)?,
        version: row.try_get::<Option<i64>, _>(14)?.map(i64::cast_unsigned),
    })
}

async fn published(
    connection: &mut SqliteConnection,
    target: &str,
    epoch: i64,
    cursor: OutputCursor,
    parked: &[Parked],
    now: i64,
) -> sqlx::Result<bool> {
    let target: Option<i32> = sqlx::query_scalar(
        "UPDATE target_cursor SET settlement = ?3, position = ?4
         WHERE target = (SELECT id FROM target WHERE name = ?1) AND epoch = ?2 AND owner IS NOT NULL AND (settlement, position) <= (?3, ?4)
         RETURNING target",
    )
    .bind(target)
    .bind(epoch)
    .bind(cursor.settlement)
    .bind(cursor.index)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(target) = target else { return Ok(false) };
    for parked in parked {
        sqlx::query(
            "INSERT OR REPLACE INTO parked_output (target, settlement, position, n, feed, lane, run, at_ms, key, reason)
             SELECT o.target, s.number, o.position, o.n, o.feed, o.lane, o.run, ?4, o.key, ?5
             FROM settlement s JOIN output o ON o.target = ?1 AND o.batch = s.batch WHERE s.number = ?2 AND o.position = ?3",
        )
        .bind(target)
        .bind(parked.cursor.settlement)
        .bind(parked.cursor.index)
        .bind(now)
        .bind(&parked.reason)
        .execute(&mut *connection)
        .await?;
    }
    Ok(true)
}
