//! The remote systems of barnetrygd, slow: every answer takes its time, and any number of them may be under way. Each recipient has one child
//! with two numbers, so that completing it takes five calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Calls that one recipient takes: two look-ups, its cases, support under both numbers of its child.
pub const CALLS: usize = 5;

/// A running server; its thread ends with the process.
pub struct Remote {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    orders: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Remote {
    /// Starts a server that takes so long for each answer, on a thread of its own; `order` is what an order is answered with.
    pub fn start(latency: Duration, order: String) -> Self {
        let seen = Arc::<Seen>::default();
        let (tell, told) = std::sync::mpsc::channel();
        let shared = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let order: Arc<str> = order.into();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(converse(stream, latency, order.clone(), shared.clone()));
                }
            });
        });
        Self { address: told.recv().unwrap(), seen }
    }

    /// Its address as a base of URLs.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls for recipients so far.
    pub fn calls(&self) -> usize {
        self.seen.calls.load(Ordering::SeqCst)
    }

    /// Orders of deliveries so far.
    pub fn orders(&self) -> usize {
        self.seen.orders.load(Ordering::SeqCst)
    }

    /// The greatest number of calls that were under way at one time.
    pub fn most(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }
}

async fn converse(stream: TcpStream, latency: Duration, order: Arc<str>, seen: Arc<Seen>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let now = seen.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(latency).await;
        seen.under_way.fetch_sub(1, Ordering::SeqCst);
        let (status, body) = answer(&path, &body, &order);
        let count = if status == 202 { &seen.orders } else { &seen.calls };
        count.fetch_add(1, Ordering::SeqCst);
        let head = format!("HTTP/1.1 {status} Stubbed\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
}

fn answer(path: &str, body: &[u8], order: &str) -> (u16, String) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    match path {
        "/graphql" => {
            let ident = text("/variables/ident");
            let number = |ident: String, status: &str| json!({ "identifikasjonsnummer": ident, "status": status, "type": "FNR" });
            let list = match ident.strip_prefix(['5', '6']) {
                Some(parent) => vec![number(format!("5{parent}"), "I_BRUK"), number(format!("6{parent}"), "OPPHOERT")],
                None => vec![number(ident, "I_BRUK")],
            };
            (200, json!({ "data": { "hentPerson": { "folkeregisteridentifikator": list } } }).to_string())
        }
        "/api/ekstern/pensjon/hent-barnetrygd" => {
            let ident = text("/ident");
            let period = json!({
                "personIdent": format!("5{ident}"), "delingsprosentYtelse": "FULL", "ytelseTypeEkstern": "ORDINÆR_BARNETRYGD",
                "utbetaltPerMnd": 2000, "stønadFom": "2020-01", "stønadTom": "2025-12", "sakstypeEkstern": "NASJONAL",
                "kildesystem": "BA", "pensjonstrygdet": null, "norgeErSekundærlandMedNullUtbetaling": false,
            });
            (200, json!({ "fagsaker": [{ "fagsakEiersIdent": ident, "barnetrygdPerioder": [period] }] }).to_string())
        }
        "/api/hjelpestonad/hent" => {
            let ident = text("/fnr");
            let decision = json!({ "id": "1", "ident": ident, "fom": "2020-01", "tom": "2020-06", "omsorgstype": "FORHØYET_SATS_3" });
            let list = if ident.starts_with('5') { vec![decision] } else { Vec::new() };
            (200, Value::from(list).to_string())
        }
        _ => (202, order.to_owned()),
    }
}
