//! The kill loop: three replicas, a random one of them killed again and again while messages of all kinds flow, connections cut now and then.

use std::time::{Duration, Instant};

use sqlx::Row as _;

use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

/// Messages that come between two kills.
const SLICE: usize = 40;
/// Kills between two calm stretches, in which a publisher comes into its own: a takeover waits for its predecessor's last sends.
const CALM_EVERY: u64 = 100;

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!("F11", short, "kill -9 of a random one of three replicas every 0.2-0.6 s", kill_loop),
        experiment!("F11s", short, "kill -9 of the one host on SQLite, at random moments", alone),
    ]
}

async fn alone(case: Case) -> String {
    let mut world = World::files(case.seed).await;
    let kills = if case.full { 50 } else { 10 };
    world.start(1);
    for _ in 0..kills {
        world.load(SLICE);
        world.moment(200, 1_200).await;
        let host = world.hosts.remove(0);
        host.kill();
        world.start(1);
    }
    format!("{kills} kills; {}", world.rest(Resends::Suffix).await)
}

async fn kill_loop(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(3);
    let began = Instant::now();
    let mut cut = 0;
    for kill in 1..=case.kills {
        world.load(SLICE);
        if kill % CALM_EVERY == CALM_EVERY / 4 {
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
        world.moment(200, 600).await;
        let victim = world.dice.below(3) as usize;
        let host = world.host(&[]);
        std::mem::replace(&mut world.hosts[victim], host).kill();
        if world.dice.below(5) == 0 {
            cut += cut_connections(&world).await;
        }
    }
    let rate = world.sent.len() as f64 / began.elapsed().as_secs_f64();
    let ended = world.rig.ended().await;
    let share = 100 * ended / world.sent.len();
    let figures = world.rest(Resends::Suffix).await;
    // No error in n trials: with 95 % the rate is below 3/n.
    let bound = 300.0 / case.kills as f64;
    let kills = case.kills;
    format!(
        "{kills} kills, {cut} connections cut, 0 lost, doubled or out of order: below {bound:.2} % a kill (95 %); {figures}; {rate:.0} messages/s, {share} % done before the last kill"
    )
}

/// Ends all connections of the world's hosts.
pub async fn cut_connections(world: &World) -> i64 {
    let sql = "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a JOIN host h ON a.application_name = 'tolk/' || h.id";
    sqlx::query(sql).fetch_one(&mut world.books.connect().await).await.unwrap().get(0)
}
