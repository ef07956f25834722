//! The store's verbs for messages on their way out.

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::Result;
use crate::message::{Headers, Place};
use crate::plugin::{Action, Digest};

/// Where publishing of a target stands: the last output done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputCursor {
    /// The settlement.
    pub settlement: i64,
    /// The index in it; -1: none of it.
    pub index: i32,
}

/// An output as the publisher reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRow {
    /// Its position: only grows.
    pub cursor: OutputCursor,
    /// uuid5 of the message's id, run and index of the output within the message.
    pub event_id: Uuid,
    /// The message it came from.
    pub place: Place,
    /// The feed's name.
    pub feed: String,
    /// The plugin that made it.
    pub digest: Option<Digest>,
    /// The action.
    pub action: Action,
    /// The output key.
    pub key: Option<Bytes>,
    /// The payload.
    pub payload: Option<Bytes>,
    /// The translator's headers.
    pub headers: Headers,
    /// The output's version.
    pub version: Option<u64>,
}

/// An output that a sink refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Which output.
    pub cursor: OutputCursor,
    /// Why.
    pub reason: String,
}

/// Messages on their way out.
#[async_trait]
pub trait Outputs {
    /// Outputs of a target after a cursor, in order, at most `rows_max` and about `bytes_max`, at least one where there is one. Second: the
    /// last settlement looked at, so that the cursor may pass settlements without outputs for the target.
    async fn outputs(&self, target: &str, after: OutputCursor, rows_max: i64, bytes_max: i64) -> Result<(Vec<OutputRow>, i64)>;
    /// Moves the cursor, never back, and parks what was refused: the message shows `failed`. False: fenced.
    async fn published(&self, target: &str, epoch: i64, cursor: OutputCursor, parked: &[Parked]) -> Result<bool>;
    /// Output keys of a target that are blocked by a parked output.
    async fn parked_keys(&self, target: &str) -> Result<Vec<Option<Bytes>>>;
}
