//! What a translator is given: the message, byte for byte, and why it is tried now.

#[cfg(feature = "json")]
use crate::outcome::{Outcome, Stop};

/// Kafka's headers: ordered, repeated, with null values.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A message as the source handed it over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// A stable uuid of (topic, partition, offset).
    pub id: String,
    /// The feed it came by.
    pub feed: String,
    /// The table, as the feed's pointers found it.
    pub table: String,
    /// The partition; 0 for sources without partitions.
    pub partition: u32,
    /// The position in the partition.
    pub offset: u64,
    /// The record's key; `None` is a null key.
    pub key: Option<Vec<u8>>,
    /// The record's value; `None` is a tombstone, not an empty payload.
    pub payload: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Headers,
    /// The source's time in milliseconds since 1970, where it gives one.
    pub timestamp_ms: Option<i64>,
    /// When the host stored it, in milliseconds since 1970.
    pub received_ms: i64,
}

impl Message {
    /// The payload's bytes; empty for a tombstone.
    pub fn bytes(&self) -> &[u8] {
        self.payload.as_deref().unwrap_or_default()
    }

    /// The payload as JSON. Stops with rejected `no-payload` for a tombstone, `bad-json` for anything that is not what is expected.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Stop> {
        let bytes = self.payload.as_deref().ok_or_else(|| Outcome::rejected("no-payload", "the message is a tombstone"))?;
        serde_json::from_slice(bytes).map_err(|error| Outcome::rejected("bad-json", format!("the payload {}", json_trouble(&error))).into())
    }
}

/// What is wrong with some JSON and where, without any of its values.
#[cfg(feature = "json")]
pub(crate) fn json_trouble(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let text = error.to_string();
    let what = match error.classify() {
        Category::Syntax => "is not JSON",
        Category::Eof => "ends in the middle of its JSON",
        Category::Io => "cannot be read",
        // Names of fields are ours to tell, values are not.
        Category::Data if text.starts_with("missing field") => text.split(" at line").next().unwrap_or("lacks a field"),
        Category::Data => "is JSON of another form",
    };
    format!("{what} (line {} column {})", error.line(), error.column())
}

/// Why a message is tried now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// It was never tried before.
    #[default]
    First,
    /// An earlier try ended in retry.
    Retry,
    /// An awaited entry appeared, changed or went.
    Woken,
    /// A wait's time was up.
    TimedOut,
    /// A handled message whose time to be revisited has come.
    Revisit,
    /// An operator asked for it.
    Replay,
}

impl Cause {
    /// The cause behind the contract's word; a word this SDK does not know counts as a replay.
    pub fn from_word(word: &str) -> Self {
        match word {
            "first" => Self::First,
            "retry" => Self::Retry,
            "woken" => Self::Woken,
            "timed-out" => Self::TimedOut,
            "revisit" => Self::Revisit,
            _ => Self::Replay,
        }
    }
}

/// The delivery a message is a part of: a set of messages that is complete or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: String,
    /// The parameters it was ordered with.
    pub params: Vec<(String, String)>,
    /// How many messages it should have.
    pub expected: Option<u64>,
}

#[cfg(all(test, feature = "json"))]
mod tests {
    use super::*;

    #[test]
    fn json_trouble_tells_places_and_field_names_but_no_values() {
        #[derive(serde::Deserialize, Debug)]
        struct Row {
            #[expect(dead_code, reason = "only its absence is tested")]
            number: i64,
        }
        let read = |payload: &str| Message { payload: Some(payload.into()), ..Message::default() }.json::<Row>().unwrap_err().to_string();
        assert_eq!(read(r#"{"number":"secret"}"#), "rejected bad-json: the payload is JSON of another form (line 1 column 18)");
        assert_eq!(read("{}"), "rejected bad-json: the payload missing field `number` (line 1 column 2)");
        assert_eq!(read("{"), "rejected bad-json: the payload ends in the middle of its JSON (line 1 column 1)");
        assert_eq!(Message::default().json::<Row>().unwrap_err().to_string(), "rejected no-payload: the message is a tombstone");
    }
}
