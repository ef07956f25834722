//! What a message waits for, whether it is there, and which messages would write it as far as can be told: those whose ordering key is the
//! entry's key, of tables whose active plugin writes that collection.

use super::{Awaits, Trail, Why, form, text};
use crate::message::{KeyHash, Place};
use crate::plugin::{Description, Request};
use crate::registry::TRANSLATORS;
use crate::store::{BlockedKey, Filter, Found, MessageDetail, Result};

/// Tables of which writers are looked for.
const TABLES_MAX: usize = 20;

pub(super) async fn tell(trail: &mut Trail<'_>, detail: &MessageDetail, why: &mut Why) -> Result<()> {
    let row = &detail.status;
    if let Some(due) = row.due_ms {
        why.wakes.push(format!("the time: its wait ends at {}", text::time(due)));
    }
    let waits: Vec<&Request> = detail.waits.iter().collect();
    if translator(&waits, why, row) {
        return Ok(());
    }
    if !waits.is_empty() {
        why.wakes.insert(0, "a change of anything that it waits for".to_owned());
    }
    for request in waits {
        let awaits = awaited(trail, request, detail).await?;
        why.awaits.push(awaits);
    }
    why.next = vec![format!("tolk retry {} --reason TEXT", row.id)];
    Ok(())
}

/// A message whose table has no plugin waits for one: that is told in plain words.
fn translator(waits: &[&Request], why: &mut Why, row: &crate::store::MessageStatus) -> bool {
    let for_one = waits.iter().any(|request| matches!(request, Request::Entry { collection, .. } if collection == TRANSLATORS));
    if for_one {
        why.why = format!("waiting: no plugin is active for table {} of feed {}", row.table, row.feed);
        why.wakes = vec!["the activation of one".to_owned()];
        why.next = vec![format!("tolk activate REF --feed {} --table {}", row.feed, row.table)];
    }
    for_one
}

async fn awaited(trail: &mut Trail<'_>, request: &Request, detail: &MessageDetail) -> Result<Awaits> {
    let mut awaits = Awaits { what: form::request(request), exists: exists(trail, request).await?, ..Awaits::default() };
    let (collection, key) = match request {
        Request::Entry { collection, key } => (Some(collection), Some(key)),
        Request::Entries(scan) => (Some(&scan.collection), None),
        Request::Id { key, .. } | Request::KnownId { key, .. } => (None, Some(key)),
        _ => (None, None),
    };
    let namespace = match request {
        Request::Id { namespace, .. } | Request::KnownId { namespace, .. } | Request::KeyOf { namespace, .. } => Some(namespace),
        _ => None,
    };
    let writes = |sheet: &Description| {
        collection.is_some_and(|collection| sheet.writes.contains(collection))
            || namespace.is_some_and(|namespace| sheet.namespaces.contains(namespace))
    };
    let tables = writing_tables(trail, &writes);
    if tables.is_empty() {
        awaits.from = "no active plugin writes it; it comes by hand, or from a plugin that is not active yet".to_owned();
        return Ok(awaits);
    }
    let names: Vec<String> = tables.iter().map(|(feed, table)| format!("{feed}/{table}")).collect();
    let Some(key) = key else {
        awaits.from = format!("written by plugins of {}; which message would, cannot be told", names.join(", "));
        return Ok(awaits);
    };
    let mut done = Vec::new();
    for (feed, table) in &tables {
        match writers(trail, feed, table, key, detail).await? {
            Writers::Open(open) => awaits.writers.extend(open),
            Writers::Done(name) => done.push(name),
            Writers::None => {}
        }
    }
    awaits.from = match (awaits.writers.len(), done.as_slice()) {
        (0, []) => format!("no message with key {key} of {} has come yet", names.join(", ")),
        (0, done) => format!("the newest messages of that key are done and did not leave it: {}", done.join(", ")),
        _ => "messages of that key are not done".to_owned(),
    };
    Ok(awaits)
}

async fn exists(trail: &Trail<'_>, request: &Request) -> Result<bool> {
    let request = match request {
        Request::Call(_) => return Ok(false),
        // Reading must not make one.
        Request::Id { namespace, key } => Request::KnownId { namespace: namespace.clone(), key: key.clone() },
        other => other.clone(),
    };
    let found = trail.store.read(&[request]).await?.found.pop();
    Ok(match found {
        Some(Found::Entry(value)) => value.is_some(),
        Some(Found::Page { items, .. }) => !items.is_empty(),
        Some(Found::Id(id)) => id.is_some(),
        Some(Found::Key(key)) => key.is_some(),
        None => false,
    })
}

/// Feeds and tables whose active plugin says that it writes it. A plugin for every table stands for those that the config lists.
fn writing_tables(trail: &Trail<'_>, writes: &dyn Fn(&Description) -> bool) -> Vec<(String, String)> {
    let known = trail.known;
    let mut found = Vec::new();
    for activation in &known.active {
        let component = known.components.iter().find(|component| component.digest == activation.digest);
        if !component.is_some_and(|component| writes(&component.description)) {
            continue;
        }
        let own = |table: &String| known.active.iter().any(|other| other.feed == activation.feed && other.table == *table);
        match activation.table.as_str() {
            "*" => found.extend(
                known
                    .tables
                    .get(&activation.feed)
                    .into_iter()
                    .flatten()
                    .filter(|table| !own(table))
                    .map(|table| (activation.feed.clone(), table.clone())),
            ),
            table => found.push((activation.feed.clone(), table.to_owned())),
        }
    }
    found.truncate(TABLES_MAX);
    found
}

enum Writers {
    Open(Vec<Why>),
    Done(String),
    None,
}

/// The messages of a key that are not done, else the newest one that is.
async fn writers(trail: &mut Trail<'_>, feed: &str, table: &str, key: &str, asked: &MessageDetail) -> Result<Writers> {
    let Some(state) = trail.known.overview.feeds.iter().find(|state| state.feed == feed) else { return Ok(Writers::None) };
    let key_hash = KeyHash::of(table, key.as_bytes());
    let lane = key_hash.lane(u16::try_from(state.lanes).unwrap_or(u16::MAX));
    let of = BlockedKey { feed: crate::message::FeedId(state.id), lane, key_hash };
    let rows = trail.store.behind(of, 0, 1).await?;
    let head: Option<Place> = rows.first().map(|row| row.row.place);
    // A message does not wake itself: if it is the head of that very key, only the next one could.
    if let Some(head) = head.filter(|head| *head != asked.message.place)
        && let Some(detail) = trail.store.message_at(head).await?
    {
        return Ok(Writers::Open(vec![trail.follow(&detail).await?]));
    }
    let filter =
        Filter { feed: Some(feed.to_owned()), table: Some(table.to_owned()), key: Some(key.to_owned()), limit: 2, ..Filter::default() };
    let newest = trail.store.messages(&filter).await?;
    match newest.iter().find(|row| row.id != asked.status.id) {
        Some(row) if row.status == "pending" => match trail.store.message(row.id).await? {
            Some(detail) => Ok(Writers::Open(vec![trail.follow(&detail).await?])),
            None => Ok(Writers::None),
        },
        Some(row) => Ok(Writers::Done(format!("{}/{}/{} ({})", row.feed, row.partition, row.offset, row.status))),
        None => Ok(Writers::None),
    }
}
