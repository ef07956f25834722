//! Messages on their way in: one transaction for rows, numbers, dedupe hashes and fenced positions; fetches cut by rows and bytes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::copy::{Rows, copy};
use super::deliveries::Rows as Deliveries;
use super::leases::guard;
use super::rows::{Tables, message_columns};
use super::text::stored;
use super::{Postgres, Try, retried, uuid_of};
use crate::delivery::Kind;
use crate::message::{FeedId, KeyHash, Message, NewMessage, Position, Status};
use crate::store::deliveries::book::{self, Judged};
use crate::store::{Advance, Appended, Error, Inbox, LaneRead, Result, headers};

/// Code and reason of a row whose dedupe hash is known.
const DUPLICATE: (&str, &str) = ("duplicate", "an earlier message has the same dedupe key");

/// The columns of a bulk insert, in the order in which both ways of it give them. Rows go straight into their part of the inbox.
const COLUMNS: &str = "feed, lane, n, source_offset, received_ms, timestamp_ms, source_partition, size, id, key_hash, status, source_table, \
                       ordering_key, key, headers, payload, code, reason, delivery";

/// What the first statement of an append gives.
struct Numbered {
    received_ms: i64,
    /// The part of the inbox that is filled now.
    part: i32,
    /// The next number of each lane.
    next: HashMap<i32, i64>,
}

/// What a bulk insert needs beside the messages.
struct Batch<'a> {
    feed: FeedId,
    received_ms: i64,
    numbers: &'a [i64],
    duplicates: &'a HashSet<usize>,
    judged: &'a Judged,
}

impl Batch<'_> {
    /// What is said of a message before any plugin sees it.
    fn prejudged<'m>(&'m self, index: usize, message: &'m NewMessage) -> Option<(i16, &'m str, &'m str)> {
        if self.duplicates.contains(&index) {
            return Some((Status::Ignored.code(), DUPLICATE.0, DUPLICATE.1));
        }
        self.judged.prejudged(index, message).map(|prejudged| (prejudged.status.code(), &*prejudged.code, &*prejudged.reason))
    }
}

impl Postgres {
    async fn append_once(&self, feed: FeedId, epoch: i64, rows: &[NewMessage], advances: &[Advance]) -> Try<Appended> {
        let marks = rows.iter().any(|row| row.delivery.as_ref().is_some_and(|piece| piece.kind != Kind::Part));
        match self.append_under(feed, epoch, rows, advances, marks).await? {
            Some(appended) => Ok(appended),
            // A delivery tells its parts something: that needs the guard, which is always taken first.
            None => self
                .append_under(feed, epoch, rows, advances, true)
                .await?
                .ok_or_else(|| Error::Corrupt("an append under the guard asked for it".to_owned()).into()),
        }
    }

    /// One try, with the settlement guard or without; `None`: it needs the guard.
    async fn append_under(
        &self,
        feed: FeedId,
        epoch: i64,
        rows: &[NewMessage],
        advances: &[Advance],
        guarded: bool,
    ) -> Try<Option<Appended>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        if guarded {
            guard(&mut transaction).await?;
        }
        let Some(mut numbered) = self.fence(&mut transaction, feed, epoch, rows, advances).await? else {
            transaction.rollback().await?;
            return Ok(Some(Appended::Fenced));
        };
        crate::faults::point("append messages", "fenced").await.map_err(sqlx::Error::from)?;
        let duplicates = duplicates(&mut transaction, feed, rows).await?;
        let counts = |index: usize| !duplicates.contains(&index);
        let judged = book::judge(&mut Deliveries(&mut transaction), feed, rows, counts, numbered.received_ms).await?;
        if !judged.told.is_empty() && !guarded {
            transaction.rollback().await?;
            return Ok(None);
        }
        self.tell(&mut transaction, &judged.told).await?;
        let mut numbers = Vec::with_capacity(rows.len());
        for row in rows {
            let next = numbered.next.get_mut(&row.lane);
            let next = next.ok_or_else(|| Error::Corrupt(format!("feed {} has no lane {}", feed.0, row.lane)))?;
            numbers.push(*next);
            *next += 1;
        }
        if !rows.is_empty() {
            let batch = Batch { feed, received_ms: numbered.received_ms, numbers: &numbers, duplicates: &duplicates, judged: &judged };
            if self.copies(rows.iter().map(|row| row.captured.size()).sum()) {
                let sql = format!("COPY inbox_{} ({COLUMNS}) FROM STDIN (FORMAT binary)", numbered.part);
                copy(&mut transaction, &sql, rows, |buffer, index, row| encode(buffer, &batch, index, row)).await?;
            } else {
                insert(&mut transaction, numbered.part, &batch, rows).await?;
            }
        }
        super::commit(transaction, "append messages").await?;
        Ok(Some(Appended::Done { duplicates: duplicates.len() }))
    }

    /// Fence, positions and lane numbers in one statement; `None`: fenced.
    async fn fence(
        &self,
        connection: &mut PgConnection,
        feed: FeedId,
        epoch: i64,
        rows: &[NewMessage],
        advances: &[Advance],
    ) -> Try<Option<Numbered>> {
        let mut counts: HashMap<i32, i64> = HashMap::new();
        for row in rows {
            *counts.entry(row.lane).or_default() += 1;
        }
        let (lanes, counts): (Vec<i32>, Vec<i64>) = counts.into_iter().unzip();
        let found = sqlx::query(
            "WITH step AS (SELECT * FROM unnest($3::int[], $4::bigint[], $5::bigint[]) s(source_partition, expected, next_offset)),
               fence AS (SELECT part FROM feed WHERE id = $1 AND epoch = $2 FOR SHARE),
               moved AS (UPDATE source_position p SET next_offset = s.next_offset FROM step s
                 WHERE p.feed = $1 AND p.source_partition = s.source_partition AND p.next_offset = s.expected RETURNING 1),
               made AS (INSERT INTO source_position (feed, source_partition, next_offset)
                 SELECT $1, s.source_partition, s.next_offset FROM step s WHERE s.expected IS NULL ON CONFLICT DO NOTHING RETURNING 1),
               numbered AS (UPDATE lane_tail t SET tail = t.tail + c.count FROM unnest($6::int[], $7::bigint[]) c(lane, count)
                 WHERE t.feed = $1 AND t.lane = c.lane RETURNING t.lane, t.tail - c.count + 1 AS first)
             SELECT (SELECT part FROM fence), (SELECT count(*) FROM moved) + (SELECT count(*) FROM made),
               coalesce($8, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), numbered.lane, numbered.first
             FROM (SELECT 1) one LEFT JOIN numbered ON true",
        )
        .bind(feed.0)
        .bind(epoch)
        .bind(advances.iter().map(|advance| advance.partition).collect::<Vec<_>>())
        .bind(advances.iter().map(|advance| advance.expected).collect::<Vec<_>>())
        .bind(advances.iter().map(|advance| advance.next_offset).collect::<Vec<_>>())
        .bind(lanes)
        .bind(counts)
        .bind(self.clock.fixed_ms())
        .fetch_all(connection)
        .await?;
        let mut numbered = Numbered { received_ms: 0, part: 0, next: HashMap::with_capacity(found.len()) };
        for row in found {
            let (part, steps): (Option<i32>, i64) = (row.try_get(0)?, row.try_get(1)?);
            let Some(part) = part.filter(|_| steps == advances.len() as i64) else { return Ok(None) };
            numbered.part = part;
            numbered.received_ms = row.try_get(2)?;
            if let Some(lane) = row.try_get(3)? {
                numbered.next.insert(lane, row.try_get(4)?);
            }
        }
        Ok(Some(numbered))
    }

    async fn positions_once(&self, feed: FeedId) -> Try<Vec<Position>> {
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("SELECT source_partition, next_offset FROM source_position WHERE feed = $1 ORDER BY source_partition")
                .bind(feed.0)
                .fetch_all(self.pool().await?)
                .await?;
        Ok(rows.into_iter().map(|(partition, next_offset)| Position { partition, next_offset }).collect())
    }

    async fn fetch_once(&self, lanes: &[LaneRead], rows_per_lane_max: i64, bytes_max: i64) -> Try<Vec<Message>> {
        let mut connection = self.pool().await?.acquire().await?;
        let rows = sqlx::query(
            "SELECT r.feed, r.lane, s.low, s.high, s.bytes FROM unnest($1::int[], $2::int[], $3::bigint[]) r(feed, lane, after)
             CROSS JOIN LATERAL (SELECT min(y.n) AS low, max(y.n) AS high, sum(y.size) AS bytes FROM (SELECT x.n, x.size FROM inbox x
               WHERE x.feed = r.feed AND x.lane = r.lane AND x.n > r.after ORDER BY x.n LIMIT $4) y) s WHERE s.high IS NOT NULL",
        )
        .bind(lanes.iter().map(|lane| lane.feed.0).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| lane.lane).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| lane.after).collect::<Vec<_>>())
        .bind(rows_per_lane_max)
        .fetch_all(&mut *connection)
        .await?;
        let (mut stretches, mut bytes) = (Vec::with_capacity(rows.len()), 0_i64);
        for row in rows {
            let stretch = Stretch { feed: row.try_get(0)?, lane: row.try_get(1)?, low: row.try_get(2)?, high: row.try_get(3)? };
            bytes = bytes.saturating_add(row.try_get(4)?);
            stretches.push(stretch);
        }
        if bytes > bytes_max {
            cut(&mut connection, &mut stretches, bytes_max).await?;
        }
        read(&mut connection, &stretches).await
    }
}

/// Rows of a lane without gaps.
struct Stretch {
    feed: i32,
    lane: i32,
    low: i64,
    high: i64,
}

impl Stretch {
    /// The statement's four arrays.
    fn columns(stretches: &[Self]) -> (Vec<i32>, Vec<i32>, Vec<i64>, Vec<i64>) {
        let mut columns = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for stretch in stretches {
            columns.0.push(stretch.feed);
            columns.1.push(stretch.lane);
            columns.2.push(stretch.low);
            columns.3.push(stretch.high);
        }
        columns
    }
}

/// Shortens stretches so that together they hold about `bytes_max`, by sizes alone: payloads are not read. Lanes share in turn.
async fn cut(connection: &mut PgConnection, stretches: &mut Vec<Stretch>, bytes_max: i64) -> Try<()> {
    let (feeds, lanes, lows, highs) = Stretch::columns(stretches);
    let mut sizes: Vec<(i64, i64, i32)> = sqlx::query_as(
        "SELECT x.n - s.low, s.ordinal, x.size
         FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[]) WITH ORDINALITY s(feed, lane, low, high, ordinal)
         JOIN inbox x ON x.feed = s.feed AND x.lane = s.lane AND x.n BETWEEN s.low AND s.high",
    )
    .bind(feeds)
    .bind(lanes)
    .bind(lows)
    .bind(highs)
    .fetch_all(connection)
    .await?;
    sizes.sort_unstable();
    let mut kept = vec![0_i64; stretches.len()];
    let mut bytes = 0_i64;
    for (_, ordinal, size) in sizes {
        if bytes >= bytes_max.max(1) {
            break;
        }
        bytes = bytes.saturating_add(size.into());
        kept[usize::try_from(ordinal - 1).expect("ordinals begin at 1")] += 1;
    }
    for (stretch, kept) in stretches.iter_mut().zip(kept) {
        stretch.high = stretch.low + kept - 1;
    }
    stretches.retain(|stretch| stretch.high >= stretch.low);
    Ok(())
}

/// The rows of some stretches, in order.
async fn read(connection: &mut PgConnection, stretches: &[Stretch]) -> Try<Vec<Message>> {
    if stretches.is_empty() {
        return Ok(Vec::new());
    }
    let (feeds, lanes, lows, highs) = Stretch::columns(stretches);
    let mut rows = sqlx::query(concat!(
        "SELECT ",
        message_columns!(),
        " FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[]) s(feed, lane, low, high)
         CROSS JOIN LATERAL (SELECT * FROM inbox x WHERE x.feed = s.feed AND x.lane = s.lane AND x.n BETWEEN s.low AND s.high ORDER BY x.n) i"
    ))
    .bind(feeds)
    .bind(lanes)
    .bind(lows)
    .bind(highs)
    .fetch(connection);
    let (mut tables, mut messages) = (Tables::default(), Vec::new());
    while let Some(row) = rows.try_next().await? {
        messages.push(tables.message(&row)?);
    }
    messages.sort_by_key(|message| message.place);
    Ok(messages)
}

/// The indexes of rows whose dedupe hash is known, from earlier or from this batch.
async fn duplicates(connection: &mut PgConnection, feed: FeedId, rows: &[NewMessage]) -> Try<HashSet<usize>> {
    let mut first: HashMap<KeyHash, usize> = HashMap::new();
    let mut duplicates = HashSet::new();
    for (index, row) in rows.iter().enumerate() {
        let Some(hash) = row.dedupe else { continue };
        match first.entry(hash) {
            Entry::Occupied(_) => {
                duplicates.insert(index);
            }
            Entry::Vacant(place) => {
                place.insert(index);
            }
        }
    }
    if first.is_empty() {
        return Ok(duplicates);
    }
    let mut hashes: Vec<Uuid> = first.keys().copied().map(uuid_of).collect();
    hashes.sort();
    let fresh: Vec<(Uuid,)> =
        sqlx::query_as("INSERT INTO dedupe (feed, hash) SELECT $1, h FROM unnest($2::uuid[]) h ON CONFLICT DO NOTHING RETURNING hash")
            .bind(feed.0)
            .bind(hashes)
            .fetch_all(connection)
            .await?;
    for (hash,) in fresh {
        first.remove(&KeyHash(hash.into_bytes()));
    }
    duplicates.extend(first.into_values());
    Ok(duplicates)
}

fn encode(buffer: &mut Rows, batch: &Batch<'_>, index: usize, message: &NewMessage) {
    let prejudged = batch.prejudged(index, message);
    let captured = &message.captured;
    buffer.row(19);
    buffer.int4(batch.feed.0);
    buffer.int4(message.lane);
    buffer.int8(batch.numbers[index]);
    buffer.int8(captured.offset);
    buffer.int8(batch.received_ms);
    buffer.some_int8(captured.timestamp_ms);
    buffer.int4(captured.partition);
    buffer.int4(size(message));
    buffer.uuid(message.id);
    buffer.uuid(uuid_of(message.key_hash));
    match prejudged {
        Some((status, ..)) => buffer.int2(status),
        None => buffer.null(),
    }
    buffer.field(stored(&message.table).as_bytes());
    buffer.some_bytes(message.ordering_key.as_deref());
    buffer.some_bytes(captured.key.as_deref());
    buffer.headers(&captured.headers);
    buffer.some_bytes(captured.payload.as_deref());
    buffer.some_bytes(prejudged.map(|(_, code, _)| stored(code)).as_ref().map(|code| code.as_bytes()));
    buffer.some_bytes(prejudged.map(|(.., reason)| stored(reason)).as_ref().map(|reason| reason.as_bytes()));
    buffer.some_int8(batch.judged.delivery.get(&index).copied());
}

fn size(message: &NewMessage) -> i32 {
    i32::try_from(message.captured.size()).unwrap_or(i32::MAX)
}

/// The same rows by arrays: one message of the protocol, so nothing waits for an acknowledgement.
async fn insert(connection: &mut PgConnection, part: i32, batch: &Batch<'_>, rows: &[NewMessage]) -> Try<()> {
    let sql = format!(
        "INSERT INTO inbox_{part} ({COLUMNS}) SELECT $1, lane, n, source_offset, $2, timestamp_ms, source_partition, size, id, key_hash, status,
           source_table, ordering_key, key, headers, payload, code, reason, delivery
         FROM unnest($3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::int[], $8::int[], $9::uuid[], $10::uuid[], $11::smallint[],
           $12::text[], $13::bytea[], $14::bytea[], $15::bytea[], $16::bytea[], $17::text[], $18::text[],
           $19::bigint[])
           AS r(lane, n, source_offset, timestamp_ms, source_partition, size, id, key_hash, status, source_table, ordering_key, key, headers,
           payload, code, reason, delivery)"
    );
    let prejudged: Vec<_> = rows.iter().enumerate().map(|(index, row)| batch.prejudged(index, row)).collect();
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(batch.feed.0)
        .bind(batch.received_ms)
        .bind(rows.iter().map(|row| row.lane).collect::<Vec<_>>())
        .bind(batch.numbers)
        .bind(rows.iter().map(|row| row.captured.offset).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.captured.timestamp_ms).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.captured.partition).collect::<Vec<_>>())
        .bind(rows.iter().map(size).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| uuid_of(row.key_hash)).collect::<Vec<_>>())
        .bind(prejudged.iter().map(|prejudged| prejudged.map(|(status, ..)| status)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| stored(&row.table)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.ordering_key.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.captured.key.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| headers::encode(&row.captured.headers)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.captured.payload.as_deref()).collect::<Vec<_>>())
        .bind(prejudged.iter().map(|prejudged| prejudged.map(|(_, code, _)| stored(code))).collect::<Vec<_>>())
        .bind(prejudged.iter().map(|prejudged| prejudged.map(|(.., reason)| stored(reason))).collect::<Vec<_>>())
        .bind((0..rows.len()).map(|index| batch.judged.delivery.get(&index).copied()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

#[async_trait]
impl Inbox for Postgres {
    async fn positions(&self, feed: FeedId) -> Result<Vec<Position>> {
        retried!(self, "read positions", self.positions_once(feed))
    }

    async fn append(&self, feed: FeedId, epoch: i64, rows: &[NewMessage], advances: &[Advance]) -> Result<Appended> {
        retried!(self, "append messages", self.append_once(feed, epoch, rows, advances))
    }

    async fn fetch(&self, lanes: &[LaneRead], rows_per_lane_max: i64, bytes_max: i64) -> Result<Vec<Message>> {
        retried!(self, "fetch messages", self.fetch_once(lanes, rows_per_lane_max, bytes_max))
    }
}
