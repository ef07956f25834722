//! Messages go with their time while others flow: what failed is kept, is retried when everything around it is gone, and comes out.

use std::collections::BTreeMap;

use super::check;
use super::rig::{Rig, Running};
use super::script::{Message, Scripts};

const SLICE: usize = 150;
/// Two seconds, in parts of half a second.
const RETENTION: &str = "[retention]\npayload_days = 0.00002\noutputs_days = 0.00002\nstatuses_days = {}\nevery_ms = 100\n";

/// Messages that came in.
async fn taken(rig: &Rig) -> usize {
    let ledger = rig.store.ledger().await.unwrap();
    usize::try_from(ledger.iter().find(|equation| equation.name == "lane-rows").unwrap().left).unwrap()
}

/// Messages that came in and are not there any more: at least so many.
async fn dropped(rig: &Rig) -> usize {
    // Counted last: what comes in meanwhile is not taken for what has gone.
    let taken = taken(rig).await;
    taken.saturating_sub(rig.counts().await.values().sum())
}

async fn balances(rig: &Rig) {
    let broken: Vec<_> = rig.store.ledger().await.unwrap().into_iter().filter(|equation| !equation.holds()).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

/// Waits until nothing is under way: what is left stands still, and all outputs are published.
async fn until_rest(rig: &Rig, host: &Running, sent: usize) {
    host.until("rest", async || {
        let (taken, counts, unpublished) = (taken(rig).await, rig.counts().await, rig.store.unpublished().await.unwrap());
        let moving = ["pending", "retry", "waiting"].iter().any(|status| counts.contains_key(*status));
        (taken == sent && !moving && unpublished.iter().all(|(_, count)| *count == 0), format!("{counts:?}, unpublished {unpublished:?}"))
    })
    .await;
}

async fn goes_with_its_time(rig: Rig) {
    let config = rig.tolk.read("tolk.toml");
    rig.tolk.write("tolk.toml", &format!("{config}{RETENTION}"));
    let mut scripts = Scripts::new(37, rig.partitions);
    let host = rig.start();
    let mut sent: Vec<Message> = (0..5).map(|i| scripts.healable("a", &format!("ill-{i}"), "cure")).collect();
    rig.produce(&sent);
    let first = sent[0].captured.offset;
    // Under load, until several parts are gone.
    while dropped(&rig).await < 3 * SLICE {
        let slice = scripts.some(SLICE);
        rig.produce(&slice);
        sent.extend(slice);
        host.until("an end of most", async || {
            let (taken, counts) = (taken(&rig).await, rig.counts().await);
            let open: usize = ["pending", "waiting", "retry"].iter().filter_map(|status| counts.get(*status)).sum();
            (taken == sent.len() && open < SLICE / 2, format!("{taken} taken, {counts:?}"))
        })
        .await;
        assert!(sent.len() < 100 * SLICE, "nothing is dropped; the host said:\n{}", host.said());
    }
    balances(&rig).await;
    let failed: BTreeMap<String, usize> = rig.counts().await;
    assert!(failed["failed"] >= 5, "{failed:?}");
    let rest = scripts.rest();
    rig.produce(&rest);
    sent.extend(rest);
    let cure = scripts.heals("cure");
    rig.produce(std::slice::from_ref(&cure));
    sent.push(cure);
    until_rest(&rig, &host, sent.len()).await;
    let retry =
        ["retry", "--feed", "f", "--code", "told-to", "--status", "failed", "--reason", "it is healed", "--wait", "--timeout-s", "200"];
    rig.tolk.run(&retry).expect(0);
    until_rest(&rig, &host, sent.len()).await;
    // The healed ones go with their time too, and then a question for one of them has a clear answer.
    let place = format!("f/{}/{first}", sent[0].captured.partition);
    host.until("the healed to be dropped", async || {
        let found = rig.tolk.run(&["messages", "show", &place]);
        (found.code != 0, found.out.clone())
    })
    .await;
    let said = rig.tolk.run(&["messages", "show", &place]).expect(1);
    assert!(said.err.contains("are dropped"), "{}", said.err);
    host.terminate().await;
    balances(&rig).await;
    check::what_came_out(&rig, &sent, &scripts.entries).await;
    check::resent_only_as_a_suffix(&rig.outputs());
    check::order_per_key(&rig.outputs());
}

#[tokio::test]
async fn messages_go_with_their_time_in_postgres() {
    goes_with_its_time(Rig::shared_kafka().await).await;
}

#[tokio::test]
async fn messages_go_with_their_time_in_a_file() {
    goes_with_its_time(Rig::files().await).await;
}
