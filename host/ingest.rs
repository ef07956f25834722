//! Moves messages from a feed's source into the inbox, positions with them. Knows nothing of plugins.

pub mod pointers;
pub mod route;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::feed::Config;
use crate::message::{Captured, FeedId, Position};
use crate::source::{self, Source};
use crate::store::{self, Advance, Appended, Store};
use crate::trouble::Pause;
use route::Router;

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
        let positions = self.store.positions(self.feed).await?;
        source.open(&positions).await?;
        tracing::info!(feed = self.name, source = source.name(), partitions = positions.len(), "reading");
        let mut next: BTreeMap<i32, i64> = positions.iter().map(|at| (at.partition, at.next_offset)).collect();
        loop {
            let batch = source.next(self.config.batch_rows_max, self.config.batch_bytes_max).await?;
            let fresh: Vec<Captured> = batch
                .messages
                .into_iter()
                .filter(|message| next.get(&message.partition).is_none_or(|next| message.offset >= *next))
                .collect();
            if !fresh.is_empty() && !self.append(fresh, router, &mut next, source).await? {
                return self.lost(&next).await;
            }
            pause.reset();
            if batch.ended {
                return Ok(Step::Ended(Ended::SourceEnded));
            }
        }
    }

    /// Appends one batch; false: the store refused it.
    async fn append(
        &self,
        batch: Vec<Captured>,
        router: &Arc<Router>,
        next: &mut BTreeMap<i32, i64>,
        source: &mut Box<dyn Source>,
    ) -> Result<bool, Trouble> {
        let count = batch.len() as u64;
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for message in &batch {
            let end = ends.entry(message.partition).or_insert(i64::MIN);
            *end = (*end).max(message.offset + 1);
        }
        let advances: Vec<Advance> = ends
            .iter()
            .map(|(partition, end)| Advance { partition: *partition, expected: next.get(partition).copied(), next_offset: *end })
            .collect();
        let router = router.clone();
        let rows = tokio::task::spawn_blocking(move || batch.into_iter().map(|message| router.route(message)).collect::<Vec<_>>())
            .await
            .expect("routing does not panic");
        match self.store.append(self.feed, self.epoch, &rows, &advances).await? {
            Appended::Fenced => Ok(false),
            Appended::Done { duplicates } => {
                next.append(&mut ends);
                self.count.fetch_add(count, Ordering::Relaxed);
                self.appended.notify_one();
                tracing::debug!(feed = self.name, rows = count, duplicates, "appended");
                let at: Vec<Position> =
                    next.iter().map(|(partition, next)| Position { partition: *partition, next_offset: *next }).collect();
                source.committed(&at);
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
