//! The database and the broker in trouble: restarted, full, locked, with a transaction that never ends, cut off, gone for a while.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use crate::kafka::Kafka;
use crate::kills::cut_connections;
use crate::services::Service;
use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!("F14", short, "PostgreSQL restarted: fast, immediate, kill -9", restarts),
        experiment!("F16", short, "pg_terminate_backend of all connections, 5 times a second", terminations),
        experiment!("F17", long, "every connection of the server taken by others", no_connections),
        experiment!("F20", long, "LOCK TABLE work held by somebody", locked),
        experiment!("F21", long, "a transaction that stays open: old row versions stay", pinned),
        experiment!("F24", long, "the broker killed and away", broker),
    ]
}

/// What is kept of a service must outlive the world, whose rig writes its address.
async fn own_postgres(seed: u64) -> (Service, World) {
    let service = Service::start("postgres");
    let world = World::between(&service.lines[0].clone(), Kafka::shared(), seed).await;
    (service, world)
}

async fn restarts(case: Case) -> String {
    let (mut service, mut world) = own_postgres(case.seed).await;
    world.start(2);
    let folder = service.lines[0].split("host=").nth(1).unwrap().to_owned();
    let mut slowest = Duration::ZERO;
    for how in ["INT", "QUIT", "KILL", "INT"] {
        world.load(200);
        let some = world.sent.len() - 150;
        world.until_ended(some).await;
        // The first line of the file is the server's process.
        let file = std::fs::read_to_string(format!("{folder}/data/postmaster.pid")).unwrap();
        let process = file.lines().next().unwrap();
        assert!(std::process::Command::new("kill").args([&format!("-{how}"), process]).status().unwrap().success());
        while std::path::Path::new(&format!("/proc/{process}/stat")).exists() && !is_zombie(process) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        service.kill();
        service.restart();
        let began = Instant::now();
        let ended = world.rig.ended().await;
        world.load(50);
        world.until_ended(ended + 10).await;
        slowest = slowest.max(began.elapsed());
    }
    let figures = world.rest(Resends::Suffix).await;
    drop(world);
    format!("4 restarts, at most {slowest:.1?} until messages end again; {figures}")
}

fn is_zombie(process: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

async fn terminations(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(2);
    world.load(100);
    world.until_ended(30).await;
    let (mut rounds, mut cut) = (0, 0);
    let until = Instant::now() + Duration::from_secs(if case.full { 60 } else { 6 });
    while Instant::now() < until {
        if rounds % 5 == 0 {
            world.load(60);
        }
        cut += cut_connections(&world).await;
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    format!("{cut} connections in {rounds} rounds; {}", world.rest(Resends::Suffix).await)
}

async fn no_connections(case: Case) -> String {
    let (service, mut world) = own_postgres(case.seed).await;
    world.start(2);
    world.load(200);
    world.until_ended(50).await;
    // The superuser's reserve too: the server turns everybody away.
    let mut held = Vec::new();
    cut_connections(&world).await;
    while let Ok(connection) = PgConnection::connect(&service.lines[0]).await {
        held.push(connection);
        if held.len() % 40 == 0 {
            // What the hosts have got again meanwhile is taken from them.
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'tolk/%'";
            sqlx::query(sql).execute(held.last_mut().unwrap()).await.unwrap();
        }
    }
    let count = held.len();
    world.load(200);
    tokio::time::sleep(Duration::from_secs(if case.full { 20 } else { 4 })).await;
    drop(held);
    let figures = world.rest(Resends::Suffix).await;
    drop(world);
    format!("{count} connections held; {figures}")
}

async fn locked(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(2);
    world.load(200);
    world.until_ended(50).await;
    let seconds = if case.full { 30 } else { 5 };
    let mut other = world.books.connect().await;
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE work IN ACCESS EXCLUSIVE MODE").execute(&mut *transaction).await.unwrap();
    world.load(200);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    transaction.rollback().await.unwrap();
    let living = world.hosts.iter().filter(|host| host.lives()).count();
    assert_eq!(living, 2, "hosts wait for a lock and do not die of it");
    format!("locked for {seconds} s; {}", world.rest(Resends::Any).await)
}

async fn pinned(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(1);
    world.load(50);
    world.until_ended(10).await;
    let pieces = if case.full { 20 } else { 3 };
    let before = rate(&mut world, pieces).await;
    let mut other = world.books.connect().await;
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("SELECT txid_current()").execute(&mut *transaction).await.unwrap();
    let during = rate(&mut world, pieces).await;
    let dead =
        world.books.count("SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = current_schema()").await;
    transaction.rollback().await.unwrap();
    let figures = world.rest(Resends::Suffix).await;
    format!("{before:.0} messages/s before, {during:.0} with it, {dead} dead row versions; {figures}")
}

/// Messages a second that come to their ends, over so many pieces of the load.
async fn rate(world: &mut World, pieces: usize) -> f64 {
    let (began, from) = (Instant::now(), world.rig.ended().await);
    for _ in 0..pieces {
        world.load(300);
        let most = world.sent.len() * 9 / 10;
        world.until_ended(most).await;
    }
    (world.rig.ended().await - from) as f64 / began.elapsed().as_secs_f64()
}

async fn broker(case: Case) -> String {
    let mut service = Service::start("kafka");
    let kafka = Kafka { brokers: service.lines[0].clone() };
    let mut world = World::between(crate::services::postgres_url(), kafka, case.seed).await;
    world.start(2);
    let away = if case.full { [0, 60] } else { [0, 4] };
    for seconds in away {
        world.load(200);
        let some = world.sent.len() - 150;
        world.until_ended(some).await;
        service.kill();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        service.restart();
    }
    let figures = world.rest(Resends::Any).await;
    drop(world);
    format!("{} kills, the longest away {} s; {figures}", away.len(), away[1])
}
