//! Duties, of which the one host does all; the fence holds all the same.

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};

use super::Sqlite;
use crate::store::{Duties, Host, Result, Turn};

#[async_trait]
impl Duties for Sqlite {
    async fn take_turn(&self, host: &Host, duty: &str, every_ms: i64, lease_ms: i64) -> Result<Option<Turn>> {
        const VERB: &str = "take a turn";
        let now = self.now();
        // Most of the time it is not due, and nobody is held up by that.
        self.fault(VERB, "begin").await?;
        let mut reader = self.readers.acquire().await.map_err(self.failed(VERB))?;
        let known: bool = sqlx::query_scalar("SELECT count(*) > 0 FROM duty WHERE name = ?")
            .bind(duty)
            .fetch_one(&mut *reader)
            .await
            .map_err(self.failed(VERB))?;
        if known && due(&mut reader, duty, now).await.map_err(self.failed(VERB))?.is_none() {
            return Ok(None);
        }
        let mut transaction = self.write(VERB).await?;
        let taken = take(&mut transaction, host, duty, (every_ms.max(1), lease_ms), now).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(taken)
    }

    async fn end_turn(&self, turn: &Turn) -> Result<()> {
        const VERB: &str = "end a turn";
        let mut transaction = self.write(VERB).await?;
        sqlx::query("UPDATE duty SET owner = NULL, until_ms = NULL WHERE name = ? AND turn = ?")
            .bind(&turn.duty)
            .bind(turn.number)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await
    }
}

async fn take(
    connection: &mut SqliteConnection,
    host: &Host,
    duty: &str,
    (every_ms, lease_ms): (i64, i64),
    now: i64,
) -> sqlx::Result<Option<Turn>> {
    sqlx::query("INSERT INTO duty (name, due_ms, turn) VALUES (?, ?, 0) ON CONFLICT DO NOTHING")
        .bind(duty)
        .bind(now)
        .execute(&mut *connection)
        .await?;
    let Some(due_ms) = due(&mut *connection, duty, now).await? else { return Ok(None) };
    let row = sqlx::query("UPDATE duty SET turn = turn + 1, owner = ?2, until_ms = ?3, due_ms = ?4 WHERE name = ?1 RETURNING turn")
        .bind(duty)
        .bind(host.id)
        .bind(now + lease_ms)
        .bind(now - now % every_ms + every_ms)
        .fetch_one(connection)
        .await?;
    Ok(Some(Turn { duty: duty.to_owned(), number: row.try_get(0)?, due_ms, lease_ms }))
}

/// The time that a duty is due at, if it has come and no living host is at it.
async fn due(connection: &mut SqliteConnection, duty: &str, now: i64) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(
        "SELECT d.due_ms FROM duty d WHERE d.name = ?1 AND d.due_ms <= ?2 AND (d.owner IS NULL OR d.until_ms <= ?2
           OR NOT EXISTS (SELECT 1 FROM host h WHERE h.id = d.owner AND h.lease_until_ms > ?2))",
    )
    .bind(duty)
    .bind(now)
    .fetch_optional(connection)
    .await
}

/// The fence of a duty's verbs: prolongs the turn; false: another has taken over.
pub(super) async fn hold(connection: &mut SqliteConnection, turn: &Turn, now: i64) -> sqlx::Result<bool> {
    let held = sqlx::query("UPDATE duty SET until_ms = ? WHERE name = ? AND turn = ? AND owner IS NOT NULL")
        .bind(now + turn.lease_ms)
        .bind(&turn.duty)
        .bind(turn.number)
        .execute(connection)
        .await?;
    Ok(held.rows_affected() == 1)
}
