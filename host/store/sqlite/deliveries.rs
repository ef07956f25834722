//! Deliveries on SQLite: their rows, and the verbs around what `store/deliveries/book.rs` decides. Whoever writes holds the only write lock.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use uuid::Uuid;

use super::{Sqlite, damaged};
use crate::delivery::judge::Tally;
use crate::delivery::{Rules, State};
use crate::message::FeedId;
use crate::store::deliveries::book::{self, Book};
use crate::store::deliveries::object;
use crate::store::{Account, Answer, Audited, By, Deliveries, Delivery, Done, Ordered, Result, Tended};

/// The columns that [`delivery`] reads.
macro_rules! delivery_columns {
    () => {
        "d.number, d.feed, d.id, d.order_number, d.state, d.params, d.starts, d.ends, d.expected_start, d.expected_end, d.accepted, \
         d.source_partition, d.spread, d.release, d.call_epoch, d.opened_ms, d.bound_ms, d.started_ms, d.ended_ms, d.closed_ms, d.due_ms, \
         d.code, d.reason"
    };
}

mod count;

fn delivery(row: &SqliteRow) -> sqlx::Result<Delivery> {
    let state: i16 = row.try_get(4)?;
    let params: &str = row.try_get(5)?;
    Ok(Delivery {
        number: row.try_get(0)?,
        feed: FeedId(row.try_get(1)?),
        id: row.try_get(2)?,
        order_number: row.try_get(3)?,
        params: serde_json::from_str(params).map_err(|error| damaged(format!("a delivery's params: {error}")))?,
        tally: Tally {
            state: State::from_code(state).ok_or_else(|| damaged(format!("no delivery has the state {state}")))?,
            starts: row.try_get(6)?,
            ends: row.try_get(7)?,
            expected_start: row.try_get(8)?,
            expected_end: row.try_get(9)?,
            accepted: row.try_get(10)?,
            partition: row.try_get(11)?,
            spread: row.try_get(12)?,
            started_ms: row.try_get(17)?,
            ended_ms: row.try_get(18)?,
            closed_ms: row.try_get(19)?,
            due_ms: row.try_get(20)?,
            code: row.try_get(21)?,
            reason: row.try_get(22)?,
        },
        release: row.try_get(13)?,
        call_epoch: row.try_get(14)?,
        opened_ms: row.try_get(15)?,
        bound_ms: row.try_get(16)?,
    })
}

fn params(delivery: &Delivery) -> String {
    serde_json::to_string(&delivery.params).expect("pairs of texts are JSON")
}

/// The rows of deliveries under a transaction.
pub(super) struct Rows<'c>(pub(super) &'c mut SqliteConnection);

impl Book for Rows<'_> {
    type Error = sqlx::Error;

    async fn by_ids(&mut self, feed: FeedId, ids: &[&str]) -> sqlx::Result<Vec<Delivery>> {
        let mut found = Vec::new();
        for id in ids {
            let query = sqlx::query(concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE d.feed = ? AND d.id = ?"));
            let row = query.bind(feed.0).bind(id).fetch_optional(&mut *self.0).await?;
            found.extend(row.as_ref().map(delivery).transpose()?);
        }
        Ok(found)
    }

    async fn by_number(&mut self, number: i64) -> sqlx::Result<Option<Delivery>> {
        let query = sqlx::query(concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE d.number = ?1 OR d.order_number = ?1"));
        query.bind(number).fetch_optional(&mut *self.0).await?.as_ref().map(delivery).transpose()
    }

    async fn in_states(&mut self, feed: FeedId, states: &[State]) -> sqlx::Result<Vec<Delivery>> {
        let marks = vec!["?"; states.len()].join(", ");
        let text = format!("SELECT {} FROM delivery d WHERE d.feed = ? AND d.state IN ({marks}) ORDER BY d.number", delivery_columns!());
        let mut query = sqlx::query(AssertSqlSafe(text)).bind(feed.0);
        for state in states {
            query = query.bind(state.code());
        }
        query.fetch_all(&mut *self.0).await?.iter().map(delivery).collect()
    }

    async fn insert(&mut self, new: &Delivery) -> sqlx::Result<i64> {
        sqlx::query_scalar("INSERT INTO delivery (feed, id, state, params, opened_ms) VALUES (?, ?, ?, ?, ?) RETURNING number")
            .bind(new.feed.0)
            .bind(new.id.as_deref())
            .bind(new.tally.state.code())
            .bind(params(new))
            .bind(new.opened_ms)
            .fetch_one(&mut *self.0)
            .await
    }

    async fn save(&mut self, row: &Delivery) -> sqlx::Result<()> {
        let tally = &row.tally;
        sqlx::query(
            "UPDATE delivery SET id = ?2, order_number = ?3, state = ?4, params = ?5, starts = ?6, ends = ?7, expected_start = ?8,
               expected_end = ?9, accepted = ?10, source_partition = ?11, spread = ?12, release = ?13, call_epoch = ?14, opened_ms = ?15,
               bound_ms = ?16, started_ms = ?17, ended_ms = ?18, closed_ms = ?19, due_ms = ?20, code = ?21, reason = ?22
             WHERE number = ?1",
        )
        .bind(row.number)
        .bind(row.id.as_deref())
        .bind(row.order_number)
        .bind(tally.state.code())
        .bind(params(row))
        .bind(tally.starts)
        .bind(tally.ends)
        .bind(tally.expected_start)
        .bind(tally.expected_end)
        .bind(tally.accepted)
        .bind(tally.partition)
        .bind(tally.spread)
        .bind(row.release)
        .bind(row.call_epoch)
        .bind(row.opened_ms)
        .bind(row.bound_ms)
        .bind(tally.started_ms)
        .bind(tally.ended_ms)
        .bind(tally.closed_ms)
        .bind(tally.due_ms)
        .bind(&tally.code)
        .bind(&tally.reason)
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    async fn remove(&mut self, number: i64) -> sqlx::Result<()> {
        sqlx::query("DELETE FROM delivery WHERE number = ?").bind(number).execute(&mut *self.0).await?;
        Ok(())
    }

    async fn audit(&mut self, number: i64, kind: &'static str, at_ms: i64, by: &By, parts: i64) -> sqlx::Result<()> {
        command(self.0, Uuid::new_v4(), number, kind, at_ms, by, parts).await
    }
}

/// A line of the audit trail.
async fn command(
    connection: &mut SqliteConnection,
    id: Uuid,
    number: i64,
    kind: &str,
    at_ms: i64,
    by: &By,
    parts: i64,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO command (id, kind, object, by_whom, why, at_ms, messages) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(id)
        .bind(kind)
        .bind(object(number))
        .bind(&by.whom)
        .bind(&by.why)
        .bind(at_ms)
        .bind(parts)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether the feed is ours.
async fn own_feed(connection: &mut SqliteConnection, feed: FeedId, epoch: i64) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT count(*) > 0 FROM feed WHERE id = ? AND epoch = ? AND owner IS NOT NULL")
        .bind(feed.0)
        .bind(epoch)
        .fetch_one(connection)
        .await
}

impl Sqlite {
    async fn tend(&self, connection: &mut SqliteConnection, feed: FeedId, rows_max: i64) -> sqlx::Result<Tended> {
        let now = self.now();
        let query =
            sqlx::query(concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE d.feed = ? AND d.due_ms <= ? ORDER BY d.number"));
        let due = query.bind(feed.0).bind(now).fetch_all(&mut *connection).await?;
        let due = due.iter().map(delivery).collect::<sqlx::Result<Vec<_>>>()?;
        let expired = due.len();
        let told = book::expire(&mut Rows(&mut *connection), due, now).await?;
        self.tell(connection, &told).await?;
        let (released, more) = release(connection, feed, now, rows_max).await?;
        Ok(Tended { expired, released, more, unclear: 0 })
    }
}

/// Lets go held parts of deliveries that are over: how many, and whether there are more.
async fn release(connection: &mut SqliteConnection, feed: FeedId, now: i64, rows_max: i64) -> sqlx::Result<(u64, bool)> {
    let numbers: Vec<i64> = sqlx::query_scalar("SELECT number FROM delivery WHERE feed = ? AND release ORDER BY number")
        .bind(feed.0)
        .fetch_all(&mut *connection)
        .await?;
    let mut left = rows_max;
    for number in numbers {
        let released = sqlx::query(
            "UPDATE work SET status = 0, due_ms = ?3 WHERE (feed, lane, n, run) IN (SELECT w.feed, w.lane, w.n, w.run FROM work w
               WHERE w.delivery = ?1 AND w.status = 7 ORDER BY w.feed, w.lane, w.n LIMIT ?2)",
        )
        .bind(number)
        .bind(left)
        .bind(now)
        .execute(&mut *connection)
        .await?;
        left -= i64::try_from(released.rows_affected()).unwrap_or(i64::MAX);
        if left <= 0 {
            return Ok((u64::try_from(rows_max).unwrap_or_default(), true));
        }
        sqlx::query("UPDATE delivery SET release = 0 WHERE number = ?").bind(number).execute(&mut *connection).await?;
    }
    Ok((u64::try_from(rows_max - left).unwrap_or_default(), false))
}

#[async_trait]
impl Deliveries for Sqlite {
    async fn deliveries(&self, feed: FeedId, limit: i64) -> Result<Vec<Delivery>> {
        const VERB: &str = "list deliveries";
        self.fault(VERB, "begin").await?;
        self.list(feed, limit).await.map_err(self.failed(VERB))
    }

    async fn delivery(&self, number: i64) -> Result<Option<Delivery>> {
        const VERB: &str = "read a delivery";
        self.fault(VERB, "begin").await?;
        self.by_number(number).await.map_err(self.failed(VERB))
    }

    async fn delivery_by_id(&self, feed: FeedId, id: &str) -> Result<Option<Delivery>> {
        const VERB: &str = "find a delivery";
        self.fault(VERB, "begin").await?;
        self.by_id(feed, id).await.map_err(self.failed(VERB))
    }

    async fn delivery_account(&self, number: i64) -> Result<Option<Account>> {
        const VERB: &str = "count a delivery's parts";
        self.fault(VERB, "begin").await?;
        let mut transaction = self.read_one_state(VERB).await?;
        count::account(&mut transaction, number).await.map_err(self.failed(VERB))
    }

    async fn delivery_failures(&self, feed: FeedId) -> Result<i64> {
        const VERB: &str = "count failed parts";
        self.fault(VERB, "begin").await?;
        self.failures(feed).await.map_err(self.failed(VERB))
    }

    async fn delivery_audit(&self, number: i64) -> Result<Vec<Audited>> {
        const VERB: &str = "read a delivery's audit trail";
        self.fault(VERB, "begin").await?;
        self.audit_of(number).await.map_err(self.failed(VERB))
    }

    async fn order_delivery(&self, feed: FeedId, params: &[(String, String)], by: &By, forced: bool) -> Result<Ordered> {
        const VERB: &str = "order a delivery";
        let mut transaction = self.write(VERB).await?;
        let ordered = book::order(&mut Rows(&mut transaction), feed, params, by, forced, self.now()).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(ordered)
    }

    async fn bind_delivery(&self, number: i64, id: &str, rules: &Rules, by: &By) -> Result<Done> {
        const VERB: &str = "bind a delivery";
        let mut transaction = self.write(VERB).await?;
        let bound = book::bind_by_hand(&mut Rows(&mut transaction), number, id, rules, by, self.now()).await;
        let (done, told) = bound.map_err(self.failed(VERB))?;
        self.tell(&mut transaction, &told).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(done)
    }

    async fn invalidate_delivery(&self, number: i64, by: &By) -> Result<Done> {
        const VERB: &str = "invalidate a delivery";
        let mut transaction = self.write(VERB).await?;
        let invalidated = book::invalidate(&mut Rows(&mut transaction), number, by, self.now()).await;
        let (done, told) = invalidated.map_err(self.failed(VERB))?;
        self.tell(&mut transaction, &told).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(done)
    }

    async fn stop_delivery(&self, number: i64, by: &By) -> Result<Done> {
        const VERB: &str = "stop a delivery";
        let mut transaction = self.write(VERB).await?;
        let done = count::stop(&mut transaction, number, by, self.now()).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(done)
    }

    async fn rerun_delivery(&self, number: i64, by: &By) -> Result<Done> {
        const VERB: &str = "rerun a delivery";
        let mut transaction = self.write(VERB).await?;
        let done = count::rerun(&mut transaction, number, by, self.now()).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(done)
    }

    async fn take_order(&self, feed: FeedId, epoch: i64) -> Result<Option<Delivery>> {
        const VERB: &str = "take an order";
        // Most of the time nothing is ordered, and no writer is to be held up by that.
        let waiting: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM delivery WHERE feed = ? AND state IN (?, ?))")
            .bind(feed.0)
            .bind(State::Requested.code())
            .bind(State::Calling.code())
            .fetch_one(&self.readers)
            .await
            .map_err(self.failed(VERB))?;
        if !waiting {
            return Ok(None);
        }
        let mut transaction = self.write(VERB).await?;
        if !own_feed(&mut transaction, feed, epoch).await.map_err(self.failed(VERB))? {
            return Ok(None);
        }
        let next = book::take_order(&mut Rows(&mut transaction), feed, epoch).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(next)
    }

    async fn answer_order(&self, feed: FeedId, epoch: i64, number: i64, answer: &Answer, rules: &Rules) -> Result<bool> {
        const VERB: &str = "answer an order";
        let mut transaction = self.write(VERB).await?;
        if !own_feed(&mut transaction, feed, epoch).await.map_err(self.failed(VERB))? {
            return Ok(false);
        }
        let answered = book::answer(&mut Rows(&mut transaction), (number, epoch), answer, rules, self.now()).await;
        let Some(told) = answered.map_err(self.failed(VERB))? else { return Ok(false) };
        self.tell(&mut transaction, &told).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(true)
    }

    async fn tend_deliveries(&self, feed: FeedId, epoch: i64, rows_max: i64) -> Result<Option<Tended>> {
        const VERB: &str = "tend deliveries";
        // Most of the time there is nothing to do, and no writer is to be held up by that.
        let (busy, unclear): (bool, i64) = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM delivery WHERE feed = ?1 AND (release OR due_ms <= ?2)),
               (SELECT count(*) FROM delivery WHERE feed = ?1 AND state = ?3)",
        )
        .bind(feed.0)
        .bind(self.now())
        .bind(State::Unclear.code())
        .fetch_one(&self.readers)
        .await
        .map_err(self.failed(VERB))?;
        let unclear = usize::try_from(unclear).unwrap_or_default();
        if !busy {
            return Ok(Some(Tended { unclear, ..Tended::default() }));
        }
        let mut transaction = self.write(VERB).await?;
        if !own_feed(&mut transaction, feed, epoch).await.map_err(self.failed(VERB))? {
            return Ok(None);
        }
        let tended = self.tend(&mut transaction, feed, rows_max).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(Some(Tended { unclear, ..tended }))
    }
}
