//! What people ask the store about messages, and the little they write by hand.

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::{Activation, OutputRow, Result};
use crate::message::{Message, Place, Status};
use crate::plugin::{Binding, Request, Scan, Write};

/// Which messages a person wants to see. Everything set must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The feed's name.
    pub feed: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The ordering key, as text.
    pub key: Option<String>,
    /// The status.
    pub status: Option<Status>,
    /// The code.
    pub code: Option<String>,
    /// A part of the reason, upper and lower case alike.
    pub reason: Option<String>,
    /// Any of these ordering keys, as text; empty: all.
    pub keys: Vec<String>,
    /// Parts of this delivery: the feed's name and the delivery's id. Its marks are no parts.
    pub delivery: Option<(String, String)>,
    /// Received at or after this time, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Received before this time, milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// One message by id.
    pub id: Option<Uuid>,
    /// One message by partition and offset.
    pub at: Option<(i32, i64)>,
    /// One message by its place: the quickest way.
    pub place: Option<Place>,
    /// Rows at most.
    pub limit: i64,
    /// Oldest first in place of newest first.
    pub oldest_first: bool,
}

/// A row of the view `message_status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageStatus {
    /// The message's id.
    pub id: Uuid,
    /// The feed's name.
    pub feed: String,
    /// The table.
    pub table: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The ordering key, bytes that are no UTF-8 replaced.
    pub key: Option<String>,
    /// The status's word.
    pub status: String,
    /// The code.
    pub code: Option<String>,
    /// The reason or note.
    pub reason: Option<String>,
    /// Tries that ended in retry or in a wait's time-out.
    pub attempts: i32,
    /// The digest that judged it last, 64 hexadecimal digits.
    pub digest: Option<String>,
    /// When it came, milliseconds since 1970.
    pub received_ms: i64,
    /// When it was settled last.
    pub settled_ms: Option<i64>,
    /// When it is due.
    pub due_ms: Option<i64>,
}

/// One message, whole.
#[derive(Clone, Debug)]
pub struct MessageDetail {
    /// Its row of the view.
    pub status: MessageStatus,
    /// The message.
    pub message: Message,
    /// Its outputs in the order of the translator, each with target, whether it is published, and why it is parked if it is (then it is not).
    pub outputs: Vec<(String, OutputRow, bool, Option<String>)>,
    /// The settlement it left at, where it did.
    pub settlement: Option<i64>,
    /// `now` of its last attempt.
    pub now_ms: Option<i64>,
    /// The activation that judged it last.
    pub activation: Option<Activation>,
    /// Its kept answers, compressed.
    pub answers: Option<Bytes>,
    /// What it waits for.
    pub waits: Vec<Request>,
}

/// A count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The feed's name.
    pub feed: String,
    /// The table.
    pub table: String,
    /// The status's word.
    pub status: String,
    /// How many.
    pub count: i64,
}

/// What people ask about messages.
#[async_trait]
pub trait Messages {
    /// Rows of the view.
    async fn messages(&self, filter: &Filter) -> Result<Vec<MessageStatus>>;
    /// One message with everything around it.
    async fn message(&self, id: Uuid) -> Result<Option<MessageDetail>>;
    /// The same by its place, which needs no search.
    async fn message_at(&self, place: Place) -> Result<Option<MessageDetail>>;
    /// The stored messages of a filter, oldest first, for `capture`, with their status.
    async fn captured(&self, filter: &Filter) -> Result<Vec<(Message, MessageStatus)>>;
    /// Counts per feed, table and status.
    async fn counts(&self) -> Result<Vec<Count>>;
    /// Outputs that are not published, per target.
    async fn unpublished(&self) -> Result<Vec<(String, i64)>>;
    /// Entries and bindings by hand (seeds, `activate`): written under a settlement of its own, waking whoever waits for them.
    async fn put_entries(&self, writes: &[Write], bindings: &[Binding]) -> Result<()>;
    /// The entries of a collection in key order.
    async fn entries(&self, scan: &Scan) -> Result<Vec<(String, Bytes)>>;
    /// The bindings of a namespace: (key, id) in key order.
    async fn bindings(&self, namespace: &str) -> Result<Vec<(String, Uuid)>>;
}
