//! Plugins are swapped while messages flow: each message is settled by exactly one of them, and what came after a swap by none before it.

use std::collections::HashMap;

use super::check;
use super::rig::Rig;
use super::script::{Message, Scripts};
use crate::support::guests;

const SWAPS: usize = 6;
const SLICE: usize = 300;

#[tokio::test]
async fn each_message_is_settled_by_one_version_and_none_waits_for_a_restart() {
    under_load(&Rig::shared_kafka().await, 1, SWAPS).await;
}

/// Swaps so often under so many replicas; returns how many versions have settled messages.
pub(super) async fn under_load(rig: &Rig, replicas: usize, swaps: usize) -> usize {
    let digests = [rig.digest.clone(), pushed_twin(rig)];
    let mut scripts = Scripts::new(7, rig.partitions);
    rig.activate(&digests[0], "*", "v0");
    let mut hosts: Vec<_> = (0..replicas).map(|_| rig.start()).collect();
    // Messages with the first version that they may meet and the last.
    let (mut sent, mut slices): (Vec<Message>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
    for version in 1..=swaps {
        let slice = scripts.some(SLICE);
        rig.produce(&slice);
        slices.push((version - 1, slice.len()));
        sent.extend(slice);
        // Some of them are through, others under way.
        rig.until_ended(&hosts[0], sent.len() - SLICE * 3 / 4).await;
        for table in super::script::TABLES {
            rig.activate(&digests[version % 2], table, &format!("v{version}"));
        }
    }
    rollback(rig);
    let mut rest = scripts.some(SLICE);
    rest.extend(scripts.rest());
    rig.produce(&rest);
    sent.extend(rest.clone());
    rig.until_done(&hosts[0], &sent).await;
    for host in hosts.drain(..) {
        host.terminate().await;
    }
    check::everything(rig, &sent, &scripts.entries).await;

    let mut by: HashMap<String, (usize, String)> = HashMap::new();
    for out in rig.outputs() {
        let version = out.payload["by"].as_str().unwrap().trim_start_matches('v').parse().unwrap_or(0);
        by.insert(out.event_id, (version, out.digest));
    }
    let firsts = slices.iter().flat_map(|(first, count)| std::iter::repeat_n((*first, swaps), *count));
    // What came after the rollback knows only the version before the last; what waited until then may have met it too.
    let firsts = firsts.chain(std::iter::repeat_n((swaps - 1, swaps - 1), rest.len()));
    for (message, (first, last)) in sent.iter().zip(firsts) {
        let mut made = message.outputs.iter().map(|output| &by[&rig.event_id(message, output.i)]);
        let Some(one) = made.next() else { continue };
        assert!(made.all(|other| other == one), "two versions settled one message");
        let (version, digest) = one;
        assert!((first..=last).contains(version), "a message of versions {first} to {last} was settled by {version}");
        assert_eq!(digest, &digests[version % 2], "version {version}");
    }
    let versions: std::collections::BTreeSet<usize> = by.values().map(|(version, _)| *version).collect();
    assert!(versions.len() > swaps / 2, "the swaps came while messages flowed: {versions:?}");
    versions.len()
}

/// The same translator as another component: a custom section of its own is part of the bytes and means nothing.
fn pushed_twin(rig: &Rig) -> String {
    let mut bytes = guests::component("tests/guests/scripted");
    bytes.extend(b"\x00\x05\x04twin");
    std::fs::write(rig.tolk.path("twin.wasm"), bytes).unwrap();
    let said = rig.tolk.run(&["push", "twin.wasm"]).expect(0);
    said.out.split_whitespace().next().unwrap().to_owned()
}

fn rollback(rig: &Rig) {
    for table in super::script::TABLES {
        rig.tolk.run(&["rollback", "--feed", "f", "--table", table, "--timeout-s", "200"]).expect(0);
    }
}
