//! Messages that their lane's cursor has passed unfinished: blocked keys, due rows, rows of a key.

use async_trait::async_trait;
use sqlx::{Connection, Row};

use super::leases::guard;
use super::rows::{Tables, key_hash, message_columns, work_columns};
use super::{Postgres, Try, columns, retried, uuid_of};
use crate::message::{FeedId, Place};
use crate::store::{BlockedKey, Result, Work, WorkMessage};

impl Postgres {
    async fn blocked_once(&self, lanes: &[(FeedId, i32)]) -> Try<Vec<BlockedKey>> {
        let (feeds, lanes) = columns(lanes);
        let rows = sqlx::query(
            "SELECT DISTINCT w.feed, w.lane, w.key_hash FROM unnest($1::int[], $2::int[]) l(feed, lane)
             JOIN work w ON w.feed = l.feed AND w.lane = l.lane WHERE w.blocks",
        )
        .bind(feeds)
        .bind(lanes)
        .fetch_all(self.pool().await?)
        .await?;
        let key = |row: &sqlx::postgres::PgRow| {
            Ok(BlockedKey { feed: FeedId(row.try_get(0)?), lane: row.try_get(1)?, key_hash: key_hash(row.try_get(2)?) })
        };
        rows.iter().map(key).collect()
    }

    async fn due_once(&self, lanes: &[(FeedId, i32)], in_hand: &[Place], rows_max: i64, bytes_max: i64) -> Try<Vec<WorkMessage>> {
        let (feeds, lanes) = columns(lanes);
        let rows = sqlx::query(concat!(
            "WITH hand AS MATERIALIZED (SELECT * FROM unnest($4::int[], $5::int[], $6::bigint[]) h(feed, lane, n)),
               due AS (SELECT d.* FROM unnest($1::int[], $2::int[]) l(feed, lane) CROSS JOIN LATERAL (
                 SELECT w.feed, w.lane, w.n, w.run, w.due_ms FROM work w
                 WHERE w.feed = l.feed AND w.lane = l.lane AND w.due_ms <= (SELECT coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint))
                   AND NOT EXISTS (SELECT 1 FROM hand h WHERE h.feed = w.feed AND h.lane = w.lane AND h.n = w.n)
                 ORDER BY w.due_ms, w.n LIMIT $7) d ORDER BY d.due_ms, d.feed, d.lane, d.n LIMIT $7),
               sized AS (SELECT d.*, i.size, sum(i.size) OVER (ORDER BY d.due_ms, d.feed, d.lane, d.n, d.run ROWS UNBOUNDED PRECEDING) AS so_far
                 FROM due d JOIN inbox i ON i.feed = d.feed AND i.lane = d.lane AND i.n = d.n)
             SELECT ",
            message_columns!(),
            ", ",
            work_columns!(),
            " FROM sized s JOIN work w ON w.feed = s.feed AND w.lane = s.lane AND w.n = s.n AND w.run = s.run
              JOIN inbox i ON i.feed = s.feed AND i.lane = s.lane AND i.n = s.n
             WHERE s.so_far - s.size < $8 ORDER BY s.so_far, s.due_ms, s.feed, s.lane, s.n"
        ))
        .bind(feeds)
        .bind(lanes)
        .bind(self.clock.fixed_ms())
        .bind(in_hand.iter().map(|place| place.feed.0).collect::<Vec<_>>())
        .bind(in_hand.iter().map(|place| place.lane).collect::<Vec<_>>())
        .bind(in_hand.iter().map(|place| place.n).collect::<Vec<_>>())
        .bind(rows_max)
        .bind(bytes_max.max(1))
        .fetch_all(self.pool().await?)
        .await?;
        let mut tables = Tables::default();
        rows.iter().map(|row| tables.work_message(row)).collect()
    }

    async fn resume_once(&self, lanes: &[(FeedId, i32)]) -> Try<u64> {
        let (feeds, lanes) = columns(lanes);
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        // Settlements of other hosts wake rows of these lanes too; under the guard the two cannot lock each other out.
        guard(&mut transaction).await?;
        let done = sqlx::query(
            "UPDATE work w SET due_ms = coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
             FROM unnest($1::int[], $2::int[]) l(feed, lane)
             WHERE w.feed = l.feed AND w.lane = l.lane AND w.status = 0 AND w.due_ms IS NULL",
        )
        .bind(feeds)
        .bind(lanes)
        .bind(self.clock.fixed_ms())
        .execute(&mut *transaction)
        .await?;
        super::commit(transaction, "resume running messages").await?;
        Ok(done.rows_affected())
    }

    async fn rows_once(&self, places: &[Place]) -> Try<Vec<WorkMessage>> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            message_columns!(),
            ", ",
            work_columns!(),
            " FROM unnest($1::int[], $2::int[], $3::bigint[]) p(feed, lane, n)
              JOIN work w ON w.feed = p.feed AND w.lane = p.lane AND w.n = p.n
              JOIN inbox i ON i.feed = p.feed AND i.lane = p.lane AND i.n = p.n ORDER BY i.feed, i.lane, i.n, w.run"
        ))
        .bind(places.iter().map(|place| place.feed.0).collect::<Vec<_>>())
        .bind(places.iter().map(|place| place.lane).collect::<Vec<_>>())
        .bind(places.iter().map(|place| place.n).collect::<Vec<_>>())
        .fetch_all(self.pool().await?)
        .await?;
        let mut tables = Tables::default();
        rows.iter().map(|row| tables.work_message(row)).collect()
    }

    async fn next_due_once(&self, lanes: &[(FeedId, i32)]) -> Try<Option<i64>> {
        let (feeds, lanes) = columns(lanes);
        let (due_ms,) = sqlx::query_as(
            "SELECT min(d.due_ms) FROM unnest($1::int[], $2::int[]) l(feed, lane) CROSS JOIN LATERAL (
               SELECT w.due_ms FROM work w WHERE w.feed = l.feed AND w.lane = l.lane AND w.due_ms IS NOT NULL ORDER BY w.due_ms LIMIT 1) d",
        )
        .bind(feeds)
        .bind(lanes)
        .fetch_one(self.pool().await?)
        .await?;
        Ok(due_ms)
    }

    async fn behind_once(&self, key: BlockedKey, after: i64, rows_max: i64) -> Try<Vec<WorkMessage>> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            message_columns!(),
            ", ",
            work_columns!(),
            " FROM (SELECT * FROM work x WHERE x.feed = $1 AND x.lane = $2 AND x.key_hash = $3 AND x.n > $4 ORDER BY x.n, x.run LIMIT $5) w
              JOIN inbox i ON i.feed = w.feed AND i.lane = w.lane AND i.n = w.n ORDER BY w.n, w.run"
        ))
        .bind(key.feed.0)
        .bind(key.lane)
        .bind(uuid_of(key.key_hash))
        .bind(after)
        .bind(rows_max)
        .fetch_all(self.pool().await?)
        .await?;
        let mut tables = Tables::default();
        rows.iter().map(|row| tables.work_message(row)).collect()
    }
}

#[async_trait]
impl Work for Postgres {
    async fn blocked(&self, lanes: &[(FeedId, i32)]) -> Result<Vec<BlockedKey>> {
        retried!(self, "read blocked keys", self.blocked_once(lanes))
    }

    async fn due(&self, lanes: &[(FeedId, i32)], in_hand: &[Place], rows_max: i64, bytes_max: i64) -> Result<Vec<WorkMessage>> {
        retried!(self, "read due messages", self.due_once(lanes, in_hand, rows_max, bytes_max))
    }

    async fn resume(&self, lanes: &[(FeedId, i32)]) -> Result<u64> {
        retried!(self, "resume running messages", self.resume_once(lanes))
    }

    async fn rows(&self, places: &[Place]) -> Result<Vec<WorkMessage>> {
        retried!(self, "read work rows", self.rows_once(places))
    }

    async fn next_due_ms(&self, lanes: &[(FeedId, i32)]) -> Result<Option<i64>> {
        retried!(self, "read the next due time", self.next_due_once(lanes))
    }

    async fn behind(&self, key: BlockedKey, after: i64, rows_max: i64) -> Result<Vec<WorkMessage>> {
        retried!(self, "read a key's messages", self.behind_once(key, after, rows_max))
    }
}
