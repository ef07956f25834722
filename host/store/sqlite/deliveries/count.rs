//! What people ask about deliveries, and what they ask of their parts.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use uuid::Uuid;

use super::super::Sqlite;
use super::super::actions::audited;
use super::super::rows::status_of;
use super::{Rows, command, delivery};
use crate::message::{FeedId, Status};
use crate::store::deliveries::book::Book as _;
use crate::store::deliveries::object;
use crate::store::{Account, ActionKind, Audited, By, Delivery, Done};

impl Sqlite {
    pub(super) async fn list(&self, feed: FeedId, limit: i64) -> sqlx::Result<Vec<Delivery>> {
        let query = sqlx::query(concat!(
            "SELECT ",
            delivery_columns!(),
            " FROM delivery d WHERE d.feed = ? ORDER BY d.opened_ms DESC, d.number DESC LIMIT ?"
        ));
        query.bind(feed.0).bind(limit).fetch_all(&self.readers).await?.iter().map(delivery).collect()
    }

    pub(super) async fn by_number(&self, number: i64) -> sqlx::Result<Option<Delivery>> {
        let mut reader = self.readers.acquire().await?;
        Rows(&mut reader).by_number(number).await
    }

    pub(super) async fn by_id(&self, feed: FeedId, id: &str) -> sqlx::Result<Option<Delivery>> {
        let mut reader = self.readers.acquire().await?;
        Ok(Rows(&mut reader).by_ids(feed, &[id]).await?.pop())
    }

    pub(super) async fn failures(&self, feed: FeedId) -> sqlx::Result<i64> {
        sqlx::query_scalar("SELECT count(*) FROM delivery d CROSS JOIN work w ON w.delivery = d.number AND w.status = ? WHERE d.feed = ?")
            .bind(Status::Failed.code())
            .bind(feed.0)
            .fetch_one(&self.readers)
            .await
    }

    pub(super) async fn audit_of(&self, number: i64) -> sqlx::Result<Vec<Audited>> {
        let Some(found) = self.by_number(number).await? else { return Ok(Vec::new()) };
        let rows = sqlx::query(
            "SELECT c.id, c.kind, c.object, c.by_whom, c.why, c.at_ms, c.messages,
               (SELECT count(*) FROM action a WHERE a.command = c.id AND a.result IS NULL)
             FROM command c WHERE c.object IN (?, ?) ORDER BY c.at_ms, c.id",
        )
        .bind(object(found.number))
        .bind(object(found.order_number.unwrap_or(found.number)))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(audited).collect()
    }
}

/// What became of a delivery's parts; the transaction shows one moment.
pub(super) async fn account(connection: &mut SqliteConnection, number: i64) -> sqlx::Result<Option<Account>> {
    let Some(found) = Rows(&mut *connection).by_number(number).await? else { return Ok(None) };
    // A message stands where its highest run stands; a row of work is later than an outcome of the same run.
    let rows = sqlx::query(
        "SELECT s.status, count(*) FROM (
           SELECT CASE WHEN p.status = 1 AND EXISTS (
               SELECT 1 FROM parked_output x WHERE x.feed = p.feed AND x.lane = p.lane AND x.n = p.n) THEN 6 ELSE p.status END AS status,
             row_number() OVER (PARTITION BY p.feed, p.lane, p.n ORDER BY p.run DESC, p.late DESC) AS place
           FROM (SELECT feed, lane, n, run, status, 1 AS late FROM work WHERE delivery = ?1
             UNION ALL SELECT feed, lane, n, run, status, 0 FROM outcome WHERE delivery = ?1) p) s WHERE s.place = 1 GROUP BY s.status
         UNION ALL SELECT 0, count(*) FROM lane l CROSS JOIN inbox i ON i.feed = l.feed AND i.lane = l.lane AND i.n > l.cursor
         WHERE l.feed = ?2 AND i.delivery = ?1 AND NOT EXISTS (
           SELECT 1 FROM outcome o WHERE o.feed = i.feed AND o.lane = i.lane AND o.n = i.n) AND NOT EXISTS (
           SELECT 1 FROM work w WHERE w.feed = i.feed AND w.lane = i.lane AND w.n = i.n)",
    )
    .bind(found.number)
    .bind(found.feed.0)
    .fetch_all(&mut *connection)
    .await?;
    let mut by_status = BTreeMap::new();
    for row in rows {
        let (status, count): (i16, i64) = (row.try_get(0)?, row.try_get(1)?);
        if count > 0 {
            *by_status.entry(status_of(status)?.as_str().to_owned()).or_default() += count;
        }
    }
    let dropped: i64 =
        sqlx::query_scalar("SELECT dropped FROM delivery WHERE number = ?").bind(found.number).fetch_one(&mut *connection).await?;
    if dropped > 0 {
        by_status.insert("dropped".to_owned(), dropped);
    }
    Ok(Some(Account::of(&found.tally, by_status)))
}

/// Asks open parts to stop.
pub(super) async fn stop(connection: &mut SqliteConnection, number: i64, by: &By, now: i64) -> sqlx::Result<Done> {
    let open = [Status::Pending, Status::Waiting, Status::Retry, Status::Held, Status::Behind];
    ask_parts(connection, number, by, now, ("stop", ActionKind::Stop), &open, true).await
}

/// Asks failed parts to begin anew.
pub(super) async fn rerun(connection: &mut SqliteConnection, number: i64, by: &By, now: i64) -> sqlx::Result<Done> {
    ask_parts(connection, number, by, now, ("rerun", ActionKind::Restart), &[Status::Failed], false).await
}

/// One action for each part in one of these states, and for those that nobody has fetched yet where they are meant too.
async fn ask_parts(
    connection: &mut SqliteConnection,
    number: i64,
    by: &By,
    now: i64,
    (kind, action): (&str, ActionKind),
    states: &[Status],
    fresh: bool,
) -> sqlx::Result<Done> {
    let Some(found) = Rows(&mut *connection).by_number(number).await? else { return Ok(Done::Unknown) };
    let states: Vec<String> = states.iter().map(|status| status.code().to_string()).collect();
    let id = Uuid::new_v4();
    let text = format!(
        "INSERT INTO action (command, feed, lane, n, not_before_ms, kind, force)
         SELECT ?2, p.feed, p.lane, p.n, ?3, ?4, 0 FROM (
           SELECT DISTINCT w.feed, w.lane, w.n FROM work w WHERE w.delivery = ?1 AND w.status IN ({})
           UNION SELECT i.feed, i.lane, i.n FROM lane l CROSS JOIN inbox i ON i.feed = l.feed AND i.lane = l.lane AND i.n > l.cursor
             WHERE ?5 AND l.feed = ?6 AND i.delivery = ?1) p ORDER BY p.feed, p.lane, p.n",
        states.join(", ")
    );
    let done = sqlx::query(AssertSqlSafe(text))
        .bind(found.number)
        .bind(id)
        .bind(now)
        .bind(action.code())
        .bind(fresh)
        .bind(found.feed.0)
        .execute(&mut *connection)
        .await?;
    let parts = done.rows_affected();
    command(connection, id, found.number, kind, now, by, i64::try_from(parts).unwrap_or(i64::MAX)).await?;
    Ok(Done::Parts(parts))
}
