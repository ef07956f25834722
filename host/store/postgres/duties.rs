//! Duties that one host at a time does: turns by due time and lease.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::{Postgres, Try, retried};
use crate::store::{Duties, Host, Result, Turn};

impl Postgres {
    async fn take_turn_once(&self, host: &Host, duty: &str, every_ms: i64, lease_ms: i64) -> Try<Option<Turn>> {
        let pool = self.pool().await?;
        // A first look makes the row; later ones write nothing unless the time has come.
        sqlx::query(
            "INSERT INTO duty (name, due_ms, turn) SELECT $1, coalesce($2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), 0
             WHERE NOT EXISTS (SELECT 1 FROM duty WHERE name = $1) ON CONFLICT DO NOTHING",
        )
        .bind(duty)
        .bind(self.clock.fixed_ms())
        .execute(pool)
        .await?;
        // Whose turn is under way holds its row while a verb runs, and loses it only between two verbs.
        let taken = sqlx::query(
            "WITH clock AS (SELECT coalesce($5, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now_ms),
               due AS (SELECT d.name, d.due_ms, c.now_ms FROM duty d, clock c
                 WHERE d.name = $1 AND d.due_ms <= c.now_ms AND (d.owner IS NULL OR d.until_ms <= c.now_ms
                   OR NOT EXISTS (SELECT 1 FROM host h WHERE h.id = d.owner AND h.lease_until_ms > c.now_ms)) FOR UPDATE OF d SKIP LOCKED)
             UPDATE duty SET turn = turn + 1, owner = $2, until_ms = due.now_ms + $4, due_ms = due.now_ms - due.now_ms % $3 + $3
             FROM due WHERE duty.name = due.name RETURNING duty.turn, due.due_ms",
        )
        .bind(duty)
        .bind(host.id)
        .bind(every_ms.max(1))
        .bind(lease_ms)
        .bind(self.clock.fixed_ms())
        .fetch_optional(pool)
        .await?;
        let turn =
            |row: sqlx::postgres::PgRow| Ok(Turn { duty: duty.to_owned(), number: row.try_get(0)?, due_ms: row.try_get(1)?, lease_ms });
        taken.map(turn).transpose()
    }

    async fn end_turn_once(&self, turn: &Turn) -> Try<()> {
        sqlx::query("UPDATE duty SET owner = NULL, until_ms = NULL WHERE name = $1 AND turn = $2")
            .bind(&turn.duty)
            .bind(turn.number)
            .execute(self.pool().await?)
            .await?;
        Ok(())
    }

    /// The fence of a duty's verbs: prolongs the turn and holds it until the transaction ends; the time, or `None` if another has taken over.
    pub(super) async fn hold_turn(&self, connection: &mut PgConnection, turn: &Turn) -> Try<Option<i64>> {
        let held: Option<(i64,)> = sqlx::query_as(
            "UPDATE duty SET until_ms = coalesce($4, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) + $3
             WHERE name = $1 AND turn = $2 AND owner IS NOT NULL RETURNING until_ms - $3",
        )
        .bind(&turn.duty)
        .bind(turn.number)
        .bind(turn.lease_ms)
        .bind(self.clock.fixed_ms())
        .fetch_optional(connection)
        .await?;
        Ok(held.map(|(now_ms,)| now_ms))
    }
}

#[async_trait]
impl Duties for Postgres {
    async fn take_turn(&self, host: &Host, duty: &str, every_ms: i64, lease_ms: i64) -> Result<Option<Turn>> {
        retried!(self, "take a turn", self.take_turn_once(host, duty, every_ms, lease_ms))
    }

    async fn end_turn(&self, turn: &Turn) -> Result<()> {
        retried!(self, "end a turn", self.end_turn_once(turn))
    }
}
