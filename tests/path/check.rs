//! Compares what became of messages with what must become of them: statuses, stored bytes, outputs, entries.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use serde_json::Value;
use tolk::message::Captured;
use tolk::plugin::Scan;
use tolk::store::{Filter, OutputCursor};

use super::rig::{Out, Rig, captures};
use super::script::{ANY_ATTEMPT, Expected, Message, Saw};

/// Everything: for a world in which all is done and no host runs any more.
pub(super) async fn everything(rig: &Rig, sent: &[Message], entries: &BTreeMap<String, String>) {
    all_but_resends(rig, sent, entries).await;
    resent_only_as_a_suffix(&rig.outputs());
}

/// The same, but for where in the topic outputs stand that came twice.
pub(super) async fn all_but_resends(rig: &Rig, sent: &[Message], entries: &BTreeMap<String, String>) {
    statuses(rig, sent).await;
    bytes(rig, sent).await;
    stored_outputs(rig, sent).await;
    let outs = rig.outputs();
    let shared = contents(rig, sent, &outs);
    order_per_key(&outs);
    entries_are(rig, entries, shared).await;
}

/// What came out, for a world whose messages and stored outputs go with their time.
pub(super) async fn what_came_out(rig: &Rig, sent: &[Message], entries: &BTreeMap<String, String>) {
    let outs = rig.outputs();
    let shared = contents(rig, sent, &outs);
    entries_are(rig, entries, shared).await;
}

/// Every message has its one end, and no other is there.
pub(super) async fn statuses(rig: &Rig, sent: &[Message]) {
    let rows = rig.store.messages(&Filter { limit: 1_000_000, ..Filter::default() }).await.unwrap();
    let by_place: HashMap<(i32, i64), _> = rows.iter().map(|row| ((row.partition, row.offset), row)).collect();
    assert_eq!((rows.len(), by_place.len()), (sent.len(), sent.len()), "one row for each message");
    for message in sent {
        let place = (message.captured.partition, message.captured.offset);
        let row = by_place.get(&place).unwrap_or_else(|| panic!("no row for {place:?}"));
        assert_eq!(row.status, message.status, "{row:?}");
        if let Some(code) = message.code {
            assert_eq!(row.code.as_deref(), Some(code), "{row:?}");
            assert!(row.reason.as_ref().is_some_and(|reason| !reason.is_empty()), "a reason is said: {row:?}");
        }
    }
}

/// What came in is stored as it came.
pub(super) async fn bytes(rig: &Rig, sent: &[Message]) {
    let stored = rig.store.captured(&Filter { limit: 1_000_000, ..Filter::default() }).await.unwrap();
    same_bytes(stored.iter().map(|(message, _)| &message.captured), sent.iter());
}

/// `tolk capture` gives the bytes back as they came: those that ended with this status.
pub(super) fn capture(rig: &Rig, sent: &[Message], status: &str) {
    rig.tolk.run(&["capture", "--feed", "f", "--status", status, "-n", "100000", "-o", "captured.jsonl", "--force"]).expect(0);
    let lines = captures(&rig.tolk.read("captured.jsonl"));
    same_bytes(lines.iter().map(|line| &line.captured), sent.iter().filter(|message| message.status == status));
}

fn same_bytes<'a>(stored: impl Iterator<Item = &'a Captured>, sent: impl Iterator<Item = &'a Message>) {
    let mut stored: HashMap<_, _> = stored.map(|captured| ((captured.partition, captured.offset), captured)).collect();
    for Message { captured: sent, .. } in sent {
        let same = stored.remove(&(sent.partition, sent.offset)).is_some_and(|stored| stored == sent);
        assert!(same, "partition {} offset {} is not stored as it was sent", sent.partition, sent.offset);
    }
    assert!(stored.is_empty(), "nobody sent {:?}", stored.keys());
}

/// The database holds each output once, those that a sink refused too, and those of a key in its messages' order.
pub(super) async fn stored_outputs(rig: &Rig, sent: &[Message]) {
    let (mut cursor, mut ids) = (OutputCursor::default(), Vec::new());
    let mut newest: HashMap<Bytes, (u64, u64)> = HashMap::new();
    loop {
        let (rows, _) = rig.store.outputs("out", cursor, 1_000, 64 << 20).await.unwrap();
        let Some(last) = rows.last() else { break };
        cursor = last.cursor;
        ids.extend(rows.iter().map(|row| row.event_id.to_string()));
        for row in rows {
            let payload: Value = serde_json::from_slice(row.payload.as_deref().unwrap()).unwrap();
            let at = (payload["seq"].as_u64().unwrap(), payload["i"].as_u64().unwrap());
            if let Some(before) = newest.insert(row.key.clone().unwrap(), at) {
                assert!(before < at, "{:?}: {at:?} was settled after {before:?}", row.key);
            }
        }
    }
    let unique: HashSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "an output is stored twice");
    let refused = sent.iter().filter(|message| message.code == Some("parked-output")).count();
    assert_eq!(ids.len(), refused + sent.iter().map(|message| message.outputs.len()).sum::<usize>());
}

/// Each expected output is there with its content and nothing else is; what came twice is the same. Returns what the shared entry must be.
pub(super) fn contents(rig: &Rig, sent: &[Message], outs: &[Out]) -> Option<String> {
    let mut expected: HashMap<String, &Expected> = HashMap::new();
    for message in sent {
        expected.extend(message.outputs.iter().map(|output| (rig.event_id(message, output.i), output)));
    }
    let mut seen: HashMap<&str, &Out> = HashMap::new();
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut shared = Vec::new();
    for out in outs {
        if let Some(first) = seen.insert(&out.event_id, out) {
            assert_eq!((&first.payload, &first.position, &first.key), (&out.payload, &out.position, &out.key), "one event, two contents");
            continue;
        }
        let expected = expected.get(&out.event_id).unwrap_or_else(|| panic!("nobody asked for {out:?}"));
        assert_eq!(&out.key[..], expected.key.as_bytes(), "{out:?}");
        let field = |name: &str| out.payload[name].as_u64().unwrap_or_else(|| panic!("no {name} in {out:?}"));
        let attempt = if expected.attempt == ANY_ATTEMPT { field("attempt") } else { expected.attempt };
        assert_eq!((field("seq"), field("i"), field("attempt")), (expected.seq, expected.i, attempt), "{out:?}");
        assert_eq!(out.feed, "f");
        match (&expected.saw, out.payload["saw"].as_array().unwrap().as_slice()) {
            (Saw::Values(values), saw) => assert_eq!(values, saw, "{out:?}"),
            (Saw::Id, [Value::String(id)]) => {
                ids.entry(&expected.key).or_default().insert(id);
            }
            (Saw::Shared, [saw]) => {
                shared.push((saw.as_str().unwrap_or("nothing").to_owned(), format!("{}#{}", expected.key, expected.seq)))
            }
            (_, saw) => panic!("{saw:?} in {out:?}"),
        }
    }
    let unlike: BTreeSet<&str> = shared.iter().map(|(saw, _)| saw.as_str()).collect();
    assert!(unlike.len() == shared.len(), "two saw the same: {shared:?}");
    assert_eq!(seen.len(), expected.len(), "outputs are missing: {:?}", expected.iter().find(|(id, _)| !seen.contains_key(id.as_str())));
    assert!(ids.values().all(|ids| ids.len() == 1), "a key has two ids: {ids:?}");
    let all: BTreeSet<&str> = ids.values().flatten().copied().collect();
    assert_eq!(all.len(), ids.len(), "two keys have one id");
    one_chain(&shared)
}

/// Each saw what exactly one other wrote: the messages went one after the other. Returns the last one's word.
fn one_chain(steps: &[(String, String)]) -> Option<String> {
    let next: BTreeMap<&str, &str> = steps.iter().map(|(saw, wrote)| (saw.as_str(), wrote.as_str())).collect();
    let (mut at, mut count) = ("nothing", 0);
    while let Some(then) = next.get(at) {
        (at, count) = (*then, count + 1);
    }
    assert_eq!(count, steps.len(), "the chain is broken after {at}: {steps:?}");
    (count > 0).then(|| at.to_owned())
}

/// Positions grow, but where a publisher began again at its cursor: from there everything comes again, in the order in which it came first.
pub(super) fn resent_only_as_a_suffix(outs: &[Out]) {
    let mut partitions: BTreeMap<i32, Vec<&Out>> = BTreeMap::new();
    outs.iter().for_each(|out| partitions.entry(out.partition).or_default().push(out));
    for (partition, outs) in partitions {
        // Positions in the order in which they came first, and where we stand in it.
        let mut order: Vec<&str> = Vec::new();
        let mut at = 0;
        for out in outs {
            match order.binary_search(&out.position.as_str()) {
                Err(place) => {
                    assert_eq!(place, order.len(), "partition {partition}: {} came after {:?}", out.position, order.last());
                    assert_eq!(at, order.len(), "partition {partition}: {} came before all was sent again", out.position);
                    order.push(&out.position);
                    at = order.len();
                }
                Ok(place) => {
                    assert!(place <= at, "partition {partition}: sending again left out {:?}", order.get(at));
                    at = place + 1;
                }
            }
        }
    }
}

/// What a consumer sees that drops what came before: the numbers of each key in order.
pub(super) fn order_per_key(outs: &[Out]) {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut last: HashMap<&[u8], (u64, u64)> = HashMap::new();
    for out in outs.iter().filter(|out| seen.insert(&out.event_id)) {
        let at = (out.payload["seq"].as_u64().unwrap(), out.payload["i"].as_u64().unwrap());
        if let Some(before) = last.insert(&out.key, at) {
            assert!(before < at, "{:?}: {at:?} came after {before:?}", out.key);
        }
    }
}

pub(super) async fn entries_are(rig: &Rig, expected: &BTreeMap<String, String>, shared: Option<String>) {
    let scan = Scan { collection: "c".to_owned(), index: None, prefix: String::new(), after: None, limit: 1_000_000 };
    let stored = rig.store.entries(&scan).await.unwrap();
    let mut stored: BTreeMap<String, String> =
        stored.into_iter().map(|(key, value)| (key, String::from_utf8(value.to_vec()).unwrap())).collect();
    assert_eq!(stored.remove("shared"), shared, "the last of the chain wrote last");
    assert_eq!(&stored, expected);
}
