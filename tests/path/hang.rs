//! Two hosts share one database; now one, now the other hangs for longer than its lease and comes back to find its work taken over.

use super::check;
use super::rig::Rig;
use super::script::Scripts;

const SLICE: usize = 200;

#[tokio::test]
async fn a_host_that_hangs_is_taken_over_and_harms_nothing_when_it_comes_back() {
    let rig = Rig::shared_kafka().await;
    let mut scripts = Scripts::new(17, rig.partitions);
    let hosts = [rig.start(), rig.start()];
    let mut sent = Vec::new();
    for turn in 0..4 {
        let (hung, other) = (&hosts[turn % 2], &hosts[(turn + 1) % 2]);
        let mut slice = scripts.some(SLICE);
        slice.extend(scripts.rest());
        rig.produce(&slice);
        sent.extend(slice);
        rig.until_ended(other, sent.len() - SLICE * 3 / 4).await;
        let from = hung.said().len();
        hung.signal("STOP");
        // Whatever it had in hand, the other one brings it to its end and publishes it.
        rig.until_done(other, &sent).await;
        hung.signal("CONT");
        hung.until_said(from, "joined").await;
    }
    for host in hosts {
        host.terminate().await;
    }
    // What a hung publisher had begun to send may come out late, so the topic may hold more than a suffix again; a consumer that drops
    // what it has seen sees the same.
    check::all_but_resends(&rig, &sent, &scripts.entries).await;
}
