//! What a source's own thread has read ahead of the ingest loop: bounded, so that a slow store holds the thread back, and safe against a
//! dropped `next`. Knows nothing of where messages come from.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::{Batch, Error};
use crate::message::Captured;

/// Bundles in flight between the thread and `next`.
const BUNDLES_MAX: usize = 8;
const BUNDLE_ROWS_MAX: usize = 1_000;
const BUNDLE_BYTES_MAX: usize = 1 << 20;

/// Messages on their way from the thread.
#[derive(Default)]
pub(super) struct Bundle {
    messages: Vec<Captured>,
    bytes: usize,
}

impl Bundle {
    pub(super) fn push(&mut self, message: Captured) {
        self.bytes += message.size();
        self.messages.push(message);
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= BUNDLE_ROWS_MAX || self.bytes >= BUNDLE_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Captured> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }
}

/// The loop's end.
pub(super) struct Ahead {
    place: String,
    receiver: mpsc::Receiver<Result<Batch, Error>>,
    ready: VecDeque<Captured>,
    ended: bool,
    failed: Option<Error>,
}

/// The thread's end and the loop's end.
pub(super) fn channel(place: String) -> (mpsc::Sender<Result<Batch, Error>>, Ahead) {
    let (sender, receiver) = mpsc::channel(BUNDLES_MAX);
    (sender, Ahead { place, receiver, ready: VecDeque::new(), ended: false, failed: None })
}

impl Ahead {
    /// The end of a source that is not open.
    pub(super) fn closed(place: String) -> Self {
        channel(place).1
    }

    /// As `Source::next`.
    pub(super) async fn next(&mut self, rows_max: usize, bytes_max: usize) -> Result<Batch, Error> {
        while self.ready.is_empty() && !self.ended {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            // The only await: what it yields goes into `self` at once, so a dropped call loses nothing.
            let received = self.receiver.recv().await;
            self.keep(received);
        }
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.messages.len() < rows_max.max(1) && (bytes < bytes_max || batch.messages.is_empty()) {
            if let Some(message) = self.ready.pop_front() {
                bytes += message.size();
                batch.messages.push(message);
                continue;
            }
            if self.ended || self.failed.is_some() {
                break;
            }
            match self.receiver.try_recv() {
                Ok(received) => self.keep(Some(received)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.keep(None),
            }
        }
        batch.ended = self.ended && self.ready.is_empty();
        Ok(batch)
    }

    fn keep(&mut self, received: Option<Result<Batch, Error>>) {
        match received {
            Some(Ok(batch)) => {
                self.ready.extend(batch.messages);
                self.ended = batch.ended;
            }
            Some(Err(error)) => self.failed = Some(error),
            None => {
                self.failed =
                    Some(Error::Away { place: self.place.clone(), reason: "the reading thread is gone; to be opened again".to_owned() })
            }
        }
    }
}
