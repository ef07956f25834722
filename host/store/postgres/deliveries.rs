//! Deliveries on PostgreSQL: their rows under lock, and the verbs around what `store/deliveries/book.rs` decides. Whatever may tell parts
//! something takes the settlement guard first, so that nothing here waits in a circle.

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, PgTransaction, Row};
use uuid::Uuid;

use super::leases::guard;
use super::text::{plain, stored};
use super::{Postgres, Try, effects, retried};
use crate::delivery::judge::Tally;
use crate::delivery::{Rules, State};
use crate::message::FeedId;
use crate::plugin::Write;
use crate::store::changes::{Changes, Written};
use crate::store::deliveries::book::{self, Book};
use crate::store::deliveries::object;
use crate::store::{Account, Answer, Audited, By, Deliveries, Delivery, Done, Error, Ordered, Result, Tended};

/// The columns that [`delivery`] reads.
macro_rules! delivery_columns {
    () => {
        "d.number, d.feed, d.id, d.order_number, d.state, d.params, d.starts, d.ends, d.expected_start, d.expected_end, d.accepted, \
         d.source_partition, d.spread, d.release, d.call_epoch, d.opened_ms, d.bound_ms, d.started_ms, d.ended_ms, d.closed_ms, d.due_ms, \
         d.code, d.reason"
    };
}

mod count;

fn delivery(row: &PgRow) -> Try<Delivery> {
    let state: i16 = row.try_get(4)?;
    let params: String = row.try_get(5)?;
    Ok(Delivery {
        number: row.try_get(0)?,
        feed: FeedId(row.try_get(1)?),
        id: row.try_get::<Option<String>, _>(2)?.map(plain),
        order_number: row.try_get(3)?,
        params: serde_json::from_str(&plain(params)).map_err(|error| Error::Corrupt(format!("a delivery's params: {error}")))?,
        tally: Tally {
            state: State::from_code(state).ok_or_else(|| Error::Corrupt(format!("a delivery has the state {state}")))?,
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
            code: plain(row.try_get(21)?),
            reason: plain(row.try_get(22)?),
        },
        release: row.try_get(13)?,
        call_epoch: row.try_get(14)?,
        opened_ms: row.try_get(15)?,
        bound_ms: row.try_get(16)?,
    })
}

fn params(delivery: &Delivery) -> String {
    stored(&serde_json::to_string(&delivery.params).expect("pairs of texts are JSON")).into_owned()
}

/// The rows of deliveries under a transaction; what is read is locked.
pub(super) struct Rows<'c>(pub(super) &'c mut PgConnection);

impl Book for Rows<'_> {
    type Error = super::Trouble;

    async fn by_ids(&mut self, feed: FeedId, ids: &[&str]) -> Try<Vec<Delivery>> {
        let query = sqlx::query(concat!(
            "SELECT ",
            delivery_columns!(),
            " FROM delivery d WHERE d.feed = $1 AND d.id = ANY($2) ORDER BY d.number FOR UPDATE"
        ));
        let ids: Vec<_> = ids.iter().map(|id| stored(id)).collect();
        query.bind(feed.0).bind(ids).fetch_all(&mut *self.0).await?.iter().map(delivery).collect()
    }

    async fn by_number(&mut self, number: i64) -> Try<Option<Delivery>> {
        let query =
            sqlx::query(concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE d.number = $1 OR d.order_number = $1 FOR UPDATE"));
        query.bind(number).fetch_optional(&mut *self.0).await?.as_ref().map(delivery).transpose()
    }

    async fn in_states(&mut self, feed: FeedId, states: &[State]) -> Try<Vec<Delivery>> {
        let query = sqlx::query(concat!(
            "SELECT ",
            delivery_columns!(),
            " FROM delivery d WHERE d.feed = $1 AND d.state = ANY($2) ORDER BY d.number"
        ));
        let states: Vec<i16> = states.iter().map(|state| state.code()).collect();
        query.bind(feed.0).bind(states).fetch_all(&mut *self.0).await?.iter().map(delivery).collect()
    }

    async fn insert(&mut self, new: &Delivery) -> Try<i64> {
        let (number,) =
            sqlx::query_as("INSERT INTO delivery (feed, id, state, params, opened_ms) VALUES ($1, $2, $3, $4, $5) RETURNING number")
                .bind(new.feed.0)
                .bind(new.id.as_deref().map(stored))
                .bind(new.tally.state.code())
                .bind(params(new))
                .bind(new.opened_ms)
                .fetch_one(&mut *self.0)
                .await?;
        Ok(number)
    }

    async fn save(&mut self, row: &Delivery) -> Try<()> {
        let tally = &row.tally;
        sqlx::query(
            "UPDATE delivery SET id = $2, order_number = $3, state = $4, params = $5, starts = $6, ends = $7, expected_start = $8,
               expected_end = $9, accepted = $10, source_partition = $11, spread = $12, release = $13, call_epoch = $14, opened_ms = $15,
               bound_ms = $16, started_ms = $17, ended_ms = $18, closed_ms = $19, due_ms = $20, code = $21, reason = $22
             WHERE number = $1",
        )
        .bind(row.number)
        .bind(row.id.as_deref().map(stored))
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
        .bind(stored(&tally.code))
        .bind(stored(&tally.reason))
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    async fn remove(&mut self, number: i64) -> Try<()> {
        sqlx::query("DELETE FROM delivery WHERE number = $1").bind(number).execute(&mut *self.0).await?;
        Ok(())
    }

    async fn audit(&mut self, number: i64, kind: &'static str, at_ms: i64, by: &By, parts: i64) -> Try<()> {
        command(self.0, Uuid::new_v4(), number, kind, at_ms, by, parts).await
    }
}

/// A line of the audit trail.
async fn command(connection: &mut PgConnection, id: Uuid, number: i64, kind: &str, at_ms: i64, by: &By, parts: i64) -> Try<()> {
    sqlx::query("INSERT INTO command (id, kind, object, by_whom, why, at_ms, messages) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(id)
        .bind(kind)
        .bind(object(number))
        .bind(stored(&by.whom))
        .bind(stored(&by.why))
        .bind(at_ms)
        .bind(parts)
        .execute(connection)
        .await?;
    Ok(())
}

impl Postgres {
    /// Writes what deliveries tell their parts, under a settlement of its own; the guard is held.
    pub(super) async fn tell(&self, connection: &mut PgConnection, told: &[Write]) -> Try<()> {
        if told.is_empty() {
            return Ok(());
        }
        let (number, now_ms) = self.number(connection, self.id, None).await?;
        let writes = Written::by_hand(told, now_ms);
        let known = effects::stored_entries(connection, &writes).await?;
        let changes = Changes::of(&writes, &known);
        effects::store_entries(connection, number, &changes).await?;
        effects::wake(connection, now_ms, changes.touched.keys()).await?;
        Ok(())
    }

    async fn clock_ms(&self, connection: &mut PgConnection) -> Try<i64> {
        let (now_ms,) = sqlx::query_as("SELECT coalesce($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)")
            .bind(self.clock.fixed_ms())
            .fetch_one(connection)
            .await?;
        Ok(now_ms)
    }

    async fn order_once(&self, feed: FeedId, params: &[(String, String)], by: &By, forced: bool) -> Try<Ordered> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        // One order at a time: of two equal ones the second sees the first.
        sqlx::query("SELECT 1 FROM feed WHERE id = $1 FOR UPDATE").bind(feed.0).execute(&mut *transaction).await?;
        let now_ms = self.clock_ms(&mut transaction).await?;
        let ordered = book::order(&mut Rows(&mut transaction), feed, params, by, forced, now_ms).await?;
        super::commit(transaction, "order a delivery").await?;
        Ok(ordered)
    }

    /// A person's word about a delivery, under the guard.
    async fn guarded<'c>(&self, connection: &'c mut PgConnection) -> Try<(PgTransaction<'c>, i64)> {
        let mut transaction = connection.begin().await?;
        guard(&mut transaction).await?;
        let now_ms = self.clock_ms(&mut transaction).await?;
        Ok((transaction, now_ms))
    }

    async fn bind_once(&self, number: i64, id: &str, rules: &Rules, by: &By) -> Try<Done> {
        let mut connection = self.pool().await?.acquire().await?;
        let (mut transaction, now_ms) = self.guarded(&mut connection).await?;
        lock_feed_of(&mut transaction, number).await?;
        let (done, told) = book::bind_by_hand(&mut Rows(&mut transaction), number, id, rules, by, now_ms).await?;
        self.tell(&mut transaction, &told).await?;
        super::commit(transaction, "bind a delivery").await?;
        Ok(done)
    }

    async fn invalidate_once(&self, number: i64, by: &By) -> Try<Done> {
        let mut connection = self.pool().await?.acquire().await?;
        let (mut transaction, now_ms) = self.guarded(&mut connection).await?;
        lock_feed_of(&mut transaction, number).await?;
        let (done, told) = book::invalidate(&mut Rows(&mut transaction), number, by, now_ms).await?;
        self.tell(&mut transaction, &told).await?;
        super::commit(transaction, "invalidate a delivery").await?;
        Ok(done)
    }

    async fn take_order_once(&self, feed: FeedId, epoch: i64) -> Try<Option<Delivery>> {
        let mut connection = self.pool().await?.acquire().await?;
        // Most of the time nothing is ordered, and no message is to be held up by that.
        let waiting = sqlx::query("SELECT 1 FROM delivery WHERE feed = $1 AND state = ANY($2) LIMIT 1")
            .bind(feed.0)
            .bind([State::Requested.code(), State::Calling.code()])
            .fetch_optional(&mut *connection)
            .await?;
        if waiting.is_none() {
            return Ok(None);
        }
        let mut transaction = connection.begin().await?;
        if !own_feed(&mut transaction, feed, epoch).await? {
            return Ok(None);
        }
        let next = book::take_order(&mut Rows(&mut transaction), feed, epoch).await?;
        super::commit(transaction, "take an order").await?;
        Ok(next)
    }

    async fn answer_once(&self, feed: FeedId, epoch: i64, number: i64, answer: &Answer, rules: &Rules) -> Try<bool> {
        let mut connection = self.pool().await?.acquire().await?;
        let (mut transaction, now_ms) = self.guarded(&mut connection).await?;
        if !own_feed(&mut transaction, feed, epoch).await? {
            return Ok(false);
        }
        let Some(told) = book::answer(&mut Rows(&mut transaction), (number, epoch), answer, rules, now_ms).await? else {
            return Ok(false);
        };
        self.tell(&mut transaction, &told).await?;
        super::commit(transaction, "answer an order").await?;
        Ok(true)
    }

    async fn tend_once(&self, feed: FeedId, epoch: i64, rows_max: i64) -> Try<Option<Tended>> {
        let mut connection = self.pool().await?.acquire().await?;
        // Most of the time there is nothing to do, and nobody is to be held up by that.
        let (idle, unclear): (bool, i64) = sqlx::query_as(
            "SELECT NOT EXISTS (SELECT 1 FROM delivery WHERE feed = $1 AND (release
                 OR due_ms <= coalesce($2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint))),
               (SELECT count(*) FROM delivery WHERE feed = $1 AND state = $3)",
        )
        .bind(feed.0)
        .bind(self.clock.fixed_ms())
        .bind(State::Unclear.code())
        .fetch_one(&mut *connection)
        .await?;
        let mut tended = Tended { unclear: usize::try_from(unclear).unwrap_or_default(), ..Tended::default() };
        if idle {
            return Ok(Some(tended));
        }
        let (mut transaction, now_ms) = self.guarded(&mut connection).await?;
        if !own_feed(&mut transaction, feed, epoch).await? {
            return Ok(None);
        }
        let due = due(&mut transaction, feed, now_ms).await?;
        tended.expired = due.len();
        let told = book::expire(&mut Rows(&mut transaction), due, now_ms).await?;
        self.tell(&mut transaction, &told).await?;
        (tended.released, tended.more) = release(&mut transaction, feed, now_ms, rows_max).await?;
        super::commit(transaction, "tend deliveries").await?;
        Ok(Some(tended))
    }
}

/// Whether the feed is ours; it stays so until the transaction ends, and no order of it is placed meanwhile.
async fn own_feed(connection: &mut PgConnection, feed: FeedId, epoch: i64) -> Try<bool> {
    let found = sqlx::query("SELECT 1 FROM feed WHERE id = $1 AND epoch = $2 AND owner IS NOT NULL FOR UPDATE")
        .bind(feed.0)
        .bind(epoch)
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Keeps messages of the delivery's feed out until the transaction ends.
async fn lock_feed_of(connection: &mut PgConnection, number: i64) -> Try<()> {
    sqlx::query("SELECT 1 FROM feed WHERE id = (SELECT feed FROM delivery WHERE number = $1 OR order_number = $1) FOR UPDATE")
        .bind(number)
        .execute(connection)
        .await?;
    Ok(())
}

async fn due(connection: &mut PgConnection, feed: FeedId, now_ms: i64) -> Try<Vec<Delivery>> {
    let query = sqlx::query(concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM delivery d WHERE d.feed = $1 AND d.due_ms <= $2 ORDER BY d.number FOR UPDATE"
    ));
    query.bind(feed.0).bind(now_ms).fetch_all(connection).await?.iter().map(delivery).collect()
}

/// Lets go held parts of deliveries that are over: how many, and whether there are more.
async fn release(connection: &mut PgConnection, feed: FeedId, now_ms: i64, rows_max: i64) -> Try<(u64, bool)> {
    let numbers: Vec<(i64,)> = sqlx::query_as("SELECT number FROM delivery WHERE feed = $1 AND release ORDER BY number FOR UPDATE")
        .bind(feed.0)
        .fetch_all(&mut *connection)
        .await?;
    let mut left = rows_max;
    for (number,) in numbers {
        let released = sqlx::query(
            "UPDATE work SET status = 0, due_ms = $3 FROM (SELECT w.feed, w.lane, w.n, w.run FROM work w
               WHERE w.delivery = $1 AND w.status = 7 ORDER BY w.feed, w.lane, w.n LIMIT $2) h
             WHERE work.feed = h.feed AND work.lane = h.lane AND work.n = h.n AND work.run = h.run",
        )
        .bind(number)
        .bind(left)
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
        left -= i64::try_from(released.rows_affected()).unwrap_or(i64::MAX);
        if left <= 0 {
            return Ok((u64::try_from(rows_max).unwrap_or_default(), true));
        }
        // Nothing is held any more, and under the guard nothing becomes so: whoever reads the delivery's entry now sees that it is over.
        sqlx::query("UPDATE delivery SET release = false WHERE number = $1").bind(number).execute(&mut *connection).await?;
    }
    Ok((u64::try_from(rows_max - left).unwrap_or_default(), false))
}

#[async_trait]
impl Deliveries for Postgres {
    async fn deliveries(&self, feed: FeedId, limit: i64) -> Result<Vec<Delivery>> {
        retried!(self, "list deliveries", self.deliveries_once(feed, limit))
    }

    async fn delivery(&self, number: i64) -> Result<Option<Delivery>> {
        retried!(self, "read a delivery", self.delivery_once(number))
    }

    async fn delivery_by_id(&self, feed: FeedId, id: &str) -> Result<Option<Delivery>> {
        retried!(self, "find a delivery", self.delivery_by_id_once(feed, id))
    }

    async fn delivery_account(&self, number: i64) -> Result<Option<Account>> {
        retried!(self, "count a delivery's parts", self.account_once(number))
    }

    async fn delivery_failures(&self, feed: FeedId) -> Result<i64> {
        retried!(self, "count failed parts", self.failures_once(feed))
    }

    async fn delivery_audit(&self, number: i64) -> Result<Vec<Audited>> {
        retried!(self, "read a delivery's audit trail", self.delivery_audit_once(number))
    }

    async fn order_delivery(&self, feed: FeedId, params: &[(String, String)], by: &By, forced: bool) -> Result<Ordered> {
        retried!(self, "order a delivery", self.order_once(feed, params, by, forced))
    }

    async fn bind_delivery(&self, number: i64, id: &str, rules: &Rules, by: &By) -> Result<Done> {
        retried!(self, "bind a delivery", self.bind_once(number, id, rules, by))
    }

    async fn invalidate_delivery(&self, number: i64, by: &By) -> Result<Done> {
        retried!(self, "invalidate a delivery", self.invalidate_once(number, by))
    }

    async fn stop_delivery(&self, number: i64, by: &By) -> Result<Done> {
        retried!(self, "stop a delivery", self.stop_once(number, by))
    }

    async fn rerun_delivery(&self, number: i64, by: &By) -> Result<Done> {
        retried!(self, "rerun a delivery", self.rerun_once(number, by))
    }

    async fn take_order(&self, feed: FeedId, epoch: i64) -> Result<Option<Delivery>> {
        retried!(self, "take an order", self.take_order_once(feed, epoch))
    }

    async fn answer_order(&self, feed: FeedId, epoch: i64, number: i64, answer: &Answer, rules: &Rules) -> Result<bool> {
        retried!(self, "answer an order", self.answer_once(feed, epoch, number, answer, rules))
    }

    async fn tend_deliveries(&self, feed: FeedId, epoch: i64, rows_max: i64) -> Result<Option<Tended>> {
        retried!(self, "tend deliveries", self.tend_once(feed, epoch, rows_max))
    }
}
