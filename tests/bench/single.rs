//! The other design, by which systems of this kind are built today: one transaction a message, which stores it, stores what came of it and
//! marks it as handled. The same rows, the same translator, prepared statements.

use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tolk::message::{Captured, FeedId, KeyHash, Message, Place};
use tolk::plugin::{Context, Outcome};
use tolk::runtime::Runtime;
use uuid::Uuid;

use crate::house::House;
use crate::raw::InboxRow;

/// Runs messages through, one after another.
pub async fn run(connection: &mut PgConnection, rows: &[InboxRow], house: &House, runtime: &Runtime) -> Duration {
    let active = house.registry.snapshot().find("shop", "SHOP.ITEM").unwrap().clone();
    let mut instances = runtime.here();
    let started = Instant::now();
    for row in rows {
        let message = message(row);
        let mut transaction = connection.begin().await.unwrap();
        insert_inbox(&mut transaction, row).await;
        let verdict = active.translator.translate(&mut instances, &message, "shop", &Context::default()).unwrap();
        let Outcome::Translated(translation) = verdict.outcome else { panic!("it puts out one message") };
        for (ordinal, output) in (0_i32..).zip(&translation.outputs) {
            sqlx::query(
                "INSERT INTO output (target, position, batch, n, feed, lane, run, ordinal, activation, version, message, size, action, key,
                   headers, payload) VALUES (1, $1, $2, $3, $4, $5, 0, $1, $6, NULL, $7, $8, $9, $10, NULL, $11)",
            )
            .bind(ordinal)
            .bind(row.source_offset)
            .bind(row.n)
            .bind(row.feed)
            .bind(row.lane)
            .bind(active.activation)
            .bind(row.id)
            .bind(i32::try_from(output.payload.as_ref().map_or(0, |payload| payload.len())).unwrap())
            .bind(output.action as i16)
            .bind(output.key.as_deref())
            .bind(output.payload.as_deref())
            .execute(&mut *transaction)
            .await
            .unwrap();
        }
        sqlx::query("UPDATE inbox_1 SET status = 1 WHERE feed = $1 AND lane = $2 AND n = $3")
            .bind(row.feed)
            .bind(row.lane)
            .bind(row.n)
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
    started.elapsed()
}

async fn insert_inbox(connection: &mut PgConnection, row: &InboxRow) {
    sqlx::query(
        "INSERT INTO inbox_1 (feed, lane, n, source_offset, received_ms, timestamp_ms, source_partition, size, id, key_hash, status,
           source_table, ordering_key, key, headers, payload, code, reason)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12, $13, $14, $15, NULL, NULL)",
    )
    .bind(row.feed)
    .bind(row.lane)
    .bind(row.n)
    .bind(row.source_offset)
    .bind(row.received_ms)
    .bind(row.timestamp_ms)
    .bind(row.source_partition)
    .bind(row.size)
    .bind(row.id)
    .bind(row.key_hash)
    .bind(&row.source_table)
    .bind(row.ordering_key.as_deref())
    .bind(row.key.as_deref())
    .bind(row.headers.as_deref())
    .bind(row.payload.as_deref())
    .execute(connection)
    .await
    .unwrap();
}

fn message(row: &InboxRow) -> Message {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map(Into::into);
    Message {
        place: Place { feed: FeedId(row.feed), lane: row.lane, n: row.n },
        id: Uuid::from_bytes(*row.id.as_bytes()),
        table: row.source_table.as_str().into(),
        key_hash: KeyHash(*row.key_hash.as_bytes()),
        captured: Captured {
            partition: row.source_partition,
            offset: row.source_offset,
            key: bytes(&row.key),
            payload: bytes(&row.payload),
            headers: Vec::new(),
            timestamp_ms: row.timestamp_ms,
        },
        received_ms: row.received_ms,
        prejudged: None,
        delivery: None,
    }
}
