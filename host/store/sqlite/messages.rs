//! What people ask about messages: statuses, one message whole, counts; and entries written by hand.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use uuid::Uuid;

use super::bulk::Values;
use super::outputs::{output, output_columns};
use super::plugins::{activation, activation_columns};
use super::rows::{self, message_columns};
use super::{Sqlite, damaged, scan};
use crate::message::{Message, Place, Status};
use crate::plugin::{Binding, Digest, Request, Scan, Write};
use crate::store::{Activation, Count, Filter, MessageDetail, MessageStatus, Messages, OutputRow, Result};

/// The columns of a status, from a message_state `m`, behind those of the message.
macro_rules! status_columns {
    () => {
        "m.id, m.feed, m.\"table\", m.\"partition\", m.\"offset\", m.ordering_key, m.status, m.code, m.reason, m.attempts, \
         (SELECT a.digest FROM activation a WHERE a.id = m.activation), m.received_ms, \
         (SELECT s.at_ms FROM settlement s WHERE s.number = m.settlement), m.due_ms"
    };
}

#[async_trait]
impl Messages for Sqlite {
    async fn messages(&self, filter: &Filter) -> Result<Vec<MessageStatus>> {
        const VERB: &str = "read messages";
        self.fault(VERB, "begin").await?;
        let (wanted, values) = limited(filter);
        let order = if filter.oldest_first { "ASC" } else { "DESC" };
        let text = format!("SELECT {} FROM message_state m WHERE {wanted} ORDER BY m.seq {order} LIMIT ?", status_columns!());
        let query = sqlx::query_with(AssertSqlSafe(text), values);
        let rows = query.fetch_all(&self.readers).await.map_err(self.failed(VERB))?;
        rows.iter().map(|row| status(row, 0)).collect::<sqlx::Result<_>>().map_err(self.failed(VERB))
    }

    async fn message(&self, id: Uuid) -> Result<Option<MessageDetail>> {
        self.one(&Filter { id: Some(id), limit: 1, ..Filter::default() }).await
    }

    async fn message_at(&self, place: Place) -> Result<Option<MessageDetail>> {
        self.one(&Filter { place: Some(place), limit: 1, ..Filter::default() }).await
    }

    async fn captured(&self, filter: &Filter) -> Result<Vec<(Message, MessageStatus)>> {
        const VERB: &str = "read captured messages";
        self.fault(VERB, "begin").await?;
        let (wanted, values) = limited(filter);
        let text = format!(
            "SELECT {}, {} FROM message_state m CROSS JOIN inbox i ON i.rowid = m.seq WHERE {wanted} ORDER BY m.seq LIMIT ?",
            message_columns!(),
            status_columns!()
        );
        let query = sqlx::query_with(AssertSqlSafe(text), values);
        let found = query.fetch_all(&self.readers).await.map_err(self.failed(VERB))?;
        let mut messages = rows::Messages::default();
        let pairs = found.iter().map(|row| Ok((messages.of(row)?, status(row, rows::MESSAGE_COLUMNS)?)));
        pairs.collect::<sqlx::Result<_>>().map_err(self.failed(VERB))
    }

    async fn counts(&self) -> Result<Vec<Count>> {
        const VERB: &str = "count messages";
        self.fault(VERB, "begin").await?;
        let rows: Vec<(String, String, i16, i64)> = sqlx::query_as(
            "SELECT m.feed, m.\"table\", m.status, count(*) FROM message_state m GROUP BY m.feed, m.\"table\", m.status ORDER BY 1, 2, 3",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(self.failed(VERB))?;
        let count = |(feed, table, code, count)| Ok(Count { feed, table, status: word(code)?, count });
        rows.into_iter().map(count).collect::<sqlx::Result<_>>().map_err(self.failed(VERB))
    }

    async fn unpublished(&self) -> Result<Vec<(String, i64)>> {
        self.fault("count unpublished outputs", "begin").await?;
        sqlx::query_as(
            "SELECT t.name, (
               SELECT count(*) FROM settlement s CROSS JOIN output o ON o.target = t.id AND o.batch = s.batch
               WHERE s.number >= c.settlement AND (s.number > c.settlement OR o.position > c.position)
             ) FROM target t JOIN target_cursor c ON c.target = t.id ORDER BY t.name",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(self.failed("count unpublished outputs"))
    }

    async fn put_entries(&self, writes: &[Write], bindings: &[Binding]) -> Result<()> {
        self.put(writes, bindings).await
    }

    async fn entries(&self, scan: &Scan) -> Result<Vec<(String, Bytes)>> {
        const VERB: &str = "read entries";
        self.fault(VERB, "begin").await?;
        let mut reader = self.readers.acquire().await.map_err(self.failed(VERB))?;
        scan::page(&mut reader, scan, i64::from(scan.limit)).await.map_err(self.failed(VERB))
    }

    async fn bindings(&self, namespace: &str) -> Result<Vec<(String, Uuid)>> {
        self.fault("read bindings", "begin").await?;
        sqlx::query_as("SELECT key, id FROM id_binding WHERE namespace = ? ORDER BY key")
            .bind(namespace)
            .fetch_all(&self.readers)
            .await
            .map_err(self.failed("read bindings"))
    }
}

/// A filter as a condition over a message_state `m`, with its values and last the limit.
fn limited(filter: &Filter) -> (String, SqliteArguments) {
    let (wanted, mut values) = conditions(filter);
    values.add(filter.limit.max(0));
    (wanted, values.into_inner())
}

/// SQLite knows upper and lower case of ASCII only; the letters of our languages are done by hand.
const SMALL_REASON: &str = "replace(replace(replace(replace(replace(replace(replace(lower(m.reason), 'Æ', 'æ'), 'Ø', 'ø'), 'Å', 'å'), \
     'Ä', 'ä'), 'Ö', 'ö'), 'Ü', 'ü'), 'É', 'é')";

/// The parts of a delivery: each has a row in `work`, an outcome, or stands above its lane's cursor.
const PARTS: &str = "(m.feed_number, m.lane, m.n) IN (
     WITH whole AS (SELECT number FROM delivery WHERE feed = (SELECT id FROM feed WHERE name = ?) AND id = ?)
     SELECT feed, lane, n FROM work WHERE delivery = (SELECT number FROM whole)
     UNION SELECT feed, lane, n FROM outcome WHERE delivery = (SELECT number FROM whole)
     UNION SELECT y.feed, y.lane, y.n FROM lane l CROSS JOIN inbox y ON y.feed = l.feed AND y.lane = l.lane AND y.n > l.cursor
       WHERE y.delivery = (SELECT number FROM whole))";

/// A filter as a condition over a message_state `m`, with its values.
pub(super) fn conditions(filter: &Filter) -> (String, Values) {
    let mut wanted = vec!["true"];
    let mut values = Values::default();
    if let Some(feed) = &filter.feed {
        wanted.push("m.feed = ?");
        values.add(feed.as_str());
    }
    if let Some(table) = &filter.table {
        wanted.push("m.\"table\" = ?");
        values.add(table.as_str());
    }
    if let Some(key) = &filter.key {
        wanted.push("m.ordering_key = ?");
        values.add(key.as_bytes());
    }
    if let Some(status) = filter.status {
        wanted.push("m.status = ?");
        values.add(status.code());
    }
    if let Some(code) = &filter.code {
        wanted.push("m.code = ?");
        values.add(code.as_str());
    }
    let reason = format!("instr({SMALL_REASON}, ?) > 0");
    if let Some(part) = &filter.reason {
        wanted.push(&reason);
        values.add(part.to_lowercase());
    }
    if !filter.keys.is_empty() {
        wanted.push("m.ordering_key IN (SELECT CAST(value AS BLOB) FROM json_each(?))");
        values.add(serde_json::to_string(&filter.keys).expect("texts are JSON"));
    }
    if let Some((feed, id)) = &filter.delivery {
        wanted.push(PARTS);
        values.add(feed.as_str()).add(id.as_str());
    }
    if let Some(since_ms) = filter.since_ms {
        wanted.push("m.received_ms >= ?");
        values.add(since_ms);
    }
    if let Some(until_ms) = filter.until_ms {
        wanted.push("m.received_ms < ?");
        values.add(until_ms);
    }
    if let Some(id) = filter.id {
        wanted.push("m.id = ?");
        values.add(id);
    }
    if let Some(place) = filter.place {
        wanted.push("m.feed_number = ? AND m.lane = ? AND m.n = ?");
        values.add(place.feed.0).add(place.lane).add(place.n);
    }
    if let Some((partition, offset)) = filter.at {
        wanted.push("m.\"partition\" = ? AND m.\"offset\" = ?");
        values.add(partition).add(offset);
    }
    (wanted.join(" AND "), values)
}

fn word(code: i16) -> sqlx::Result<String> {
    Ok(rows::status_of(code)?.as_str().to_owned())
}

fn status(row: &SqliteRow, at: usize) -> sqlx::Result<MessageStatus> {
    let key: Option<Vec<u8>> = row.try_get(at + 5)?;
    let digest: Option<Vec<u8>> = row.try_get(at + 10)?;
    let digest = digest.map(|bytes| bytes.try_into().map(Digest).map_err(|_| damaged("a digest has not 32 bytes"))).transpose()?;
    Ok(MessageStatus {
        id: row.try_get(at)?,
        feed: row.try_get(at + 1)?,
        table: row.try_get(at + 2)?,
        partition: row.try_get(at + 3)?,
        offset: row.try_get(at + 4)?,
        key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
        status: word(row.try_get(at + 6)?)?,
        code: row.try_get(at + 7)?,
        reason: row.try_get(at + 8)?,
        attempts: row.try_get(at + 9)?,
        digest: digest.map(|digest| digest.to_string()),
        received_ms: row.try_get(at + 11)?,
        settled_ms: row.try_get(at + 12)?,
        due_ms: row.try_get(at + 13)?,
    })
}

impl Sqlite {
    async fn one(&self, filter: &Filter) -> Result<Option<MessageDetail>> {
        const VERB: &str = "read a message";
        let mut reader = self.read_one_state(VERB).await?;
        detail(&mut reader, filter).await.map_err(self.failed(VERB))
    }
}

async fn detail(connection: &mut SqliteConnection, filter: &Filter) -> sqlx::Result<Option<MessageDetail>> {
    const MESSAGE: &str = concat!(
        "SELECT ",
        message_columns!(),
        ", ",
        status_columns!(),
        ", m.settlement, m.now_ms, m.activation,
         EXISTS (SELECT 1 FROM work w WHERE w.feed = i.feed AND w.lane = i.lane AND w.n = i.n)
         FROM message_state m CROSS JOIN inbox i ON i.rowid = m.seq WHERE "
    );
    const AFTER: usize = rows::MESSAGE_COLUMNS + 14;
    let (wanted, values) = limited(filter);
    let text = format!("{MESSAGE}{wanted} LIMIT ?");
    let Some(row) = sqlx::query_with(AssertSqlSafe(text), values).fetch_optional(&mut *connection).await? else { return Ok(None) };
    let message = rows::Messages::default().of(&row)?;
    let settlement: Option<i64> = row.try_get(AFTER)?;
    let stays: bool = row.try_get(AFTER + 3)?;
    let place = message.place;
    Ok(Some(MessageDetail {
        status: status(&row, rows::MESSAGE_COLUMNS)?,
        outputs: outputs(connection, place).await?,
        settlement: settlement.filter(|_| !stays),
        now_ms: row.try_get(AFTER + 1)?,
        activation: judge(connection, row.try_get(AFTER + 2)?).await?,
        answers: sqlx::query_scalar("SELECT data FROM answers WHERE feed = ? AND lane = ? AND n = ? ORDER BY run DESC LIMIT 1")
            .bind(place.feed.0)
            .bind(place.lane)
            .bind(place.n)
            .fetch_optional(&mut *connection)
            .await?
            .map(|data: Vec<u8>| Bytes::from(data)),
        waits: waits(connection, place).await?,
        message,
    }))
}

async fn judge(connection: &mut SqliteConnection, id: Option<i64>) -> sqlx::Result<Option<Activation>> {
    const ONE: &str = concat!("SELECT ", activation_columns!(), " FROM activation a WHERE a.id = ?");
    sqlx::query(ONE).bind(id).fetch_optional(connection).await?.as_ref().map(activation).transpose()
}

async fn waits(connection: &mut SqliteConnection, place: Place) -> sqlx::Result<Vec<Request>> {
    let texts: Vec<String> = sqlx::query_scalar("SELECT request FROM wait WHERE feed = ? AND lane = ? AND n = ? ORDER BY run, ordinal")
        .bind(place.feed.0)
        .bind(place.lane)
        .bind(place.n)
        .fetch_all(connection)
        .await?;
    texts.iter().map(|text| serde_json::from_str(text).map_err(|error| damaged(format!("a stored wait: {error}")))).collect()
}

/// The outputs of a message. They have no index by message: they are in the batches of the settlements that the message took part in.
async fn outputs(connection: &mut SqliteConnection, place: Place) -> sqlx::Result<Vec<(String, OutputRow, bool, Option<String>)>> {
    const OF_MESSAGE: &str = concat!(
        "SELECT ",
        output_columns!(),
        ", t.name, p.target IS NULL AND (s.number, o.position) <= (c.settlement, c.position), p.reason
         FROM settlement s CROSS JOIN target t CROSS JOIN output o ON o.target = t.id AND o.batch = s.batch
         CROSS JOIN feed f ON f.id = o.feed JOIN target_cursor c ON c.target = t.id
         LEFT JOIN activation a ON a.id = o.activation
         LEFT JOIN parked_output p ON p.target = o.target AND p.settlement = s.number AND p.position = o.position
         WHERE o.feed = ?1 AND o.lane = ?2 AND o.n = ?3 AND s.number IN (
           SELECT settlement FROM outcome WHERE feed = ?1 AND lane = ?2 AND n = ?3
           UNION SELECT settlement FROM work WHERE feed = ?1 AND lane = ?2 AND n = ?3
           UNION SELECT settlement FROM parked_output WHERE feed = ?1 AND lane = ?2 AND n = ?3
           UNION SELECT settlement FROM settled_range WHERE feed = ?1 AND lane = ?2 AND to_n >= ?3 AND from_n <= ?3)
         ORDER BY s.number, o.position"
    );
    let query = sqlx::query(OF_MESSAGE).bind(place.feed.0).bind(place.lane).bind(place.n);
    query.fetch_all(connection).await?.iter().map(|row| Ok((row.try_get(16)?, output(row)?, row.try_get(17)?, row.try_get(18)?))).collect()
}

/// The view writes this status by its number.
const _: () = assert!(Status::Failed as i16 == 6 && Status::Handled as i16 == 1);
