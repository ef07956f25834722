//! What is paused, and letting go what a pause holds.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::super::damaged;
use super::{Line, note};
use crate::store::actions::{ENDPOINT_AWAY, PAUSED, SEEN_MS, away_reason};
use crate::store::{Pausable, Paused};

/// Pauses; false: it was paused already.
pub(super) async fn pause(connection: &mut SqliteConnection, of: &Pausable, by: &str, why: &str, now: i64) -> sqlx::Result<bool> {
    let (what, feed, name) = of.columns();
    let new = sqlx::query("INSERT OR IGNORE INTO pause (what, feed, name, by_whom, why, since_ms) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(what)
        .bind(feed)
        .bind(name)
        .bind(by)
        .bind(why)
        .bind(now)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    if new == 0 {
        return Ok(false);
    }
    note(connection, &Line { id: Uuid::new_v4(), kind: "pause", object: &of.to_string(), by, why, now, messages: 0 }).await?;
    Ok(true)
}

/// Resumes, and makes due what the pause held; false: it was not paused.
pub(super) async fn resume(connection: &mut SqliteConnection, of: &Pausable, by: &str, why: &str, now: i64) -> sqlx::Result<bool> {
    let (what, feed, name) = of.columns();
    let gone = sqlx::query("DELETE FROM pause WHERE what = ? AND feed = ? AND name = ?")
        .bind(what)
        .bind(feed)
        .bind(name)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    if gone == 0 {
        return Ok(false);
    }
    let (code, reason, table) = match of {
        Pausable::Feed { .. } => (PAUSED, String::new(), None),
        Pausable::Table { table, .. } => (PAUSED, String::new(), Some(table.as_str())),
        Pausable::Endpoint { endpoint } => (ENDPOINT_AWAY, away_reason(endpoint), None),
    };
    // Rows that are behind get their time from whoever leaves before them.
    sqlx::query(
        "UPDATE work SET due_ms = ?1 WHERE code = ?2 AND status <> 8 AND substr(reason, 1, length(?5)) = ?5
           AND feed IN (SELECT id FROM feed WHERE ?3 = '' OR name = ?3)
           AND (?4 IS NULL OR EXISTS (
             SELECT 1 FROM inbox i WHERE i.feed = work.feed AND i.lane = work.lane AND i.n = work.n AND i.source_table = ?4))",
    )
    .bind(now + SEEN_MS)
    .bind(code)
    .bind(feed)
    .bind(table)
    .bind(reason)
    .execute(&mut *connection)
    .await?;
    note(connection, &Line { id: Uuid::new_v4(), kind: "resume", object: &of.to_string(), by, why, now, messages: 0 }).await?;
    Ok(true)
}

/// What is paused now.
pub(super) async fn pauses(connection: &mut SqliteConnection) -> sqlx::Result<Vec<Paused>> {
    let rows =
        sqlx::query("SELECT what, feed, name, by_whom, why, since_ms FROM pause ORDER BY what, feed, name").fetch_all(connection).await?;
    let paused = |row: &SqliteRow| {
        let what: &str = row.try_get(0)?;
        let of = Pausable::from_columns(what, row.try_get(1)?, row.try_get(2)?);
        Ok(Paused {
            of: of.ok_or_else(|| damaged(format!("nothing is paused as a \"{what}\"")))?,
            by: row.try_get(3)?,
            why: row.try_get(4)?,
            since_ms: row.try_get(5)?,
        })
    };
    rows.iter().map(paused).collect()
}

/// The code that a statement names by its number.
const _: () = assert!(crate::message::Status::Behind as i16 == 8);
