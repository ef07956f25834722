//! A hostile message costs itself: its neighbours in the lane, in the batch and in the instance are handled.

use serde_json::json;

use super::check;
use super::rig::Rig;
use super::script::{Message, Scripts};

#[tokio::test]
async fn traps_loops_and_floods_cost_one_message_each() {
    let rig = Rig::files().await;
    let mut scripts = Scripts::new(3, 1);
    let mut sent = Vec::new();
    for (word, limit, code) in [("trap", 0, "trap"), ("loop", 0, "cpu-limit"), ("put", 1_001, "output-limit"), ("again", 0, "told-to")] {
        sent.extend(scripts.some(40));
        let mut message = scripts.put("b", &format!("hostile-{word}"));
        let script = json!({ "table": "b", "key": format!("hostile-{word}"), "do": word, "outputs": limit });
        message.captured.payload = Some(script.to_string().into());
        let code = if word == "again" { "unreachable" } else { code };
        sent.push(Message { status: "failed", code: Some(code), outputs: Vec::new(), ..message });
    }
    sent.extend(scripts.some(40));
    sent.extend(scripts.rest());
    rig.produce(&sent);
    let host = rig.start();
    rig.until_done(&host, &sent).await;
    host.terminate().await;
    check::everything(&rig, &sent, &scripts.entries).await;
    for (code, used) in [("cpu-limit", "1000"), ("output-limit", "1000")] {
        let rows = rig.tolk.run(&["messages", "--code", code, "-o", "json"]).expect(0).json();
        let reason = rows[0]["reason"].as_str().unwrap();
        assert!(reason.contains(&rig.digest[..12]) && reason.contains(used), "digest, limit and used value: {reason}");
    }
}
