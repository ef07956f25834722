//! Where requests may go: names are judged by what they resolve to, once for each connection; parameters never change the host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tolk::endpoint::addresses::Names;
use tolk::endpoint::config::Config;
use tolk::endpoint::{Called, Caller, Endpoints, Error, Outside};

use super::{ORIGIN, away, call, endpoints, response};
use crate::support::stub::{Reply, Stub};

/// Names as a test says; each look-up takes the next answer, the last one stays.
#[derive(Default)]
struct Table {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Names for Table {
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

fn with(base_url: &str, settings: &str, answers: &[&[&str]]) -> (Result<Endpoints, Error>, Arc<Table>) {
    let config: Config = toml::from_str(&format!("base_url = \"{base_url}\"\npath = \"/\"\n{settings}")).unwrap();
    let parsed = answers.iter().map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect()).collect();
    let table = Arc::new(Table { answers: Mutex::new(parsed), ..Table::default() });
    let outside = Outside { names: table.clone(), ..Outside::default() };
    (Endpoints::with(&BTreeMap::from([("person".to_owned(), config)]), &outside), table)
}

#[tokio::test]
async fn a_name_is_judged_by_its_addresses() {
    let stub = Stub::start(|_, _| Reply::json(200, "{}")).await;
    let url = format!("http://person.example:{}", stub.address.port());
    for host in ["localhost.", "metadata.google.internal", "169.254.169.254.nip.example"] {
        let url = format!("http://{host}:{}", stub.address.port());
        let (reason, _) = away(with(&url, "", &[&["169.254.169.254"]]).0.unwrap().call(&call(&[]), ORIGIN).await);
        assert!(reason.contains("169.254.169.254"), "{reason}");
        let (reason, _) = away(with(&url, "allow_private = false", &[&["127.0.0.1", "::1"]]).0.unwrap().call(&call(&[]), ORIGIN).await);
        assert!(reason.contains("allow_private"), "{reason}");
    }
    for answer in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "64:ff9b::a9fe:a9fe"] {
        let (reason, _) = away(with(&url, "", &[&[answer]]).0.unwrap().call(&call(&[]), ORIGIN).await);
        assert!(reason.contains("person.example is") && reason.contains("allow_addresses"), "{answer}: {reason}");
    }
    // Of several addresses only the good ones are tried.
    let (endpoints, table) = with(&url, "", &[&["169.254.169.254", "127.0.0.1"]]);
    response(endpoints.unwrap().call(&call(&[]), ORIGIN).await);
    assert_eq!(*table.asked.lock().unwrap(), ["person.example"]);
    let (reason, _) = away(with(&url, "allow_private = false", &[&["127.0.0.1"]]).0.unwrap().call(&call(&[]), ORIGIN).await);
    assert!(reason.contains("allow_private"), "{reason}");
    let (reason, _) = away(with(&url, "refuse_addresses = [\"127.0.0.0/8\"]", &[&["127.0.0.1"]]).0.unwrap().call(&call(&[]), ORIGIN).await);
    assert!(reason.contains("refuse_addresses"), "{reason}");
    assert_eq!(stub.count(), 1);
}

/// A name that is good when it is looked at and evil when it is used: there is only one look, and the connection goes where it said.
#[tokio::test]
async fn a_name_that_changes_is_looked_at_once_for_a_connection() {
    let stub = Stub::start(|_, _| Reply::json(200, "{}").with_header("connection", "close")).await;
    let url = format!("http://rebound.example:{}", stub.address.port());
    let (endpoints, table) = with(&url, "", &[&["127.0.0.1"], &["169.254.169.254"]]);
    let endpoints = endpoints.unwrap();
    response(endpoints.call(&call(&[]), ORIGIN).await);
    assert_eq!(table.asked.lock().unwrap().len(), 1);
    let (reason, _) = away(endpoints.call(&call(&[]), ORIGIN).await);
    assert!(reason.contains("169.254.169.254"), "{reason}");
    assert_eq!((table.asked.lock().unwrap().len(), stub.count()), (2, 1));
}

#[tokio::test]
async fn an_address_in_the_config_is_judged_at_once() {
    for host in ["169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:a9fe:a9fe]", "[fe80::1]", "0"] {
        let error = with(&format!("http://{host}/"), "", &[&[]]).0.err().unwrap_or_else(|| panic!("{host} is taken")).to_string();
        assert!(error.contains("endpoints.person.base_url") && error.contains("allow_addresses"), "{error}");
    }
    assert!(with("http://169.254.169.254/", "allow_addresses = [\"169.254.169.254\"]", &[&[]]).0.is_ok());
    let error = with("http://127.0.0.1/", "allow_private = false", &[&[]]).0.err().unwrap().to_string();
    assert!(error.contains("private"), "{error}");
    let token =
        "auth = { kind = \"client-credentials\", token_url = \"http://169.254.169.254/token\", client_id = \"a\", client_secret = \"b\" }";
    let error = with("http://localhost/", token, &[&[]]).0.err().unwrap().to_string();
    assert!(error.contains("auth.token_url"), "{error}");
}

#[tokio::test]
async fn names_of_this_machine_are_private() {
    let stub = Stub::start(|_, _| Reply::json(200, "{}")).await;
    for host in ["localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"] {
        let url = format!("http://{host}:{}", stub.address.port());
        response(endpoints(&url, "path = \"/\"").call(&call(&[]), ORIGIN).await);
        let config: Config = toml::from_str(&format!("base_url = \"{url}\"\npath = \"/\"\nallow_private = false")).unwrap();
        match Endpoints::new(&BTreeMap::from([("person".to_owned(), config)])) {
            Err(error) => assert!(error.to_string().contains("private"), "{host}: {error}"),
            Ok(endpoints) => {
                let (reason, _) = away(endpoints.call(&call(&[]), ORIGIN).await);
                assert!(reason.contains("private"), "{host}: {reason}");
            }
        }
    }
    assert_eq!(stub.count(), 5);
}

#[tokio::test]
async fn no_parameter_changes_where_a_request_goes() {
    let stub = Stub::start(|_, _| Reply::json(200, "{}")).await;
    let settings = "path = \"/v1/{id}/x?q={id}\"\nheaders = { x-id = \"{id}\" }";
    let endpoints = endpoints(&stub.url(), settings);
    let evil = [
        "@evil.example",
        "//evil.example/",
        "\\\\evil.example",
        "/../../admin",
        "..",
        "%2e%2e",
        "?x#y",
        "a\r\nHost: evil.example",
        "http://evil.example/",
        ":80@evil.example",
        "\u{2025}",
        "\u{ff0f}",
        "\u{0}",
    ];
    let mut sent = 0;
    for value in evil {
        match endpoints.call(&call(&[("id", value)]), ORIGIN).await {
            Called::Wrong { .. } => {}
            Called::Response(_) => sent += 1,
            other => panic!("{value:?}: {other:?}"),
        }
    }
    let requests = stub.requests();
    assert!(sent >= 8 && requests.len() == sent, "{sent} of {} went out", evil.len());
    for request in requests {
        assert_eq!(request.header("host"), Some(stub.address.to_string().as_str()));
        let path = request.path.strip_prefix("/v1/").unwrap_or_else(|| panic!("{}", request.path));
        let (segment, query) = path.split_once("/x?q=").unwrap_or_else(|| panic!("{path}"));
        assert!(!segment.contains(['/', '?', '#', '\\']) && segment == query, "{path}");
        assert_eq!(request.headers.iter().filter(|(name, _)| name == "host").count(), 1);
    }
}
