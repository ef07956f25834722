//! Crashes and errors at named places of the host: those of the plan one by one, then every place that a host at work passes, on both stores.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::proxy::Proxy;
use crate::rig::Running;
use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

/// How long a host may take to come to a place that it is to die at.
const AT_MOST: Duration = Duration::from_secs(4);

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!("F01", long, "kill -9 after the poll, before BEGIN", |case| crashes(case, &["ingest/polled"])),
        experiment!("F02", long, "kill -9 between the position's update and the rows; after both, before COMMIT", |case| crashes(
            case,
            &["append messages/fenced", "append messages/commit"]
        )),
        experiment!("F03", long, "kill -9 after COMMIT, before anything is told of it; before the group's commit", |case| crashes(
            case,
            &["append messages/done", "ingest/appended"]
        )),
        experiment!("F04", short, "connections cut exactly at COMMIT, before or after the server has it", cut_at_commit),
        experiment!("F05", long, "kill -9 with lanes claimed, before the first fetch", |case| crashes(
            case,
            &["claim lanes/done", "translate/owned"]
        )),
        experiment!("F06", long, "kill -9 inside a plugin's call", |case| crashes(case, &["guest/begin"])),
        experiment!("F07", long, "kill -9 after the plugin; inside the settlement, before and after COMMIT", |case| crashes(
            case,
            &["guest/done", "settle/outputs", "settle/commit", "settle/done"]
        )),
        experiment!(
            "F08",
            long,
            "kill -9 with outputs sent and not acknowledged; acknowledged, before the cursor and inside its move",
            |case| { crashes(case, &["sink/enqueued", "publish/sent", "move the target's cursor/commit"]) }
        ),
        experiment!("F10", short, "kill -9 during migration, push and activation", installs),
        experiment!("CP", short, "kill -9 at every place that a host passes, three replicas on PostgreSQL", crash_everywhere),
        experiment!("CPs", short, "kill -9 at every place that a host passes, SQLite", crash_everywhere_alone),
        experiment!("CE", short, "an error at every place that a host passes, PostgreSQL", |case: Case| async move {
            errors_everywhere(World::shared(case.seed).await, case).await
        }),
        experiment!("CEs", short, "an error at every place that a host passes, SQLite", |case: Case| async move {
            errors_everywhere(World::files(case.seed).await, case).await
        }),
    ]
}

/// Starts a host that dies at a place, the `hit`-th time that it passes it.
pub fn doomed(world: &World, place: &str, hit: u64) -> Running {
    world.host(&[("TOLK_FAULTS", &format!("{place}=abort@{hit}"))])
}

/// Waits until a host has died by itself; false: it did not come to its place.
pub async fn died(host: &Running, at_most: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < at_most {
        if !host.lives() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// One host after another dies at a place, each time at another pass of it, while a second one lives.
async fn crashes(case: Case, places: &[&str]) -> String {
    let mut world = World::shared(case.seed).await;
    world.environment.push(("TOLK_FAULTS_SEED".to_owned(), case.seed.to_string()));
    let mut struck = 0;
    for place in places {
        for _ in 0..3 {
            world.load(60);
            let hit = 1 + world.dice.below(3);
            // Alone, so that everything it may own is its own; the next one takes over.
            let host = doomed(&world, place, hit);
            let mut dead = died(&host, Duration::from_secs(2)).await;
            for _ in 0..10 {
                if dead {
                    break;
                }
                world.load(20);
                dead = died(&host, AT_MOST / 2).await;
            }
            assert!(dead, "no host has come to {place} for the {hit}. time; it said:\n{}", crate::world::tail(&host.said()));
            struck += 1;
        }
    }
    world.start(2);
    format!("{struck} crashes; {}", world.rest(Resends::Suffix).await)
}

/// The places that hosts of this world pass from start to stop, and whether a host passes them more than once. Only a graceful stop passes
/// those of leaving, and those who die do not stop.
async fn places(world: &mut World) -> Vec<(String, bool)> {
    let path = world.rig.tolk.path("seen").display().to_string();
    world.load(120);
    let host = world.host(&[("TOLK_FAULTS_SEEN", &path)]);
    world.hosts.push(host);
    world.until_ended(60).await;
    world.hosts.remove(0).terminate().await;
    let mut seen: BTreeMap<String, bool> = BTreeMap::new();
    for place in world.rig.tolk.read("seen").lines() {
        let known = seen.contains_key(place);
        seen.insert(place.to_owned(), known);
    }
    seen.retain(|place, _| !place.starts_with("leave/"));
    assert!(seen.len() > 20, "a host passes many places: {seen:?}");
    seen.into_iter().collect()
}

/// A publisher waits for the last sends of the one before it: its places take long on PostgreSQL and have a row of their own, F08.
const SLOW: [&str; 5] = ["publish/", "sink/", "move the target's cursor/", "read outputs/", "read parked keys/"];

async fn crash_everywhere(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let mut waiting = places(&mut world).await;
    waiting.retain(|(place, _)| case.full || !SLOW.iter().any(|slow| place.starts_with(slow)));
    let (count, mut struck, mut missed) = (waiting.len(), 0, Vec::new());
    // Three replicas at a time, each to die elsewhere; one that does not come to its place makes room.
    let mut running: Vec<(String, Running, Instant)> = Vec::new();
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < 3 && !waiting.is_empty() {
            let (place, often) = waiting.remove(world.dice.below(waiting.len() as u64) as usize);
            let hit = 1 + world.dice.below(1 + u64::from(often));
            world.load(12);
            let host = doomed(&world, &place, hit);
            running.push((place, host, Instant::now()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (dead, living): (Vec<_>, Vec<_>) = running.drain(..).partition(|(_, host, _)| !host.lives());
        struck += dead.len();
        let (late, living): (Vec<_>, Vec<_>) = living.into_iter().partition(|(.., since)| since.elapsed() > AT_MOST);
        missed.extend(late.into_iter().map(|(place, ..)| place));
        running = living;
    }
    // Others had what these places need: each comes again, alone.
    let missed = alone(&mut world, missed.into_iter().map(|place| (place, false)).collect(), &mut struck).await;
    assert!(missed.len() * 10 < count, "too many places were not come to: {missed:?}");
    world.start(2);
    format!("{struck} crashes at {count} places; {}", world.rest(Resends::Suffix).await)
}

/// One host at a time dies at a place; returns the places that none came to.
async fn alone(world: &mut World, places: Vec<(String, bool)>, struck: &mut usize) -> Vec<String> {
    let mut missed = Vec::new();
    for (place, often) in places {
        world.load(12);
        let hit = 1 + world.dice.below(1 + u64::from(often));
        let host = doomed(world, &place, hit);
        let mut dead = died(&host, AT_MOST / 4).await;
        if !dead {
            world.load(12);
            dead = died(&host, 2 * AT_MOST).await;
        }
        if dead { *struck += 1 } else { missed.push(place) }
    }
    missed
}

async fn crash_everywhere_alone(case: Case) -> String {
    let mut world = World::files(case.seed).await;
    let waiting = places(&mut world).await;
    let (count, mut struck) = (waiting.len(), 0);
    let missed = alone(&mut world, waiting, &mut struck).await;
    assert!(missed.len() * 10 < count, "too many places were not come to: {missed:?}");
    world.start(1);
    format!("{struck} crashes at {count} places; {}", world.rest(Resends::Suffix).await)
}

/// Each place fails once early, once late, then all of them now and then.
async fn errors_everywhere(mut world: World, case: Case) -> String {
    for rules in ["*=error@1", "*=error@3", "*=errorx*%4"] {
        let seed = case.seed.to_string();
        world.environment = [("TOLK_FAULTS", rules), ("TOLK_FAULTS_SEED", &*seed)].map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec();
        world.start(1);
        world.load(150);
        let ended = world.sent.len() - 75;
        world.until_ended(ended).await;
        let host = world.hosts.remove(0);
        host.kill();
    }
    world.environment.clear();
    world.start(1);
    world.rest(Resends::Suffix).await
}

/// The commands that put plugins in die half way; the next try completes what they began.
async fn installs(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let (digest, component) = (world.rig.digest.clone(), crate::guests::component_path("tests/guests/scripted"));
    let component = component.display().to_string();
    // Another schema, so that there is something to migrate.
    let config = world.rig.tolk.read("tolk.toml").replace("schema = \"path_", "schema = \"path_again_");
    world.rig.tolk.write("again.toml", &config);
    let activate = ["activate", &digest, "--feed", "f", "--table", "a", "--config-text", "", "--timeout-s", "20"];
    let push = ["push", &component];
    let mut crashes = 0;
    for (command, verbs) in [
        (&["migrate"][..], &["migrate", "read the version of the tables"][..]),
        (&push[..], &["store a component", "store an artefact", "read a component"][..]),
        (&activate[..], &["activate", "read what is active"][..]),
    ] {
        for (verb, when) in verbs.iter().flat_map(|verb| ["begin", "commit", "done"].map(|when| (verb, when))) {
            let rule = format!("{verb}/{when}=abort");
            let mut doomed = world.rig.tolk.command();
            let said = doomed.args(command).args(["--config", "again.toml"]).env("TOLK_FAULTS", rule).output().unwrap();
            crashes += usize::from(said.status.code().is_none());
        }
        let with_config = [command, &["--config", "again.toml"]].concat();
        world.rig.tolk.run(&with_config).expect(0);
    }
    assert!(crashes >= 8, "only {crashes} of the commands came to their places");
    for table in ["b", "c"] {
        let activate = ["activate", &digest, "--feed", "f", "--table", table, "--config-text", "", "--timeout-s", "20"];
        world.rig.tolk.run(&[&activate[..], &["--config", "again.toml"]].concat()).expect(0);
    }
    world.rig.tolk.run(&["doctor", "--config", "again.toml"]).expect(0);
    // The first schema was never touched by all this.
    world.load(50);
    world.start(1);
    format!("{crashes} crashes of commands, each completed by the next; {}", world.rest(Resends::Suffix).await)
}

async fn cut_at_commit(case: Case) -> String {
    let proxy = Proxy::start(crate::services::postgres_tcp_url(), case.seed).await;
    // The hosts go through the proxy; who looks on does not.
    let mut world = World::shared(case.seed).await;
    world.configure(&format!("url = {:?}", crate::services::postgres_url()), &format!("url = {:?}", proxy.url));
    world.start(2);
    proxy.cut_commits(10);
    for _ in 0..if case.full { 12 } else { 4 } {
        world.load(150);
        world.moment(500, 1_000).await;
    }
    let ended = world.sent.len() / 2;
    world.until_ended(ended).await;
    proxy.cut_commits(0);
    let cuts = proxy.cuts();
    assert!(cuts > 5, "only {cuts} commits were cut");
    format!("{cuts} commits cut; {}", world.rest(Resends::Suffix).await)
}
