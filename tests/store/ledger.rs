//! Cases of the ledger: it balances whatever became of messages, and each kind of damage is found by its equation.

use tolk::message::Status;
use tolk::store::{OutputCursor, Range, Settled, Settlement, Verdict};

use super::rig::{Owner, Rig, START_MS, done, end, entry, output, stays, waits};

/// Lane 0: one handled with two outputs, one ignored, one waiting, one in retry, one failed with one behind it, one not looked at.
async fn all_kinds(rig: &Rig) -> Owner {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "d", "e", "e", "f"]).await;
    let outputs = vec![output("a", "k", "1"), output("a", "k", "2")];
    let settled = vec![
        Settled { outputs, ..done(&messages[0]) },
        Settled { end: Some(end(Status::Ignored, None)), ..done(&messages[1]) },
        waits(&messages[2], &[entry("c", "never")], 0),
        stays(&messages[3], Status::Retry, true, Some(START_MS + 99)),
        stays(&messages[4], Status::Failed, true, None),
        stays(&messages[5], Status::Behind, true, None),
    ];
    let range = Range { feed: owner.feed, lane: 0, from: 1, to: 1, now_ms: START_MS, activations: Vec::new() };
    let settlement = Settlement { ranges: vec![range], ..owner.settlement(settled) };
    let verdict = owner.store.settle(&owner.host, owner.next_batch(), &settlement).await.unwrap();
    assert!(matches!(verdict, Verdict::Committed { .. }), "{verdict:?}");
    assert!(owner.store.published("a", owner.target_epoch("a"), OutputCursor { settlement: 1, index: 0 }, &[]).await.unwrap());
    owner
}

async fn broken(rig: &Rig) -> Vec<String> {
    let equations = rig.store.ledger().await.unwrap();
    assert!(equations.len() >= 15);
    let broken = equations.into_iter().filter(|equation| !equation.holds());
    broken.map(|equation| format!("{}: {} {} {:?}", equation.name, equation.left, equation.right, equation.sample)).collect()
}

pub async fn a_store_of_all_kinds_balances(rig: Rig) {
    assert_eq!(broken(&rig).await, Vec::<String>::new(), "an empty store");
    all_kinds(&rig).await;
    assert_eq!(broken(&rig).await, Vec::<String>::new());
    let equations = rig.store.ledger().await.unwrap();
    let of = |name: &str| equations.iter().find(|equation| equation.name == name).map(|equation| (equation.left, equation.right));
    assert_eq!((of("lane-rows"), of("passed")), (Some((7, 7)), Some((6, 6))));
}

/// An equation, a damage that it finds, and what undoes it.
const DAMAGES: &[(&str, &str, &str)] = &[
    (
        "lane-rows",
        "UPDATE {schema}lane_tail SET tail = tail + 1 WHERE lane = 0",
        "UPDATE {schema}lane_tail SET tail = tail - 1 WHERE lane = 0",
    ),
    ("lane-rows", "UPDATE {schema}inbox SET n = 99 WHERE n = 7", "UPDATE {schema}inbox SET n = 7 WHERE n = 99"),
    (
        "positions",
        "UPDATE {schema}source_position SET next_offset = next_offset - 1",
        "UPDATE {schema}source_position SET next_offset = next_offset + 1",
    ),
    ("read-once", "UPDATE {schema}inbox SET source_offset = 0 WHERE n = 2", "UPDATE {schema}inbox SET source_offset = 1 WHERE n = 2"),
    ("passed", "UPDATE {schema}outcome SET run = 7", "UPDATE {schema}outcome SET run = 0"),
    ("passed", "UPDATE {schema}settled_range SET from_n = 0, to_n = 0", "UPDATE {schema}settled_range SET from_n = 1, to_n = 1"),
    (
        "ranges",
        "INSERT INTO {schema}settled_range (feed, lane, to_n, settlement, from_n, now_ms, activations) SELECT feed, lane, 1, 99, 1, 0, '{}' FROM {schema}lane WHERE lane = 0",
        "DELETE FROM {schema}settled_range WHERE settlement = 99",
    ),
    ("one-end", "UPDATE {schema}outcome SET n = 3", "UPDATE {schema}outcome SET n = 2"),
    ("cursors", "UPDATE {schema}lane SET cursor = 100 WHERE lane = 1", "UPDATE {schema}lane SET cursor = 0 WHERE lane = 1"),
    ("work-messages", "UPDATE {schema}inbox SET n = 99 WHERE n = 3", "UPDATE {schema}inbox SET n = 3 WHERE n = 99"),
    ("outputs-once", "UPDATE {schema}output SET ordinal = 0", "UPDATE {schema}output SET ordinal = position"),
    ("outputs-settled", "UPDATE {schema}output SET batch = -batch", "UPDATE {schema}output SET batch = -batch"),
    ("settlements", "UPDATE {schema}settlement_guard SET number = number + 1", "UPDATE {schema}settlement_guard SET number = number - 1"),
    ("reasons", "UPDATE {schema}work SET code = '' WHERE status = 6", "UPDATE {schema}work SET code = 'x' WHERE status = 6"),
    ("behind", "UPDATE {schema}work SET blocks = false WHERE status = 6", "UPDATE {schema}work SET blocks = true WHERE status = 6"),
    ("waits", "UPDATE {schema}work SET due_ms = NULL WHERE status = 3", "UPDATE {schema}work SET due_ms = 5 WHERE status = 3"),
    ("waits", "UPDATE {schema}wait SET n = 5", "UPDATE {schema}wait SET n = 3"),
    ("retries", "UPDATE {schema}work SET due_ms = NULL WHERE status = 4", "UPDATE {schema}work SET due_ms = 5 WHERE status = 4"),
    (
        "publish-cursors",
        "UPDATE {schema}target_cursor SET settlement = settlement + 100",
        "UPDATE {schema}target_cursor SET settlement = settlement - 100",
    ),
];

pub async fn each_damage_is_found(rig: Rig) {
    all_kinds(&rig).await;
    for (name, damage, undo) in DAMAGES {
        rig.execute(damage).await;
        let found = broken(&rig).await;
        assert!(
            found.iter().any(|line| line.starts_with(&format!("{name}: ")) && !line.ends_with("None")),
            "{name} finds {damage}: {found:?}"
        );
        rig.execute(undo).await;
        assert_eq!(broken(&rig).await, Vec::<String>::new(), "after {undo}");
    }
    let named: std::collections::BTreeSet<&str> = DAMAGES.iter().map(|(name, ..)| *name).collect();
    let all = rig.store.ledger().await.unwrap();
    let untried: Vec<_> = all.iter().map(|equation| equation.name).filter(|name| !named.contains(name)).collect();
    assert_eq!(untried, ["leases"], "every equation has a damage that it finds");
    rig.execute("DELETE FROM {schema}host").await;
    assert!(broken(&rig).await.iter().any(|line| line.starts_with("leases: ")), "what a host that is gone owns is found");
}
