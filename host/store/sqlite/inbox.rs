//! Messages on their way in: positions, numbers, dedupe hashes and rows in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::SqliteConnection;

use super::bulk::{self, Bulk, Values};
use super::deliveries::Rows as Deliveries;
use super::rows::{Messages, key_hash, message_columns};
use super::{Sqlite, damaged};
use crate::message::{FeedId, KeyHash, Message, NewMessage, Position, Status};
use crate::store::deliveries::book;
use crate::store::{Advance, Appended, Inbox, LaneRead, Result, headers};

const INSERT: Bulk = Bulk {
    before: "INSERT INTO inbox (feed, lane, n, source_offset, received_ms, timestamp_ms, source_partition, size, id, key_hash, status,
       source_table, ordering_key, code, reason, key, headers, payload, delivery)",
    columns: 19,
    after: "",
};
const TAILS: Bulk = Bulk {
    before: "UPDATE lane_tail SET tail = r.column3 FROM (",
    columns: 3,
    after: ") AS r WHERE lane_tail.feed = r.column1 AND lane_tail.lane = r.column2",
};
const KNOWN: Bulk = Bulk {
    before: "WITH r (feed, hash) AS (",
    columns: 2,
    after: ") SELECT d.hash FROM r CROSS JOIN dedupe d ON d.feed = r.feed AND d.hash = r.hash",
};
const REMEMBER: Bulk = Bulk { before: "INSERT INTO dedupe (feed, hash)", columns: 2, after: "" };
const FETCH: Bulk = Bulk {
    before: "WITH r (feed, lane, above, upto) AS (",
    columns: 4,
    after: concat!(
        ") SELECT ",
        message_columns!(),
        " FROM r CROSS JOIN inbox i ON i.feed = r.feed AND i.lane = r.lane AND i.n > r.above AND i.n <= r.upto"
    ),
};

/// What must find its rows by an index.
#[cfg(test)]
pub(super) const INDEXED: &[Bulk] = &[TAILS, KNOWN, FETCH];

#[async_trait]
impl Inbox for Sqlite {
    async fn positions(&self, feed: FeedId) -> Result<Vec<Position>> {
        self.fault("read positions", "begin").await?;
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("SELECT source_partition, next_offset FROM source_position WHERE feed = ? ORDER BY source_partition")
                .bind(feed.0)
                .fetch_all(&self.readers)
                .await
                .map_err(self.failed("read positions"))?;
        Ok(rows.into_iter().map(|(partition, next_offset)| Position { partition, next_offset }).collect())
    }

    async fn append(&self, feed: FeedId, epoch: i64, rows: &[NewMessage], advances: &[Advance]) -> Result<Appended> {
        const VERB: &str = "append to the inbox";
        let mut transaction = self.write(VERB).await?;
        if !advance(&mut transaction, feed, epoch, advances).await.map_err(self.failed(VERB))? {
            return Ok(Appended::Fenced);
        }
        let duplicates = self.append_rows(&mut transaction, feed, rows).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(Appended::Done { duplicates })
    }

    async fn fetch(&self, lanes: &[LaneRead], rows_per_lane_max: i64, bytes_max: i64) -> Result<Vec<Message>> {
        const VERB: &str = "fetch from the inbox";
        self.fault(VERB, "begin").await?;
        if lanes.is_empty() || rows_per_lane_max < 1 {
            return Ok(Vec::new());
        }
        let mut reader = self.readers.acquire().await.map_err(self.failed(VERB))?;
        fetch(&mut reader, lanes, rows_per_lane_max, bytes_max).await.map_err(self.failed(VERB))
    }
}

/// Moves the positions; false: the feed has another owner, or a position is not the expected one.
async fn advance(connection: &mut SqliteConnection, feed: FeedId, epoch: i64, advances: &[Advance]) -> sqlx::Result<bool> {
    let owned: bool = sqlx::query_scalar("SELECT count(*) > 0 FROM feed WHERE id = ? AND epoch = ? AND owner IS NOT NULL")
        .bind(feed.0)
        .bind(epoch)
        .fetch_one(&mut *connection)
        .await?;
    if !owned {
        return Ok(false);
    }
    for advance in advances {
        let query = match advance.expected {
            None => {
                sqlx::query("INSERT INTO source_position (feed, source_partition, next_offset) VALUES (?2, ?3, ?1) ON CONFLICT DO NOTHING")
            }
            Some(_) => {
                sqlx::query("UPDATE source_position SET next_offset = ?1 WHERE feed = ?2 AND source_partition = ?3 AND next_offset = ?4")
            }
        };
        let query = query.bind(advance.next_offset).bind(feed.0).bind(advance.partition).bind(advance.expected);
        if query.execute(&mut *connection).await?.rows_affected() == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Sqlite {
    async fn append_rows(&self, connection: &mut SqliteConnection, feed: FeedId, rows: &[NewMessage]) -> sqlx::Result<usize> {
        if rows.is_empty() {
            return Ok(0);
        }
        let now = self.now();
        let duplicate = duplicates(connection, feed, rows).await?;
        let judged = book::judge(&mut Deliveries(&mut *connection), feed, rows, |index| !duplicate[index], now).await?;
        self.tell(connection, &judged.told).await?;
        let numbers = number(connection, feed, rows).await?;
        let numbered: Vec<_> = rows.iter().enumerate().zip(numbers).map(|((index, row), n)| (index, row, n)).collect();
        INSERT
            .run(connection, &numbered, |values, (index, row, n)| {
                let captured = &row.captured;
                let said = judged.prejudged(*index, row).map(|said| (said.status.code(), said.code.as_str(), said.reason.as_str()));
                let known = || (Status::Ignored.code(), "duplicate", "an earlier message has the same dedupe key");
                let said = if duplicate[*index] { Some(known()) } else { said };
                values
                    .add(feed.0)
                    .add(row.lane)
                    .add(n)
                    .add(captured.offset)
                    .add(now)
                    .add(captured.timestamp_ms)
                    .add(captured.partition)
                    .add(captured.size() as i64)
                    .add(row.id)
                    .add(&row.key_hash.0[..])
                    .add(said.map(|said| said.0))
                    .add(&*row.table)
                    .add(row.ordering_key.as_deref())
                    .add(said.map(|said| said.1))
                    .add(said.map(|said| said.2))
                    .add(captured.key.as_deref())
                    .add(headers::encode(&captured.headers))
                    .add(captured.payload.as_deref())
                    .add(judged.delivery.get(index).copied());
            })
            .await?;
        Ok(duplicate.into_iter().filter(|duplicate| *duplicate).count())
    }
}

/// Gives each row its number and moves the tails of the lanes.
async fn number(connection: &mut SqliteConnection, feed: FeedId, rows: &[NewMessage]) -> sqlx::Result<Vec<i64>> {
    let stored: Vec<(i32, i64)> =
        sqlx::query_as("SELECT lane, tail FROM lane_tail WHERE feed = ?").bind(feed.0).fetch_all(&mut *connection).await?;
    let mut tails: HashMap<i32, i64> = stored.into_iter().collect();
    let mut moved = BTreeMap::new();
    let mut numbers = Vec::with_capacity(rows.len());
    for row in rows {
        let tail = tails.get_mut(&row.lane).ok_or_else(|| damaged(format!("feed {} has no lane {}", feed.0, row.lane)))?;
        *tail += 1;
        moved.insert(row.lane, *tail);
        numbers.push(*tail);
    }
    let moved: Vec<_> = moved.into_iter().collect();
    TAILS
        .run(connection, &moved, |values, (lane, tail)| {
            values.add(feed.0).add(lane).add(tail);
        })
        .await?;
    Ok(numbers)
}

/// Which rows have a dedupe hash that is known, or stood earlier in the batch; the new hashes are remembered.
async fn duplicates(connection: &mut SqliteConnection, feed: FeedId, rows: &[NewMessage]) -> sqlx::Result<Vec<bool>> {
    let mut seen = HashSet::new();
    let fresh: Vec<KeyHash> = rows.iter().filter_map(|row| row.dedupe).filter(|hash| seen.insert(*hash)).collect();
    let bind = |values: &mut Values, hash: &KeyHash| {
        values.add(feed.0).add(&hash.0[..]);
    };
    let mut known = HashSet::new();
    for row in KNOWN.fetch(connection, &fresh, bind).await? {
        known.insert(key_hash(&row, 0)?);
    }
    let fresh: Vec<KeyHash> = fresh.into_iter().filter(|hash| !known.contains(hash)).collect();
    REMEMBER.run(connection, &fresh, bind).await?;
    Ok(rows.iter().map(|row| row.dedupe.is_some_and(|hash| !known.insert(hash))).collect())
}

async fn fetch(connection: &mut SqliteConnection, lanes: &[LaneRead], rows_max: i64, bytes_max: i64) -> sqlx::Result<Vec<Message>> {
    let mut messages = Messages::default();
    let mut found = Vec::new();
    let mut room = bytes_max;
    for part in bulk::parts(lanes) {
        let statement = FETCH.statement(part, |values, lane| {
            values.add(lane.feed.0).add(lane.lane).add(lane.after).add(lane.after.saturating_add(rows_max));
        });
        // The rows come lane by lane in the order of the index, so what is cut off at the end leaves no gap.
        let mut rows = statement.fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            let message = messages.of(&row)?;
            room -= message.size() as i64;
            if room < 0 && !found.is_empty() {
                return Ok(found);
            }
            found.push(message);
        }
    }
    Ok(found)
}
