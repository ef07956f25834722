//! What the door shows of a host at work, and that its document tells the truth.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tolk::admin::routes::{ROUTES, document};

use super::rig::Rig;

const OPEN: &str = "listen = \"127.0.0.1:0\"";

/// A host that has handled, failed, waiting and blocked messages.
async fn busy() -> (Rig, Vec<Value>) {
    let scripts = [
        json!({ "key": "a", "id": "a", "write": [["p/1", "one"], ["p/2", "two"]] }),
        json!({ "key": "b", "do": "fail" }),
        json!({ "key": "b" }),
        json!({ "key": "c", "do": "wait", "read": ["never"], "on": ["never"] }),
    ];
    let rig = Rig::running(OPEN, &scripts).await;
    let rows = rig.until_statuses(None, &["handled", "failed", "behind", "waiting"]).await;
    (rig, rows)
}

#[tokio::test]
async fn a_host_at_work_is_shown() {
    let (rig, rows) = busy().await;
    rig.until("/readyz", None, |answer| answer.status == 200).await;
    let get = async |path: &str| rig.get(path, None).await.expect(200).json();
    let filtered = get("/api/v1/messages?status=failed&feed=f&table=t&key=b&code=told-to").await;
    assert_eq!((filtered["items"].as_array().unwrap().len(), &filtered["more"]), (1, &json!(false)));
    assert_eq!(get("/api/v1/messages?limit=1").await["more"], json!(true));
    rig.get("/api/v1/messages?status=fialed", None).await.expect(400);
    rig.get("/api/v1/messages?limit=0", None).await.expect(400);
    let id = rows[0]["id"].as_str().unwrap();
    let one = get(&format!("/api/v1/messages/{id}")).await;
    assert_eq!((&one["status"]["status"], &one["outputs"][0]["target"]), (&json!("handled"), &json!("out")));
    assert_eq!(get("/api/v1/messages/f/0/0").await["status"]["id"], one["status"]["id"]);
    rig.get("/api/v1/messages/f/0/99", None).await.expect(404);
    rig.get("/api/v1/messages/8c5b3f5e-6d5c-5f6b-9c1b-0123456789ab", None).await.expect(404);
    let counts = get("/api/v1/counts").await;
    assert!(
        counts["items"].as_array().unwrap().contains(&json!({ "feed": "f", "table": "t", "status": "waiting", "count": 1 })),
        "{counts}"
    );
    let feed = &get("/api/v1/feeds").await["items"][0];
    assert_eq!((&feed["rows"], &feed["work"]["behind"], &feed["positions"][0]["next_offset"]), (&json!(4), &json!(1), &json!(4)), "{feed}");
    let hosts = get("/api/v1/hosts").await;
    assert_eq!((&hosts["items"][0]["id"], &hosts["items"][0]["lives"]), (&feed["owner"], &json!(true)));
    assert_eq!(get("/api/v1/lanes?feed=f").await["items"].as_array().unwrap().len(), 4);
    assert_eq!(get("/api/v1/lanes?feed=g").await["items"], json!([]));
    rig.until("/api/v1/targets", None, |answer| answer.json()["items"][0]["unpublished"] == 0).await;
    let active = get("/api/v1/plugins/active").await;
    assert_eq!((&active["items"][0]["table"], &active["items"][0]["broken_here"]), (&json!("*"), &json!(null)));
    assert_eq!(get("/api/v1/plugins").await["items"][0]["description"]["name"], "scripted");
    assert_eq!(get("/api/v1/plugins/history?feed=f").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(get("/api/v1/endpoints").await["items"][0]["breaker"], "closed");
    rig.stop().await;
}

#[tokio::test]
async fn ids_are_read_both_ways_and_entries_by_key_and_prefix() {
    let (rig, _) = busy().await;
    let get = async |path: &str| rig.get(path, None).await;
    let id = get("/api/v1/ids/n/a").await.expect(200).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(get(&format!("/api/v1/keys/n/{id}")).await.expect(200).json()["key"], "a");
    get("/api/v1/ids/n/nobody").await.expect(404);
    get("/api/v1/keys/n/8c5b3f5e-6d5c-5f6b-9c1b-0123456789ab").await.expect(404);
    get("/api/v1/keys/n/none").await.expect(400);
    assert_eq!(get("/api/v1/entries/c/p%2F1").await.expect(200).json()["value"], "one");
    get("/api/v1/entries/c/p%2F3").await.expect(404);
    let page = get("/api/v1/entries/c?prefix=p/&limit=1").await.expect(200).json();
    assert_eq!(page, json!({ "items": [{ "key": "p/1", "value": "one" }], "more": true }));
    let page = get("/api/v1/entries/c?prefix=p/&after=p/1").await.expect(200).json();
    assert_eq!(page, json!({ "items": [{ "key": "p/2", "value": "two" }], "more": false }));
    get("/api/v1/entries/c?limit=5000").await.expect(400);
    rig.stop().await;
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let (rig, _) = busy().await;
    let wanted = [
        "tolk_up 1",
        "tolk_store_up 1",
        "tolk_messages_ingested_total 4",
        "tolk_messages_settled_total 4",
        "tolk_outputs_published_total 1",
        "tolk_endpoint_breaker{endpoint=\"e\",state=\"closed\"} 1",
        "tolk_work{feed=\"f\",status=\"behind\"} 1",
        "tolk_inbox_backlog{feed=\"f\"} 0",
        "tolk_plugins_broken 0",
        "tolk_ledger_imbalance{equation=\"passed\"} 0",
    ];
    let answer = rig.until("/metrics", None, |answer| wanted.iter().all(|line| answer.text.lines().any(|found| found == *line))).await;
    assert!(answer.kind.starts_with("text/plain; version=0.0.4"), "{answer:?}");
    rig.stop().await;
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let document: Value = serde_json::from_str(document()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            documented.insert((method.to_uppercase(), path.clone()));
            let wanted: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named =
                parameters.iter().filter(|parameter| parameter["in"] == "path").map(|parameter| parameter["name"].as_str().unwrap());
            assert_eq!(named.collect::<BTreeSet<_>>(), wanted, "{method} {path}");
        }
    }
    let routed: BTreeSet<(String, String)> = ROUTES.iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    assert_eq!(documented, routed);
    let text = document.to_string();
    for (name, _) in document["components"]["schemas"].as_object().unwrap() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")), "the schema {name} is used");
    }
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"][reference].is_object(), "the schema {reference} is there");
    }
}

#[tokio::test]
async fn every_documented_path_answers() {
    let (rig, rows) = busy().await;
    let document: Value = serde_json::from_str(document()).unwrap();
    rig.until("/readyz", None, |answer| answer.status == 200).await;
    let id = rows[0]["id"].as_str().unwrap();
    let order = json!({ "kind": "stop", "why": "to have one", "messages": [id] });
    let ordered = rig.send(Method::POST, "/api/v1/actions", None, &[], Some(&order)).await.expect(202).json();
    holds(&document, &document["components"]["schemas"]["Ordered"], &ordered, "order");
    let delivery = json!({ "feed": "z", "params": { "year": "2026" }, "why": "to have one" });
    let delivery = rig.send(Method::POST, "/api/v1/deliveries", None, &[], Some(&delivery)).await.expect(202).json();
    let number = delivery["number"].to_string();
    let pause = json!({ "endpoint": "e", "why": "to have one" });
    rig.send(Method::POST, "/api/v1/pause", None, &[], Some(&pause)).await.expect(200);
    let binding = rig.get("/api/v1/ids/n/a", None).await.expect(200).json();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(operation) = item.get("get") else { continue };
        let id = match path.as_str() {
            path if path.contains("/keys/") => binding["id"].as_str().unwrap(),
            path if path.contains("/commands/") => ordered["command"].as_str().unwrap(),
            _ => id,
        };
        let key = if path.contains("/entries/") { "p%2F1" } else { "a" };
        let filled = [
            ("{id}", id),
            ("{number}", &number),
            ("{feed}", "f"),
            ("{partition}", "0"),
            ("{offset}", "0"),
            ("{namespace}", "n"),
            ("{key}", key),
            ("{collection}", "c"),
        ]
        .iter()
        .fold(path.clone(), |path, (name, value)| path.replace(name, value));
        assert!(!filled.contains('{'), "the test knows the parameters of {path}");
        let answer = rig.get(&filled, None).await.expect(200);
        let kinds = operation["responses"]["200"]["content"].as_object().unwrap();
        assert!(kinds.keys().any(|kind| answer.kind.starts_with(kind.as_str())), "{path}: {answer:?}");
        let (kind, content) = kinds.iter().next().unwrap();
        if kind == "application/json" {
            holds(&document, &content["schema"], &answer.json(), path);
        }
    }
    rig.stop().await;
}

/// Whether a value is as a schema says: types, required fields, and no field that is not documented.
fn holds(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return holds(document, &document["components"]["schemas"][name], value, at);
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let schema = any.iter().find(|schema| (schema["type"] == "null") == value.is_null()).unwrap();
        return holds(document, schema, value, at);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(kinds.contains(&kind), "{at} is {value}, not {kinds:?}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at} is {value}, not one of {words:?}");
    }
    for item in value.as_array().into_iter().flatten() {
        holds(document, &schema["items"], item, &format!("{at}[]"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{at} has {name}: {value}");
    }
    if let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, field) in fields {
            let schema = properties.get(name).unwrap_or_else(|| panic!("{at}.{name} is documented"));
            holds(document, schema, field, &format!("{at}.{name}"));
        }
    }
}
