//! The nouns of the path's first half: what a source hands over, the inbox row it becomes, and where that row stands.
//! Knows nothing of stores, sources or plugins.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::delivery::Piece;

/// A map whose keys nobody outside can choose: numbers of ours, and hashes. Every message in hand goes through several of them.
pub type Map<K, V> = HashMap<K, V, RandomState>;
/// A set of such keys.
pub type Set<K> = HashSet<K, RandomState>;

/// Kafka's headers: ordered, repeated, with null values.
pub type Headers = Vec<(String, Option<Bytes>)>;

/// The database's number of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedId(pub i32);

/// Where an inbox row stands: rows of a lane are numbered without gaps, from 1, in partition order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The feed the message came by.
    pub feed: FeedId,
    /// The lane: a hash of (feed, table, ordering key), below the feed's number of lanes.
    pub lane: i32,
    /// The number of the row in its lane, from 1.
    pub n: i64,
}

/// 128 bits of SHA-256 over (table, ordering key): what indexes hold in place of the key itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 16]);

impl KeyHash {
    /// The hash of an ordering key of a table.
    pub fn of(table: &str, key: &[u8]) -> Self {
        Self::of_parts(&[table.as_bytes(), key])
    }

    /// The hash of several byte strings, each framed by its length, so that no two lists collide by concatenation.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        Self(half)
    }

    /// The lane of this hash among `lanes`.
    pub fn lane(&self, lanes: u16) -> i32 {
        let word = u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
        (word % u32::from(lanes.max(1))) as i32
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a source hands over, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The partition; 0 for sources without partitions.
    pub partition: i32,
    /// The position in the partition; only grows, need not be gapless.
    pub offset: i64,
    /// The record's key; `None` is a null key, not an empty one.
    pub key: Option<Bytes>,
    /// The record's value; `None` is a tombstone, not an empty payload.
    pub payload: Option<Bytes>,
    /// The record's headers.
    pub headers: Headers,
    /// The source's time in milliseconds since 1970, where it gives one.
    pub timestamp_ms: Option<i64>,
}

/// Why ingest itself already knows what becomes of a message; the translate loop settles it without calling a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prejudged {
    /// `Invalid` or `Ignored`; `Handled` for the marks of deliveries.
    pub status: Status,
    /// A stable code, such as `no-table` or `duplicate`.
    pub code: String,
    /// A sentence for a person, naming the config key or pointer that did not resolve.
    pub reason: String,
}

/// A message on its way into the inbox: what the source handed over and what the feed's pointers made of it.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// uuid5 of (topic, partition, offset).
    pub id: Uuid,
    /// The lane; the store gives the number.
    pub lane: i32,
    /// The table, empty where no pointer resolved.
    pub table: Arc<str>,
    /// The ordering key as bytes, for people to find the message by; `None`: unordered.
    pub ordering_key: Option<Bytes>,
    /// The hash of (table, ordering key); of the position for an unordered message.
    pub key_hash: KeyHash,
    /// The hash of (table, dedupe key), where the feed has one. The first row with it wins; later ones are stored
    /// with `Prejudged { Ignored, "duplicate" }`.
    pub dedupe: Option<KeyHash>,
    /// What the source handed over.
    pub captured: Captured,
    /// Set where ingest itself found the message wanting.
    pub prejudged: Option<Prejudged>,
    /// What it is to a delivery, where the feed has deliveries; `append` judges it.
    pub delivery: Option<Piece>,
}

/// A row of the inbox as the translate loop reads it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where the row stands.
    pub place: Place,
    /// uuid5 of (topic, partition, offset).
    pub id: Uuid,
    /// The table, empty where no pointer resolved.
    pub table: Arc<str>,
    /// The hash that orders: messages with an equal one are settled in the order of their numbers.
    pub key_hash: KeyHash,
    /// What the source handed over.
    pub captured: Captured,
    /// When the row was written, by the database's clock, in milliseconds since 1970.
    pub received_ms: i64,
    /// Set where ingest itself found the message wanting.
    pub prejudged: Option<Prejudged>,
    /// The number of the delivery it is a part of.
    pub delivery: Option<i64>,
}

impl Message {
    /// The bytes that count against fetch limits and memory budgets.
    pub fn size(&self) -> usize {
        self.captured.size()
    }
}

impl Captured {
    /// The bytes of key, payload and headers.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len) + headers
    }
}

/// A source's position of one partition: the offset that is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset that the next message must have or exceed.
    pub next_offset: i64,
}

/// What a person sees of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Not translated yet, or due to be.
    Pending,
    /// Done; its outputs, if any, are in the store.
    Handled,
    /// Deliberately not translated; the raw row is kept.
    Ignored,
    /// Until an entry appears, changes or goes, or the time is up.
    Waiting,
    /// Tried, failed for a transient reason, due again later.
    Retry,
    /// The message itself is wrong.
    Invalid,
    /// A person must decide.
    Failed,
    /// Its delivery is incomplete.
    Held,
    /// An earlier message of its key is not done.
    Behind,
    /// Set aside by an operator; its key is held back.
    Stopped,
    /// Closed by an operator.
    Finished,
}

impl Status {
    /// Every status, in the order of their codes.
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Handled,
        Self::Ignored,
        Self::Waiting,
        Self::Retry,
        Self::Invalid,
        Self::Failed,
        Self::Held,
        Self::Behind,
        Self::Stopped,
        Self::Finished,
    ];

    /// The word a person sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Handled => "handled",
            Self::Ignored => "ignored",
            Self::Waiting => "waiting",
            Self::Retry => "retry",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Behind => "behind",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
        }
    }

    /// The number the stores keep.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The status of a stored number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// The status of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
