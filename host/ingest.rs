//! Moves messages from a feed's source into the inbox, positions with them. Knows nothing of plugins.

pub mod deliveries;
pub mod pointers;
pub mod route;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::faults;
use crate::feed::Config;
use crate::message::{Captured, FeedId, NewMessage, Position};
use crate::plugin::{Request, Write};
use crate::source::{self, Batch, Source};
use crate::store::{self, Advance, Appended, Store};
use crate::trouble::Pause;
use route::Router;

/// The collection in which a feed's source is remembered.
const SOURCES: &str = "tolk.sources";

/// How a feed's ingest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// The source has ended for good and all of it is in the inbox.
    SourceEnded,
    /// Another host has the feed.
    Fenced,
}

/// What can stop a feed's ingest for good; waiting does not mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source.
    #[error("ingest feed \"{feed}\"")]
    Source {
        feed: String,
        #[source]
        source: source::Error,
    },
    /// The store.
    #[error("ingest feed \"{feed}\"")]
    Store {
        feed: String,
        #[source]
        source: store::Error,
    },
}

/// The ingest of one feed by its one owner.
pub struct Ingest {
    /// The feed's name.
    pub name: String,
    /// Its number.
    pub feed: FeedId,
    /// The epoch of our lease.
    pub epoch: i64,
    /// Its settings.
    pub config: Config,
    /// Where rows go.
    pub store: Arc<dyn Store>,
    /// Rung after each append: a hint for translate.
    pub appended: Arc<Notify>,
    /// Messages ingested so far.
    pub count: Arc<AtomicU64>,
}

impl Ingest {
    /// Reads until told to stop, fenced, or at the source's end. Transient trouble is waited out and logged.
    pub async fn run(&self, mut source: Box<dyn Source>, stop: CancellationToken) -> Result<Ended, Error> {
        let router = Arc::new(Router::new(&self.config, source.name()));
        let mut pause = Pause::default();
        loop {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Ended::Stopped),
                ended = self.read(&mut source, &router, &mut pause) => ended,
            };
            match ended {
                Ok(Step::Ended(ended)) => return Ok(ended),
                Ok(Step::Reopen) => {}
                Err(Trouble::Store(error)) if error.is_transient() => pause.wait(&self.name, &error, &stop).await,
                Err(Trouble::Source(error)) if error.is_transient() => pause.wait(&self.name, &error, &stop).await,
                Err(Trouble::Store(source)) => return Err(Error::Store { feed: self.name.clone(), source }),
                Err(Trouble::Source(source)) => return Err(Error::Source { feed: self.name.clone(), source }),
            }
        }
    }

    async fn read(&self, source: &mut Box<dyn Source>, router: &Arc<Router>, pause: &mut Pause) -> Result<Step, Trouble> {
        let mut positions = self.store.positions(self.feed).await?;
        positions.retain(|_| !faults::mutant("group-offsets"));
        source.open(&positions).await?;
        let (identity, read_before) = (source.identity().map(str::to_owned), positions.iter().any(|at| at.next_offset > 0));
        let mut aside = Pause::default();
        while let Err(trouble) = self.same_source(identity.as_deref(), source.name().to_owned(), read_before).await {
            match trouble {
                // The source is open: the store alone is waited for.
                Trouble::Store(error) if error.is_transient() => aside.wait(&self.name, &error, &CancellationToken::new()).await,
                trouble => return Err(trouble),
            }
        }
        faults::step("ingest", "opened").await;
        tracing::info!(feed = self.name, source = source.name(), partitions = positions.len(), "reading");
        let mut stored: BTreeMap<i32, i64> = positions.iter().map(|at| (at.partition, at.next_offset)).collect();
        // How far the source was read, which is beyond what is stored.
        let mut read = stored.clone();
        let mut coming = Coming::default();
        loop {
            if !coming.is_ready() {
                let batch = self.next(source, &coming).await?;
                router.set_partitions(source.partitions());
                coming.take(batch, &mut read, router);
                continue;
            }
            let (rows, advances, ended) = std::mem::take(&mut coming).finish().await;
            coming.ended = ended;
            faults::step("ingest", "polled").await;
            let mut trouble = None;
            // While a batch is on its way into the store, the next one is read and routed.
            let appended = {
                let append = self.append(&rows, &advances);
                tokio::pin!(append);
                loop {
                    tokio::select! {
                        appended = &mut append => break appended?,
                        next = self.next(source, &coming), if trouble.is_none() && coming.has_room(&self.config) => match next {
                            Ok(batch) => coming.take(batch, &mut read, router),
                            Err(error) => trouble = Some(error),
                        },
                    }
                }
            };
            if !appended {
                return self.lost(&stored).await;
            }
            faults::step("ingest", "appended").await;
            pause.reset();
            stored.extend(advances.iter().map(|advance| (advance.partition, advance.next_offset)));
            if !rows.is_empty() {
                let at: Vec<Position> =
                    stored.iter().map(|(partition, next)| Position { partition: *partition, next_offset: *next }).collect();
                source.committed(&at);
            }
            if let Some(error) = trouble {
                return Err(error);
            }
            if coming.ended && coming.rows == 0 {
                return Ok(Step::Ended(Ended::SourceEnded));
            }
        }
    }

    /// Fails where the source is not the one that the stored positions are of: a topic that was made anew and has filled beyond them would be
    /// read on as if nothing had happened. Before anything is read it is remembered.
    async fn same_source(&self, identity: Option<&str>, place: String, read_before: bool) -> Result<(), Trouble> {
        let Some(identity) = identity else { return Ok(()) };
        let entry = Request::Entry { collection: SOURCES.to_owned(), key: self.name.clone() };
        let snapshot = self.store.read(std::slice::from_ref(&entry)).await?;
        let known = snapshot.found.into_iter().find_map(|found| match found {
            store::Found::Entry(value) => value,
            _ => None,
        });
        match known {
            Some(known) if known == identity.as_bytes() => Ok(()),
            Some(known) if read_before => Err(Trouble::Source(source::Error::Wrong {
                place,
                reason: format!(
                    "it was made anew: what this feed has read had the id {}, what is there now has {identity}; nothing is skipped or read \
                     twice by itself: restore it, or give the feed another name to read this one from its beginning",
                    String::from_utf8_lossy(&known)
                ),
            })),
            _ => {
                let (collection, key) = (SOURCES.to_owned(), self.name.clone());
                let write = Write { collection, key, value: Some(identity.to_owned().into()), indexes: Vec::new() };
                Ok(self.store.put_entries(&[write], &[]).await?)
            }
        }
    }

    /// Reads what fits into the batch that is coming. Loses nothing when dropped.
    async fn next(&self, source: &mut Box<dyn Source>, coming: &Coming) -> Result<Batch, Trouble> {
        let rows = self.config.batch_rows_max.saturating_sub(coming.rows);
        let bytes = self.config.batch_bytes_max.saturating_sub(coming.bytes);
        Ok(source.next(rows, bytes).await?)
    }

    /// Appends one batch; false: the store refused it.
    async fn append(&self, rows: &[NewMessage], advances: &[Advance]) -> Result<bool, Trouble> {
        if rows.is_empty() {
            return Ok(true);
        }
        let advances = if faults::mutant("group-offsets") { &[] } else { advances };
        match self.store.append(self.feed, self.epoch, rows, advances).await? {
            Appended::Fenced => Ok(false),
            Appended::Done { duplicates } => {
                self.count.fetch_add(rows.len() as u64, Ordering::Relaxed);
                self.appended.notify_one();
                tracing::debug!(feed = self.name, rows = rows.len(), duplicates, "appended");
                Ok(true)
            }
        }
    }

    /// After a refused append: somebody else's feed, or an ambiguous commit of our own that did happen.
    async fn lost(&self, ours: &BTreeMap<i32, i64>) -> Result<Step, Trouble> {
        let stored = self.store.positions(self.feed).await?;
        let moved = stored.iter().any(|at| ours.get(&at.partition) != Some(&at.next_offset));
        if moved {
            tracing::info!(feed = self.name, "the stored positions are not ours: reading again from there");
            Ok(Step::Reopen)
        } else {
            tracing::warn!(feed = self.name, "another host has the feed");
            Ok(Step::Ended(Ended::Fenced))
        }
    }
}

/// Rows that are routed on the spot: fewer are not worth a task.
const ROUTED_HERE: usize = 32;

/// The batch that is read while another one is on its way into the store.
#[derive(Default)]
struct Coming {
    parts: Vec<Part>,
    rows: usize,
    bytes: usize,
    advances: BTreeMap<i32, Advance>,
    /// The source has ended.
    ended: bool,
}

enum Part {
    Routed(Vec<NewMessage>),
    Routing(JoinHandle<Vec<NewMessage>>),
}

impl Coming {
    /// Whether there is something to append, or nothing will come.
    fn is_ready(&self) -> bool {
        self.rows > 0 || self.ended
    }

    fn has_room(&self, config: &Config) -> bool {
        !self.ended && self.rows < config.batch_rows_max && self.bytes < config.batch_bytes_max
    }

    /// Takes what was read, but for what was read before, and sends it to be routed.
    fn take(&mut self, batch: Batch, read: &mut BTreeMap<i32, i64>, router: &Arc<Router>) {
        self.ended = batch.ended;
        let mut fresh = batch.messages;
        fresh.retain(|message| read.get(&message.partition).is_none_or(|next| message.offset >= *next));
        for Captured { partition, offset, .. } in &fresh {
            let next_offset = offset + 1;
            let fresh = || Advance { partition: *partition, expected: read.get(partition).copied(), next_offset };
            let advance = self.advances.entry(*partition).or_insert_with(fresh);
            advance.next_offset = advance.next_offset.max(next_offset);
        }
        read.extend(self.advances.values().map(|advance| (advance.partition, advance.next_offset)));
        self.rows += fresh.len();
        self.bytes += fresh.iter().map(Captured::size).sum::<usize>();
        let router = router.clone();
        let route = move || fresh.into_iter().map(|message| router.route(message)).collect::<Vec<_>>();
        let few = self.rows < ROUTED_HERE;
        self.parts.push(if few { Part::Routed(route()) } else { Part::Routing(tokio::task::spawn_blocking(route)) });
    }

    /// The whole batch, in the order in which it was read.
    async fn finish(self) -> (Vec<NewMessage>, Vec<Advance>, bool) {
        let mut rows = Vec::with_capacity(self.rows);
        for part in self.parts {
            rows.append(&mut match part {
                Part::Routed(routed) => routed,
                Part::Routing(routing) => routing.await.expect("routing does not panic"),
            });
        }
        (rows, self.advances.into_values().collect(), self.ended)
    }
}

enum Step {
    Ended(Ended),
    Reopen,
}

enum Trouble {
    Store(store::Error),
    Source(source::Error),
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<source::Error> for Trouble {
    fn from(error: source::Error) -> Self {
        Self::Source(error)
    }
}
