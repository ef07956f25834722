//! An output as a Kafka record: key, payload and headers. Headers of ours come last, and only ours carry our names.

use rdkafka::message::{Header, OwnedHeaders};

use crate::plugin::Action;
use crate::sink::{header, position_header};
use crate::store::OutputRow;

const OURS: [&str; 4] = [header::EVENT_ID, header::POSITION, header::FEED, header::DIGEST];

/// The record's value; a deletion is a tombstone, whatever the translator gave with it.
pub(super) fn payload(output: &OutputRow) -> Option<&[u8]> {
    match output.action {
        Action::Put | Action::Merge => output.payload.as_deref(),
        Action::Delete => None,
    }
}

/// The translator's headers, then where the output comes from.
pub(super) fn headers(output: &OutputRow) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(output.headers.len() + OURS.len());
    for (name, value) in output.headers.iter().filter(|(name, _)| !OURS.contains(&name.as_str())) {
        headers = headers.insert(Header { key: name, value: value.as_deref() });
    }
    let mut ours = vec![
        (header::EVENT_ID, output.event_id.to_string()),
        (header::POSITION, position_header(output)),
        (header::FEED, output.feed.clone()),
    ];
    ours.extend(output.digest.map(|digest| (header::DIGEST, digest.to_string())));
    for (name, value) in &ours {
        headers = headers.insert(Header { key: name, value: Some(value) });
    }
    headers
}
