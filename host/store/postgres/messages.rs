//! What people ask: which messages stand where, one message with all around it, counts; and entries by hand.
//! Rows of the view are slow to make one by one, so the inbox is cut down first by whatever the filter names.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::{PgConnection, PgRow, Postgres as Database};
use sqlx::{Connection, QueryBuilder, Row};
use uuid::Uuid;

use super::outputs::{output_columns, output_row};
use super::plugins::activation;
use super::rows::{Tables, bytes, message_columns};
use super::text::{plain, stored};
use super::{Postgres, Try, effects, retried, validate};
use crate::message::{Message, Place, Status};
use crate::plugin::{Binding, Request, Scan, Write};
use crate::store::changes::{Changes, Written};
use crate::store::{Count, Error, Filter, Found, MessageDetail, MessageStatus, Messages, OutputCursor, OutputRow, Reads, Result};

/// The columns that [`status_row`] reads, of `message_status m` and `inbox i`; times are exact in milliseconds.
macro_rules! status_columns {
    () => {
        "m.id, m.feed, m.\"table\", m.\"partition\", m.\"offset\", m.status, m.code, m.reason, m.attempts, m.digest, \
         (round(extract(epoch FROM m.received_at) * 1000))::bigint, (round(extract(epoch FROM m.settled_at) * 1000))::bigint, \
         (round(extract(epoch FROM m.due_at) * 1000))::bigint, i.ordering_key"
    };
}

const STATUS_COLUMNS: usize = 14;

fn status_row(row: &PgRow, first: usize) -> Try<MessageStatus> {
    let key: Option<Vec<u8>> = row.try_get(first + 13)?;
    Ok(MessageStatus {
        id: row.try_get(first)?,
        feed: row.try_get(first + 1)?,
        table: plain(row.try_get(first + 2)?),
        partition: row.try_get(first + 3)?,
        offset: row.try_get(first + 4)?,
        key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
        status: row.try_get(first + 5)?,
        code: row.try_get::<Option<String>, _>(first + 6)?.map(plain),
        reason: row.try_get::<Option<String>, _>(first + 7)?.map(plain),
        attempts: row.try_get(first + 8)?,
        digest: row.try_get(first + 9)?,
        received_ms: row.try_get(first + 10)?,
        settled_ms: row.try_get(first + 11)?,
        due_ms: row.try_get(first + 12)?,
    })
}

/// The rows of a filter: `columns` of `message_status m` and `inbox i`.
fn filtered(columns: &str, filter: &Filter) -> QueryBuilder<Database> {
    let mut query = QueryBuilder::new("");
    push_filtered(&mut query, columns, filter, Some(filter.limit));
    query
}

/// Adds the rows of a filter to a statement; without a limit all of them, in no order.
pub(super) fn push_filtered(query: &mut QueryBuilder<Database>, columns: &str, filter: &Filter, limit: Option<i64>) {
    let order = if filter.oldest_first { "ASC" } else { "DESC" };
    // What only the view knows is asked of the view; without that the inbox alone gives the page.
    let judged = is_judged(filter);
    query.push("WITH chosen AS MATERIALIZED (SELECT x.feed, x.lane, x.n FROM inbox x ");
    push_choice(query, filter);
    if let Some(limit) = limit.filter(|_| !judged) {
        query.push(format!(" ORDER BY x.received_ms {order}, x.source_partition {order}, x.source_offset {order} LIMIT "));
        query.push_bind(limit);
    }
    query.push(") SELECT ").push(columns).push(" FROM chosen c JOIN inbox i ON i.feed = c.feed AND i.lane = c.lane AND i.n = c.n");
    // Whoever asks only for places of the inbox needs no judgement.
    if judged || columns.contains("m.") {
        query.push(
            " CROSS JOIN LATERAL (SELECT * FROM message_status v WHERE v.feed_number = c.feed AND v.lane = c.lane AND v.n = c.n LIMIT 1) m",
        );
    }
    query.push(" WHERE true");
    if let Some(status) = filter.status {
        query.push(" AND m.status = ").push_bind(status.as_str());
    }
    if let Some(code) = &filter.code {
        query.push(" AND m.code = ").push_bind(stored(code));
    }
    if let Some(reason) = &filter.reason {
        query.push(" AND strpos(lower(m.reason), lower(").push_bind(stored(reason)).push(")) > 0");
    }
    if let Some(limit) = limit {
        query.push(format!(" ORDER BY i.received_ms {order}, i.source_partition {order}, i.source_offset {order} LIMIT "));
        query.push_bind(limit);
    }
}

/// The places of a filter's messages, with the hashes of their keys and their sizes; a limit of 0 is none.
pub(super) fn push_places(query: &mut QueryBuilder<Database>, filter: &Filter) {
    if filter.limit > 0 || is_judged(filter) {
        return push_filtered(query, "i.feed, i.lane, i.n, i.key_hash, i.size", filter, Some(filter.limit).filter(|limit| *limit > 0));
    }
    query.push("SELECT x.feed, x.lane, x.n, x.key_hash, x.size FROM inbox x ");
    push_choice(query, filter);
}

/// Whether a filter asks for what only the view knows.
fn is_judged(filter: &Filter) -> bool {
    filter.status.is_some() || filter.code.is_some() || filter.reason.is_some()
}

/// What chooses among rows of `inbox x`.
fn push_choice(query: &mut QueryBuilder<Database>, filter: &Filter) {
    push_statuses(query, filter.status);
    if let Some((feed, id)) = &filter.delivery {
        push_parts(query, feed, id);
    }
    query.push("WHERE true");
    push_conditions(query, filter);
}

/// Joins what may have a status, so that the view need not judge every message.
fn push_statuses(query: &mut QueryBuilder<Database>, status: Option<Status>) {
    match status {
        Some(Status::Pending) => {
            query.push(
                "JOIN (SELECT y.feed, y.lane, y.n FROM lane l JOIN inbox y ON y.feed = l.feed AND y.lane = l.lane AND y.n > l.cursor
                   UNION SELECT feed, lane, n FROM work WHERE status = 0) c ON c.feed = x.feed AND c.lane = x.lane AND c.n = x.n ",
            );
        }
        Some(status) if status != Status::Handled => {
            query.push("JOIN (SELECT feed, lane, n FROM work WHERE status = ").push_bind(status.code());
            query.push(" UNION SELECT feed, lane, n FROM outcome WHERE status = ").push_bind(status.code());
            if status == Status::Failed {
                query.push(" UNION SELECT feed, lane, n FROM parked_output");
            }
            query.push(") c ON c.feed = x.feed AND c.lane = x.lane AND c.n = x.n ");
        }
        _ => {}
    }
}

/// Joins the parts of a delivery: each has a row in `work`, an outcome, or stands above its lane's cursor.
fn push_parts(query: &mut QueryBuilder<Database>, feed: &str, id: &str) {
    let rows = ["SELECT feed, lane, n FROM work", "SELECT feed, lane, n FROM outcome"];
    let above = "SELECT y.feed, y.lane, y.n FROM lane l JOIN inbox y ON y.feed = l.feed AND y.lane = l.lane AND y.n > l.cursor";
    for (i, rows) in rows.into_iter().chain([above]).enumerate() {
        query.push(if i == 0 { "JOIN (" } else { " UNION " }).push(rows);
        query.push(" WHERE delivery = (SELECT number FROM delivery WHERE feed = (SELECT id FROM feed WHERE name = ");
        query.push_bind(stored(feed)).push(") AND id = ").push_bind(stored(id)).push(")");
    }
    query.push(") part ON part.feed = x.feed AND part.lane = x.lane AND part.n = x.n ");
}

/// Adds what the inbox itself knows, of `inbox x`.
fn push_conditions(query: &mut QueryBuilder<Database>, filter: &Filter) {
    if let Some(feed) = &filter.feed {
        query.push(" AND x.feed = (SELECT id FROM feed WHERE name = ").push_bind(stored(feed)).push(")");
    }
    if let Some(table) = &filter.table {
        query.push(" AND x.source_table = ").push_bind(stored(table));
    }
    if let Some(key) = &filter.key {
        query.push(" AND x.ordering_key = ").push_bind(key.as_bytes());
    }
    if !filter.keys.is_empty() {
        let keys: Vec<&[u8]> = filter.keys.iter().map(String::as_bytes).collect();
        query.push(" AND x.ordering_key = ANY(").push_bind(keys).push(")");
    }
    if let Some(since_ms) = filter.since_ms {
        query.push(" AND x.received_ms >= ").push_bind(since_ms);
    }
    if let Some(until_ms) = filter.until_ms {
        query.push(" AND x.received_ms < ").push_bind(until_ms);
    }
    if let Some(id) = filter.id {
        query.push(" AND x.id = ").push_bind(id);
    }
    if let Some(place) = filter.place {
        query.push(" AND x.feed = ").push_bind(place.feed.0).push(" AND x.lane = ").push_bind(place.lane);
        query.push(" AND x.n = ").push_bind(place.n);
    }
    if let Some((partition, offset)) = filter.at {
        query.push(" AND x.source_partition = ").push_bind(partition).push(" AND x.source_offset = ").push_bind(offset);
    }
}

impl Postgres {
    async fn messages_once(&self, filter: &Filter) -> Try<Vec<MessageStatus>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        plan_freely(&mut transaction).await?;
        let rows = filtered(status_columns!(), filter).build().persistent(false).fetch_all(&mut *transaction).await?;
        super::commit(transaction, "list messages").await?;
        rows.iter().map(|row| status_row(row, 0)).collect()
    }

    async fn captured_once(&self, filter: &Filter) -> Try<Vec<(Message, MessageStatus)>> {
        let filter = Filter { oldest_first: true, ..filter.clone() };
        let columns = concat!(status_columns!(), ", ", message_columns!());
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        plan_freely(&mut transaction).await?;
        let rows = filtered(columns, &filter).build().persistent(false).fetch_all(&mut *transaction).await?;
        super::commit(transaction, "read messages").await?;
        let mut tables = Tables::default();
        rows.iter().map(|row| Ok((tables.message_at(row, STATUS_COLUMNS)?, status_row(row, 0)?))).collect()
    }

    async fn message_once(&self, filter: &Filter) -> Try<Option<MessageDetail>> {
        let Some((message, status)) = self.captured_once(filter).await?.pop() else { return Ok(None) };
        let mut connection = self.pool().await?.acquire().await?;
        let place = message.place;
        // The last run that was settled: its settlement, its `now`, its activation.
        let last = sqlx::query(
            "SELECT settlement, now_ms, activation, run FROM (
               SELECT settlement, NULL::bigint AS now_ms, activation, run FROM work WHERE feed = $1 AND lane = $2 AND n = $3
               UNION ALL SELECT settlement, now_ms, activation, run FROM outcome WHERE feed = $1 AND lane = $2 AND n = $3
               UNION ALL SELECT d.settlement, d.now_ms, d.activation, d.run FROM action a JOIN action_done d ON d.action = a.id
                 WHERE feed = $1 AND lane = $2 AND n BETWEEN $3 - $3 % 200 AND $3 AND a.which IS NOT NULL AND run >= 0 AND get_bit(d.which, ($3 % 200)::int) = 1
               UNION ALL (SELECT r.settlement, r.now_ms, (r.activations ->> $4)::bigint, -1 FROM settled_range r JOIN lane l USING (feed, lane)
                 WHERE feed = $1 AND lane = $2 AND to_n >= $3 AND from_n <= $3 AND $3 <= l.cursor ORDER BY to_n, settlement DESC LIMIT 1)
             ) o ORDER BY run DESC, now_ms IS NULL DESC LIMIT 1",
        )
        .bind(place.feed.0)
        .bind(place.lane)
        .bind(place.n)
        .bind(stored(&message.table))
        .fetch_optional(&mut *connection)
        .await?;
        let mut detail = MessageDetail {
            outputs: outputs_of(&mut connection, &message).await?,
            status,
            settlement: None,
            now_ms: None,
            activation: None,
            answers: None,
            waits: waits_of(&mut connection, &message).await?,
            message,
        };
        if let Some(row) = last {
            (detail.settlement, detail.now_ms) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(number) = row.try_get::<Option<i64>, _>(2)? {
                let found = sqlx::query("SELECT id, feed, source_table, digest, config, at_ms, by_whom, why FROM activation WHERE id = $1")
                    .bind(number)
                    .fetch_optional(&mut *connection)
                    .await?;
                detail.activation = found.as_ref().map(activation).transpose()?;
            }
        }
        if matches!(&*detail.status.status, "waiting" | "retry" | "pending" | "behind" | "held" | "stopped") {
            // It has not left at any settlement yet.
            detail.settlement = None;
        }
        let answers = sqlx::query("SELECT data FROM answers WHERE feed = $1 AND lane = $2 AND n = $3 ORDER BY run DESC LIMIT 1")
            .bind(place.feed.0)
            .bind(place.lane)
            .bind(place.n)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = answers {
            detail.answers = bytes(&row, 0)?;
        }
        Ok(Some(detail))
    }

    async fn counts_once(&self) -> Try<Vec<Count>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        plan_freely(&mut transaction).await?;
        // Where many messages have just parked, the planner takes `work` for empty yet, and would go through all of it for each message.
        sqlx::raw_sql("SET LOCAL enable_nestloop = off").execute(&mut *transaction).await?;
        let rows = sqlx::query(
            "SELECT f.name, i.source_table,
               CASE WHEN p.n IS NOT NULL THEN 6 ELSE coalesce(w.status, o.status, CASE WHEN i.n <= l.cursor THEN 1 ELSE 0 END) END AS status,
               count(*)
             FROM inbox i JOIN feed f ON f.id = i.feed JOIN lane l ON l.feed = i.feed AND l.lane = i.lane
             LEFT JOIN (SELECT DISTINCT ON (feed, lane, n) feed, lane, n, status FROM work ORDER BY feed, lane, n, run DESC) w
               ON w.feed = i.feed AND w.lane = i.lane AND w.n = i.n
             LEFT JOIN (SELECT DISTINCT ON (feed, lane, n) feed, lane, n, status FROM outcome ORDER BY feed, lane, n, run DESC) o
               ON o.feed = i.feed AND o.lane = i.lane AND o.n = i.n
             LEFT JOIN (SELECT DISTINCT feed, lane, n FROM parked_output) p ON p.feed = i.feed AND p.lane = i.lane AND p.n = i.n
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )
        .persistent(false)
        .fetch_all(&mut *transaction)
        .await?;
        super::commit(transaction, "count messages").await?;
        let count = |row: &PgRow| {
            let code: i32 = row.try_get(2)?;
            let status = i16::try_from(code).ok().and_then(Status::from_code);
            let status = status.ok_or_else(|| Error::Corrupt(format!("a row has the status {code}")))?;
            let (feed, table) = (row.try_get(0)?, plain(row.try_get(1)?));
            Ok(Count { feed, table, status: status.as_str().to_owned(), count: row.try_get(3)? })
        };
        rows.iter().map(count).collect()
    }

    async fn unpublished_once(&self) -> Try<Vec<(String, i64)>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        plan_freely(&mut transaction).await?;
        let rows = sqlx::query_as(
            "SELECT t.name, (SELECT count(*) FROM settlement s JOIN output o ON o.target = t.id AND o.batch = s.batch
               WHERE s.number >= c.settlement AND (s.number > c.settlement OR o.position > c.position))
             FROM target t JOIN target_cursor c ON c.target = t.id ORDER BY t.name",
        )
        .persistent(false)
        .fetch_all(&mut *transaction)
        .await?;
        super::commit(transaction, "count outputs").await?;
        Ok(rows)
    }

    async fn put_entries_once(&self, writes: &[Write], bindings: &[Binding]) -> Try<()> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        let (number, now_ms) = self.number(&mut transaction, self.id, None).await?;
        let (new, conflicts) = validate::bindings(&mut transaction, &bindings.iter().enumerate().collect::<Vec<_>>()).await?;
        if let Some(conflict) = conflicts.first() {
            let Binding { namespace, key, id } = &bindings[conflict.index];
            transaction.rollback().await?;
            return Err(
                Error::Config(format!("{key} cannot be bound to {id} in namespace {namespace}: one of them is bound otherwise")).into()
            );
        }
        let writes = Written::by_hand(writes, now_ms);
        let known = effects::stored_entries(&mut transaction, &writes).await?;
        let mut changes = Changes::of(&writes, &known);
        for binding in &new {
            changes.bound(binding.index, binding.namespace, binding.key, binding.id);
        }
        effects::store_entries(&mut transaction, number, &changes).await?;
        effects::store_bindings(&mut transaction, number, &new).await?;
        effects::wake(&mut transaction, now_ms, changes.touched.keys()).await?;
        super::commit(transaction, "write entries").await?;
        Ok(())
    }

    async fn bindings_once(&self, namespace: &str) -> Try<Vec<(String, Uuid)>> {
        let rows: Vec<(String, Uuid)> = sqlx::query_as("SELECT key, id FROM id_binding WHERE namespace = $1 ORDER BY key")
            .bind(stored(namespace))
            .fetch_all(self.pool().await?)
            .await?;
        Ok(rows.into_iter().map(|(key, id)| (plain(key), id)).collect())
    }
}

/// Questions of people may walk tables whole, which the verbs of the loops never do.
pub(super) async fn plan_freely(transaction: &mut PgConnection) -> Try<()> {
    let sql = "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on";
    sqlx::raw_sql(sql).execute(transaction).await?;
    Ok(())
}

/// The outputs of all runs of a message: by the settlements that could have made them, as outputs have no index on messages.
async fn outputs_of(connection: &mut PgConnection, message: &Message) -> Try<Vec<(String, OutputRow, bool, Option<String>)>> {
    let rows = sqlx::query(concat!(
        "WITH at AS (SELECT settlement FROM outcome WHERE feed = $1 AND lane = $2 AND n = $3
           UNION SELECT settlement FROM settled_range WHERE feed = $1 AND lane = $2 AND to_n >= $3 AND from_n <= $3
           UNION SELECT settlement FROM work WHERE feed = $1 AND lane = $2 AND n = $3
           UNION SELECT d.settlement FROM action a JOIN action_done d ON d.action = a.id
             WHERE feed = $1 AND lane = $2 AND n BETWEEN $3 - $3 % 200 AND $3 AND a.which IS NOT NULL AND get_bit(d.which, ($3 % 200)::int) = 1
           UNION SELECT settlement FROM parked_output WHERE feed = $1 AND lane = $2 AND n = $3)
         SELECT ",
        output_columns!(),
        ", t.name, c.settlement, c.position, p.reason
         FROM at JOIN settlement s ON s.number = at.settlement CROSS JOIN target t
         JOIN output o ON o.target = t.id AND o.batch = s.batch AND o.feed = $1 AND o.lane = $2 AND o.n = $3
         JOIN target_cursor c ON c.target = t.id JOIN feed f ON f.id = o.feed
         LEFT JOIN activation a ON a.id = o.activation
         LEFT JOIN parked_output p ON p.target = o.target AND p.settlement = s.number AND p.position = o.position
         ORDER BY o.run, s.number, o.ordinal"
    ))
    .bind(message.place.feed.0)
    .bind(message.place.lane)
    .bind(message.place.n)
    .fetch_all(connection)
    .await?;
    let output = |row: &PgRow| {
        let output = output_row(row)?;
        let cursor = OutputCursor { settlement: row.try_get(16)?, index: row.try_get(17)? };
        let parked: Option<String> = row.try_get(18)?;
        let published = output.cursor <= cursor && parked.is_none();
        Ok((row.try_get(15)?, output, published, parked.map(plain)))
    };
    rows.iter().map(output).collect()
}

async fn waits_of(connection: &mut PgConnection, message: &Message) -> Try<Vec<Request>> {
    let rows: Vec<(String,)> = sqlx::query_as("SELECT request FROM wait WHERE feed = $1 AND lane = $2 AND n = $3 ORDER BY run, ordinal")
        .bind(message.place.feed.0)
        .bind(message.place.lane)
        .bind(message.place.n)
        .fetch_all(connection)
        .await?;
    let request = |(text,): &(String,)| {
        serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("what a message waits for: {error}")).into())
    };
    rows.iter().map(request).collect()
}

#[async_trait]
impl Messages for Postgres {
    async fn messages(&self, filter: &Filter) -> Result<Vec<MessageStatus>> {
        retried!(self, "list messages", self.messages_once(filter))
    }

    async fn message(&self, id: Uuid) -> Result<Option<MessageDetail>> {
        let filter = Filter { id: Some(id), limit: 1, ..Filter::default() };
        retried!(self, "read a message", self.message_once(&filter))
    }

    async fn message_at(&self, place: Place) -> Result<Option<MessageDetail>> {
        let filter = Filter { place: Some(place), limit: 1, ..Filter::default() };
        retried!(self, "read a message", self.message_once(&filter))
    }

    async fn captured(&self, filter: &Filter) -> Result<Vec<(Message, MessageStatus)>> {
        retried!(self, "read messages", self.captured_once(filter))
    }

    async fn counts(&self) -> Result<Vec<Count>> {
        retried!(self, "count messages", self.counts_once())
    }

    async fn unpublished(&self) -> Result<Vec<(String, i64)>> {
        retried!(self, "count outputs", self.unpublished_once())
    }

    async fn put_entries(&self, writes: &[Write], bindings: &[Binding]) -> Result<()> {
        retried!(self, "write entries", self.put_entries_once(writes, bindings))
    }

    async fn entries(&self, scan: &Scan) -> Result<Vec<(String, Bytes)>> {
        match self.read(&[Request::Entries(scan.clone())]).await?.found.pop() {
            Some(Found::Page { items, .. }) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    async fn bindings(&self, namespace: &str) -> Result<Vec<(String, Uuid)>> {
        retried!(self, "list bindings", self.bindings_once(namespace))
    }
}
