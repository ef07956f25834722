//! What operators order over HTTP, and what readers may not.

use reqwest::Method;
use serde_json::{Value, json};
use tolk::plugin::Digest;

use super::rig::{Answer, Rig};

/// A rig with an operator's and a reader's token.
async fn guarded(scripts: &[Value]) -> (Rig, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = |name: &str, role: &str, token: &str| format!("{name} {role} {}\n", Digest::of(token.as_bytes()));
    std::fs::write(file.path(), line("kari", "operator", "act") + &line("bot", "reader", "look")).unwrap();
    let admin = format!("listen = \"127.0.0.1:0\"\ntokens_file = \"{}\"", file.path().display());
    (Rig::running(&admin, scripts).await, file)
}

async fn post(rig: &Rig, path: &str, token: &str, body: &Value) -> Answer {
    rig.send(Method::POST, path, Some(token), &[], Some(body)).await
}

#[tokio::test]
async fn orders_need_the_role_a_reason_and_somebody_they_are_about() {
    let (rig, _file) = guarded(&[json!({ "key": "a", "do": "fail" })]).await;
    let rows = rig.until_statuses(Some("look"), &["failed"]).await;
    let id = rows[0]["id"].as_str().unwrap();
    let order = json!({ "kind": "ignore", "why": "it is old", "messages": [id] });
    post(&rig, "/api/v1/actions", "look", &order).await.expect(403);
    rig.send(Method::POST, "/api/v1/actions", None, &[], Some(&order)).await.expect(401);
    for (path, body) in [("/api/v1/pause", json!({ "feed": "f", "why": "x" })), ("/api/v1/resume", json!({ "feed": "f" }))] {
        post(&rig, path, "look", &body).await.expect(403);
    }
    for (body, place) in [
        (json!({ "kind": "explode", "why": "x", "messages": [id] }), "kind"),
        (json!({ "kind": "revisit", "why": "x", "messages": [id] }), "kind"),
        (json!({ "kind": "retry", "why": " ", "messages": [id] }), "why"),
        (json!({ "kind": "retry", "why": "x" }), "messages"),
        (json!({ "kind": "retry", "why": "x", "messages": [id], "filter": { "feed": "f" } }), "messages"),
        (json!({ "kind": "retry", "why": "x", "filter": {} }), "filter"),
        (json!({ "kind": "retry", "why": "x", "filter": { "status": "fialed" } }), "status"),
        (json!({ "kind": "retry", "why": "x", "filter": { "delivery": "f" } }), "delivery"),
        (json!({ "kind": "retry", "why": "x", "messages": [id], "plugin": "0".repeat(64) }), "plugin"),
        (json!({ "kind": "replay", "why": "x", "messages": [id], "plugin": "0".repeat(64) }), "plugin"),
        (json!({ "kind": "replay", "why": "x", "filter": { "feed": "f", "table": "t" }, "plugin": "zz" }), "plugin"),
        (json!({ "kind": "replay", "why": "x", "filter": { "feed": "f", "table": "t" }, "plugin": "0".repeat(64) }), "plugin"),
        (json!({ "kind": "retry", "why": "x", "messages": [id], "by": "ola" }), "by"),
        (json!({ "kind": "retry", "why": "x", "messages": [id], "wait_ms": 1_000_000 }), "wait_ms"),
    ] {
        let answer = post(&rig, "/api/v1/actions", "act", &body).await.expect(400);
        assert_eq!(answer.json()["where"], place, "{body}: {answer:?}");
    }
    let answer = post(&rig, "/api/v1/actions", "act", &json!({ "kind": "retry", "why": "x", "sure": true })).await;
    assert!(answer.status.is_client_error() && answer.text.contains("sure"), "{answer:?}");
    let large = json!({ "kind": "retry", "why": "x".repeat(5 << 20), "messages": [id] });
    post(&rig, "/api/v1/actions", "act", &large).await.expect(413);
    assert_eq!(rig.get("/api/v1/commands", Some("look")).await.expect(200).json()["items"], json!([]), "nothing of this was ordered");
    rig.stop().await;
}

#[tokio::test]
async fn an_order_is_done_by_the_owner_and_stays_in_the_audit_trail() {
    let (rig, _file) = guarded(&[json!({ "key": "a", "do": "fail" }), json!({ "key": "a" })]).await;
    let rows = rig.until_statuses(Some("look"), &["failed", "behind"]).await;
    let id = rows[0]["id"].as_str().unwrap();
    let nobody = "8c5b3f5e-6d5c-5f6b-9c1b-0123456789ab";
    let order = json!({ "kind": "ignore", "why": "it is old", "messages": [id, nobody], "wait_ms": 50_000 });
    let ordered = post(&rig, "/api/v1/actions", "act", &order).await.expect(202).json();
    assert_eq!((&ordered["messages"], &ordered["missing"]), (&json!(1), &json!([nobody])), "{ordered}");
    let action = &ordered["actions"][0];
    assert_eq!((&action["message"], &action["result"], &action["became"]), (&json!(id), &json!("applied"), &json!("ignored")), "{ordered}");
    rig.until_statuses(Some("look"), &["ignored", "handled"]).await;
    let trail = rig.get(&format!("/api/v1/commands?message={id}"), Some("look")).await.expect(200).json();
    let line = &trail["items"][0];
    assert_eq!(
        (&line["by"], &line["why"], &line["kind"], &line["open"]),
        (&json!("kari"), &json!("it is old"), &json!("ignore"), &json!(0))
    );
    let one = rig.get(&format!("/api/v1/commands/{}", line["id"].as_str().unwrap()), Some("look")).await.expect(200).json();
    assert_eq!(one["actions"][0]["result"], "applied");
    rig.get(&format!("/api/v1/commands/{nobody}"), Some("look")).await.expect(404);
    let again = json!({ "kind": "replay", "why": "once more", "filter": { "key": "a" }, "pick": "newest", "wait_ms": 50_000 });
    let ordered = post(&rig, "/api/v1/actions", "act", &again).await.expect(202).json();
    assert_eq!((&ordered["messages"], &ordered["actions"][0]["result"]), (&json!(1), &json!("applied")), "{ordered}");
    let active = rig.get("/api/v1/plugins/active", Some("look")).await.expect(200).json();
    let filter = json!({ "feed": "f", "table": "t", "key": "a" });
    let chosen = json!({
        "kind": "replay", "why": "with this one", "filter": filter, "pick": "newest", "plugin": active["items"][0]["digest"], "wait_ms": 50_000,
    });
    let ordered = post(&rig, "/api/v1/actions", "act", &chosen).await.expect(202).json();
    assert_eq!((&ordered["messages"], &ordered["actions"][0]["result"]), (&json!(1), &json!("applied")), "{ordered}");
    let none = rig.get("/api/v1/messages?delivery=f/none", Some("look")).await.expect(200).json();
    assert_eq!(none["items"], json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn a_paused_feed_says_so_and_goes_on() {
    let (rig, _file) = guarded(&[]).await;
    post(&rig, "/api/v1/pause", "act", &json!({ "feed": "f", "why": "the receiver moves" })).await.expect(200);
    let look = Some("look");
    // The host sees the pause a moment later: what came before is handled.
    let mut count = 0;
    let why = loop {
        rig.append(&[json!({ "key": format!("k{count}") })]);
        count += 1;
        let path = format!("/api/v1/messages/f/0/{}", count - 1);
        let shown = rig.until(&path, look, |answer| answer.status == 200).await.json();
        if shown["status"]["status"] != "handled" {
            break shown["explanation"]["why"].clone();
        }
    };
    assert!(why["why"].as_str().unwrap().contains("feed f is paused by kari"), "{why}");
    assert_eq!(why["next"], json!(["tolk resume --feed f"]));
    post(&rig, "/api/v1/resume", "act", &json!({ "feed": "f" })).await.expect(200);
    rig.until_statuses(look, &vec!["handled"; count]).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_pause_is_seen_with_its_reason_until_it_is_resumed() {
    let (rig, _file) = guarded(&[]).await;
    let look = Some("look");
    post(&rig, "/api/v1/pause", "act", &json!({ "feed": "g", "why": "x" })).await.expect(400);
    post(&rig, "/api/v1/pause", "act", &json!({ "endpoint": "none", "why": "x" })).await.expect(400);
    post(&rig, "/api/v1/pause", "act", &json!({ "why": "x" })).await.expect(400);
    post(&rig, "/api/v1/pause", "act", &json!({ "feed": "f" })).await.expect(400);
    let paused = post(&rig, "/api/v1/pause", "act", &json!({ "feed": "f", "why": "the receiver moves" })).await.expect(200).json();
    assert_eq!(paused["changed"], true);
    assert_eq!(post(&rig, "/api/v1/pause", "act", &json!({ "feed": "f", "why": "again" })).await.expect(200).json()["changed"], false);
    let listed = rig.get("/api/v1/pauses", look).await.expect(200).json();
    let one = &listed["items"][0];
    assert_eq!((&one["what"], &one["by"], &one["why"]), (&json!("feed"), &json!("kari"), &json!("the receiver moves")), "{listed}");
    assert_eq!(post(&rig, "/api/v1/resume", "act", &json!({ "feed": "f" })).await.expect(200).json()["changed"], true);
    assert_eq!(rig.get("/api/v1/pauses", look).await.expect(200).json()["items"], json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn deliveries_are_ordered_once_and_invalidated_as_a_whole() {
    let (rig, _file) = guarded(&[]).await;
    let look = Some("look");
    let order = |more: Value| {
        let mut order = json!({ "feed": "z", "params": { "year": "2026" }, "why": "a new year" });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order
    };
    post(&rig, "/api/v1/deliveries", "look", &order(json!({}))).await.expect(403);
    for (more, place) in [(json!({ "feed": "f" }), "feed"), (json!({ "params": {} }), "params"), (json!({ "why": "" }), "why")] {
        assert_eq!(post(&rig, "/api/v1/deliveries", "act", &order(more)).await.expect(400).json()["where"], place);
    }
    let number = post(&rig, "/api/v1/deliveries", "act", &order(json!({}))).await.expect(202).json()["number"].as_i64().unwrap();
    let again = post(&rig, "/api/v1/deliveries", "act", &order(json!({}))).await.expect(409);
    assert!(again.text.contains(&format!("delivery {number}")), "{again:?}");
    let listed = rig.get("/api/v1/deliveries?feed=z", look).await.expect(200).json();
    assert_eq!((&listed["items"][0]["number"], &listed["items"][0]["params"]["year"]), (&json!(number), &json!("2026")), "{listed}");
    let path = format!("/api/v1/deliveries/{number}");
    let shown = rig.get(&path, look).await.expect(200).json();
    assert_eq!((&shown["commands"][0]["by"], &shown["account"]["accepted"]), (&json!("kari"), &json!(0)), "{shown}");
    let asked = json!({ "why": "never mind" });
    post(&rig, &format!("{path}/invalidate"), "look", &asked).await.expect(403);
    for verb in ["stop", "invalidate", "rerun"] {
        post(&rig, &format!("/api/v1/deliveries/9999/{verb}"), "act", &asked).await.expect(404);
    }
    rig.get("/api/v1/deliveries/9999", look).await.expect(404);
    rig.stop().await;
}
