//! Who comes in, and what the door says before a host stands behind it.

use reqwest::Method;
use serde_json::json;
use tolk::admin::Door;
use tolk::plugin::Digest;

use super::issuer::{Issuer, Key, unsigned};
use super::rig::{Rig, config};
use crate::cli::tolk::Tolk;

const OPEN: &str = "listen = \"127.0.0.1:0\"";

#[tokio::test]
async fn a_door_without_a_host_lives_and_is_not_ready() {
    let rig = Rig::closed(OPEN).await;
    rig.get("/livez", None).await.expect(200);
    let ready = rig.get("/readyz", None).await.expect(503).json();
    assert_eq!(ready["status"], "not ready");
    assert!(rig.get("/metrics", None).await.expect(200).text.contains("tolk_up 0"));
    let answer = rig.get("/api/v1/messages", None).await.expect(503);
    assert_eq!((answer.kind.as_str(), &answer.json()["where"]), ("application/problem+json", &json!("host")));
    rig.stop().await;
}

#[tokio::test]
async fn without_tokens_only_loopback_names_are_answered_and_mistakes_are_told() {
    let rig = Rig::closed(OPEN).await;
    rig.send(Method::GET, "/api/v1/feeds", None, &[("host", "evil.example")], None).await.expect(403);
    rig.send(Method::GET, "/livez", None, &[("host", "evil.example")], None).await.expect(200);
    let answer = rig.get("/api/v1/nothing", None).await.expect(404);
    assert!(answer.kind == "application/problem+json" && answer.text.contains("openapi.json"), "{answer:?}");
    rig.send(Method::DELETE, "/api/v1/messages", None, &[], None).await.expect(405);
    let answer = rig.get("/api/v1/messages?feeed=x", None).await.expect(400);
    assert!(answer.text.contains("feeed"), "{answer:?}");
    rig.get("/api/v1/messages/no-uuid", None).await.expect(400);
    rig.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_or_a_token_file_that_is_none_stops_the_start() {
    let tolk = Tolk::new();
    let door = Door::bind(&config(&tolk, OPEN)).await.unwrap().unwrap();
    let taken = config(&tolk, &format!("listen = \"{}\"", door.address()));
    let error = format!("{:#}", Door::bind(&taken).await.err().unwrap());
    assert!(error.contains("admin.listen") && error.contains(&door.address().to_string()), "{error}");
    let none = config(&tolk, &format!("{OPEN}\ntokens_file = \"{}\"", tolk.path("none").display()));
    assert!(Door::bind(&none).await.err().unwrap().to_string().contains("none"));
    assert!(Door::bind(&config(&tolk, "")).await.unwrap().is_none(), "without listen there is no door");
}

#[tokio::test]
async fn static_tokens_have_names_and_roles() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = |name: &str, role: &str, token: &str| format!("{name} {role} {}\n", Digest::of(token.as_bytes()));
    std::fs::write(file.path(), line("kari", "operator", "open-1") + &line("bot", "reader", "look-1")).unwrap();
    let rig = Rig::closed(&format!("{OPEN}\ntokens_file = \"{}\"", file.path().display())).await;
    for path in ["/livez", "/metrics", "/api/v1/openapi.json"] {
        rig.get(path, None).await.expect(200);
    }
    let answer = rig.get("/api/v1/feeds", None).await.expect(401);
    assert_eq!(answer.challenge.as_deref(), Some("Bearer realm=\"tolk\""));
    let answer = rig.get("/api/v1/feeds", Some("guess")).await.expect(401);
    assert!(answer.challenge.unwrap().contains("invalid_token") && !answer.text.contains("guess"));
    rig.send(Method::GET, "/api/v1/feeds", None, &[("authorization", "Basic open-1")], None).await.expect(401);
    // Past the door there is no host yet.
    for token in ["open-1", "look-1"] {
        rig.get("/api/v1/feeds", Some(token)).await.expect(503);
    }
    // A token that is taken away is refused without a restart.
    std::fs::write(file.path(), line("kari", "operator", "open-2 ")).unwrap();
    rig.until("/api/v1/feeds", Some("look-1"), |answer| answer.status == 401).await;
    rig.stop().await;
}

#[tokio::test]
async fn tokens_of_the_issuer_are_checked() {
    let (key, curve, stranger) = (Key::rsa(0), Key::ec(), Key::rsa(1));
    let issuer = Issuer::start(vec![key.published("k1"), curve.published("k2")]).await;
    let admin = format!(
        "{OPEN}\n[admin.oidc]\nissuer = \"{}\"\naudience = [\"tolk\", \"other\"]\nreaders = [\"look\"]\noperators = [\"act\"]\nleeway_s = 30",
        issuer.stub.url()
    );
    let rig = Rig::closed(&admin).await;
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut claims = issuer.claims(&["look"]);
        change(&mut claims);
        claims
    };
    let now = jiff::Timestamp::now().as_second();
    // 503: let in, and there is no host yet.
    for token in [
        key.token("k1", &with(&|_| ())),
        curve.token("k2", &with(&|_| ())),
        key.token("k1", &with(&|claims| claims["aud"] = json!(["x", "other"]))),
        key.token("k1", &with(&|claims| claims["exp"] = json!(now - 10))),
    ] {
        assert_eq!(rig.get("/api/v1/feeds", Some(&token)).await.expect(503).json()["where"], "host");
    }
    assert_eq!(issuer.stub.count(), 2, "the keys are fetched once: the discovery document and the key set");
    let good = key.token("k1", &with(&|_| ()));
    let bad = [
        ("another audience", key.token("k1", &with(&|claims| claims["aud"] = json!("else")))),
        ("no audience", key.token("k1", &with(&|claims| _ = claims.as_object_mut().unwrap().remove("aud")))),
        ("another issuer", key.token("k1", &with(&|claims| claims["iss"] = json!("https://elsewhere")))),
        ("expired", key.token("k1", &with(&|claims| claims["exp"] = json!(now - 100)))),
        ("no expiry", key.token("k1", &with(&|claims| _ = claims.as_object_mut().unwrap().remove("exp")))),
        ("an expiry that is text", key.token("k1", &with(&|claims| claims["exp"] = json!("never")))),
        ("not valid yet", key.token("k1", &with(&|claims| claims["nbf"] = json!(now + 100)))),
        ("signed by another key", stranger.token("k1", &with(&|_| ()))),
        ("a key for another algorithm", curve.token("k1", &with(&|_| ()))),
        ("not signed", format!("{}.", unsigned(&json!({ "alg": "none", "kid": "k1" }), &with(&|_| ())))),
        ("a secret in place of a key", format!("{}.AAAA", unsigned(&json!({ "alg": "HS256", "kid": "k1" }), &with(&|_| ())))),
        ("changed afterwards", good.replacen('.', ".e30", 1)),
        ("no token at all", "x.y".to_owned()),
    ];
    for (what, token) in bad {
        let answer = rig.get("/api/v1/feeds", Some(&token)).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert!(answer.challenge.is_some_and(|challenge| challenge.contains("invalid_token")), "{what}");
    }
    let answer = rig.get("/api/v1/feeds", Some(&key.token("k1", &issuer.claims(&["cook"])))).await.expect(403);
    assert!(answer.text.contains("kari") && answer.text.contains("admin.oidc.readers"), "{answer:?}");
    rig.stop().await;
}

#[tokio::test]
async fn new_keys_of_the_issuer_are_found_and_an_issuer_that_is_away_is_not_the_callers_fault() {
    let (old, new) = (Key::rsa(0), Key::rsa(1));
    let issuer = Issuer::start(vec![]).await;
    let oidc = format!("[admin.oidc]\nissuer = \"{}\"\naudience = [\"tolk\"]\notherwise = \"operator\"", issuer.stub.url());
    issuer.publish(vec![old.published("k1")]);
    let rig = Rig::closed(&format!("{OPEN}\n{oidc}")).await;
    let claims = issuer.claims(&[]);
    rig.get("/api/v1/feeds", Some(&old.token("k1", &claims))).await.expect(503);
    issuer.publish(vec![old.published("k1"), new.published("k2")]);
    // Unknown keys make the host ask again, but not for each request.
    let rotated = new.token("k2", &claims);
    rig.until("/api/v1/feeds", Some(&rotated), |answer| answer.status == 503).await;
    issuer.leave();
    rig.get("/api/v1/feeds", Some(&rotated)).await.expect(503);
    rig.stop().await;
    let rig = Rig::closed(&format!("{OPEN}\n{oidc}")).await;
    let answer = rig.get("/api/v1/feeds", Some(&rotated)).await.expect(503);
    assert_eq!(answer.json()["where"], "admin.oidc", "{answer:?}");
    rig.stop().await;
}
