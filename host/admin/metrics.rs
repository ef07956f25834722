//! `/metrics` in Prometheus' text format: what this process did, how its endpoints stand, and what the store holds, looked up now and then.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::State as Given;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

use super::problem::{Answer, Problem};
use super::{Inside, State};
use crate::store::{Equation, Overview};

/// How old what is known of the store may be: scrapes by several collectors must not load it.
const SAMPLE_MAX: Duration = Duration::from_secs(10);
/// How long the store may take.
const STORE_MAX: Duration = Duration::from_secs(5);

/// How often the ledger is read.
const LEDGER_EVERY: Duration = Duration::from_secs(600);

type Labels = Vec<(&'static str, String)>;

/// What the store last said.
#[derive(Default)]
pub(super) struct Sampled {
    store: Mutex<Option<(Instant, Option<Sample>)>>,
    ledger: std::sync::Mutex<Books>,
}

/// The ledger as it was read last.
#[derive(Default)]
struct Books {
    asked: Option<Instant>,
    equations: Vec<Equation>,
}

#[derive(Clone)]
struct Sample {
    overview: Overview,
    unpublished: Vec<(String, i64)>,
}

pub(super) async fn show(Given(state): Given<Arc<State>>) -> Answer<impl IntoResponse> {
    let mut page = Page(Registry::with_prefix("tolk"));
    page.gauges("build_info", "The version that runs", [(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1)]);
    if let Some(inside) = state.inside.get() {
        process(&mut page, inside);
        let sample = state.sampled.get(inside).await;
        page.gauge("store_up", "Whether the store answered when it was last looked at", i64::from(sample.is_some()));
        if let Some(sample) = &sample {
            stored(&mut page, inside, sample);
        }
        let books = ledger(&state).into_iter().map(|equation| (vec![("equation", equation.name.to_owned())], equation.difference()));
        page.gauges("ledger_imbalance", "How far the sides of each of the store's equations are apart: 0", books.collect::<Vec<_>>());
    }
    page.gauge("up", "Whether the host is past its start", i64::from(state.inside.get().is_some()));
    let mut text = String::new();
    encode(&mut text, &page.0).map_err(|_| Problem::away("metrics", "they could not be written"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// The ledger as it was read last. A scrape that finds it old has it read again, and does not wait: it walks whole tables.
fn ledger(state: &Arc<State>) -> Vec<Equation> {
    let mut books = state.sampled.books();
    if books.asked.is_none_or(|asked| asked.elapsed() >= LEDGER_EVERY) {
        books.asked = Some(Instant::now());
        let state = state.clone();
        tokio::spawn(async move {
            let Some(inside) = state.inside.get() else { return };
            match inside.store.ledger().await {
                Ok(equations) => {
                    for broken in equations.iter().filter(|equation| !equation.holds()) {
                        tracing::error!(equation = broken.name, sample = broken.sample, "the ledger does not balance");
                    }
                    state.sampled.books().equations = equations;
                }
                Err(error) => tracing::warn!(%error, "the ledger could not be read"),
            }
        });
    }
    books.equations.clone()
}

/// What is known without asking anybody.
fn process(page: &mut Page, inside: &Inside) {
    let progress = &inside.progress;
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    page.counter("messages_ingested", "Messages that this host put into the inbox", read(&progress.ingested));
    page.counter("messages_settled", "Messages that this host settled, whatever became of them", read(&progress.translated.messages));
    page.counter("settlements", "Settlements that this host committed", read(&progress.translated.settlements));
    page.counter("conflicts", "Messages that ran again because what they had read was changed", read(&progress.translated.conflicts));
    page.counter("lanes_lost", "Lanes that another host took while this one worked on them", read(&progress.translated.fenced));
    page.counter("outputs_published", "Outputs that this host published", read(&progress.published));
    let endpoints = inside.caller.states();
    let label = |name: &str| vec![("endpoint", name.to_owned())];
    let breakers = endpoints.iter().flat_map(|state| {
        ["closed", "open", "probing"].map(|word| {
            let labels = vec![("endpoint", state.endpoint.clone()), ("state", word.to_owned())];
            (labels, i64::from(state.breaker == word))
        })
    });
    page.gauges("endpoint_breaker", "1 at the state that the endpoint's breaker is in", breakers.collect::<Vec<_>>());
    let calls = endpoints.iter().map(|state| (label(&state.endpoint), i64::try_from(state.calls).unwrap_or(i64::MAX)));
    page.gauges("endpoint_calls", "Calls under way", calls.collect::<Vec<_>>());
    let failures = endpoints.iter().map(|state| (label(&state.endpoint), i64::from(state.failures)));
    page.gauges("endpoint_failures", "Failures in a row", failures.collect::<Vec<_>>());
    let paused = endpoints.iter().map(|state| (label(&state.endpoint), i64::from(state.paused)));
    page.gauges("endpoint_paused", "Whether an operator has paused it", paused.collect::<Vec<_>>());
    let counts = endpoints.iter().flat_map(|state| {
        let counts = &state.counts;
        [("sent", counts.sent), ("cached", counts.cached), ("shared", counts.shared), ("failed", counts.failed), ("away", counts.away)]
            .map(|(what, count)| (vec![("endpoint", state.endpoint.clone()), ("what", what.to_owned())], count))
    });
    page.counters("endpoint_requests", "Requests sent, and calls answered otherwise or not at all", counts.collect::<Vec<_>>());
    let snapshot = inside.registry.snapshot();
    page.gauge("registry_revision", "The revision of active plugins that this host runs on", snapshot.revision);
    page.gauge("plugins_broken", "Active plugins that cannot be loaded here", i64::try_from(snapshot.broken().len()).unwrap_or(i64::MAX));
}

/// What the store said.
fn stored(page: &mut Page, inside: &Inside, sample: &Sample) {
    let overview = &sample.overview;
    page.gauge("settlement", "The newest settlement", overview.settlement);
    page.gauge("hosts", "Hosts whose lease holds", overview.hosts.iter().filter(|host| host.lives).count() as i64);
    let work = overview.work.iter().map(|work| (vec![("feed", work.feed.clone()), ("status", work.status.clone())], work.count));
    page.gauges("work", "Messages that are not done though their lane has passed them", work.collect::<Vec<_>>());
    let feeds: Vec<&String> = overview.feeds.iter().map(|feed| &feed.feed).filter(|feed| inside.config.feeds.contains_key(*feed)).collect();
    let new = feeds.iter().map(|feed| {
        let lanes = overview.lanes.iter().filter(|lane| lane.feed == **feed);
        (vec![("feed", (*feed).clone())], lanes.map(|lane| lane.tail - lane.cursor).sum::<i64>())
    });
    page.gauges("inbox_backlog", "Messages in the inbox that no translator has seen", new.collect::<Vec<_>>());
    let free = overview.lanes.iter().filter(|lane| lane.owner.is_none() && inside.config.feeds.contains_key(&lane.feed)).count();
    page.gauge("lanes_free", "Lanes of this host's feeds that nobody owns", i64::try_from(free).unwrap_or(i64::MAX));
    let of = |name: &str| vec![("target", name.to_owned())];
    let backlog = sample.unpublished.iter().map(|(target, count)| (of(target), *count));
    page.gauges("outputs_unpublished", "Outputs that are not published yet", backlog.collect::<Vec<_>>());
    let parked = overview.targets.iter().map(|target| (of(&target.target), target.parked));
    page.gauges("outputs_parked", "Outputs that a sink refused for good", parked.collect::<Vec<_>>());
}

impl Sampled {
    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the store said lately; asked by one scrape at a time.
    async fn get(&self, inside: &Inside) -> Option<Sample> {
        let mut kept = self.store.lock().await;
        if let Some((at, sample)) = &*kept
            && at.elapsed() < SAMPLE_MAX
        {
            return sample.clone();
        }
        let asked = tokio::time::timeout(STORE_MAX, async {
            let sample = Sample { overview: inside.store.overview().await?, unpublished: inside.store.unpublished().await? };
            Ok::<_, crate::store::Error>(sample)
        });
        let sample = asked.await.ok().and_then(Result::ok);
        *kept = Some((Instant::now(), sample.clone()));
        sample
    }
}

/// One scrape's answer.
struct Page(Registry);

impl Page {
    fn counter(&mut self, name: &str, what: &str, value: u64) {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        self.0.register(name, what, counter);
    }

    fn counters(&mut self, name: &str, what: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family: Family<Labels, Counter> = Family::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, what, family);
    }

    fn gauge(&mut self, name: &str, what: &str, value: i64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        self.0.register(name, what, gauge);
    }

    fn gauges(&mut self, name: &str, what: &str, values: impl IntoIterator<Item = (Labels, i64)>) {
        let family: Family<Labels, Gauge> = Family::default();
        let mut seen = HashSet::new();
        for (labels, value) in values {
            debug_assert!(seen.insert(labels.clone()), "{name} has one value for each of its labels");
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, what, family);
    }
}
