//! Versions of plugins that change under load, that a replica cannot load, that are rolled back with messages failed.

use std::collections::{BTreeMap, BTreeSet};

use crate::check;
use crate::guest::{self, Guest, KEY_AT};
use crate::plugins::{push, widened};
use crate::records::ends;
use crate::rig::Rig;
use crate::script::Message;
use crate::swap;
use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!("P12", long, "plugins swapped and rolled back under load, two replicas", swaps),
        experiment!("P13", short, "a replica that cannot load the active plugin", lacking),
        experiment!("P14", short, "rollback with messages that the new version failed, then retry and replay of a selection", rolled_back),
    ]
}

async fn swaps(case: Case) -> String {
    let versions = swap::under_load(&Rig::shared_kafka().await, 2, if case.full { 20 } else { 4 }).await;
    format!("{versions} versions settled messages, each message by exactly one")
}

/// Messages of several keys that any of the plugins hands on.
fn echoes(world: &mut World, prefix: &str, count: usize) {
    let messages: Vec<Message> = (0..count).map(|number| world.echoed("a", &format!("{prefix}-{}", number % 20))).collect();
    world.send(messages);
}

/// Which digests made the outputs of keys that begin so.
fn makers(world: &World, prefix: &str) -> BTreeSet<String> {
    world.rig.outputs().into_iter().filter(|out| out.key.starts_with(prefix.as_bytes())).map(|out| out.digest).collect()
}

async fn lacking(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let old = world.rig.digest.clone();
    let new = push(&world.rig, &guest::identity().component());
    // The other replica gives the new plugin less memory than it starts with.
    let config = world.rig.tolk.read("tolk.toml");
    world.rig.tolk.write("narrow.toml", &format!("{config}[limits.guest]\nmemory_bytes_max = 65536\n"));
    world.start(1);
    let narrow = world.host(&[("TOLK_CONFIG", "narrow.toml")]);
    world.hosts.push(narrow);
    echoes(&mut world, "before", 100);
    world.until_ended(100).await;
    let said = widened(&world.rig, &new, "a", "3");
    assert_ne!(said.code, 0, "one replica does not run on it: {said:?}");
    said.complains(&["unable to load"]);
    assert!(world.hosts[1].said().contains("an active plugin cannot be loaded here"), "it says so");
    echoes(&mut world, "during", 200);
    world.until_ended(300).await;
    // One that starts and knows no earlier version runs none: its messages wait.
    world.hosts.remove(1).terminate().await;
    world.hosts.remove(0).terminate().await;
    let narrow = world.host(&[("TOLK_CONFIG", "narrow.toml")]);
    world.hosts.push(narrow);
    echoes(&mut world, "waiting", 50);
    let waiting = "SELECT count(*) FROM work";
    world
        .until("they wait for the plugin", async |world| {
            let count = world.books.count(waiting).await;
            (count == 50, count.to_string())
        })
        .await;
    assert_eq!(world.rig.ended().await, 300);
    world.hosts.remove(0).terminate().await;
    world.start(1);
    // The whole one has it, and those that waited go on by it.
    let mut figures = world.rest(Resends::Suffix).await;
    let (before, during, after) = (makers(&world, "before"), makers(&world, "during"), makers(&world, "waiting"));
    let both: BTreeSet<String> = [old.clone(), new.clone()].into();
    assert_eq!((before, after), ([old].into(), [new].into()));
    assert!(during.is_subset(&both), "{during:?}");
    let kinds = during.len();
    figures = format!(
        "{kinds} versions while one replica lacked the new one, which `tolk activate` told; none where nothing could be loaded; {figures}"
    );
    figures
}

async fn rolled_back(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let old = world.rig.digest.clone();
    // The new version traps on keys that begin with p.
    let first = format!("(i32.load8_u (i32.load offset={KEY_AT} (local.get $args)))");
    let traps = format!("(if (i32.eq {first} (i32.const 112)) (then unreachable)) {}", guest::identity().translate);
    let new = push(&world.rig, &Guest::translating(traps).component());
    world.start(2);
    widened(&world.rig, &new, "a", "60").expect(0);
    let (good, bad) = if case.full { (2_000, 2_000) } else { (60, 60) };
    echoes(&mut world, "ok", good);
    echoes(&mut world, "p", bad);
    // The first of each key fails, the others stand behind it.
    let states = [("handled", good), ("failed", 20), ("behind", bad - 20)].map(|(status, count)| (status.to_owned(), count));
    let stand: BTreeMap<String, usize> = states.into();
    world
        .until("the new version fails its keys", async |world| {
            let counts = world.rig.counts().await;
            (counts == stand, format!("{counts:?}"))
        })
        .await;
    world.rig.tolk.run(&["rollback", "--feed", "f", "--table", "a", "--timeout-s", "60"]).expect(0);
    let untouched = world.rig.counts().await;
    assert_eq!(untouched, stand, "a rollback runs nothing again by itself");
    world.rig.tolk.run(&["retry", "--feed", "f", "--status", "failed", "--reason", "rolled back", "--wait"]).expect(0);
    let figures = world.rest(Resends::Suffix).await;
    assert_eq!((makers(&world, "ok"), makers(&world, "p")), ([new.clone()].into(), [old.clone()].into()));
    // A replay of some of what the new version made: those and no other, with ids of their own.
    let ids =
        |world: &World| -> BTreeMap<String, String> { world.rig.outputs().into_iter().map(|out| (out.event_id, out.digest)).collect() };
    let before = ids(&world);
    world.start(2);
    let chosen =
        ["replay", "--feed", "f", "--table", "a", "--keys", "ok-3,ok-4", "--mode", "all", "--reason", "made by the new one", "--wait"];
    world.rig.tolk.run(&chosen).expect(0);
    ends(&mut world, &BTreeMap::from([("handled".to_owned(), good + bad)])).await;
    let after = ids(&world);
    let added: Vec<&String> = after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, digest)| digest).collect();
    assert!(before.keys().all(|id| after.contains_key(id)), "nothing that was published is taken back");
    assert_eq!((added.len(), added.iter().all(|digest| **digest == old)), (2 * good / 20, true), "{added:?}");
    let again: Vec<_> = world.rig.outputs().into_iter().filter(|out| !before.contains_key(&out.event_id)).collect();
    check::order_per_key(&again);
    format!(
        "{bad} messages of 20 keys stood still under the new version and went on after the rollback; {} replayed; {figures}",
        added.len()
    )
}
