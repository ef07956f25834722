//! A message that always fails, and very many behind it; and very many that run again beside those of now.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::check;
use crate::records::ends;
use crate::script::Message;
use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!("P01 P02", alone, "very many messages behind a poisoned key, then its release", behind_poison),
        experiment!("R01", alone, "a replay of very many messages under live load", replay_under_load),
    ]
}

async fn behind_poison(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(1);
    world.load(100);
    world.until_ended(40).await;
    let (count, pieces) = if case.full { (20_000, 20) } else { (2_000, 3) };
    let before = rate(&mut world, pieces).await;
    // No retry helps it: it fails for good, and what comes behind must wait for a person.
    let poison = world.scripts.ended("b", "poison", "fail", "failed");
    let at = world.sent.len();
    world.send(vec![poison]);
    for _ in 0..count / 500 {
        let behind: Vec<Message> = (0..500).map(|_| world.scripts.put("b", "poison")).collect();
        world.send(behind);
    }
    let sql =
        "SELECT count(*) FROM work w JOIN work p USING (feed, lane, key_hash) WHERE p.status = 6 AND p.code = 'told-to' AND w.status = 8";
    let parked = i64::from(count);
    world
        .until("all stand behind the poison", async |world| {
            let behind = world.books.count(sql).await;
            (behind == parked, behind.to_string())
        })
        .await;
    let during = rate(&mut world, pieces).await;
    assert!(during > before * 0.5, "other keys: {before:.0} messages/s before, {during:.0} with {count} behind a poisoned key");
    // A person lets the key go on without it.
    let began = Instant::now();
    world.rig.tolk.run(&["ignore", "--feed", "f", "--key", "poison", "--status", "failed", "--reason", "it is poison", "--wait"]).expect(0);
    world.sent[at] = Message { status: "ignored", code: None, ..world.sent[at].clone() };
    world
        .until("the key is empty", async |world| {
            let left = world.books.count(sql).await;
            let waits =
                world.books.count("SELECT count(*) FROM work w JOIN inbox i USING (feed, lane, n) WHERE i.ordering_key = 'poison'").await;
            (left + waits == 0, waits.to_string())
        })
        .await;
    let drained = began.elapsed();
    let figures = world.rest(Resends::Suffix).await;
    format!(
        "other keys {before:.0} messages/s before, {during:.0} with {count} parked; drained in order in {drained:.1?} after the release; {figures}"
    )
}

/// Messages a second that come to their ends, over so many pieces of a plain load.
async fn rate(world: &mut World, pieces: usize) -> f64 {
    let mut took = Duration::ZERO;
    for _ in 0..pieces {
        took += world.plain(300).await;
    }
    (pieces * 300) as f64 / took.as_secs_f64()
}

async fn replay_under_load(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let (count, pieces) = if case.full { (20_000, 20) } else { (800, 3) };
    world.configure("[feeds.f.tables.a]", "[feeds.f.tables.r]\n[feeds.f.tables.a]");
    world.rig.activate(&world.rig.digest.clone(), "r", "");
    world.start(2);
    let mut old = Vec::new();
    for piece in 0..count / 200 {
        let messages: Vec<Message> = (0..200).map(|number| world.echoed("r", &format!("r-{}", (piece + number) % 40))).collect();
        old.extend(messages.clone());
        world.send(messages);
    }
    world.until_ended(count).await;
    let before = slowest(&mut world, pieces).await;
    let order = ["replay", "--feed", "f", "--table", "r", "--mode", "all", "--reason", "all of it again", "-o", "json"];
    let began = Instant::now();
    world.rig.tolk.run(&order).expect(0);
    let during = slowest(&mut world, pieces).await;
    let open = "SELECT count(*) FROM action_each WHERE result IS NULL";
    let beside = world.books.count(open).await;
    world
        .until("the replay is done", async |world| {
            let left = world.books.count(open).await;
            (left == 0, left.to_string())
        })
        .await;
    let took = began.elapsed();
    let rest = world.scripts.rest();
    world.send(rest);
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for message in &world.sent {
        *expected.entry(message.status.to_owned()).or_default() += 1;
    }
    ends(&mut world, &expected).await;
    world.books.balance().await;
    // Each output of then is there, each of the run again once and in the order of its key, and no other.
    let mut wanted: HashMap<String, bool> = HashMap::new();
    for message in &world.sent {
        wanted.extend(message.outputs.iter().map(|output| (world.rig.event_id(message, output.i), false)));
    }
    wanted.extend(old.iter().map(|message| (world.rig.event_id_of(message, 1, 0), true)));
    let outs = world.rig.outputs();
    let (mut again, mut then) = (Vec::new(), Vec::new());
    for out in outs {
        match wanted.get(&out.event_id) {
            Some(true) => again.push(out),
            Some(false) => then.push(out),
            None => panic!("nobody asked for {out:?}"),
        }
    }
    let unique: std::collections::HashSet<&String> = again.iter().chain(&then).map(|out| &out.event_id).collect();
    assert_eq!(unique.len(), wanted.len(), "outputs are missing");
    check::order_per_key(&again);
    check::order_per_key(&then);
    format!(
        "{count} messages ran again in {took:.1?}, {beside} of them after the live load; 300 live messages in at most {before:.1?} before, {during:.1?} beside them"
    )
}

/// The longest time that a piece of the load took to its ends.
async fn slowest(world: &mut World, pieces: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..pieces {
        slowest = slowest.max(world.plain(300).await);
    }
    slowest
}
