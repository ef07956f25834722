//! Judges a world by everything that can be found in it, however it stands: where `World::rest` stops at the first surprise, this goes on, so
//! that a fault is known by what it does and not only by a world that comes to no rest.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use crate::check;
use crate::world::World;

/// What a world that came to no rest is said to be.
pub const STALLED: &str = "stalled";

/// What must be zero in these worlds beside the ledger: what they wait for is what is not there yet, and no lane is left in the middle.
const ALSO_ZERO: [(&str, &str); 2] = [
    (
        "messages that wait for an entry that is there",
        "SELECT count(DISTINCT (w.feed, w.lane, w.n)) FROM wait w JOIN entry e ON e.collection = 'c' AND e.value IS NOT NULL
       AND w.request LIKE '%\"' || e.key || '\"%'",
    ),
    (
        "messages that nobody has come to",
        "SELECT count(*) FROM inbox i JOIN lane l ON l.feed = i.feed AND l.lane = i.lane WHERE i.n > l.cursor",
    ),
];

/// Waits for rest, stops the hosts whether it comes or not, and looks for everything; nothing found: all is as it must be.
pub async fn findings(world: &mut World) -> Vec<String> {
    let mut findings = Vec::new();
    findings.extend(caught(world.come_to_rest()).await.map(|why| format!("{STALLED}: {why}")));
    for host in world.hosts.drain(..) {
        if findings.is_empty() {
            host.terminate().await;
        } else {
            host.kill();
        }
    }
    world.books.until_nobody_writes().await;
    findings.extend(world.books.findings().await);
    for (what, sql) in ALSO_ZERO {
        let count = world.books.count(sql).await;
        findings.extend((count != 0).then(|| format!("{what}: {count}")));
    }
    let (rig, sent) = (&world.rig, &world.sent);
    findings.extend(caught(check::statuses(rig, sent)).await);
    findings.extend(caught(check::bytes(rig, sent)).await);
    findings.extend(caught(check::stored_outputs(rig, sent)).await);
    let outs = rig.outputs();
    let mut shared = None;
    findings.extend(caught(async { shared = check::contents(rig, sent, &outs) }).await);
    findings.extend(caught(async { check::order_per_key(&outs) }).await);
    findings.extend(caught(check::entries_are(rig, &world.scripts.entries, shared)).await);
    findings
}

/// What a check panics with, its first line.
async fn caught(check: impl Future<Output = ()>) -> Option<String> {
    let panic = AssertUnwindSafe(check).catch_unwind().await.err()?;
    let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let text = text.unwrap_or_default();
    // What an assertion of equality compares comes first, what it is about stands behind.
    Some(text.lines().next().unwrap_or_default().chars().take(160).collect())
}
