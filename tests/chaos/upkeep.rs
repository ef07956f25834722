//! Hosts that die while they drop messages, and messages that must not go: what is needed outlives its part, and the books stay exact.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::ledger::Books;
use crate::points::{died, doomed};
use crate::table::{Case, Experiment, experiment};
use crate::world::{RETENTION, World, tail};

/// Two seconds, in parts of half a second.
const SHORT: &str = "[retention]\npayload_days = 0.00002\noutputs_days = 0.00002\nstatuses_days = {}\nevery_ms = 50\n";
/// How long a host may take to come to a place: parts must grow old first.
const AT_MOST: Duration = Duration::from_secs(60);

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!(
            "F10d",
            short,
            "kill -9 while a part of the inbox is closed, looked through, locked and dropped",
            |case: Case| async move {
                let places = [
                    "begin a part/made",
                    "begin a part/done",
                    "drop messages/kept",
                    "drop messages/locked",
                    "drop messages/dropped",
                    "drop messages/commit",
                    "drop messages/done",
                    "prune outputs/commit",
                    "prune provenance/commit",
                ];
                killed(World::shared(case.seed).await, &places).await
            }
        ),
        experiment!("F10s", short, "the same on SQLite", |case: Case| async move {
            let places = [
                "drop messages/dropped",
                "drop messages/commit",
                "drop messages/done",
                "prune provenance/commit",
                "give back space/commit",
            ];
            killed(World::files(case.seed).await, &places).await
        }),
        experiment!("R02", short, "everything old is dropped but for failed messages and those behind them", |case: Case| async move {
            quarantined(World::shared(case.seed).await).await
        }),
    ]
}

async fn killed(mut world: World, places: &[&str]) -> String {
    world.configure(RETENTION, SHORT);
    let mut struck = 0;
    for place in places {
        let began = Instant::now();
        // Pages are given back once much has gone that was there at one time.
        world.load(if place.starts_with("give back space") { 1_000 } else { 60 });
        let hit = 1 + world.dice.below(3);
        let host = doomed(&world, place, hit);
        while !died(&host, Duration::from_millis(500)).await {
            assert!(began.elapsed() < AT_MOST, "no host has come to {place}; it said:\n{}", tail(&host.said()));
            world.load(20);
        }
        struck += 1;
    }
    // A file takes one host.
    let hosts = if matches!(world.books, Books::Sqlite { .. }) { 1 } else { 2 };
    world.start(hosts);
    format!("{struck} crashes; {}", world.rest_of_what_stays().await)
}

async fn quarantined(mut world: World) -> String {
    world.configure(RETENTION, SHORT);
    world.start(2);
    for _ in 0..6 {
        world.load(100);
        world.moment(200, 600).await;
    }
    let rest = world.scripts.rest();
    world.rig.produce(&rest);
    world.sent.extend(rest);
    let stays = world.stays();
    world
        .until(&format!("nothing but {stays:?}"), async |world| {
            let counts: BTreeMap<String, usize> = world.rig.counts().await;
            (world.taken().await == world.sent.len() && counts == stays, format!("{counts:?}"))
        })
        .await;
    world.rest_of_what_stays().await
}
