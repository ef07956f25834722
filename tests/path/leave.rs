//! A host that is told to stop: what it settled is published, and another one goes on at once, long before any lease ends.

use super::check;
use super::rig::Rig;
use super::script::Scripts;

const SLICE: usize = 200;

/// Nothing that the host had under way with a store that is well has held up its end.
fn in_time(said: &str) {
    let slow = ["did not answer in time", "does not end"];
    assert!(!slow.iter().any(|words| said.contains(words)), "the host said:\n{said}");
}

#[tokio::test]
async fn a_host_that_stops_publishes_what_it_settled_and_another_goes_on_at_once() {
    let rig = Rig::shared_kafka().await;
    // So long that nothing which waits for the lease, or for the next regular claim, comes within the test's patience.
    let config = rig.tolk.read("tolk.toml");
    rig.tolk.write("tolk.toml", &config.replace("lease_ms = 2000", "lease_ms = 3600000"));
    let mut scripts = Scripts::new(23, rig.partitions);
    let mut sent = Vec::new();
    let mut host = rig.start();
    for _ in 0..3 {
        let next = rig.start();
        next.until_said(0, "joined").await;
        let slice = scripts.some(SLICE);
        rig.produce(&slice);
        sent.extend(slice);
        rig.until_ended(&host, sent.len() - SLICE * 3 / 4).await;
        in_time(&host.terminate().await);
        host = next;
    }
    let rest = scripts.rest();
    rig.produce(&rest);
    sent.extend(rest);
    rig.until_done(&host, &sent).await;
    host.terminate().await;
    check::everything(&rig, &sent, &scripts.entries).await;
}

#[tokio::test]
async fn what_the_last_moments_settle_is_published_before_the_end() {
    let rig = Rig::files().await;
    let mut scripts = Scripts::new(29, rig.partitions);
    for turn in 1..=5 {
        rig.produce(&scripts.some(SLICE));
        let host = rig.start();
        host.until_said(0, "joined").await;
        rig.until_ended(&host, turn * SLICE / 3).await;
        in_time(&host.terminate().await);
        let unpublished = rig.store.unpublished().await.unwrap();
        assert!(unpublished.iter().all(|(_, count)| *count == 0), "{unpublished:?}");
    }
}
