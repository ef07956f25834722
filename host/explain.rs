//! Why a message stands where it stands, and what will bring it on: followed from what it waits for to whatever would write that, and from
//! a message that is behind to the head of its key. Both doors use it; it reads the store and changes nothing.

pub mod form;
mod held;
mod publish;
mod stuck;
pub mod text;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use uuid::Uuid;

use crate::config::Config;
use crate::endpoint::{RECOVERED, State};
use crate::message::{KeyHash, Place, Status};
use crate::plugin::Request;
use crate::store::{Activation, Component, MessageDetail, Overview, Paused, Result, Store};

pub use stuck::{Stuck, named, resume, stuck};

/// How far a chain of waits is followed.
const DEPTH_MAX: usize = 12;
/// Messages that one explanation looks at.
const LOOKS_MAX: usize = 200;

/// Why a message has not come out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Why {
    /// Where it stands: FEED/PARTITION/OFFSET.
    pub message: String,
    /// Its id.
    pub id: Uuid,
    /// Its table.
    pub table: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// Its status's word.
    pub status: String,
    /// The reason, as a sentence.
    pub why: String,
    /// What brings it on without a person; empty: nothing does.
    pub wakes: Vec<String>,
    /// Commands that a person can type.
    pub next: Vec<String>,
    /// What it waits for.
    pub awaits: Vec<Awaits>,
    /// The message of its key that must be done before it.
    pub head: Option<Box<Why>>,
}

/// One thing that a message waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Awaits {
    /// The thing.
    pub what: String,
    /// Whether it is there now.
    pub exists: bool,
    /// Where it would come from, as a sentence.
    pub from: String,
    /// Messages that would write it and are not done.
    pub writers: Vec<Why>,
}

/// An explanation with the cycles it came across: each a ring of messages that wait for one another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The message's own.
    pub why: Why,
    /// Rings, each from its first message by name.
    pub cycles: Vec<Vec<String>>,
}

/// What is known beside the message.
pub struct Known {
    /// Tables of each feed, as the config has them.
    tables: BTreeMap<String, Vec<String>>,
    /// Which marks each feed's deliveries have.
    marks: BTreeMap<String, held::Marks>,
    endpoints: Option<Vec<State>>,
    overview: Overview,
    components: Vec<Component>,
    active: Vec<Activation>,
    pauses: Vec<Paused>,
}

impl Known {
    /// Reads what is known now. `endpoints` are those of a running host, where somebody asks one.
    pub async fn read(config: &Config, store: &dyn Store, endpoints: Option<Vec<State>>) -> Result<Self> {
        let tables = config.feeds.iter().map(|(name, feed)| {
            let tables: BTreeSet<String> = feed.tables.keys().cloned().chain(feed.table_name.clone()).collect();
            (name.clone(), tables.into_iter().collect())
        });
        let marks = config.feeds.iter().filter_map(|(name, feed)| {
            let delivery = feed.delivery.as_ref()?;
            Some((name.clone(), held::Marks { start: !delivery.start.0.is_empty(), end: !delivery.end.0.is_empty() }))
        });
        Ok(Self {
            tables: tables.collect(),
            marks: marks.collect(),
            endpoints,
            overview: store.overview().await?,
            components: store.components().await?,
            active: store.active().await?.1,
            pauses: store.pauses().await?,
        })
    }

    /// What is paused.
    pub fn pauses(&self) -> &[Paused] {
        &self.pauses
    }
}

/// Explains one message.
pub async fn explain(known: &Known, store: &dyn Store, detail: &MessageDetail) -> Result<Explanation> {
    let mut trail = Trail { known, store, path: Vec::new(), cycles: BTreeSet::new(), looks: 0, done: HashMap::new() };
    let why = trail.follow(detail).await?;
    Ok(Explanation { why, cycles: trail.cycles.into_iter().collect() })
}

/// One walk through what waits for what.
struct Trail<'w> {
    known: &'w Known,
    store: &'w dyn Store,
    /// The messages from the one asked about to this one.
    path: Vec<(Uuid, String)>,
    cycles: BTreeSet<Vec<String>>,
    looks: usize,
    /// What was explained already.
    done: HashMap<Uuid, Why>,
}

impl Trail<'_> {
    /// Follows a message. Boxed, for it follows itself.
    fn follow<'f>(&'f mut self, detail: &'f MessageDetail) -> futures_util::future::BoxFuture<'f, Result<Why>> {
        Box::pin(async move {
            let row = &detail.status;
            let name = format!("{}/{}/{}", row.feed, row.partition, row.offset);
            let mut why = Why {
                message: name.clone(),
                id: row.id,
                table: row.table.clone(),
                key: row.key.clone(),
                status: row.status.clone(),
                ..Why::default()
            };
            if let Some(from) = self.path.iter().position(|(id, _)| *id == row.id) {
                let ring: Vec<String> = self.path[from..].iter().map(|(_, name)| name.clone()).collect();
                why.why = format!("it is {} already told above: they wait for one another", row.status);
                self.cycles.insert(from_first(ring));
                return Ok(why);
            }
            if let Some(done) = self.done.get(&row.id) {
                return Ok(done.clone());
            }
            self.looks += 1;
            if self.path.len() >= DEPTH_MAX || self.looks > LOOKS_MAX {
                why.why = format!("{}; not followed further", self.reason(detail));
                why.next = vec![format!("tolk explain {}", row.id)];
                return Ok(why);
            }
            self.path.push((row.id, name));
            let told = self.tell(detail, &mut why).await;
            self.path.pop();
            told?;
            self.done.insert(row.id, why.clone());
            Ok(why)
        })
    }

    async fn tell(&mut self, detail: &MessageDetail, why: &mut Why) -> Result<()> {
        let row = &detail.status;
        why.why = self.reason(detail);
        if let Some(paused) = self.pause_of(detail) {
            why.why =
                format!("{} is paused by {} since {}: {}", stuck::named(&paused.of), paused.by, text::time(paused.since_ms), paused.why);
            why.wakes = vec!["whoever resumes it".to_owned()];
            why.next = vec![stuck::resume(&paused.of)];
            return Ok(());
        }
        match Status::from_word(&row.status) {
            Some(Status::Handled) => publish::tell(self, detail, why),
            Some(Status::Pending) => self.pending(detail, why),
            Some(Status::Waiting) => waits::tell(self, detail, why).await?,
            Some(Status::Retry) => self.retry(detail, why),
            Some(Status::Behind) => self.behind(detail, why).await?,
            Some(Status::Held) => held::tell(self, detail, why).await?,
            Some(Status::Failed | Status::Stopped | Status::Invalid) => {
                why.next = ["retry", "ignore", "finish"].map(|verb| format!("tolk {verb} {} --reason TEXT", row.id)).to_vec();
            }
            Some(Status::Ignored) => why.next = vec![format!("tolk retry {} --reason TEXT", row.id)],
            // Closed for good: whatever would run it again is refused.
            Some(Status::Finished) | None => {}
        }
        Ok(())
    }

    /// The status with code and reason.
    fn reason(&self, detail: &MessageDetail) -> String {
        let row = &detail.status;
        let parts = [Some(row.status.as_str()), row.code.as_deref(), row.reason.as_deref()];
        let mut parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        parts.dedup();
        parts.join(": ")
    }

    /// The pause that holds a message that is not done.
    fn pause_of(&self, detail: &MessageDetail) -> Option<&Paused> {
        let row = &detail.status;
        let open = ["pending", "waiting", "retry", "behind", "held"].contains(&row.status.as_str());
        self.known.pauses.iter().find(|paused| open && stuck::holds(&paused.of, row))
    }

    fn pending(&self, detail: &MessageDetail, why: &mut Why) {
        let (feed, place) = (&detail.status.feed, detail.message.place);
        let Some(lane) = self.known.overview.lanes.iter().find(|lane| lane.feed == *feed && lane.lane == place.lane) else { return };
        let ahead = (place.n - lane.cursor - 1).max(0);
        match lane.owner.and_then(|owner| self.known.overview.hosts.iter().find(|host| host.id == owner)) {
            Some(host) if host.lives => {
                why.wakes = vec![format!(
                    "host {}, which owns lane {} of the feed; {ahead} messages of the lane come before it",
                    host.name, place.lane
                )];
            }
            Some(host) => {
                why.why = format!(
                    "pending: host {}, which owns lane {}, has not renewed its lease since {}",
                    host.name,
                    place.lane,
                    text::time(host.lease_until_ms)
                );
                why.wakes = vec!["any host that takes the lane over".to_owned()];
                why.next = vec!["tolk run".to_owned()];
            }
            None => {
                why.why = format!("pending: no host owns lane {} of feed {feed}", place.lane);
                why.wakes = vec!["a host that runs this feed and can load its plugins".to_owned()];
                why.next = vec!["tolk run".to_owned(), "tolk doctor".to_owned()];
            }
        }
    }

    fn retry(&self, detail: &MessageDetail, why: &mut Why) {
        let row = &detail.status;
        if let Some(due) = row.due_ms {
            why.wakes = vec![format!("the next try at {}, after {} tries", text::time(due), row.attempts)];
        }
        for request in &detail.waits {
            if let Request::Entry { collection, key } = request
                && collection == RECOVERED
            {
                why.wakes.push(format!("an answer of endpoint {key} to whichever message asks it next: then all that have parked go on"));
            }
        }
        let reason = row.reason.as_deref().unwrap_or_default();
        let endpoints = self.known.endpoints.iter().flatten();
        for endpoint in endpoints.filter(|endpoint| reason.contains(endpoint.endpoint.as_str())) {
            let probe = endpoint.probe_after_ms.map(|ms| format!(", the next probe in {ms} ms")).unwrap_or_default();
            why.wakes.push(format!(
                "endpoint {}: its breaker is {}, {} failures in a row{probe}",
                endpoint.endpoint, endpoint.breaker, endpoint.failures
            ));
        }
        why.next = vec![format!("tolk retry {} --reason TEXT", row.id)];
    }

    async fn behind(&mut self, detail: &MessageDetail, why: &mut Why) -> Result<()> {
        let message = &detail.message;
        let head = self.open_of(message.place, message.key_hash).await?;
        let head = head.into_iter().find(|head| *head != message.place && head.n < message.place.n);
        match head {
            Some(head) => {
                why.wakes = vec!["the message of its key that comes before it, once that is done".to_owned()];
                if let Some(head) = self.store.message_at(head).await? {
                    why.head = Some(Box::new(self.follow(&head).await?));
                }
            }
            None => why.wakes = vec!["the owner of its lane: nothing of its key is before it any more".to_owned()],
        }
        Ok(())
    }

    /// The first messages of a key that are in `work`.
    async fn open_of(&self, place: Place, key_hash: KeyHash) -> Result<Vec<Place>> {
        let key = crate::store::BlockedKey { feed: place.feed, lane: place.lane, key_hash };
        Ok(self.store.behind(key, 0, 3).await?.into_iter().map(|row| row.row.place).collect())
    }
}

/// A ring as it is told: from the name that sorts first, so that one ring is one whoever is asked about.
fn from_first(ring: Vec<String>) -> Vec<String> {
    let first = ring.iter().enumerate().min_by_key(|(_, name)| (*name).clone()).map_or(0, |(i, _)| i);
    ring.iter().cycle().skip(first).take(ring.len()).cloned().collect()
}

/// What is to be said to whoever asks for a message that is not there, once messages have gone with their time.
pub async fn dropped(store: &dyn Store) -> Result<Option<String>> {
    let until = store.dropped_until().await?.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    Ok(until.map(|until| {
        format!("messages received before {until:.0} are dropped (`[retention]` in the config), but for those that something still needs")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_told_in_one_way() {
        let ring = |names: &[&str]| from_first(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(ring(&["c", "a", "b"]), ring(&["a", "b", "c"]));
        assert_eq!(ring(&["c", "a", "b"]), ["a", "b", "c"]);
    }
}
