//! Operators' orders that race with what the host does anyway.

use std::collections::HashSet;

use crate::script::Message;
use crate::table::{Case, Experiment, experiment};
use crate::world::World;

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!("OL", short, "orders that a host learns of late, PostgreSQL", late),
        experiment!("OLs", short, "orders that a host learns of late, SQLite", late_on_sqlite),
    ]
}

/// Between the store's answer and the host, so that messages come to their ends meanwhile.
const LATE: (&str, &str) = ("TOLK_FAULTS", "read open actions/done=sleep:150x*");

async fn late(case: Case) -> String {
    on(World::shared(case.seed).await, case.full).await
}

async fn late_on_sqlite(case: Case) -> String {
    on(World::files(case.seed).await, case.full).await
}

async fn on(mut world: World, full: bool) -> String {
    world.configure("[feeds.f.tables.a]", "[feeds.f.tables.r]\n[feeds.f.tables.a]");
    world.rig.activate(&world.rig.digest.clone(), "r", "");
    world.environment.push((LATE.0.to_owned(), LATE.1.to_owned()));
    world.start(1);
    for _ in 0..if full { 20 } else { 6 } {
        let messages: Vec<Message> = (0..40).map(|number| world.echoed("r", &format!("r-{}", number % 10))).collect();
        world.send(messages);
        let of_all = ["--feed", "f", "--table", "r", "--reason", "to be late"];
        for order in [&["ignore", "--status", "pending"][..], &["replay", "--mode", "all"], &["replay", "--mode", "all"]] {
            world.rig.tolk.run(&[order, &of_all].concat());
        }
    }
    world.until_ended(world.sent.len()).await;
    world
        .until("every order is carried out", async |world| {
            let open: i64 = world.rig.store.audit(None, None, 1_000).await.unwrap().iter().map(|line| line.open).sum();
            (open == 0, format!("{open} are open"))
        })
        .await;
    world
        .until("everything is published", async |world| {
            let unpublished = world.rig.store.unpublished().await.unwrap();
            (unpublished.iter().all(|(_, count)| *count == 0), format!("{unpublished:?}"))
        })
        .await;
    for host in world.hosts.drain(..) {
        host.terminate().await;
    }
    world.books.balance().await;
    let outputs = world.rig.outputs();
    let unique: HashSet<&String> = outputs.iter().map(|output| &output.event_id).collect();
    assert_eq!(outputs.len(), unique.len(), "a run of a message happened twice");
    let spoiled = world.books.count(
        "SELECT count(*) FROM outcome o WHERE o.code = 'operator' AND EXISTS (
           SELECT 1 FROM output p WHERE p.feed = o.feed AND p.lane = o.lane AND p.n = o.n AND p.run = o.run)",
    );
    assert_eq!(spoiled.await, 0, "what was handled is shown as ignored");
    let ran = unique.len();
    format!("{} messages, {ran} outputs of their runs", world.sent.len())
}
