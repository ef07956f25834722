//! One lease of a host, from joining to leaving: keeps the lease, claims work, runs the loops on what it owns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{App, Until, within};
use crate::ingest::deliveries::Duty;
use crate::ingest::{self, Ingest};
use crate::message::FeedId;
use crate::publish::Publish;
use crate::sink::{self, Sink};
use crate::source;
use crate::store::{Host, Owned, Pausable, Paused, TargetLease, Wanted};
use crate::translate::engine::{Engine, Parts};
use crate::trouble::{Chain, Pause};
use crate::upkeep::Upkeep;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and let go of everything.
    Stopped,
    /// Everything is done.
    Done,
    /// Its lease ran out.
    LeaseLost,
}

/// What the loops tell each other: hints and counts, never truth.
#[derive(Clone, Default)]
struct Hints {
    appended: Arc<Notify>,
    settled: watch::Sender<i64>,
    /// Times the translate loop asked for work, found none and had none.
    idle: Arc<AtomicU64>,
    /// Sources that have ended.
    ended: Arc<AtomicU64>,
}

/// Runs one session.
pub async fn run(app: &App, until: Until, stop: &CancellationToken) -> anyhow::Result<Ended> {
    let lease = Duration::from_millis(app.config.host.lease_ms);
    let Some(host) = join(app, stop).await? else { return Ok(Ended::Stopped) };
    tracing::info!(host = %host.id, lanes = app.feeds.iter().map(|feed| usize::from(feed.config.lanes)).sum::<usize>(), "joined");
    let inner = stop.child_token();
    let lost = CancellationToken::new();
    let hints = Hints::default();
    let (owned_in, owned) = watch::channel(Owned::default());

    let mut kept = Box::pin(keep_lease(app, &host, lease));
    let mut claims = Box::pin(claim(app, &host, lease / 5, owned_in, inner.clone()));
    let mut refreshed = Box::pin(refresh(app, inner.clone()));
    let mut keeping = JoinSet::new();
    keeping.spawn(keep(app, &host, inner.clone()));
    let work = work(app, &host, &hints, owned, inner.clone(), lost.clone());
    let done = watch_done(app, until, &hints, inner.clone());

    let mut ended = Ended::Stopped;
    tokio::pin!(work, done);
    // What is told to stop is gone on with until it has ended: left where it stands it could hold what all others wait for.
    let (mut claimed, mut fresh, mut watched) = (false, false, false);
    loop {
        tokio::select! {
            // While the loops drain, what they settle is still fenced by the lease.
            () = &mut kept, if ended != Ended::LeaseLost => {
                ended = Ended::LeaseLost;
                // A mutant goes on as if it were fenced by nothing.
                if !crate::faults::mutant("no-fence") {
                    lost.cancel();
                }
                inner.cancel();
            }
            () = &mut claims, if !claimed => claimed = true,
            () = &mut refreshed, if !fresh => fresh = true,
            Some(result) = keeping.join_next() => result?,
            finished = &mut done, if !watched => {
                watched = true;
                if finished && !inner.is_cancelled() {
                    ended = Ended::Done;
                }
                inner.cancel();
            }
            result = &mut work => {
                inner.cancel();
                result?;
                break;
            }
        }
    }
    drop(kept);
    let rest = async {
        if !claimed {
            claims.await;
        }
        if !fresh {
            refreshed.await;
        }
        while keeping.join_next().await.is_some() {}
    };
    if tokio::time::timeout(Duration::from_secs(2), rest).await.is_err() {
        tracing::warn!("what was under way with the store does not end; it is given up");
    }
    keeping.shutdown().await;
    match ended {
        // Whoever took over meanwhile keeps what it has; what nobody took yet is not to look as if this process had crashed.
        Ended::LeaseLost => within(Duration::from_secs(1), "give everything back", app.store.abandon(&host)).await,
        Ended::Stopped | Ended::Done => within(Duration::from_secs(5), "leave", app.store.leave(&host)).await,
    };
    Ok(ended)
}

/// Upkeep of the store, whenever it is this host's turn.
fn keep(app: &App, host: &Host, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
    let config = &app.config.retention;
    let upkeep = Upkeep {
        store: app.store.clone(),
        host: host.clone(),
        retention: config.retention(),
        part_ms: config.part_ms(),
        every_ms: config.every_ms,
    };
    async move { upkeep.run(&stop).await }
}

/// Joins, waiting while the store is away: it may have gone together with the last lease. `None`: told to stop meanwhile.
async fn join(app: &App, stop: &CancellationToken) -> anyhow::Result<Option<Host>> {
    let mut pause = Pause::default();
    while !stop.is_cancelled() {
        match app.store.join(&name(app), app.config.host.lease_ms).await {
            Ok(host) => return Ok(Some(host)),
            Err(error) if error.is_transient() => pause.wait("store", &error, stop).await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn name(app: &App) -> String {
    if !app.config.host.name.is_empty() {
        return app.config.host.name.clone();
    }
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "host".to_owned(), |name| name.trim().to_owned())
}

/// Renews the lease until it is lost.
async fn keep_lease(app: &App, host: &Host, lease: Duration) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(lease / 4).await;
        match tokio::time::timeout(lease / 4, app.store.renew(host, app.config.host.lease_ms)).await {
            Ok(Ok(true)) => renewed = Instant::now(),
            Ok(Ok(false)) => return,
            Ok(Err(error)) => tracing::warn!(error = %Chain(&error), "the lease could not be renewed"),
            Err(_) => tracing::warn!("the lease could not be renewed in time"),
        }
        // Others may have taken over by now; the fence keeps us out, so stop trying.
        if renewed.elapsed() > lease {
            return;
        }
    }
}

/// How often a host asks whether something changed its owner: one small read. What a leaver gives back, and what an expired host leaves
/// behind, is taken over that soon.
const OWNERSHIP_EVERY: Duration = Duration::from_millis(200);

/// Claims at once, then whenever something changed its owner, and every so often all the same; until told to stop.
async fn claim(app: &App, host: &Host, every: Duration, owned: watch::Sender<Owned>, stop: CancellationToken) {
    let wanted = Wanted { feeds: app.feeds.iter().map(|feed| feed.id).collect(), targets: app.config.targets.keys().cloned().collect() };
    let (mut known, mut claimed) = (None, Instant::now());
    while !stop.is_cancelled() {
        // Asked before the claim: what changes during it is seen at the next turn.
        let ownership = app.store.ownership().await.ok();
        if known.is_some() && ownership == known && claimed.elapsed() < every {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(OWNERSHIP_EVERY.min(every)) => {}
            }
            continue;
        }
        (known, claimed) = (ownership, Instant::now());
        match app.store.claim(host, &wanted).await {
            Ok(now) => {
                owned.send_if_modified(|known| {
                    // Cursors move all the time; only a change of owner or epoch is news.
                    let changed = names(known) != names(&now);
                    *known = now;
                    changed
                });
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "nothing could be claimed");
                // Asked for again at once: nothing may change its owner until then.
                known = None;
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(OWNERSHIP_EVERY.min(every)) => {}
        }
    }
}

type Names = (Vec<(FeedId, i64)>, Vec<(FeedId, i32, i64)>, Vec<(String, i64)>);

fn names(owned: &Owned) -> Names {
    let mut lanes: Vec<_> = owned.lanes.iter().map(|lane| (lane.feed, lane.lane, lane.epoch)).collect();
    lanes.sort_unstable();
    let mut targets: Vec<_> = owned.targets.iter().map(|target| (target.target.clone(), target.epoch)).collect();
    targets.sort_unstable();
    let mut feeds = owned.feeds.clone();
    feeds.sort_unstable();
    (feeds, lanes, targets)
}

/// Keeps in step with what people change, active plugins and pauses, until told to stop.
async fn refresh(app: &App, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match app.store.pauses().await {
            Ok(now) if now != **app.pauses.load() => {
                tracing::info!(paused = now.len(), "what is paused changed");
                let endpoint = |paused: &Paused| match &paused.of {
                    Pausable::Endpoint { endpoint } => Some(endpoint.clone()),
                    Pausable::Feed { .. } | Pausable::Table { .. } => None,
                };
                let endpoints: Vec<String> = now.iter().filter_map(endpoint).collect();
                app.caller.pause_only(&endpoints.iter().map(String::as_str).collect::<Vec<_>>());
                app.pauses.store(Arc::new(now));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %Chain(&error), "what is paused could not be read"),
        }
        match app.registry.refresh().await {
            Ok(true) => {
                let snapshot = app.registry.snapshot();
                tracing::info!(revision = snapshot.revision, "the active plugins changed");
                for (activation, reason) in snapshot.broken() {
                    tracing::error!(
                        feed = activation.feed,
                        table = activation.table,
                        digest = activation.digest.short(),
                        reason,
                        "an active plugin cannot be loaded here"
                    );
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(error = %Chain(&error), "the active plugins could not be read"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(app.config.host.poll_ms)) => {}
        }
    }
}

/// Runs the loops on what is owned until the session stops; then ingest ends, translate drains, and what it settled is published. A part
/// of the time that a stop may take is for each; what is not sent by then goes out at the next owner. A host that lost its lease drops
/// everything at once: nothing of it could be settled any more.
async fn work(
    app: &App,
    host: &Host,
    hints: &Hints,
    mut owned: watch::Receiver<Owned>,
    stop: CancellationToken,
    lost: CancellationToken,
) -> anyhow::Result<()> {
    let (ingests, publishes, finish) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut feeds: HashMap<FeedId, (i64, CancellationToken)> = HashMap::new();
    let mut targets: HashMap<String, (i64, CancellationToken)> = HashMap::new();
    let mut sinks: HashMap<String, Arc<dyn Sink>> = HashMap::new();
    let (lanes_in, lanes) = watch::channel(Vec::new());
    // Ends with this function, as all tasks do.
    let mut translating: JoinSet<()> = JoinSet::new();
    translating.spawn(translate(engine(app, host, hints), lanes, hints.clone(), app.config.host.clone(), stop.clone()));
    while !stop.is_cancelled() {
        let now = owned.borrow_and_update().clone();
        lanes_in.send_replace(now.lanes.clone());
        feeds.retain(|feed, (epoch, token)| kept(now.feeds.iter().any(|(id, now)| (id, now) == (feed, epoch)), token));
        for (feed, epoch) in &now.feeds {
            feeds.entry(*feed).or_insert_with(|| {
                let token = ingests.child_token();
                tasks.spawn(ingest(app, hints, *feed, *epoch, token.clone()));
                (*epoch, token)
            });
        }
        targets
            .retain(|target, (epoch, token)| kept(now.targets.iter().any(|lease| (&lease.target, lease.epoch) == (target, *epoch)), token));
        for lease in &now.targets {
            if targets.contains_key(&lease.target) {
                continue;
            }
            let sink = match sinks.get(&lease.target) {
                Some(sink) => sink.clone(),
                None => sink::open(&lease.target, &app.config.targets[&lease.target], &app.config.kafka)?,
            };
            sinks.insert(lease.target.clone(), sink.clone());
            let token = publishes.child_token();
            tasks.spawn(publish(app, hints, lease.clone(), sink, finish.clone(), token.clone()));
            targets.insert(lease.target.clone(), (lease.epoch, token));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            changed = owned.changed() => if changed.is_err() { break },
            Some(result) = tasks.join_next() => result?,
            Some(result) = translating.join_next() => result?,
        }
    }
    ingests.cancel();
    wind_down(tasks, translating, &Stops { publishes, finish, lost }, Duration::from_millis(app.config.host.stop_ms_max * 3 / 4)).await
}

/// What tells the tasks of a session to end.
struct Stops {
    publishes: CancellationToken,
    finish: CancellationToken,
    lost: CancellationToken,
}

/// Waits for translate to drain and for publish to send what that settled, within a time.
async fn wind_down(mut tasks: JoinSet<()>, mut translating: JoinSet<()>, stops: &Stops, limit: Duration) -> anyhow::Result<()> {
    let stopped = Instant::now();
    tokio::select! {
        biased;
        () = stops.lost.cancelled() => {
            translating.shutdown().await;
            tasks.shutdown().await;
            return Ok(());
        }
        drained = translating.join_next() => drained.transpose()?,
    };
    stops.finish.cancel();
    let sent = async {
        while let Some(result) = tasks.join_next().await {
            result?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        () = stops.lost.cancelled() => tasks.shutdown().await,
        sent = tokio::time::timeout(limit.saturating_sub(stopped.elapsed()), sent) => match sent {
            Ok(sent) => sent?,
            Err(_) => {
                tracing::warn!("not everything could be published before the stop; the rest goes out at the next owner");
                stops.publishes.cancel();
                while let Some(result) = tasks.join_next().await {
                    result?;
                }
            }
        },
    }
    Ok(())
}

fn kept(still: bool, token: &CancellationToken) -> bool {
    if !still {
        token.cancel();
    }
    still
}

fn engine(app: &App, host: &Host, hints: &Hints) -> Engine {
    Engine::new(Parts {
        store: app.store.clone(),
        runtime: app.runtime.clone(),
        registry: app.registry.clone(),
        caller: app.caller.clone(),
        feeds: app.feeds.clone(),
        host: host.clone(),
        secret: app.secret,
        settle_messages_max: app.config.host.settle_messages_max,
        settle_every: Duration::from_millis(app.config.host.settle_every_ms),
        memory_bytes_max: app.config.host.memory_bytes_max,
        actions_every: Duration::from_millis(app.config.host.poll_ms),
        pauses: app.pauses.clone(),
        settled: hints.settled.clone(),
        counts: app.progress.translated.clone(),
    })
}

async fn translate(
    mut engine: Engine,
    mut lanes: watch::Receiver<Vec<crate::store::LaneLease>>,
    hints: Hints,
    config: crate::config::HostConfig,
    stop: CancellationToken,
) {
    let poll = Duration::from_millis(config.poll_ms);
    lanes.mark_changed();
    while !stop.is_cancelled() {
        if lanes.has_changed().unwrap_or(false) {
            let now = lanes.borrow_and_update().clone();
            if let Err(error) = engine.own(&now).await {
                tracing::warn!(error = %Chain(&error), "the lanes could not be taken over yet");
                lanes.mark_changed();
                tokio::time::sleep(poll).await;
                continue;
            }
            crate::faults::step("translate", "owned").await;
        }
        if engine.turn(&hints.appended, poll).await {
            hints.idle.fetch_add(1, Ordering::SeqCst);
        }
        if let Err(error) = engine.report().await {
            tracing::debug!(error = %Chain(&error), "the revision could not be reported");
        }
    }
    engine.drain(Instant::now() + Duration::from_millis(config.stop_ms_max / 2)).await;
}

/// One feed's ingest. Trouble that waiting does not mend is said, and tried again all the same: a person may mend it meanwhile.
fn ingest(app: &App, hints: &Hints, feed: FeedId, epoch: i64, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
    let known = app.feeds.iter().find(|known| known.id == feed).expect("only registered feeds are claimed").clone();
    let ingest = Ingest {
        name: known.name.clone(),
        feed,
        epoch,
        config: known.config.clone(),
        store: app.store.clone(),
        appended: hints.appended.clone(),
        count: app.progress.ingested.clone(),
    };
    let (kafka, ended) = (app.config.kafka.clone(), hints.ended.clone());
    let duty = known.config.delivery.clone().map(|config| Duty {
        name: known.name.clone(),
        feed,
        epoch,
        config,
        store: app.store.clone(),
        caller: app.caller.clone(),
        released: hints.appended.clone(),
    });
    let (poll, told) = (Duration::from_millis(app.config.host.poll_ms), stop.clone());
    let tend = async move {
        if let Some(duty) = duty {
            duty.run(poll, &told).await;
        }
    };
    let read = async move {
        while !stop.is_cancelled() {
            let result = match source::open(&known.name, &known.config.source, &kafka) {
                Ok(source) => ingest.run(source, stop.clone()).await,
                Err(source) => Err(ingest::Error::Source { feed: known.name.clone(), source }),
            };
            match result {
                Ok(ingest::Ended::SourceEnded) => {
                    tracing::info!(feed = known.name, "the source has ended");
                    ended.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Ok(ingest::Ended::Stopped | ingest::Ended::Fenced) => return,
                Err(error) => tracing::error!(error = %Chain(&error), "ingest stopped; trying again in 10 s"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_secs(10)) => {}
            }
        }
    };
    async move {
        tokio::join!(read, tend);
    }
}

fn publish(
    app: &App,
    hints: &Hints,
    lease: TargetLease,
    sink: Arc<dyn Sink>,
    finish: CancellationToken,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let interval = app.config.targets.get(&lease.target).map_or(0, sink::Config::min_key_interval_ms);
    let mut publish = Publish {
        lease,
        sink,
        store: app.store.clone(),
        settled: hints.settled.subscribe(),
        poll: Duration::from_millis(app.config.host.poll_ms),
        min_key_interval: Duration::from_millis(interval),
        count: app.progress.published.clone(),
    };
    async move {
        publish.run(finish, stop).await;
    }
}

/// Waits until everything is done (true) or the session stops (false).
async fn watch_done(app: &App, until: Until, hints: &Hints, stop: CancellationToken) -> bool {
    if until == Until::Stopped {
        stop.cancelled().await;
        return false;
    }
    let feeds = app.feeds.len() as u64;
    let mut asked_from = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        if hints.ended.load(Ordering::SeqCst) < feeds {
            continue;
        }
        if is_releasing(app).await {
            asked_from = None;
            continue;
        }
        // Two idle rounds after the last source ended: the second one began after the last append.
        let idle = hints.idle.load(Ordering::SeqCst);
        let from = *asked_from.get_or_insert(idle);
        if idle >= from + 2
            && let Ok(unpublished) = app.store.unpublished().await
            && unpublished.iter().all(|(_, count)| *count == 0)
        {
            return true;
        }
    }
}

/// Whether held parts are still to be let go: they are work, although translate has not seen it yet.
async fn is_releasing(app: &App) -> bool {
    for feed in app.feeds.iter().filter(|feed| feed.config.delivery.is_some()) {
        match app.store.deliveries(feed.id, 1_000).await {
            Ok(deliveries) if deliveries.iter().all(|delivery| !delivery.release) => {}
            _ => return true,
        }
    }
    false
}
