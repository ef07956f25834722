//! A message that ends the process which runs it costs two hosts and is set aside; everything else goes on, and a person is told what to do.

use std::time::{Duration, Instant};

use serde_json::json;

use super::check;
use super::rig::{Rig, Running};
use super::script::{Expected, Message, Saw, Scripts};

/// What makes hosts die: the messages of these keys.
const FAULTS: &str = "guest/key:killer=abortx*;guest/key:sleeper=abortx*";
/// How long a host may take to come to such a message: it waits for the lease of the one before.
const AT_MOST: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_message_that_kills_hosts_is_set_aside_on_postgres() {
    set_aside(Rig::shared_kafka().await).await;
}

#[tokio::test]
async fn a_message_that_kills_hosts_is_set_aside_on_sqlite() {
    set_aside(Rig::files().await).await;
}

async fn set_aside(rig: Rig) {
    let mut scripts = Scripts::new(31, rig.partitions);
    // One that stands in work, and is woken by what comes later.
    let mut sleeper = scripts.put("b", "sleeper");
    let script = json!({ "table": "b", "key": "sleeper", "seq": 1, "do": "wait", "read": ["alarm"], "on": ["alarm"] });
    sleeper.captured.payload = Some(script.to_string().into());
    let waiting = Message { status: "waiting", code: None, outputs: Vec::new(), ..sleeper };
    rig.produce(std::slice::from_ref(&waiting));
    let host = rig.start();
    rig.until_done(&host, std::slice::from_ref(&waiting)).await;
    host.terminate().await;

    let killed = |message: Message| Message { status: "failed", code: Some("killed-host"), outputs: Vec::new(), ..message };
    let mut more = scripts.some(60);
    more.push(killed(scripts.put("b", "killer")));
    more.push(ringer(&mut scripts));
    more.extend(scripts.some(60));
    more.extend(scripts.rest());
    rig.produce(&more);
    for _ in 0..2 {
        dies(&rig.start_with(&[("TOLK_FAULTS", FAULTS)])).await;
    }
    let host = rig.start_with(&[("TOLK_FAULTS", FAULTS)]);
    let sent: Vec<Message> = std::iter::once(killed(waiting)).chain(more).collect();
    rig.until_done(&host, &sent).await;
    host.terminate().await;
    check::everything(&rig, &sent, &scripts.entries).await;

    let rows = rig.tolk.run(&["messages", "--code", "killed-host", "-o", "json"]).expect(0).json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2, "nobody else is accused: {rows:?}");
    for row in rows {
        let (id, reason) = (row["id"].as_str().unwrap(), row["reason"].as_str().unwrap());
        assert!(reason.contains("2 hosts died") && reason.contains(&format!("tolk retry {id}")), "{reason}");
        assert!(rig.tolk.run(&["explain", id]).expect(0).out.contains("killed-host"));
    }
    // Mended.
    let host = rig.start();
    for row in rows {
        let id = row["id"].as_str().unwrap();
        rig.tolk.run(&["retry", id, "--reason", "mended", "--wait"]).expect(0);
        host.until("the message is handled", async || {
            let status = rig.tolk.run(&["messages", "show", id, "-o", "json"]).expect(0).json()["status"]["status"].clone();
            (status == "handled", status.to_string())
        })
        .await;
    }
    host.terminate().await;
}

/// Wakes the sleeper.
fn ringer(scripts: &mut Scripts) -> Message {
    let mut message = scripts.put("a", "ringer");
    let script = json!({ "table": "a", "key": "ringer", "seq": 1, "write": [["alarm", "rings"]] });
    message.captured.payload = Some(script.to_string().into());
    scripts.entries.insert("alarm".to_owned(), "rings".to_owned());
    let output = Expected { key: "ringer".to_owned(), seq: 1, i: 0, attempt: 0, saw: Saw::Values(Vec::new()) };
    Message { outputs: vec![output], ..message }
}

async fn dies(host: &Running) {
    let began = Instant::now();
    while host.lives() {
        assert!(began.elapsed() < AT_MOST, "it lives; it said:\n{}", host.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
