//! What is paused, and letting go what a pause holds.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::super::leases::guard;
use super::super::text::{plain, stored};
use super::super::{Postgres, Try};
use crate::store::actions::{ENDPOINT_AWAY, PAUSED, SEEN_MS, away_reason};
use crate::store::{Error, Pausable, Paused};

impl Postgres {
    pub(super) async fn pause_once(&self, of: &Pausable, by: &str, why: &str) -> Try<bool> {
        let (what, feed, name) = of.columns();
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        let new = sqlx::query(
            "INSERT INTO pause (what, feed, name, by_whom, why, since_ms)
             VALUES ($1, $2, $3, $4, $5, coalesce($6, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)) ON CONFLICT DO NOTHING",
        )
        .bind(what)
        .bind(stored(feed))
        .bind(stored(name))
        .bind(stored(by))
        .bind(stored(why))
        .bind(self.clock.fixed_ms())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if new == 0 {
            return Ok(false);
        }
        self.note(&mut transaction, "pause", of, by, why).await?;
        super::super::commit(transaction, "pause").await?;
        Ok(true)
    }

    pub(super) async fn resume_paused_once(&self, of: &Pausable, by: &str, why: &str) -> Try<bool> {
        let (what, feed, name) = of.columns();
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        // Settlements change rows of `work` too; under the guard the two cannot lock each other out.
        guard(&mut transaction).await?;
        let gone = sqlx::query("DELETE FROM pause WHERE what = $1 AND feed = $2 AND name = $3")
            .bind(what)
            .bind(stored(feed))
            .bind(stored(name))
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if gone == 0 {
            return Ok(false);
        }
        let (code, reason, table) = match of {
            Pausable::Feed { .. } => (PAUSED, String::new(), None),
            Pausable::Table { table, .. } => (PAUSED, String::new(), Some(stored(table))),
            Pausable::Endpoint { endpoint } => (ENDPOINT_AWAY, away_reason(endpoint), None),
        };
        // Rows that are behind get their time from whoever leaves before them.
        sqlx::query(
            "UPDATE work w SET due_ms = $5 + coalesce($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
             WHERE w.code = $2 AND w.status <> 8 AND starts_with(w.reason, $6)
               AND w.feed IN (SELECT id FROM feed WHERE $3 = '' OR name = $3)
               AND ($4::text IS NULL OR EXISTS (SELECT 1 FROM inbox i
                 WHERE i.feed = w.feed AND i.lane = w.lane AND i.n = w.n AND i.source_table = $4))",
        )
        .bind(self.clock.fixed_ms())
        .bind(code)
        .bind(stored(feed))
        .bind(table)
        .bind(SEEN_MS)
        .bind(stored(&reason))
        .execute(&mut *transaction)
        .await?;
        self.note(&mut transaction, "resume", of, by, why).await?;
        super::super::commit(transaction, "resume what is paused").await?;
        Ok(true)
    }

    /// Writes a line of the audit trail that is about no message.
    async fn note(&self, connection: &mut PgConnection, kind: &str, of: &Pausable, by: &str, why: &str) -> Try<()> {
        sqlx::query(
            "INSERT INTO command (id, kind, object, by_whom, why, at_ms, messages)
             VALUES ($1, $2, $3, $4, $5, coalesce($6, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), 0)",
        )
        .bind(Uuid::new_v4())
        .bind(kind)
        .bind(stored(&of.to_string()))
        .bind(stored(by))
        .bind(stored(why))
        .bind(self.clock.fixed_ms())
        .execute(connection)
        .await?;
        Ok(())
    }

    pub(super) async fn pauses_once(&self) -> Try<Vec<Paused>> {
        let rows = sqlx::query("SELECT what, feed, name, by_whom, why, since_ms FROM pause ORDER BY what, feed, name")
            .fetch_all(self.pool().await?)
            .await?;
        let paused = |row: &sqlx::postgres::PgRow| {
            let what: String = row.try_get(0)?;
            let of = Pausable::from_columns(&what, plain(row.try_get(1)?), plain(row.try_get(2)?));
            Ok(Paused {
                of: of.ok_or_else(|| Error::Corrupt(format!("a pause is of a \"{what}\"")))?,
                by: plain(row.try_get(3)?),
                why: plain(row.try_get(4)?),
                since_ms: row.try_get(5)?,
            })
        };
        rows.iter().map(paused).collect()
    }
}

/// The code that a statement names by its number.
const _: () = assert!(crate::message::Status::Behind as i16 == 8);
