//! Rows as nouns: inbox rows, work rows, and the columns they are read from.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::{carried, damaged};
use crate::message::{Captured, FeedId, KeyHash, Message, Place, Prejudged, Status};
use crate::plugin::Cause;
use crate::store::{WorkMessage, WorkRow, headers};

/// The columns of a message, from an inbox `i`. Macros, so that statements stay constant texts.
macro_rules! message_columns {
    () => {
        "i.feed, i.lane, i.n, i.source_offset, i.received_ms, i.timestamp_ms, i.source_partition, i.id, i.key_hash, i.status, i.source_table, \
         i.code, i.reason, i.key, i.headers, i.payload, i.delivery"
    };
}
/// How many there are.
pub(super) const MESSAGE_COLUMNS: usize = 17;

/// The columns of a work row, from a work `w`.
macro_rules! work_columns {
    () => {
        "w.feed, w.lane, w.n, w.run, w.key_hash, w.status, w.blocks, w.attempts, w.due_ms, w.cause, w.waiting_since_ms, w.code, w.reason, \
         w.activation, w.pinned"
    };
}
pub(super) use {message_columns, work_columns};
/// How many there are.
pub(super) const WORK_COLUMNS: usize = 15;

/// Reads messages; names of tables are shared between neighbours.
#[derive(Default)]
pub(super) struct Messages {
    table: Option<Arc<str>>,
}

impl Messages {
    /// The message of a row whose first columns are `message_columns`.
    pub(super) fn of(&mut self, row: &SqliteRow) -> sqlx::Result<Message> {
        let status: Option<i16> = row.try_get(9)?;
        let prejudged = match status {
            None => None,
            Some(code) => Some(Prejudged { status: status_of(code)?, code: text(row, 11)?, reason: text(row, 12)? }),
        };
        Ok(Message {
            place: place(row, 0)?,
            id: row.try_get(7)?,
            table: self.table(row.try_get(10)?),
            key_hash: key_hash(row, 8)?,
            captured: Captured {
                partition: row.try_get(6)?,
                offset: row.try_get(3)?,
                key: bytes(row, 13)?,
                payload: bytes(row, 15)?,
                headers: headers::decode(bytes(row, 14)?).map_err(carried)?,
                timestamp_ms: row.try_get(5)?,
            },
            received_ms: row.try_get(4)?,
            delivery: row.try_get(16)?,
            prejudged,
        })
    }

    /// The work row and message of a row of `message_columns` and `work_columns`.
    pub(super) fn with_work(&mut self, row: &SqliteRow) -> sqlx::Result<WorkMessage> {
        Ok(WorkMessage { row: work_row(row, MESSAGE_COLUMNS)?, message: self.of(row)? })
    }

    fn table(&mut self, name: &str) -> Arc<str> {
        match &self.table {
            Some(last) if **last == *name => last.clone(),
            _ => self.table.insert(Arc::from(name)).clone(),
        }
    }
}

/// The work row of a row whose columns from `at` on are `work_columns`.
pub(super) fn work_row(row: &SqliteRow, at: usize) -> sqlx::Result<WorkRow> {
    let cause: i16 = row.try_get(at + 9)?;
    Ok(WorkRow {
        place: place(row, at)?,
        run: row.try_get(at + 3)?,
        key_hash: key_hash(row, at + 4)?,
        status: status_of(row.try_get(at + 5)?)?,
        blocks: row.try_get(at + 6)?,
        attempts: row.try_get(at + 7)?,
        due_ms: row.try_get(at + 8)?,
        cause: Cause::from_code(cause).ok_or_else(|| damaged(format!("no cause has the code {cause}")))?,
        waiting_since_ms: row.try_get(at + 10)?,
        code: row.try_get(at + 11)?,
        reason: row.try_get(at + 12)?,
        activation: row.try_get(at + 13)?,
        pinned: row.try_get(at + 14)?,
        waits: Vec::new(),
    })
}

/// A place from three columns.
pub(super) fn place(row: &SqliteRow, at: usize) -> sqlx::Result<Place> {
    Ok(Place { feed: FeedId(row.try_get(at)?), lane: row.try_get(at + 1)?, n: row.try_get(at + 2)? })
}

/// A status from its code.
pub(super) fn status_of(code: i16) -> sqlx::Result<Status> {
    Status::from_code(code).ok_or_else(|| damaged(format!("no status has the code {code}")))
}

/// A hash from a column.
pub(super) fn key_hash(row: &SqliteRow, at: usize) -> sqlx::Result<KeyHash> {
    hash(row.try_get(at)?)
}

/// A hash from its bytes.
pub(super) fn hash(bytes: &[u8]) -> sqlx::Result<KeyHash> {
    bytes.try_into().map(KeyHash).map_err(|_| damaged("a hash has not 16 bytes"))
}

/// Bytes from a column.
pub(super) fn bytes(row: &SqliteRow, at: usize) -> sqlx::Result<Option<Bytes>> {
    let stored: Option<Vec<u8>> = row.try_get(at)?;
    Ok(stored.map(Bytes::from))
}

/// An id from a column.
pub(super) fn id(row: &SqliteRow, at: usize) -> sqlx::Result<Uuid> {
    row.try_get(at)
}

fn text(row: &SqliteRow, at: usize) -> sqlx::Result<String> {
    let stored: Option<String> = row.try_get(at)?;
    Ok(stored.unwrap_or_default())
}
