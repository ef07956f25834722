//! The quiet case: thousands of messages, several tables in one topic, odd ones among them; every one gets its end, every output is there once.

use super::check;
use super::rig::Rig;
use super::script::Scripts;

const MESSAGES: usize = 2_500;
/// What the input topic takes is a little more.
const LARGE_BYTES: usize = 10 << 20;
/// More than the output topic takes.
const TOO_LARGE_BYTES: usize = 1_200_000;

#[tokio::test]
async fn what_is_produced_is_translated_once_and_comes_out_in_order() {
    let rig = Rig::shared_kafka().await;
    let mut scripts = Scripts::new(1, rig.partitions);
    let mut sent = scripts.some(MESSAGES / 2);
    sent.extend(scripts.odd());
    sent.push(scripts.large(LARGE_BYTES));
    sent.push(scripts.refused(TOO_LARGE_BYTES));
    sent.extend(scripts.some(MESSAGES / 2));
    sent.extend(scripts.odd());
    sent.extend(scripts.rest());
    rig.produce(&sent);
    let host = rig.start();
    rig.until_done(&host, &sent).await;
    host.terminate().await;

    check::everything(&rig, &sent, &scripts.entries).await;
    for status in ["invalid", "failed", "behind"] {
        check::capture(&rig, &sent, status);
    }
    let outs = rig.outputs();
    assert_eq!(outs.len(), sent.iter().map(|message| message.outputs.len()).sum::<usize>(), "without trouble nothing is sent twice");
    for out in &outs {
        assert_eq!(out.digest, rig.digest);
    }
    explained(&rig);
}

/// What a person is told of the odd ones.
fn explained(rig: &Rig) {
    for (code, words) in [
        ("broken-json", "the payload is no JSON"),
        ("no-table", "a tombstone has no payload"),
        ("no-key", "/key"),
        ("unknown-table", "tolk activate"),
        ("trap", &rig.digest[..12]),
        ("parked-output", "too large"),
    ] {
        let rows = rig.tolk.run(&["messages", "--code", code, "--limit", "1000", "-o", "json"]).expect(0).json();
        let reasons: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap()).collect();
        let told = reasons.iter().any(|reason| reason.to_lowercase().contains(&words.to_lowercase()));
        assert!(told, "{code} should say {words:?}: {:?}", reasons.first());
    }
}
