//! What the two sides of a trial tell each other: a head of two lengths, a frame as JSON, bytes that belong to it; one byte comes back.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::{Captured, FeedId, Headers, KeyHash, Message, Place};
use crate::plugin::{Answer, Cause, Context, Delivery, Limits};

/// The child did what a frame says, and lives.
pub(super) const CAME_BACK: u8 = b'.';
/// The child cannot do it.
pub(super) const REFUSED: u8 = b'!';

#[derive(Serialize, Deserialize)]
pub(super) enum Frame {
    /// A plugin; its compiled component is attached.
    Load { translator: u64, digest: String, limits: Limits, config: String },
    /// A call of it.
    Try { translator: u64, case: Case },
}

/// What a call is given.
#[derive(Serialize, Deserialize)]
pub(super) struct Case {
    feed: String,
    id: Uuid,
    table: String,
    partition: i32,
    offset: i64,
    key: Option<Bytes>,
    payload: Option<Bytes>,
    headers: Headers,
    timestamp_ms: Option<i64>,
    received_ms: i64,
    now_ms: i64,
    utc_offset_s: i32,
    attempt: u32,
    waited_ms: u64,
    cause: i16,
    delivery: Option<Delivery>,
    answers: Vec<Answer>,
}

impl Frame {
    /// The head and the frame, as they go before the attached bytes.
    pub(super) fn head(&self, attached: &[u8]) -> std::io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let mut bytes = Vec::with_capacity(16 + json.len());
        bytes.extend_from_slice(&(json.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&(attached.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&json);
        Ok(bytes)
    }

    /// The next frame with what is attached; none: the other side is gone.
    pub(super) fn read(from: &mut impl Read) -> std::io::Result<Option<(Self, Vec<u8>)>> {
        let mut lengths = [0; 16];
        match from.read_exact(&mut lengths) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (json, attached) = lengths.split_at(8);
        let mut part = |length: &[u8]| {
            let length = u64::from_be_bytes(length.try_into().expect("half of the head"));
            let mut bytes = Vec::new();
            let read = from.take(length).read_to_end(&mut bytes)?;
            if read as u64 == length { Ok(bytes) } else { Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)) }
        };
        let json = part(json)?;
        Ok(Some((serde_json::from_slice(&json)?, part(attached)?)))
    }
}

impl Case {
    pub(super) fn of(message: &Message, feed: &str, context: &Context) -> Self {
        let Captured { partition, offset, key, payload, headers, timestamp_ms } = message.captured.clone();
        Self {
            feed: feed.to_owned(),
            id: message.id,
            table: message.table.to_string(),
            partition,
            offset,
            key,
            payload,
            headers,
            timestamp_ms,
            received_ms: message.received_ms,
            now_ms: context.now_ms,
            utc_offset_s: context.utc_offset_s,
            attempt: context.attempt,
            waited_ms: context.waited_ms,
            cause: context.cause.code(),
            delivery: context.delivery.clone(),
            answers: context.answers.clone(),
        }
    }

    /// The message, its feed and its context; what no guest is told of the message is left out.
    pub(super) fn into_parts(self) -> (Message, String, Context) {
        let captured = Captured {
            partition: self.partition,
            offset: self.offset,
            key: self.key,
            payload: self.payload,
            headers: self.headers,
            timestamp_ms: self.timestamp_ms,
        };
        let message = Message {
            place: Place { feed: FeedId(0), lane: 0, n: 0 },
            id: self.id,
            table: Arc::from(self.table),
            key_hash: KeyHash([0; 16]),
            captured,
            received_ms: self.received_ms,
            prejudged: None,
            delivery: None,
        };
        let context = Context {
            now_ms: self.now_ms,
            utc_offset_s: self.utc_offset_s,
            attempt: self.attempt,
            waited_ms: self.waited_ms,
            cause: Cause::from_code(self.cause).unwrap_or_default(),
            delivery: self.delivery,
            answers: self.answers,
        };
        (message, self.feed, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Reply, Request};

    #[test]
    fn a_case_comes_over_as_it_was() {
        let message = Message {
            place: Place { feed: FeedId(3), lane: 2, n: 1 },
            id: Uuid::from_u128(7),
            table: Arc::from("t"),
            key_hash: KeyHash([1; 16]),
            captured: Captured {
                partition: 4,
                offset: 5,
                key: Some(Bytes::from_static(&[0, 255])),
                payload: None,
                headers: vec![("h".to_owned(), None), ("h".to_owned(), Some(Bytes::from_static(b"v")))],
                timestamp_ms: Some(6),
            },
            received_ms: 8,
            prejudged: None,
            delivery: Some(9),
        };
        let request = Request::Entry { collection: "c".to_owned(), key: "k".to_owned() };
        let context = Context {
            now_ms: 10,
            utc_offset_s: 3_600,
            attempt: 2,
            waited_ms: 11,
            cause: Cause::Woken,
            delivery: Some(Delivery { id: "d".to_owned(), params: vec![("p".to_owned(), "1".to_owned())], expected: Some(12) }),
            answers: vec![Answer { request, reply: Reply::Entry(Some(Bytes::from_static(b"e"))) }],
        };
        let frame = Frame::Try { translator: 1, case: Case::of(&message, "f", &context) };
        let sent = [&frame.head(b"more").unwrap()[..], b"more"].concat();
        let Ok(Some((Frame::Try { translator: 1, case }, attached))) = Frame::read(&mut &sent[..]) else { panic!("another frame") };
        assert_eq!(attached, b"more");
        let (came, feed, told) = case.into_parts();
        assert_eq!((came.id, &*came.table, &came.captured, came.received_ms), (message.id, "t", &message.captured, 8));
        assert_eq!((feed.as_str(), told.now_ms, told.utc_offset_s, told.attempt, told.waited_ms), ("f", 10, 3_600, 2, 11));
        assert_eq!((told.cause, told.delivery, told.answers), (context.cause, context.delivery, context.answers));
        assert!(Frame::read(&mut &sent[..0]).unwrap().is_none(), "nothing more");
        assert!(Frame::read(&mut &sent[..sent.len() - 1]).is_err(), "half a frame");
    }
}
