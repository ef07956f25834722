//! Whole hosts in trouble: stopped and let go again, out of memory, robbed of what they ingest, stopped gracefully under
//! load.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World, tail};

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!("F12", short, "SIGSTOP of a replica for 3 leases, then SIGCONT: a zombie", zombie),
        experiment!("F13", long, "no more memory: RLIMIT_AS below what a replica uses", out_of_memory),
        experiment!("F26", long, "the feed's ingest is moved to the other replica every 3 s", ingest_moves),
        experiment!("F27", long, "the ingest stalls with a batch in hand while another replica takes the feed", ingest_stalls),
        experiment!("R04", short, "graceful stop under load, again and again", graceful_stops),
    ]
}

async fn zombie(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(2);
    let rounds = if case.full { 6 } else { 2 };
    for round in 0..rounds {
        world.load(300);
        let half = world.sent.len() - 200;
        world.until_ended(half).await;
        let hung = &world.hosts[round % 2];
        let from = hung.said().len();
        hung.signal("STOP");
        world.load(100);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let hung = &world.hosts[round % 2];
        hung.signal("CONT");
        hung.until_said(from, "joined").await;
    }
    format!("{rounds} zombies; {}", world.rest(Resends::Any).await)
}

async fn out_of_memory(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(2);
    let mut ends = Vec::new();
    for round in 0..3 {
        world.load(150);
        let ended = world.rig.ended().await;
        world.until_ended(ended + 30).await;
        let victim = &world.hosts[round % 2];
        let limit = Command::new("prlimit").args(["--pid", &victim.id().to_string(), "--as=1000000"]).status();
        assert!(limit.is_ok_and(|status| status.success()), "prlimit (util-linux) sets a limit");
        // Messages of all sizes make it ask for memory.
        let from = Instant::now();
        while world.hosts[round % 2].lives() && from.elapsed() < Duration::from_secs(20) {
            world.load(100);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        ends.push(!world.hosts[round % 2].lives());
        let fresh = world.host(&[]);
        std::mem::replace(&mut world.hosts[round % 2], fresh).kill();
    }
    let died = ends.iter().filter(|died| **died).count();
    format!("{died} of {} died of it, the rest were killed; {}", ends.len(), world.rest(Resends::Any).await)
}

async fn ingest_moves(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(2);
    let moves = if case.full { 20 } else { 4 };
    world.load(50);
    world.until_ended(10).await;
    let mut moved = 0;
    for _ in 0..moves {
        world.load(120);
        moved += move_feed(&world).await;
        world.moment(2_500, 3_500).await;
    }
    assert!(moved > 0, "the feed was never moved");
    format!("{moved} moves; {}", world.rest(Resends::Suffix).await)
}

/// Gives the feed to the next living host, as a claim would, under the guard.
pub async fn move_feed(world: &World) -> u64 {
    let mut connection = world.books.connect().await;
    let sql = "WITH guard AS MATERIALIZED (SELECT number FROM settlement_guard FOR UPDATE)
       UPDATE feed f SET epoch = f.epoch + 1, owner = (SELECT h.id FROM host h WHERE h.id <> f.owner
         AND h.lease_until_ms > extract(epoch FROM clock_timestamp()) * 1000 ORDER BY h.id > f.owner DESC, h.id LIMIT 1)
       FROM guard WHERE f.owner IS NOT NULL AND guard.number >= 0";
    sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected()
}

async fn ingest_stalls(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    // Alone first, so that the feed is its own.
    let stalled = world.host(&[("TOLK_FAULTS", "ingest/polled=sleep:4000@3x3")]);
    world.hosts.push(stalled);
    world.load(60);
    world.until_ended(20).await;
    world.start(1);
    let mut stalls = 0;
    for _ in 0..3 {
        world.load(80);
        world.moment(300, 700).await;
        let said = world.hosts[0].said();
        let now = said.matches("a fault strikes what=\"ingest\"").count();
        if now > stalls {
            stalls = now;
            // While it sleeps with a batch in hand, the other one ingests the same messages.
            move_feed(&world).await;
            world.moment(3_000, 4_500).await;
        }
    }
    assert!(stalls > 0, "the ingest never stalled; it said:\n{}", tail(&world.hosts[0].said()));
    format!("{stalls} stalls; {}", world.rest(Resends::Suffix).await)
}

async fn graceful_stops(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(2);
    let (stops, mut slowest, mut longest) = (if case.full { 100 } else { 6 }, Duration::ZERO, Duration::ZERO);
    let sql = "SELECT count(*) FROM lane l WHERE NOT EXISTS (SELECT 1 FROM host h WHERE h.id = l.owner
       AND h.lease_until_ms > extract(epoch FROM clock_timestamp()) * 1000)";
    for stop in 0..stops {
        world.load(80);
        world.moment(400, 900).await;
        let began = Instant::now();
        world.hosts.remove(0).terminate().await;
        slowest = slowest.max(began.elapsed());
        // The one that stays has them all; measured from the end of the other.
        let ended = Instant::now();
        world
            .until(&format!("all lanes taken over after stop {stop}"), async |world| (world.books.count(sql).await == 0, String::new()))
            .await;
        longest = longest.max(ended.elapsed());
        world.start(1);
    }
    assert!(slowest < Duration::from_secs(25), "a stop took {slowest:?}");
    let figures = world.rest(Resends::Suffix).await;
    format!("{stops} stops, the slowest {slowest:.1?}, the longest takeover {longest:.1?}; {figures}")
}
