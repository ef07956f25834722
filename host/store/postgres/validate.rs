//! Validation under the guard: what messages read against what settlements wrote since, and what they bind against what is bound.
//! Asks for the newest version of each distinct thing that was read, one statement a kind.

use std::borrow::Cow;
use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::Try;
use super::reads::{bounds, place};
use super::text::{plain, stored, upper_bound};
use crate::plugin::{Binding, Request, Scan};
use crate::store::{Error, Settled, Stale};

/// A binding that is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewBinding<'a> {
    pub(super) namespace: &'a str,
    pub(super) key: &'a str,
    pub(super) id: Uuid,
    /// The message that binds it.
    pub(super) index: usize,
}

/// Requests and the newest version of what they cover.
type Versions<'a> = Vec<(&'a Request, i64)>;

/// Everything stale among some messages.
pub(super) async fn stale_reads(connection: &mut PgConnection, settled: &[Settled]) -> Try<Vec<Stale>> {
    let mut readers: HashMap<&Request, Vec<(usize, usize, i64)>> = HashMap::new();
    for (index, message) in settled.iter().enumerate() {
        for (read, what) in message.reads.iter().enumerate() {
            // An id that a message was given is bound by it too: whether it still holds is seen there, by value.
            let bound = matches!(&what.request, Request::Id { namespace, key }
                if message.bindings.iter().any(|binding| binding.namespace == *namespace && binding.key == *key));
            if !bound && !matches!(what.request, Request::Call(_)) {
                readers.entry(&what.request).or_default().push((index, read, what.at));
            }
        }
    }
    if readers.is_empty() {
        return Ok(Vec::new());
    }
    let mut stale = Vec::new();
    for (request, version) in versions(connection, readers.keys().copied()).await? {
        let late = readers[request].iter().filter(|(.., at)| version > *at);
        stale.extend(late.map(|(index, read, _)| Stale { index: *index, read: Some(*read) }));
    }
    stale.sort_by_key(|stale| (stale.index, stale.read));
    Ok(stale)
}

/// The newest version of what each request covers, where there is any.
async fn versions<'a>(connection: &mut PgConnection, requests: impl Iterator<Item = &'a Request>) -> Try<Versions<'a>> {
    let (mut entries, mut scans, mut indexed, mut ids, mut keys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for request in requests {
        match request {
            Request::Entry { collection, key } => entries.push((request, stored(collection), stored(key))),
            Request::Entries(scan) => match &scan.index {
                None => scans.push((request, scan)),
                Some(index) => indexed.push((request, scan, stored(index))),
            },
            Request::Id { namespace, key } | Request::KnownId { namespace, key } => ids.push((request, stored(namespace), stored(key))),
            Request::KeyOf { namespace, id } => {
                if let Ok(id) = Uuid::try_parse(id) {
                    keys.push((request, stored(namespace), id));
                }
            }
            Request::Call(_) => {}
        }
    }
    let mut versions = Vec::new();
    entry_versions(connection, &entries, &mut versions).await?;
    scan_versions(connection, &scans, &mut versions).await?;
    indexed_versions(connection, &indexed, &mut versions).await?;
    id_versions(connection, &ids, &keys, &mut versions).await?;
    Ok(versions)
}

async fn entry_versions<'a>(
    connection: &mut PgConnection,
    entries: &[(&'a Request, Cow<'a, str>, Cow<'a, str>)],
    versions: &mut Versions<'a>,
) -> Try<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(
        "SELECT r.ordinal, e.version FROM unnest($1::text[], $2::text[]) WITH ORDINALITY r(collection, key, ordinal)
         JOIN entry e ON e.collection = r.collection AND e.key = r.key",
    )
    .bind(entries.iter().map(|(_, collection, _)| collection.as_ref()).collect::<Vec<_>>())
    .bind(entries.iter().map(|(.., key)| key.as_ref()).collect::<Vec<_>>());
    for row in query.fetch_all(connection).await? {
        versions.push((entries[place(&row)?].0, row.try_get(1)?));
    }
    Ok(())
}

async fn indexed_versions<'a>(
    connection: &mut PgConnection,
    scans: &[(&'a Request, &'a Scan, Cow<'a, str>)],
    versions: &mut Versions<'a>,
) -> Try<()> {
    if scans.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(
        "SELECT r.ordinal, v.version FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
           WITH ORDINALITY r(collection, name, low, high, after, ordinal)
         CROSS JOIN LATERAL (SELECT max(x.version) AS version FROM entry_index x
           WHERE x.collection = r.collection AND x.name = r.name AND x.value >= r.low AND x.value < r.high
             AND (r.after IS NULL OR x.key > r.after)) v WHERE v.version IS NOT NULL",
    )
    .bind(scans.iter().map(|(_, scan, _)| stored(&scan.collection)).collect::<Vec<_>>())
    .bind(scans.iter().map(|(.., index)| index.as_ref()).collect::<Vec<_>>())
    .bind(scans.iter().map(|(_, scan, _)| stored(&scan.prefix)).collect::<Vec<_>>())
    .bind(scans.iter().map(|(_, scan, _)| upper_bound(&stored(&scan.prefix))).collect::<Vec<_>>())
    .bind(scans.iter().map(|(_, scan, _)| scan.after.as_deref().map(stored)).collect::<Vec<_>>());
    for row in query.fetch_all(connection).await? {
        versions.push((scans[place(&row)?].0, row.try_get(1)?));
    }
    Ok(())
}

async fn id_versions<'a>(
    connection: &mut PgConnection,
    ids: &[(&'a Request, Cow<'a, str>, Cow<'a, str>)],
    keys: &[(&'a Request, Cow<'a, str>, Uuid)],
    versions: &mut Versions<'a>,
) -> Try<()> {
    if !ids.is_empty() {
        let query = sqlx::query(
            "SELECT r.ordinal, b.version FROM unnest($1::text[], $2::text[]) WITH ORDINALITY r(namespace, key, ordinal)
             JOIN id_binding b ON b.namespace = r.namespace AND b.key = r.key",
        )
        .bind(ids.iter().map(|(_, namespace, _)| namespace.as_ref()).collect::<Vec<_>>())
        .bind(ids.iter().map(|(.., key)| key.as_ref()).collect::<Vec<_>>());
        for row in query.fetch_all(&mut *connection).await? {
            versions.push((ids[place(&row)?].0, row.try_get(1)?));
        }
    }
    if !keys.is_empty() {
        let query = sqlx::query(
            "SELECT r.ordinal, b.version FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY r(namespace, id, ordinal)
             JOIN id_binding b ON b.namespace = r.namespace AND b.id = r.id",
        )
        .bind(keys.iter().map(|(_, namespace, _)| namespace.as_ref()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(.., id)| *id).collect::<Vec<_>>());
        for row in query.fetch_all(connection).await? {
            versions.push((keys[place(&row)?].0, row.try_get(1)?));
        }
    }
    Ok(())
}

/// A page covers its keys up to and with the first one beyond it; what changed inside shows as a row that is there now, removed or not.
async fn scan_versions<'a>(connection: &mut PgConnection, scans: &[(&'a Request, &Scan)], versions: &mut Versions<'a>) -> Try<()> {
    if scans.is_empty() {
        return Ok(());
    }
    let (low, high): (Vec<String>, Vec<String>) = scans.iter().map(|(_, scan)| bounds(scan)).unzip();
    let query = sqlx::query(
        "SELECT r.ordinal, v.version FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
           WITH ORDINALITY r(collection, low, high, most, ordinal)
         LEFT JOIN LATERAL (SELECT x.key FROM entry x
           WHERE x.collection = r.collection AND x.key >= r.low AND x.key < r.high AND x.value IS NOT NULL
           ORDER BY x.key OFFSET r.most LIMIT 1) beyond ON true
         CROSS JOIN LATERAL (SELECT max(x.version) AS version FROM entry x
           WHERE x.collection = r.collection AND x.key >= r.low AND x.key < r.high AND x.key <= coalesce(beyond.key, r.high)) v
         WHERE v.version IS NOT NULL",
    )
    .bind(scans.iter().map(|(_, scan)| stored(&scan.collection)).collect::<Vec<_>>())
    .bind(low)
    .bind(high)
    .bind(scans.iter().map(|(_, scan)| i64::from(scan.limit)).collect::<Vec<_>>());
    for row in query.fetch_all(connection).await? {
        versions.push((scans[place(&row)?].0, row.try_get(1)?));
    }
    Ok(())
}

/// Which bindings are new, and which messages bind what is bound otherwise, by an earlier settlement or an earlier message of this one.
pub(super) async fn bindings<'a>(
    connection: &mut PgConnection,
    bindings: &[(usize, &'a Binding)],
) -> Try<(Vec<NewBinding<'a>>, Vec<Stale>)> {
    let mut wanted = Vec::new();
    for &(index, binding) in bindings {
        let id = Uuid::try_parse(&binding.id)
            .map_err(|_| Error::Corrupt(format!("\"{}\" is bound in namespace {} but is no uuid", binding.id, binding.namespace)))?;
        wanted.push(NewBinding { namespace: &binding.namespace, key: &binding.key, id, index });
    }
    if wanted.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let rows: Vec<(String, String, Uuid)> = sqlx::query_as(
        "SELECT b.namespace, b.key, b.id FROM unnest($1::text[], $2::text[]) r(namespace, key)
         JOIN id_binding b ON b.namespace = r.namespace AND b.key = r.key
         UNION SELECT b.namespace, b.key, b.id FROM unnest($1::text[], $3::uuid[]) r(namespace, id)
         JOIN id_binding b ON b.namespace = r.namespace AND b.id = r.id",
    )
    .bind(wanted.iter().map(|binding| stored(binding.namespace)).collect::<Vec<_>>())
    .bind(wanted.iter().map(|binding| stored(binding.key)).collect::<Vec<_>>())
    .bind(wanted.iter().map(|binding| binding.id).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let (mut by_key, mut by_id) = (HashMap::new(), HashMap::new());
    for (namespace, key, id) in rows {
        let (namespace, key) = (plain(namespace), plain(key));
        by_key.insert((namespace.clone(), key.clone()), id);
        by_id.insert((namespace, id), key);
    }
    let (mut new, mut conflicts) = (Vec::new(), Vec::new());
    for binding in wanted {
        let NewBinding { namespace, key, id, index } = binding;
        match (by_key.get(&(namespace.to_owned(), key.to_owned())), by_id.get(&(namespace.to_owned(), id))) {
            (None, None) => {
                by_key.insert((namespace.to_owned(), key.to_owned()), id);
                by_id.insert((namespace.to_owned(), id), key.to_owned());
                new.push(binding);
            }
            (Some(bound), _) if *bound == id => {}
            _ => conflicts.push(Stale { index, read: None }),
        }
    }
    conflicts.dedup();
    Ok((new, conflicts))
}
