//! Whole hosts in trouble: stopped and let go again, out of memory, replaced every few seconds, stopped gracefully under load.

use std::time::Duration;

use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

pub fn all() -> Vec<Experiment> {
    vec![experiment!("F12", short, "SIGSTOP of a replica for 3 leases, then SIGCONT: a zombie", zombie)]
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
