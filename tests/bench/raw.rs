//! The ceilings on PostgreSQL: the same rows, read back from our tables, written in bulk by hand into tables of the same migrations.
//! One transaction a batch, by COPY BINARY or by UNNEST.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, FromRow};
use uuid::Uuid;

/// What COPY sends at a time, so that the server writes while the next rows are encoded.
const PIECE_BYTES: usize = 256 << 10;

const INBOX: &str = "feed, lane, n, source_offset, received_ms, timestamp_ms, source_partition, size, id, key_hash, status, source_table, \
                     ordering_key, key, headers, payload, code, reason";
const OUTPUT: &str =
    "target, position, batch, n, feed, lane, run, ordinal, activation, version, message, size, action, key, headers, payload";

/// How rows are written.
#[derive(Clone, Copy)]
pub struct Variant {
    pub copy: bool,
    pub batch: usize,
}

impl Variant {
    pub const ALL: [Self; 4] = [
        Self { copy: true, batch: 1_000 },
        Self { copy: true, batch: 5_000 },
        Self { copy: false, batch: 1_000 },
        Self { copy: false, batch: 5_000 },
    ];

    pub fn name(self) -> String {
        format!("{} by {}", if self.copy { "COPY BINARY" } else { "UNNEST" }, self.batch)
    }
}

/// A row of the inbox.
#[derive(FromRow)]
pub struct InboxRow {
    pub feed: i32,
    pub lane: i32,
    pub n: i64,
    pub source_offset: i64,
    pub received_ms: i64,
    pub timestamp_ms: Option<i64>,
    pub source_partition: i32,
    pub size: i32,
    pub id: Uuid,
    pub key_hash: Uuid,
    pub status: Option<i16>,
    pub source_table: String,
    pub ordering_key: Option<Vec<u8>>,
    pub key: Option<Vec<u8>>,
    pub headers: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub code: Option<String>,
    pub reason: Option<String>,
}

/// A row of the outputs.
#[derive(FromRow)]
pub struct OutputRow {
    pub target: i32,
    pub position: i32,
    pub batch: i64,
    pub n: i64,
    pub feed: i32,
    pub lane: i32,
    pub run: i32,
    pub ordinal: i32,
    pub activation: Option<i64>,
    pub version: Option<i64>,
    pub message: Uuid,
    pub size: i32,
    pub action: i16,
    pub key: Option<Vec<u8>>,
    pub headers: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
}

/// What our own run left in its tables.
pub struct Rows {
    pub inbox: Vec<InboxRow>,
    pub outputs: Vec<OutputRow>,
}

impl Rows {
    pub async fn read(connection: &mut PgConnection) -> Self {
        let inbox = format!("SELECT {INBOX} FROM inbox ORDER BY source_offset");
        let outputs = format!("SELECT {OUTPUT} FROM output ORDER BY batch, position");
        Self {
            inbox: sqlx::query_as(AssertSqlSafe(inbox)).fetch_all(&mut *connection).await.unwrap(),
            outputs: sqlx::query_as(AssertSqlSafe(outputs)).fetch_all(connection).await.unwrap(),
        }
    }

    /// Writes the inbox rows and, if there are any, as many output rows with them.
    pub async fn write(&self, connection: &mut PgConnection, variant: Variant) -> Duration {
        let mut outputs = self.outputs.chunks(variant.batch);
        let started = Instant::now();
        for inbox in self.inbox.chunks(variant.batch) {
            let mut transaction = connection.begin().await.unwrap();
            if variant.copy {
                copy(&mut transaction, "inbox_1", INBOX, inbox).await;
            } else {
                unnest_inbox(&mut transaction, inbox).await;
            }
            match outputs.next() {
                Some(rows) if variant.copy => copy(&mut transaction, "output", OUTPUT, rows).await,
                Some(rows) => unnest_outputs(&mut transaction, rows).await,
                None => {}
            }
            transaction.commit().await.unwrap();
        }
        started.elapsed()
    }
}

/// A row as COPY BINARY wants it.
trait Encode {
    fn encode(&self, to: &mut Vec<u8>);
}

fn field(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&i32::try_from(bytes.len()).unwrap().to_be_bytes());
    to.extend_from_slice(bytes);
}

fn some(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => field(to, bytes),
        None => to.extend_from_slice(&(-1_i32).to_be_bytes()),
    }
}

impl Encode for InboxRow {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&18_i16.to_be_bytes());
        field(to, &self.feed.to_be_bytes());
        field(to, &self.lane.to_be_bytes());
        field(to, &self.n.to_be_bytes());
        field(to, &self.source_offset.to_be_bytes());
        field(to, &self.received_ms.to_be_bytes());
        some(to, self.timestamp_ms.map(i64::to_be_bytes).as_ref().map(|bytes| &bytes[..]));
        field(to, &self.source_partition.to_be_bytes());
        field(to, &self.size.to_be_bytes());
        field(to, self.id.as_bytes());
        field(to, self.key_hash.as_bytes());
        some(to, self.status.map(i16::to_be_bytes).as_ref().map(|bytes| &bytes[..]));
        field(to, self.source_table.as_bytes());
        some(to, self.ordering_key.as_deref());
        some(to, self.key.as_deref());
        some(to, self.headers.as_deref());
        some(to, self.payload.as_deref());
        some(to, self.code.as_deref().map(str::as_bytes));
        some(to, self.reason.as_deref().map(str::as_bytes));
    }
}

impl Encode for OutputRow {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&16_i16.to_be_bytes());
        field(to, &self.target.to_be_bytes());
        field(to, &self.position.to_be_bytes());
        field(to, &self.batch.to_be_bytes());
        field(to, &self.n.to_be_bytes());
        field(to, &self.feed.to_be_bytes());
        field(to, &self.lane.to_be_bytes());
        field(to, &self.run.to_be_bytes());
        field(to, &self.ordinal.to_be_bytes());
        some(to, self.activation.map(i64::to_be_bytes).as_ref().map(|bytes| &bytes[..]));
        some(to, self.version.map(i64::to_be_bytes).as_ref().map(|bytes| &bytes[..]));
        field(to, self.message.as_bytes());
        field(to, &self.size.to_be_bytes());
        field(to, &self.action.to_be_bytes());
        some(to, self.key.as_deref());
        some(to, self.headers.as_deref());
        some(to, self.payload.as_deref());
    }
}

async fn copy(connection: &mut PgConnection, table: &str, columns: &str, rows: &[impl Encode]) {
    let mut copy = connection.copy_in_raw(&format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)")).await.unwrap();
    let mut buffer = Vec::with_capacity(PIECE_BYTES + (16 << 10));
    buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for row in rows {
        row.encode(&mut buffer);
        if buffer.len() >= PIECE_BYTES {
            copy.send(&*buffer).await.unwrap();
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(&*buffer).await.unwrap();
    copy.finish().await.unwrap();
}

/// A column of some rows.
fn column<'r, R, T>(rows: &'r [R], of: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

async fn unnest_inbox(connection: &mut PgConnection, rows: &[InboxRow]) {
    let sql = format!(
        "INSERT INTO inbox_1 ({INBOX}) SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
           $7::int[], $8::int[], $9::uuid[], $10::uuid[], $11::smallint[], $12::text[], $13::bytea[], $14::bytea[], $15::bytea[],
           $16::bytea[], $17::text[], $18::text[])"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(column(rows, |row| row.feed))
        .bind(column(rows, |row| row.lane))
        .bind(column(rows, |row| row.n))
        .bind(column(rows, |row| row.source_offset))
        .bind(column(rows, |row| row.received_ms))
        .bind(column(rows, |row| row.timestamp_ms))
        .bind(column(rows, |row| row.source_partition))
        .bind(column(rows, |row| row.size))
        .bind(column(rows, |row| row.id))
        .bind(column(rows, |row| row.key_hash))
        .bind(column(rows, |row| row.status))
        .bind(column(rows, |row| row.source_table.as_str()))
        .bind(column(rows, |row| row.ordering_key.as_deref()))
        .bind(column(rows, |row| row.key.as_deref()))
        .bind(column(rows, |row| row.headers.as_deref()))
        .bind(column(rows, |row| row.payload.as_deref()))
        .bind(column(rows, |row| row.code.as_deref()))
        .bind(column(rows, |row| row.reason.as_deref()))
        .execute(connection)
        .await
        .unwrap();
}

async fn unnest_outputs(connection: &mut PgConnection, rows: &[OutputRow]) {
    let sql = format!(
        "INSERT INTO output ({OUTPUT}) SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::int[], $6::int[],
           $7::int[], $8::int[], $9::bigint[], $10::bigint[], $11::uuid[], $12::int[], $13::smallint[], $14::bytea[], $15::bytea[],
           $16::bytea[])"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(column(rows, |row| row.target))
        .bind(column(rows, |row| row.position))
        .bind(column(rows, |row| row.batch))
        .bind(column(rows, |row| row.n))
        .bind(column(rows, |row| row.feed))
        .bind(column(rows, |row| row.lane))
        .bind(column(rows, |row| row.run))
        .bind(column(rows, |row| row.ordinal))
        .bind(column(rows, |row| row.activation))
        .bind(column(rows, |row| row.version))
        .bind(column(rows, |row| row.message))
        .bind(column(rows, |row| row.size))
        .bind(column(rows, |row| row.action))
        .bind(column(rows, |row| row.key.as_deref()))
        .bind(column(rows, |row| row.headers.as_deref()))
        .bind(column(rows, |row| row.payload.as_deref()))
        .execute(connection)
        .await
        .unwrap();
}
