//! What people ask about deliveries, and what they ask of their parts.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::super::actions::{audited, write_actions};
use super::super::rows::status_of;
use super::super::text::stored;
use super::super::{Postgres, Try};
use super::{Rows, command, delivery};
use crate::message::{FeedId, Status};
use crate::store::deliveries::book::Book as _;
use crate::store::deliveries::object;
use crate::store::{Account, ActionKind, Audited, By, Delivery, Done};

impl Postgres {
    pub(super) async fn deliveries_once(&self, feed: FeedId, limit: i64) -> Try<Vec<Delivery>> {
        let query = sqlx::query(concat!(
            "SELECT ",
            delivery_columns!(),
            " FROM delivery d WHERE d.feed = $1 ORDER BY d.opened_ms DESC, d.number DESC LIMIT $2"
        ));
        query.bind(feed.0).bind(limit).fetch_all(self.pool().await?).await?.iter().map(delivery).collect()
    }

    pub(super) async fn delivery_once(&self, number: i64) -> Try<Option<Delivery>> {
        let query = sqlx::query(concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE d.number = $1 OR d.order_number = $1"));
        query.bind(number).fetch_optional(self.pool().await?).await?.as_ref().map(delivery).transpose()
    }

    pub(super) async fn delivery_by_id_once(&self, feed: FeedId, id: &str) -> Try<Option<Delivery>> {
        let query = sqlx::query(concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE d.feed = $1 AND d.id = $2"));
        query.bind(feed.0).bind(stored(id)).fetch_optional(self.pool().await?).await?.as_ref().map(delivery).transpose()
    }

    /// All counts are of one moment.
    pub(super) async fn account_once(&self, number: i64) -> Try<Option<Account>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let query = sqlx::query(concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE d.number = $1 OR d.order_number = $1"));
        let Some(found) = query.bind(number).fetch_optional(&mut *transaction).await?.as_ref().map(delivery).transpose()? else {
            return Ok(None);
        };
        // A message stands where its highest run stands; a row of work is later than an outcome of the same run.
        let rows = sqlx::query(
            "SELECT s.status, count(*) FROM (
               SELECT DISTINCT ON (p.feed, p.lane, p.n) CASE WHEN p.status = 1 AND EXISTS (
                   SELECT 1 FROM parked_output x WHERE x.feed = p.feed AND x.lane = p.lane AND x.n = p.n) THEN 6::smallint ELSE p.status END AS status
               FROM (SELECT feed, lane, n, run, status, 1 AS late FROM work WHERE delivery = $1
                 UNION ALL SELECT feed, lane, n, run, status, 0 FROM outcome WHERE delivery = $1) p
               ORDER BY p.feed, p.lane, p.n, p.run DESC, p.late DESC) s GROUP BY s.status
             UNION ALL SELECT 0::smallint, count(*) FROM lane l JOIN inbox i ON i.feed = l.feed AND i.lane = l.lane AND i.n > l.cursor
             WHERE l.feed = $2 AND i.delivery = $1 AND NOT EXISTS (
               SELECT 1 FROM outcome o WHERE o.feed = i.feed AND o.lane = i.lane AND o.n = i.n) AND NOT EXISTS (
               SELECT 1 FROM work w WHERE w.feed = i.feed AND w.lane = i.lane AND w.n = i.n)",
        )
        .bind(found.number)
        .bind(found.feed.0)
        .fetch_all(&mut *transaction)
        .await?;
        let mut by_status = BTreeMap::new();
        for row in rows {
            let (status, count): (i16, i64) = (row.try_get(0)?, row.try_get(1)?);
            if count > 0 {
                *by_status.entry(status_of(status)?.as_str().to_owned()).or_default() += count;
            }
        }
        let dropped: i64 =
            sqlx::query_scalar("SELECT dropped FROM delivery WHERE number = $1").bind(found.number).fetch_one(&mut *transaction).await?;
        if dropped > 0 {
            by_status.insert("dropped".to_owned(), dropped);
        }
        transaction.commit().await?;
        Ok(Some(Account::of(&found.tally, by_status)))
    }

    pub(super) async fn failures_once(&self, feed: FeedId) -> Try<i64> {
        let (count,) =
            sqlx::query_as("SELECT count(*) FROM delivery d JOIN work w ON w.delivery = d.number AND w.status = $2 WHERE d.feed = $1")
                .bind(feed.0)
                .bind(Status::Failed.code())
                .fetch_one(self.pool().await?)
                .await?;
        Ok(count)
    }

    pub(super) async fn delivery_audit_once(&self, number: i64) -> Try<Vec<Audited>> {
        let Some(found) = self.delivery_once(number).await? else { return Ok(Vec::new()) };
        let objects = [object(found.number), object(found.order_number.unwrap_or(found.number))];
        let rows = sqlx::query(
            "SELECT c.id, c.kind, c.object, c.by_whom, c.why, c.at_ms, c.messages,
               (SELECT coalesce(sum(a.open), 0) FROM action a WHERE a.command = c.id)
             FROM command c WHERE c.object = ANY($1) ORDER BY c.at_ms, c.id",
        )
        .bind(&objects[..])
        .fetch_all(self.pool().await?)
        .await?;
        rows.iter().map(audited).collect()
    }

    pub(super) async fn stop_once(&self, number: i64, by: &By) -> Try<Done> {
        let open = [Status::Pending, Status::Waiting, Status::Retry, Status::Held, Status::Behind];
        self.ask_parts(number, by, ("stop", ActionKind::Stop), &open, true).await
    }

    pub(super) async fn rerun_once(&self, number: i64, by: &By) -> Try<Done> {
        self.ask_parts(number, by, ("rerun", ActionKind::Restart), &[Status::Failed], false).await
    }

    /// One action for each part in one of these states, and for those that nobody has fetched yet where they are meant too.
    async fn ask_parts(&self, number: i64, by: &By, what: (&str, ActionKind), states: &[Status], fresh: bool) -> Try<Done> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        let Some(found) = Rows(&mut transaction).by_number(number).await? else { return Ok(Done::Unknown) };
        let (now_ms, id) = (self.clock_ms(&mut transaction).await?, Uuid::new_v4());
        let parts = ask(&mut transaction, &found, what.1, id, now_ms, states, fresh).await?;
        command(&mut transaction, id, found.number, what.0, now_ms, by, i64::try_from(parts).unwrap_or(i64::MAX)).await?;
        super::super::commit(transaction, "ask parts of a delivery").await?;
        Ok(Done::Parts(parts))
    }
}

async fn ask(
    connection: &mut PgConnection,
    delivery: &Delivery,
    kind: ActionKind,
    command: Uuid,
    now_ms: i64,
    states: &[Status],
    fresh: bool,
) -> Try<u64> {
    let parts: i64 = sqlx::query_scalar(concat!(
        "WITH told AS (SELECT $2 AS command, NULL::bigint AS pinned, $4 AS kind, false AS force),
         asked AS (SELECT p.feed, p.lane, p.n, NULL::int AS size, NULL::bigint AS after_n, $3::bigint AS not_before_ms FROM (
           SELECT DISTINCT w.feed, w.lane, w.n FROM work w WHERE w.delivery = $1 AND w.status = ANY($5)
           UNION SELECT i.feed, i.lane, i.n FROM lane l JOIN inbox i ON i.feed = l.feed AND i.lane = l.lane AND i.n > l.cursor
             WHERE $6 AND l.feed = $7 AND i.delivery = $1) p), written AS (",
        write_actions!(),
        ") SELECT coalesce(sum(open), 0) FROM written"
    ))
    .bind(delivery.number)
    .bind(command)
    .bind(now_ms)
    .bind(kind.code())
    .bind(states.iter().map(|status| status.code()).collect::<Vec<_>>())
    .bind(fresh)
    .bind(delivery.feed.0)
    .fetch_one(connection)
    .await?;
    Ok(u64::try_from(parts).unwrap_or_default())
}
