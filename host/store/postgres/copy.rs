//! The bytes of COPY BINARY, row by row, and their way to the server in pieces. Knows no table.

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::Try;
use crate::message::Headers;
use crate::store::headers;

/// Pieces of this size let the server write rows while the next ones are encoded.
const PIECE_BYTES: usize = 256 << 10;

/// A buffer of rows.
pub(super) struct Rows {
    buffer: Vec<u8>,
}

impl Rows {
    pub(super) fn new() -> Self {
        let mut buffer = Vec::with_capacity(PIECE_BYTES + (16 << 10));
        buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        buffer.extend_from_slice(&[0; 8]);
        Self { buffer }
    }

    pub(super) fn row(&mut self, columns: i16) {
        self.buffer.extend_from_slice(&columns.to_be_bytes());
    }

    pub(super) fn null(&mut self) {
        self.buffer.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    pub(super) fn int2(&mut self, value: i16) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn int4(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn int8(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn uuid(&mut self, value: Uuid) {
        self.field(value.as_bytes());
    }

    pub(super) fn some_int8(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.int8(value),
            None => self.null(),
        }
    }

    /// Text or bytes.
    pub(super) fn some_bytes(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.field(value),
            None => self.null(),
        }
    }

    pub(super) fn field(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn headers(&mut self, headers: &Headers) {
        if headers.is_empty() {
            return self.null();
        }
        let at = self.buffer.len();
        self.length(0);
        headers::encode_into(headers, &mut self.buffer);
        let length = i32::try_from(self.buffer.len() - at - 4).expect("a message is below 2 GiB");
        self.buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn length(&mut self, length: usize) {
        let length = i32::try_from(length).expect("a message is below 2 GiB");
        self.buffer.extend_from_slice(&length.to_be_bytes());
    }
}

/// Copies rows into a table; `encode` appends the given one.
pub(super) async fn copy<T: Sync>(
    connection: &mut PgConnection,
    sql: &str,
    rows: &[T],
    mut encode: impl FnMut(&mut Rows, usize, &T),
) -> Try<()> {
    let mut copy = connection.copy_in_raw(sql).await?;
    let mut buffer = Rows::new();
    for (index, row) in rows.iter().enumerate() {
        encode(&mut buffer, index, row);
        if buffer.buffer.len() >= PIECE_BYTES {
            copy.send(&*buffer.buffer).await?;
            buffer.buffer.clear();
        }
    }
    buffer.row(-1);
    copy.send(&*buffer.buffer).await?;
    copy.finish().await?;
    Ok(())
}
