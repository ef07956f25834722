//! Hosts whose clocks are wrong. Each shows it on its own log lines; leases, due times and everything that is stored must go by the database's
//! clock all the same.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::hosts::move_feed;
use crate::preload;
use crate::rig::Running;
use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World, tail};

pub fn all() -> Vec<Experiment> {
    vec![experiment!("C01", long, "a replica's clock an hour ahead, one behind, one that jumps", wrong_clocks)]
}

const HOUR: i64 = 3_600;
/// What the clocks of this machine may differ by, with all that a busy machine adds.
const NEAR_MS: i64 = 600_000;

/// A clock of a host, and the file that sets it.
struct Clock {
    library: String,
    path: std::path::PathBuf,
}

impl Clock {
    fn new(world: &World, library: &str, name: &str, seconds: i64) -> Self {
        let clock = Self { library: library.to_owned(), path: world.rig.tolk.path(name) };
        clock.set(seconds);
        clock
    }

    /// Hosts see it at once. The file is written in place: they have it mapped.
    fn set(&self, seconds: i64) {
        std::os::unix::fs::FileExt::write_all_at(
            &std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.path).unwrap(),
            &seconds.to_ne_bytes(),
            0,
        )
        .unwrap();
    }

    fn host(&self, world: &World) -> Running {
        world.host(&[("LD_PRELOAD", &self.library), ("CLOCK_SHIFT", &self.path.display().to_string())])
    }
}

async fn wrong_clocks(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    // So long that this machine's load costs no host its lease, and far shorter than the jumps.
    world.configure("lease_ms = 1000", "lease_ms = 10000");
    let library = preload::library(&world, "clock");
    let clocks = [("ahead", HOUR), ("behind", -HOUR), ("jumping", 0)].map(|(name, shift)| Clock::new(&world, &library, name, shift));
    // Each alone at first: it must join, ingest, translate, retry and publish by itself.
    for (clock, shift) in clocks.iter().zip([HOUR, -HOUR, 0]) {
        let host = clock.host(&world);
        world.hosts.push(host);
        world.load(60);
        let most = world.sent.len() - 25;
        world.until_ended(most).await;
        let said = world.hosts[0].said();
        let off = first_time_ms(&said) - now_ms() - shift * 1_000;
        assert!(off.abs() < NEAR_MS, "its clock is not wrong by {shift} s: {}", said.lines().next().unwrap_or_default());
        true_times(&world).await;
        world.hosts.remove(0).terminate().await;
    }
    world.hosts = clocks.iter().map(|clock| clock.host(&world)).collect();
    let (rounds, mut moved, mut due) = (if case.full { 40 } else { 6 }, 0, 0);
    for round in 0..rounds {
        world.load(60);
        // Forward and back, by minutes.
        clocks[2].set(if round % 2 == 0 { 17 * 60 } else { -23 * 60 });
        for _ in 0..8 {
            world.moment(20, 150).await;
            due += true_times(&world).await;
        }
        moved += move_feed(&world).await;
    }
    assert!(moved > 1 && due > 0, "{moved} moves of the feed, {due} due times seen");
    let lost = world.hosts.iter().map(|host| host.said().matches("the lease had run out").count()).sum::<usize>();
    let figures = world.rest(Resends::Suffix).await;
    assert_eq!(lost, 0, "leases were lost in {rounds} jumps");
    format!("{rounds} jumps, {lost} leases lost, {due} due times seen, none by a host's clock; {figures}")
}

/// Nothing that is stored goes by a host's clock; returns how many due times there were to look at.
async fn true_times(world: &World) -> i64 {
    // A wait that nobody limited is due in days; a retry, within milliseconds.
    let times =
        ["inbox.received_ms", "work.waiting_since_ms", "settled_range.now_ms", "host.lease_until_ms", "work.due_ms WHERE status = 4"];
    for time in times {
        let (column, condition) = time.split_once(" WHERE ").unwrap_or((time, "true"));
        let (table, column) = column.split_once('.').unwrap();
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE {condition} AND {column} IS NOT NULL
             AND abs({column} - extract(epoch FROM clock_timestamp()) * 1000) > {NEAR_MS}"
        );
        assert_eq!(world.books.count(&sql).await, 0, "{time} is by a host's clock");
    }
    world.books.count("SELECT count(*) FROM work WHERE due_ms IS NOT NULL AND status = 4").await
}

fn first_time_ms(said: &str) -> i64 {
    let first = said.split_whitespace().next().unwrap_or_default();
    first
        .parse::<jiff::Timestamp>()
        .unwrap_or_else(|error| panic!("{error}: a host's lines begin with its time: {}", tail(said)))
        .as_millisecond()
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
