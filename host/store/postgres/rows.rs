//! Rows of the inbox and of `work` as the nouns they stand for. Columns are read by place, in the order of the two lists here, and so
//! without asking each value for its type.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::Try;
use super::text::plain;
use crate::message::{Captured, FeedId, KeyHash, Message, Place, Prejudged, Status};
use crate::plugin::Cause;
use crate::store::{Error, WorkMessage, WorkRow, headers};

/// The columns that [`Tables::message`] reads, of `inbox i`.
macro_rules! message_columns {
    () => {
        "i.feed, i.lane, i.n, i.id, i.key_hash, i.source_table, i.source_partition, i.source_offset, i.timestamp_ms, i.received_ms, \
         i.key, i.payload, i.headers, i.status, i.code, i.reason, i.delivery"
    };
}
pub(super) use message_columns;

/// The columns that [`Tables::work_message`] reads after those of the message, of `work w`.
macro_rules! work_columns {
    () => {
        "w.run, w.status, w.blocks, w.attempts, w.due_ms, w.cause, w.waiting_since_ms, w.code, w.reason, w.activation, w.pinned"
    };
}
pub(super) use work_columns;

/// How many columns a message has.
pub(super) const MESSAGE_COLUMNS: usize = 17;

/// Reads rows; the names of tables are kept once for all.
#[derive(Default)]
pub(super) struct Tables(HashSet<Arc<str>>);

impl Tables {
    fn table(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let table: Arc<str> = plain(name.to_owned()).into();
        self.0.insert(table.clone());
        table
    }

    pub(super) fn message(&mut self, row: &PgRow) -> Try<Message> {
        self.message_at(row, 0)
    }

    /// As [`Tables::message`], with the message's columns beginning at `first`.
    pub(super) fn message_at(&mut self, row: &PgRow, first: usize) -> Try<Message> {
        let status: Option<i16> = row.try_get_unchecked(first + 13)?;
        let prejudged = match status {
            None => None,
            Some(code) => Some(Prejudged {
                status: status_of(code)?,
                code: row.try_get_unchecked::<Option<String>, _>(first + 14)?.map(plain).unwrap_or_default(),
                reason: row.try_get_unchecked::<Option<String>, _>(first + 15)?.map(plain).unwrap_or_default(),
            }),
        };
        Ok(Message {
            place: Place {
                feed: FeedId(row.try_get_unchecked(first)?),
                lane: row.try_get_unchecked(first + 1)?,
                n: row.try_get_unchecked(first + 2)?,
            },
            id: row.try_get_unchecked(first + 3)?,
            key_hash: key_hash(row.try_get_unchecked(first + 4)?),
            table: self.table(row.try_get_unchecked(first + 5)?),
            captured: Captured {
                partition: row.try_get_unchecked(first + 6)?,
                offset: row.try_get_unchecked(first + 7)?,
                timestamp_ms: row.try_get_unchecked(first + 8)?,
                key: bytes(row, first + 10)?,
                payload: bytes(row, first + 11)?,
                headers: headers::decode(bytes(row, first + 12)?)?,
            },
            received_ms: row.try_get_unchecked(first + 9)?,
            delivery: row.try_get_unchecked(first + 16)?,
            prejudged,
        })
    }

    pub(super) fn work_message(&mut self, row: &PgRow) -> Try<WorkMessage> {
        let message = self.message(row)?;
        Ok(WorkMessage { row: work_row(row, MESSAGE_COLUMNS, &message)?, message })
    }
}

/// A message's row, whose columns begin at `first`.
pub(super) fn work_row(row: &PgRow, first: usize, message: &Message) -> Try<WorkRow> {
    let cause: i16 = row.try_get_unchecked(first + 5)?;
    Ok(WorkRow {
        place: message.place,
        run: row.try_get_unchecked(first)?,
        key_hash: message.key_hash,
        status: status_of(row.try_get_unchecked(first + 1)?)?,
        blocks: row.try_get_unchecked(first + 2)?,
        attempts: row.try_get_unchecked(first + 3)?,
        due_ms: row.try_get_unchecked(first + 4)?,
        cause: Cause::from_code(cause).ok_or_else(|| Error::Corrupt(format!("a work row has the cause {cause}")))?,
        waiting_since_ms: row.try_get_unchecked(first + 6)?,
        code: plain(row.try_get_unchecked(first + 7)?),
        reason: plain(row.try_get_unchecked(first + 8)?),
        activation: row.try_get_unchecked(first + 9)?,
        pinned: row.try_get_unchecked(first + 10)?,
        waits: Vec::new(),
    })
}

pub(super) fn key_hash(uuid: Uuid) -> KeyHash {
    KeyHash(uuid.into_bytes())
}

pub(super) fn bytes(row: &PgRow, column: usize) -> Try<Option<Bytes>> {
    Ok(row.try_get_unchecked::<Option<Vec<u8>>, _>(column)?.map(Bytes::from))
}

pub(super) fn status_of(code: i16) -> Try<Status> {
    Ok(Status::from_code(code).ok_or_else(|| Error::Corrupt(format!("a row has the status {code}")))?)
}
